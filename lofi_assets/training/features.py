"""Everything that stays frozen, computed once: latents, text states, lyric ids.

What belongs here: the cache, `latents/<key>.safetensors` and `text/<key>.safetensors` below one folder. The two are
apart, so that editing a prompt never encodes audio again. What does not: what training does with them (`batches`).
Imports without torch; a call that finds everything cached never loads it.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lofi_assets.store import atomic_path, fingerprint, read_json

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lofi_assets.ace_step.loading import Base

FEATURES_VERSION = "1"
"""Raise when the same inputs give other features: every key changes with it."""

KEY_LENGTH = 32
LATENTS = "latents"
TEXT = "text"
LATENT_SHAPE = (8, 16)
"""Channels and height of a latent frame."""

Arrays = Mapping[str, "np.ndarray"]


class FeatureError(RuntimeError):
    """Features of a track cannot be computed or read; the message names track, file and remedy."""


@dataclass(frozen=True)
class FeatureJob:
    """A track to have features of."""

    track_id: str
    audio: Path
    """Processed audio file."""
    audio_sha256: str
    """Of that file's bytes."""
    prompt: str
    """As written; training does not reorder it."""
    lyrics: str = ""
    """As written; empty for an instrumental track."""
    tags: tuple[str, ...] = ()
    """Stand in for an empty prompt."""

    @property
    def caption(self) -> str:
        """The text to encode.

        Raises:
            FeatureError: neither prompt nor tags.
        """
        caption = self.prompt.strip() or ", ".join(self.tags)
        if not caption:
            raise FeatureError(f"{self.track_id}: empty prompt and no tags; write its prompt file and run again")
        return caption


@dataclass(frozen=True)
class FeatureRow:
    """Where a track's features are."""

    track_id: str
    key: str
    """Key of the latents, a dot, key of the text."""
    path: Path
    """Latents file."""
    text_path: Path
    """Text file; tracks with the same prompt and lyrics share it."""
    frames: int
    """Latent frames, 10.77 per second."""
    latents_reused: bool
    """The audio was encoded by an earlier call."""
    text_reused: bool
    """The prompt and lyrics were encoded by an earlier call, or for another track."""

    @property
    def reused(self) -> bool:
        """Nothing was computed for this track."""
        return self.latents_reused and self.text_reused


@dataclass(frozen=True)
class TrackConditions:
    """The conditions of one track, without padding."""

    text: "torch.Tensor"
    """(tokens, text width) float32."""
    lyric_ids: "torch.Tensor"
    """(lyric tokens,) int64."""
    lyric_mask: "torch.Tensor"
    """(lyric tokens,) 1 where they count."""
    speaker: "torch.Tensor"
    """(speaker width,) float32; zeros, since no singer encoder was published."""

    def without(self, *, text: bool, speaker: bool, lyrics: bool) -> "TrackConditions":
        """The same with conditions dropped, the way guidance later calls the model without them."""
        return replace(
            self,
            text=self.text * (not text),
            speaker=self.speaker * (not speaker),
            lyric_ids=self.lyric_ids * (not lyrics),
            lyric_mask=self.lyric_mask * (not lyrics),
        )


@dataclass(frozen=True)
class _Plan:
    """A job with its keys."""

    job: FeatureJob
    latents: Path
    text: Path


@dataclass(frozen=True)
class _Encoder:
    """The frozen parts of a base, loaded when first asked for."""

    base_path: Path
    device: str
    dtype: str

    @cached_property
    def audio(self) -> "Base":
        return self._load("music_dcae")

    @cached_property
    def text(self) -> "Base":
        return self._load("text_encoder", "lyric_tokenizer")

    @cached_property
    def resolved_device(self) -> str:
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def speaker_width(self) -> int:
        config = read_json(self.base_path / "ace_step_transformer" / "config.json", default={})
        return int(config.get("speaker_embedding_dim", 512))

    def _load(self, *components: str) -> "Base":
        from lofi_assets.ace_step.loading import load_base

        return load_base(self.base_path, dtype=self.dtype, device=self.resolved_device, components=components)


