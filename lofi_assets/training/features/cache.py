"""Everything that stays frozen, computed once: latents, text states, lyric ids, speaker embedding, SSL targets.

What belongs here: which features a track needs, filling the cache with what is missing, reading them for training. Each
kind is a file of its own, so that editing a prompt never encodes audio again. What does not: the models (`encoders`),
the files (`files`), what training does with them (`training.trainer.batches`). Imports without torch; a call that
finds everything cached never loads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.files.hashing import sha256_file
from lofi_assets.progress import over
from lofi_assets.training.features.files import (
    LATENTS,
    LYRICS,
    SPEAKER,
    TEXT,
    FeatureError,
    FeatureKey,
    SslEncoder,
    content_key,
    exclusive,
    is_sound,
    latent_frames_of,
    note_of,
    read_features,
    write_features,
)

if TYPE_CHECKING:
    import torch

    from lofi_assets.audio.decode import Decoded
    from lofi_assets.training.features.encoders import Encoders

FEATURES_VERSION = "2"
"""Raise when the same inputs give other features: every key changes with it."""
DECODED_AHEAD = 2
"""Tracks decoded on other cores while one is being encoded; a track of 180 s takes 69 MB."""


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
    """As written, with the line that gives their language if there is one; empty for an instrumental track."""
    tags: tuple[str, ...] = ()
    """Stand in for an empty prompt."""
    speaker: Path | None = None
    """File with the singer's embedding; None: zeros."""

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
    """`FeatureKey` as text."""
    files: Mapping[str, Path]
    """Kind -> file; tracks with the same text, lyrics or speaker share it."""
    frames: int
    """Latent frames, 10.77 per second."""
    language: str
    """Of the lyrics, two letters; empty for an instrumental track."""
    computed: frozenset[str]
    """Kinds that this call computed for this track; the others were there, or are another track's too."""

    @property
    def reused(self) -> bool:
        """Nothing was computed for this track."""
        return not self.computed


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
    """(speaker width,) float32; zeros unless the track has a speaker file."""

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
    """A job with its files."""

    job: FeatureJob
    key: FeatureKey
    files: Mapping[str, Path]


_Missing = Mapping[Path, tuple[str, FeatureJob]]
"""File to compute -> its kind, and the first track that needs it."""


def cache_features(
    tracks: Sequence[FeatureJob],
    *,
    base_path: Path,
    base_fingerprint: str,
    cache_dir: Path,
    device: str = "auto",
    dtype: str = "float32",
    vocabulary: Path | None = None,
    ssl_encoders: Mapping[SslEncoder, Path] | None = None,
) -> list[FeatureRow]:
    """Features of every track, computed where missing or damaged. A killed call goes on: each file is whole or absent.

    Args:
        base_fingerprint: with the content and `FEATURES_VERSION` it makes the keys.
        device: of the encoders; `auto` is the first GPU, or the CPU.
        dtype: of the text encoder (the DCAE is always float32); features are stored in float32, SSL targets in float16.
        vocabulary: lyric vocabulary; else the one in the base's folder.
        ssl_encoders: encoder -> its folder, for the SSL targets to compute; none by default.
    Returns:
        One row per track, in the order given.
    Raises:
        FeatureError: naming the track and the file that could not be encoded.
        SslEncoderError: an SSL encoder cannot be read.
    """
    from lofi_assets.training.features.encoders import Encoders

    encoders = Encoders(base_path, device, dtype, vocabulary, ssl_encoders or {})
    with exclusive(cache_dir):
        plans = _plans(tracks, cache_dir, encoders, base_fingerprint)
        missing: dict[Path, tuple[str, FeatureJob]] = {}
        for plan in plans:
            for kind, path in plan.files.items():
                if path not in missing and not is_sound(path):
                    missing[path] = (kind, plan.job)
        _fill_from_audio(missing, encoders)
        _fill_from_text(missing, encoders)
    computed: dict[str, set[str]] = {}
    for kind, job in missing.values():
        computed.setdefault(job.track_id, set()).add(kind)
    return [
        FeatureRow(
            track_id=plan.job.track_id,
            key=str(plan.key),
            files=plan.files,
            frames=latent_frames_of(plan.files[LATENTS]),
            language=note_of(plan.files[LYRICS]).get("language", ""),
            computed=frozenset(computed.get(plan.job.track_id, ())),
        )
        for plan in plans
    ]


def read_frames(cache_dir: Path, key: str) -> int:
    """Latent frames of a row's key, from the file's header.

    Raises:
        FeatureError: absent or damaged.
    """
    return latent_frames_of(FeatureKey.parse(key).files(cache_dir)[LATENTS])


