"""LAION-CLAP through transformers, from a local directory: audio and text in one space.

Audio is cut into 10 s windows side by side, since the model crops anything longer at random. The checkpoint is part of
the metric: the same clips score 0.13 with one and 0.31 with another (facebookresearch/audiocraft#512).
"""

import hashlib
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_typed
from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Samples, file_sha256, levelled, preparation
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.probes import PROBES
from lofi_assets.metrics.proof import audio_spread, published_weights, text_spread
from lofi_assets.metrics.results import EncoderProof, ProofCheck
from lofi_assets.progress import transformers_bars_on_terminals

FloatingT = TypeVar("FloatingT", bound=np.floating)

SAMPLE_RATE = 48_000
WINDOW_S = 10.0
BATCH = 8

PROBE_S = 5.0

PUBLISHED = {
    "fae3e9c087f2909c28a09dc31c8dfcdacbc42ba44c70e972b58c1bd1caf6dedd": "LAION's music_audioset_epoch_15_esc_90.14.pt"
}
"""Checkpoints that `lofi convert-clap` may have started from. `laion/larger_clap_music` is not among them: the texts of
that conversion are all alike (huggingface.co/laion/larger_clap_music/discussions/2, mteb#5069)."""

CHANCE = 0.01
"""Share of the orders of the probes' captions that may fit as well as the right one."""

CAPTIONS = (
    "slow lofi piano with vinyl crackle",
    "fast techno with loud drums",
    "a dog barking in the street",
    "a woman singing opera",
    "distorted electric guitar solo",
    "rain on a window",
)
"""Captions that nobody would give to one clip."""

WHERE_FROM = (
    "Download music_audioset_epoch_15_esc_90.14.pt from https://huggingface.co/lukewys/laion_clap (CC0) and "
    "roberta-base's tokenizer, run `lofi convert-clap FILE.pt DIR --tokenizer FOLDER`, and name DIR in the profile."
)


@dataclass(frozen=True, kw_only=True, config=STORED)
class Conversion:
    """Where a folder's weights come from: `conversion.json` beside them, written by `lofi convert-clap`."""

    source: str
    """Name of the checkpoint's file."""
    source_sha256: str
    weights_sha256: str
    """Of `model.safetensors`: the record holds for these bytes only."""
    left_out: tuple[str, ...]
    """Tensors that the audio and text vectors do not need: training heads, the classifier, fixed filters."""