def cache_features(
    tracks: Sequence[FeatureJob],
    *,
    base_path: Path,
    base_fingerprint: str,
    cache_dir: Path,
    device: str = "auto",
    dtype: str = "float32",
) -> list[FeatureRow]:
    """Features of every track, computed where missing or damaged. A killed call goes on: each file is whole or absent.

    Args:
        base_fingerprint: with the content and `FEATURES_VERSION` it makes the keys.
        device: of the encoders; `auto` is the first GPU, or the CPU.
        dtype: of the text encoder (the DCAE is always float32); features are stored in float32.
    Returns:
        One row per track, in the order given.
    Raises:
        FeatureError: naming the track and the file that could not be encoded.
    """
    plans = [_plan(job, cache_dir, base_fingerprint=base_fingerprint, dtype=dtype) for job in tracks]
    encoder = _Encoder(base_path, device, dtype)
    encoded = _fill(plans, lambda plan: plan.latents, _latents, encoder, label="latents")
    written = _fill(plans, lambda plan: plan.text, _text, encoder, label="text")
    return [
        FeatureRow(
            track_id=plan.job.track_id,
            key=f"{plan.latents.stem}.{plan.text.stem}",
            path=plan.latents,
            text_path=plan.text,
            frames=_frames(plan.latents),
            latents_reused=plan.job.track_id not in encoded,
            text_reused=plan.job.track_id not in written,
        )
        for plan in plans
    ]


def orphaned_features(cache_dir: Path, rows: Iterable[FeatureRow]) -> list[Path]:
    """Cached files that no row uses: of tracks, prompts or models that are gone. They are listed, not deleted."""
    used = {path for row in rows for path in (row.path, row.text_path)}
    return sorted(
        path for kind in (LATENTS, TEXT) for path in (cache_dir / kind).glob("*.safetensors") if path not in used
    )


def read_frames(cache_dir: Path, key: str) -> int:
    """Latent frames of a row's key, from the file's header.

    Raises:
        FeatureError: absent or damaged.
    """
    from safetensors import SafetensorError

    path = _file(cache_dir, LATENTS, key.partition(".")[0])
    try:
        return _frames(path)
    except (OSError, SafetensorError) as error:
        raise FeatureError(f"{path}: cached features do not load ({error}); materialise feature_cache again") from error


def read_latents(cache_dir: Path, key: str) -> "torch.Tensor":
    """Latents (8, 16, frames) float32 of a row's key, memory-mapped.

    Raises:
        FeatureError: absent or damaged.
    """
    return _mapped(_file(cache_dir, LATENTS, key.partition(".")[0]))["latents"]


def read_conditions(cache_dir: Path, key: str) -> TrackConditions:
    """Text states, lyric ids and speaker embedding of a row's key, memory-mapped.

    Raises:
        FeatureError: absent or damaged.
    """
    import torch

    tensors = _mapped(_file(cache_dir, TEXT, key.partition(".")[2]))
    lyric_ids = tensors["lyric_ids"].long()
    return TrackConditions(tensors["text"], lyric_ids, torch.ones_like(lyric_ids), tensors["speaker"])


def _plan(job: FeatureJob, cache_dir: Path, *, base_fingerprint: str, dtype: str) -> _Plan:
    model = (FEATURES_VERSION, base_fingerprint)
    latents = fingerprint(LATENTS, *model, job.audio_sha256)[:KEY_LENGTH]
    text = fingerprint(TEXT, *model, dtype, job.caption, job.lyrics)[:KEY_LENGTH]
    return _Plan(job, _file(cache_dir, LATENTS, latents), _file(cache_dir, TEXT, text))


def _file(cache_dir: Path, kind: str, key: str) -> Path:
    return cache_dir / kind / f"{key}.safetensors"