def read_latents(cache_dir: Path, key: str) -> "torch.Tensor":
    """Latents (8, 16, frames) float32 of a row's key, mapped from disk.

    Raises:
        FeatureError: absent or damaged.
    """
    return read_features(FeatureKey.parse(key).files(cache_dir)[LATENTS])


def read_conditions(cache_dir: Path, key: str) -> TrackConditions:
    """Text states, lyric ids and speaker embedding of a row's key.

    Raises:
        FeatureError: absent or damaged.
    """
    import torch

    files = FeatureKey.parse(key).files(cache_dir)
    text, lyric_ids, speaker = (read_features(files[kind]) for kind in (TEXT, LYRICS, SPEAKER))
    return TrackConditions(text, lyric_ids.long(), torch.ones(len(lyric_ids), dtype=torch.long), speaker)


def read_ssl_targets(cache_dir: Path, key: str) -> "dict[str, torch.Tensor]":
    """SSL encoder -> targets (SSL frames, width) float16 of a row's key, over the whole track.

    Raises:
        FeatureError: absent or damaged, or none was computed.
    """
    parsed = FeatureKey.parse(key)
    if not parsed.ssl:
        raise FeatureError(
            "training.ssl_weight is above 0, but the features hold no SSL targets; name ssl_encoders in the profile "
            "and materialise feature_cache again, or set ssl_weight to 0"
        )
    files = parsed.files(cache_dir)
    return {name: read_features(files[name]) for name in parsed.ssl}


def _plans(tracks: Sequence[FeatureJob], cache_dir: Path, encoders: "Encoders", base_fingerprint: str) -> list[_Plan]:
    from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint as folder_fingerprint

    model = (FEATURES_VERSION, base_fingerprint)
    vocabulary = encoders.vocabulary_file
    spoken = sha256_file(vocabulary) if vocabulary else None
    ssl_models = {name: folder_fingerprint(folder) for name, folder in encoders.ssl.items()}
    voices = {path: sha256_file(path) for path in {job.speaker for job in tracks} if path and path.is_file()}
    plans = []
    for job in tracks:
        voice = voices.get(job.speaker, str(job.speaker)) if job.speaker else encoders.speaker_width
        key = FeatureKey(
            latents=content_key(LATENTS, *model, job.audio_sha256),
            text=content_key(TEXT, *model, encoders.dtype, job.caption),
            lyrics=content_key(LYRICS, FEATURES_VERSION, spoken, job.lyrics),
            speaker=content_key(SPEAKER, FEATURES_VERSION, voice),
            ssl={
                name: content_key(name, FEATURES_VERSION, identity, job.audio_sha256)
                for name, identity in ssl_models.items()
            },
        )
        plans.append(_Plan(job, key, key.files(cache_dir)))
    return plans


def _fill_from_audio(missing: _Missing, encoders: "Encoders") -> None:
    """Latents and SSL targets: each track is decoded once for all that it lacks."""
    tracks: dict[str, tuple[FeatureJob, dict[str, Path]]] = {}
    for path, (kind, job) in missing.items():
        if kind == LATENTS or kind in encoders.ssl:
            tracks.setdefault(job.audio_sha256, (job, {}))[1][kind] = path
    decoded = _decoded_ahead([job for job, _ in tracks.values()])
    for (_, files), audio in zip(over(list(tracks.values()), "encoding audio", unit="track"), decoded, strict=True):
        for kind, array in encoders.listen(audio, files).items():
            write_features(files[kind], array)


def _fill_from_text(missing: _Missing, encoders: "Encoders") -> None:
    """Text states, lyric ids and speaker embeddings."""
    todo = {path: task for path, task in missing.items() if task[0] in (TEXT, LYRICS, SPEAKER)}
    for path, (kind, job) in over(list(todo.items()), "encoding text", unit="file"):
        if kind == TEXT:
            write_features(path, encoders.text(job.caption))
        elif kind == LYRICS:
            ids, language = encoders.lyrics(job.track_id, job.lyrics)
            write_features(path, ids, note={"language": language})
        else:
            write_features(path, encoders.speaker(job.track_id, job.speaker))


def _decoded_ahead(jobs: Sequence[FeatureJob]) -> "Iterator[Decoded]":
    """The audio of each job in turn; the next ones are decoded meanwhile, since a GPU encodes faster than that."""
    from lofi_assets.training.features.encoders import decode

    with ThreadPoolExecutor(DECODED_AHEAD) as pool:
        waiting = iter(jobs)

        def started(count: int) -> "list[Future[Decoded]]":
            return [
                pool.submit(decode, job.track_id, job.audio, sha256=job.audio_sha256) for job in islice(waiting, count)
            ]

        running = started(DECODED_AHEAD)
        while running:
            audio = running.pop(0).result()
            running += started(1)
            yield audio