class ClapEmbedder:
    """Projected but unnormalised audio windows; `unit_rows` of their mean is a clip's vector, beside `embed_text`.

    Args:
        conversion: where the weights come from, None if nobody wrote it down.
        lufs: loudness that clips are brought to; None leaves them at their own.
    """

    name = "laion_clap"
    sample_rate = SAMPLE_RATE
    window_s = WINDOW_S
    hop_s = WINDOW_S
    normalized = False

    def __init__(
        self,
        model: Any,
        extractor: Any,
        tokenizer: Any,
        *,
        weights_sha256: str,
        conversion: Conversion | None = None,
        device: str = "cpu",
        lufs: float | None = LOUDNESS_LUFS,
    ) -> None:
        self._model, self._extractor, self._tokenizer = model.eval().to(device), extractor, tokenizer
        self._device, self._lufs = device, lufs
        self.version = f"transformers-10s-raw-projection-{preparation(lufs)}"
        self.dim = int(model.config.projection_dim)
        self.weights_sha256 = weights_sha256
        self._check_text()
        self.proof = self._proof(conversion)

    @classmethod
    def load(cls, directory: Path | None, *, device: str = "cpu", lufs: float | None = LOUDNESS_LUFS) -> "ClapEmbedder":
        """From a directory of `save_pretrained`, e.g. of `lofi convert-clap`; the network is never asked.

        Raises:
            MetricError: the directory is absent or holds no safetensors, a fusion checkpoint, or a tokenizer that
                reads every text alike.
            StoreError: `conversion.json` is broken.
        """
        if directory is None or not (directory / "config.json").is_file():
            raise MetricError(f"CLAP weights are absent ({directory}). {WHERE_FROM}")
        files = sorted(directory.glob("*.safetensors"))
        if not files:
            raise MetricError(f"{directory}: no .safetensors; a pickle is not loaded. {WHERE_FROM}")
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        try:
            with transformers_bars_on_terminals():
                model = ClapModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        except SafetensorError as error:
            raise MetricError(f"{directory}: weights are cut short or damaged ({error}). {WHERE_FROM}") from error
        if getattr(model.config.audio_config, "enable_fusion", False):
            raise MetricError(f"{directory}: a fusion checkpoint, whose windows are drawn at random. {WHERE_FROM}")
        extractor = ClapFeatureExtractor.from_pretrained(directory, local_files_only=True)
        # "fusion", the default of some configurations, would also switch to another mel filter bank.
        extractor.truncation, extractor.padding = "rand_trunc", "repeatpad"
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        hashes = [file_sha256(file) for file in files]
        record = read_typed(directory / "conversion.json", Conversion, remedy="convert the checkpoint again")
        return cls(
            model,
            extractor,
            tokenizer,
            weights_sha256=_of_files(directory, hashes),
            conversion=record if record and [record.weights_sha256] == hashes else None,
            device=device,
            lufs=lufs,
        )

    @property
    def trained(self) -> bool:
        """What the proof came to."""
        return self.proof.trained

    def embed(self, audio: Samples) -> Samples:
        """(windows, dim) of audio at 48 kHz; MetricError for audio shorter than 1 s or not finite."""
        windows = ten_second_windows(levelled(audio, sample_rate=SAMPLE_RATE, min_seconds=1.0, lufs=self._lufs))
        return self._windows(windows)

    def _windows(self, windows: Sequence[Samples]) -> Samples:
        import torch

        outputs = []
        for start in range(0, len(windows), BATCH):
            batch = windows[start : start + BATCH]
            features = self._extractor(batch, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            with torch.inference_mode():
                states = self._model.audio_model(
                    input_features=features["input_features"].to(self._device),
                    is_longer=torch.zeros(len(batch), 1, dtype=torch.bool, device=self._device),
                )
                outputs.append(self._model.audio_projection(states.pooler_output).float().cpu().numpy())
        return np.concatenate(outputs)

    def embed_text(self, texts: Sequence[str]) -> Samples:
        """(texts, dim), unit length."""
        import torch

        outputs = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenizer(
                list(texts[start : start + BATCH]), padding=True, truncation=True, max_length=77, return_tensors="pt"
            ).to(self._device)
            with torch.inference_mode():
                states = self._model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
                outputs.append(self._model.text_projection(states.pooler_output).float().cpu().numpy())
        return unit_rows(np.concatenate(outputs))

    def _proof(self, conversion: Conversion | None) -> EncoderProof:
        """Published weights, or the right caption for each probe; either way texts and sounds that are told apart."""
        heard = np.concatenate([self._windows([clip(PROBE_S, SAMPLE_RATE)]) for clip in PROBES.values()])
        origin = published_weights(conversion.source_sha256 if conversion else "", PUBLISHED, decides=False)
        return EncoderProof(
            checks=(
                origin,
                text_spread(self.embed_text(CAPTIONS)),
                audio_spread(heard),
                right_captions(unit_rows(heard), self.embed_text(list(PROBES)), decides=not origin.passed),
            )
        )

    def _check_text(self) -> None:
        first, second = self.embed_text(["slow lofi piano with vinyl crackle", "fast techno with loud drums"])
        if np.allclose(first, second, atol=1e-6):
            raise MetricError(
                "the CLAP tokenizer reads two different texts alike; load it with AutoTokenizer from its own directory"
            )


def right_captions(audio: Samples, texts: Samples, *, decides: bool) -> ProofCheck:
    """Whether clips fit their own captions better than almost any other order of these: (n, dim) unit rows, n to 7."""
    cosines = audio @ texts.T
    rows = np.arange(len(cosines))
    fits = np.array([cosines[rows, list(order)].mean() for order in permutations(range(len(cosines)))])
    share = float((fits >= fits[0]).mean())  # the first is the right one, and counts
    told = (
        f"of all orders of the probes' captions {100 * share:.1f} % fit as well as the right one (at most {CHANCE:.0%})"
    )
    passed = share <= CHANCE
    return ProofCheck(name="right captions", value=share, passed=passed if passed or decides else None, told=told)


def ten_second_windows(mono: Samples) -> list[Samples]:
    """Windows of 10 s side by side; a rest of 5 s or more, or a shorter clip, is one more (the extractor pads it)."""
    size = int(WINDOW_S * SAMPLE_RATE)
    windows = [mono[start : start + size] for start in range(0, len(mono), size)]
    return windows[:-1] if len(windows) > 1 and len(windows[-1]) < size // 2 else windows


def unit_rows(rows: npt.NDArray[FloatingT]) -> npt.NDArray[FloatingT]:
    """Rows scaled to unit length; MetricError for a row of zeros."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    if (norms <= 0.0).any() or not np.isfinite(norms).all():
        raise MetricError("an embedding of length zero or NaN has no direction")
    return np.asarray(rows / norms, dtype=rows.dtype)


def _of_files(directory: Path, hashes: Sequence[str]) -> str:
    """Hash of everything that a vector depends on: weights, architecture, feature extractor and tokenizer."""
    beside = sorted(
        path for path in directory.iterdir() if path.suffix in (".json", ".txt") and path.stem != "conversion"
    )
    named = [f"{path.name}:{file_sha256(path)}" for path in beside]
    return hashlib.sha256("|".join([*hashes, *named]).encode()).hexdigest()