def _fill(
    plans: Sequence[_Plan],
    target: Callable[[_Plan], Path],
    compute: Callable[[_Encoder, FeatureJob], Arrays],
    encoder: _Encoder,
    *,
    label: str,
) -> set[str]:
    """Compute the files that are missing or damaged; returns the ids of the tracks they were computed for."""
    missing = {target(plan): plan.job for plan in reversed(plans) if not _sound(target(plan))}
    for path, job in tqdm(missing.items(), desc=label, unit="track", disable=not missing):
        _write(path, compute(encoder, job))
        _verified(path)
    return {job.track_id for job in missing.values()}


def _latents(encoder: _Encoder, job: FeatureJob) -> Arrays:
    import torch

    from lofi_assets.audio.decode import AudioError, read_audio

    try:
        decoded = read_audio(job.audio, root=job.audio.parent)
    except AudioError as error:
        raise FeatureError(f"{job.track_id}: {job.audio} cannot be read ({error}); process the track again") from error
    if decoded.sha256 != job.audio_sha256:
        raise FeatureError(
            f"{job.track_id}: {job.audio} is not the file its hash was taken of; run processed_tracks again"
        )
    dcae = encoder.audio.music_dcae
    assert dcae is not None
    stereo = torch.from_numpy(decoded.samples).clamp(-1, 1).expand(2, -1)[None].to(encoder.resolved_device)
    with torch.inference_mode():
        latents, lengths = dcae.encode(stereo, sample_rate=decoded.sample_rate)
    return {"latents": latents[0, ..., : int(lengths[0])].float().cpu().contiguous().numpy()}


def _text(encoder: _Encoder, job: FeatureJob) -> Arrays:
    """One track at a time: padding to a batch could move the last bits, and content decides the key."""
    import numpy as np

    from lofi_assets.ace_step.loading import encode_text
    from lofi_assets.ace_step.lyric_tokenizer import LyricError

    base = encoder.text
    assert base.lyric_tokenizer is not None
    hidden, mask = encode_text(base, [job.caption])
    try:
        lyric_ids = base.lyric_tokenizer.encode(job.lyrics)
    except LyricError as error:
        raise FeatureError(f"{job.track_id}: lyrics cannot be encoded ({error})") from error
    return {
        "text": hidden[0][mask[0].bool()].float().cpu().contiguous().numpy(),
        "lyric_ids": np.asarray(lyric_ids, dtype=np.int32),
        "speaker": np.zeros(encoder.speaker_width, dtype=np.float32),
    }


def _write(path: Path, arrays: Arrays) -> None:
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file(dict(arrays), temporary, metadata={"crc32": _checksum(arrays)})


def _sound(path: Path) -> bool:
    try:
        _verified(path)
    except FeatureError:
        return False
    return True


def _verified(path: Path) -> dict[str, Any]:
    """Arrays of a cached file after its checksum, shapes and numbers were checked."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            checksum = (file.metadata() or {}).get("crc32")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise FeatureError(f"{path}: cached features do not load ({error}); materialise feature_cache again") from error
    shaped = arrays["latents"].shape[:2] == LATENT_SHAPE if "latents" in arrays else arrays["text"].ndim == 2
    whole = shaped and all(array.size and np.isfinite(array).all() for array in arrays.values())
    if not whole or checksum != _checksum(arrays):
        raise FeatureError(
            f"{path}: cached features are damaged; materialise feature_cache again, it replaces the file"
        )
    return arrays


def _mapped(path: Path) -> "dict[str, torch.Tensor]":
    """Tensors of a cached file without reading it whole; verified the first time that this process meets the file."""
    from safetensors.torch import load_file

    try:
        state = path.stat()
    except OSError as error:
        raise FeatureError(f"{path}: cached features do not load ({error}); materialise feature_cache again") from error
    _verify_once(path, state.st_ino, state.st_size, state.st_mtime_ns)
    return load_file(path)


@cache
def _verify_once(path: Path, *identity: int) -> None:
    _verified(path)


def _checksum(arrays: Arrays) -> str:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def _frames(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return int(file.get_slice("latents").get_shape()[-1])
