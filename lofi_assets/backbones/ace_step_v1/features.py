"""The frozen models of ACE-Step v1, each loaded when first asked for: track -> arrays of the feature cache.

What belongs here: running them, and what decides each array's content. What does not: which tracks need it, and files
(`training/features`). Imports without torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.audio.decode import Decoded
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.speakers import SpeakerError, read_speaker
from lofi_assets.backbones.features import (
    FEATURES_VERSION,
    LATENTS,
    FeatureError,
    FeatureJob,
    FeatureKind,
    content_key,
)
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.lyrics.spelling import LyricError
from lofi_assets.lyrics.tokenizer import LyricTokenizer, is_instrumental, song_language

if TYPE_CHECKING:
    import numpy as np

    from lofi_assets.backbones.ace_step_v1.loading import Base
    from lofi_assets.backbones.ace_step_v1.ssl_encoders import HubertTargets

TEXT, LYRICS, SPEAKER = "text", "lyrics", "speaker"
KINDS: Mapping[str, FeatureKind] = {
    LATENTS: FeatureKind((8, 16, None), "latents", heard=True),
    TEXT: FeatureKind((None, None), "condition"),
    LYRICS: FeatureKind((None,), "condition", notes=("language",)),
    SPEAKER: FeatureKind((None,), "condition"),
    "mert": FeatureKind((None, None), "target", heard=True),
    "m-hubert": FeatureKind((None, None), "target", heard=True),
}
"""What a track has; the targets are those of the encoders that the published transformer has projectors for."""
SPEAKER_WIDTH = 512


@dataclass(frozen=True)
class Encoders:
    """What a base and the SSL encoders make of tracks. Errors name the track, since one bad track must be findable."""

    base_path: Path
    """Folder of the base model, in the Hub's layout."""
    base_fingerprint: str = ""
    """Of that folder; with the content and `FEATURES_VERSION` it makes the keys."""
    device: str = "cpu"
    """`auto` is the first GPU, or the CPU."""
    dtype: str = "float32"
    """Of the text encoder; DCAE and SSL encoders are always float32."""
    vocabulary: Path | None = None
    """Lyric vocabulary, if the base's folder holds none."""
    ssl: Mapping[str, Path] = field(default_factory=dict)
    """SSL encoder -> its folder."""

    def keys(self, jobs: Sequence[FeatureJob]) -> list[dict[str, str]]:
        """Kind -> key of each job; a speaker's file and the vocabulary count by their content."""
        model = (FEATURES_VERSION, self.base_fingerprint)
        spoken = sha256_file(self.vocabulary_file) if self.vocabulary_file else None
        ssl_models = {name: base_fingerprint(folder) for name, folder in self.ssl.items()}
        voices = {path: sha256_file(path) for path in {job.speaker for job in jobs} if path and path.is_file()}
        return [
            {
                LATENTS: content_key(LATENTS, *model, job.audio_sha256),
                TEXT: content_key(TEXT, *model, self.dtype, job.caption),
                LYRICS: content_key(LYRICS, FEATURES_VERSION, spoken, job.lyrics),
                SPEAKER: content_key(
                    SPEAKER,
                    FEATURES_VERSION,
                    voices.get(job.speaker, str(job.speaker)) if job.speaker else self.speaker_width,
                ),
            }
            | {
                name: content_key(name, FEATURES_VERSION, identity, job.audio_sha256)
                for name, identity in ssl_models.items()
            }
            for job in jobs
        ]

    def read(self, kind: str, job: FeatureJob) -> "tuple[np.ndarray, Mapping[str, str]]":
        """Text states, lyric ids (with their language) or the speaker's embedding."""
        if kind == TEXT:
            return self.text(job.caption), {}
        if kind == LYRICS:
            ids, language = self.lyrics(job.track_id, job.lyrics)
            return ids, {"language": language}
        return self.speaker(job.track_id, job.speaker), {}

    def listen(self, audio: Decoded, kinds: Collection[str]) -> "dict[str, np.ndarray]":
        """What is made of sound: latents (8, 16, frames) float32, SSL targets (frames, width) float16.

        One track at a time, as the published DCAE was trained; a batch would pad, and padding changes the latents.
        """
        import torch

        stereo = torch.from_numpy(audio.samples).clamp(-1, 1).expand(2, -1).to(self._device)
        heard: dict[str, np.ndarray] = {}
        for kind in kinds:
            if kind == LATENTS:
                latents, lengths = self._dcae.encode(stereo[None], sample_rate=audio.sample_rate)
                heard[kind] = latents[0, ..., : int(lengths[0])].float().cpu().contiguous().numpy()
            else:
                targets = self._ssl_encoder(kind).encode(stereo, sample_rate=audio.sample_rate)
                heard[kind] = targets.half().cpu().numpy()
        return heard

    def text(self, caption: str) -> "np.ndarray":
        """States (tokens, width) float32 of a prompt.

        One at a time: padding to a batch could move the last bits, and content decides the key.
        """
        from lofi_assets.backbones.ace_step_v1.loading import encode_text

        hidden, mask = encode_text(self._text_encoder, [caption])
        states: np.ndarray = hidden[0][mask[0].bool()].float().cpu().contiguous().numpy()
        return states

    def lyrics(self, track_id: str, lyrics: str) -> "tuple[np.ndarray, str]":
        """Ids (tokens,) int32 of the lyrics, and their language; "" for an instrumental track."""
        import numpy as np

        try:
            sung = bool(lyrics.strip()) and not is_instrumental(lyrics)
            language = song_language(lyrics) if sung and self._lyric_tokenizer.vocabulary else "en"
            ids = self._lyric_tokenizer.encode(lyrics, language=language)
        except LyricError as error:
            raise FeatureError(f"{track_id}: lyrics cannot be encoded ({error})") from error
        return np.asarray(ids, dtype=np.int32), language if sung else ""

    def speaker(self, track_id: str, path: Path | None) -> "np.ndarray":
        """Embedding (width,) float32 of a speaker file; zeros without one, as the published model was trained."""
        import numpy as np

        if path is None:
            return np.zeros(self.speaker_width, dtype=np.float32)
        try:
            return read_speaker(path, width=self.speaker_width)
        except SpeakerError as error:
            raise FeatureError(f"{track_id}: {error}") from error

    @cached_property
    def vocabulary_file(self) -> Path | None:
        """The vocabulary to use: the one given, else the one in the base's folder."""
        inside = self.base_path / LYRIC_VOCABULARY
        return self.vocabulary or (inside if inside.is_file() else None)

    @cached_property
    def speaker_width(self) -> int:
        """Length of a speaker embedding."""
        return int(self._transformer_config.get("speaker_embedding_dim", SPEAKER_WIDTH))

    @cached_property
    def _transformer_config(self) -> dict[str, Any]:
        config: dict[str, Any] = read_json(self.base_path / "ace_step_transformer" / "config.json", default={})
        return config

    @cached_property
    def _lyric_tokenizer(self) -> LyricTokenizer:
        return LyricTokenizer(self.vocabulary_file)

    @cached_property
    def _device(self) -> str:
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _dcae(self) -> Any:
        return self._load("music_dcae").music_dcae

    @cached_property
    def _text_encoder(self) -> "Base":
        return self._load("text_encoder")

    @cached_property
    def _loaded_ssl(self) -> "dict[str, HubertTargets]":
        return {}

    def _ssl_encoder(self, name: Any) -> "HubertTargets":
        from lofi_assets.backbones.ace_step_v1.ssl_encoders import load_ssl_encoder

        if name not in self._loaded_ssl:
            encoder = load_ssl_encoder(name, self.ssl[name], device=self._device)
            config = self._transformer_config
            widths = dict(zip(config.get("ssl_names", ()), config.get("ssl_latent_dims", ()), strict=True))
            if widths.get(name) != encoder.width:
                raise FeatureError(
                    f"{self.ssl[name]}: has {encoder.width} numbers per frame, this base's projector for {name} takes "
                    f"{widths.get(name)}; name the encoder that the base was trained with"
                )
            self._loaded_ssl[name] = encoder
        return self._loaded_ssl[name]

    def _load(self, *components: str) -> "Base":
        from lofi_assets.backbones.ace_step_v1.loading import load_base

        return load_base(self.base_path, dtype=self.dtype, device=self._device, components=components)
