"""LAION-CLAP through transformers, from a local directory: audio and text in one space.

Audio is cut into 10 s windows side by side, since the model crops anything longer at random. The checkpoint is part of
the metric: the same clips score 0.13 with one and 0.31 with another (facebookresearch/audiocraft#512).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.embedding import PREPARATION, Samples, file_sha256, levelled
from lofi_assets.metrics.errors import MetricError

FloatingT = TypeVar("FloatingT", bound=np.floating)

SAMPLE_RATE = 48_000
WINDOW_S = 10.0
BATCH = 8

WHERE_FROM = (
    "Fetch an unfused music checkpoint once, e.g. `hf download laion/larger_clap_music --local-dir DIR`, "
    "and name that directory in the profile."
)


class ClapEmbedder:
    """Projected but unnormalised audio windows; `unit_rows` of their mean is a clip's vector, beside `embed_text`."""

    name = "laion_clap"
    version = f"transformers-10s-raw-projection-{PREPARATION}"
    sample_rate = SAMPLE_RATE
    window_s = WINDOW_S
    hop_s = WINDOW_S
    normalized = False

    def __init__(
        self, model: Any, extractor: Any, tokenizer: Any, *, trained: bool, weights_sha256: str, device: str = "cpu"
    ) -> None:
        self._model, self._extractor, self._tokenizer = model.eval().to(device), extractor, tokenizer
        self._device = device
        self.dim = int(model.config.projection_dim)
        self.trained = trained
        self.weights_sha256 = weights_sha256
        self._check_text()

    @classmethod
    def load(cls, directory: Path | None, *, device: str = "cpu", trained: bool = True) -> "ClapEmbedder":
        """From a directory of `save_pretrained`; the network is never asked. `trained=False` marks random test weights.

        Raises:
            MetricError: the directory is absent or holds no safetensors, a fusion checkpoint, or a tokenizer that
                reads every text alike.
        """
        if directory is None or not (directory / "config.json").is_file():
            raise MetricError(f"CLAP weights are absent ({directory}). {WHERE_FROM}")
        files = sorted(directory.glob("*.safetensors"))
        if not files:
            raise MetricError(f"{directory}: no .safetensors; a pickle is not loaded. {WHERE_FROM}")
        from safetensors import SafetensorError
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        try:
            model = ClapModel.from_pretrained(directory, local_files_only=True, use_safetensors=True)
        except SafetensorError as error:
            raise MetricError(f"{directory}: weights are cut short or damaged ({error}). {WHERE_FROM}") from error
        if getattr(model.config.audio_config, "enable_fusion", False):
            raise MetricError(f"{directory}: a fusion checkpoint, whose windows are drawn at random. {WHERE_FROM}")
        extractor = ClapFeatureExtractor.from_pretrained(directory, local_files_only=True)
        # "fusion", the default of some configurations, would also switch to another mel filter bank.
        extractor.truncation, extractor.padding = "rand_trunc", "repeatpad"
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        digest = hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()
        return cls(model, extractor, tokenizer, trained=trained, weights_sha256=digest, device=device)

    def embed(self, audio: Samples) -> Samples:
        """(windows, dim) of audio at 48 kHz; MetricError for audio shorter than 1 s or not finite."""
        import torch

        windows = ten_second_windows(levelled(audio, sample_rate=SAMPLE_RATE, min_seconds=1.0))
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

    def _check_text(self) -> None:
        first, second = self.embed_text(["slow lofi piano with vinyl crackle", "fast techno with loud drums"])
        if np.allclose(first, second, atol=1e-6):
            raise MetricError(
                "the CLAP tokenizer reads two different texts alike; load it with AutoTokenizer from its own directory"
            )


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
