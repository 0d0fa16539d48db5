"""Targets of the SSL losses: what MERT or mHuBERT makes of a track. Off by default, and computed once.

Both encoders are read with transformers' own HuBERT, without remote code: MERT-v1-330M is a HuBERT whose extra parts
(a CQT front end, deep norm) its configuration switches off, and its attention_relax shifts logits by what softmax takes
out again. A MERT that does use such a part is refused. The losses themselves are in `transformer`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.errors import LofiError
from lofi_assets.progress import transformers_bars_on_terminals

if TYPE_CHECKING:
    import torch
    from transformers import HubertModel

UNSUPPORTED = ("feature_extractor_cqt", "deepnorm")
"""Parts that HuBERT lacks; a configuration that uses one cannot be read faithfully."""
DEFAULT_RATE = 16_000
"""Hz, where preprocessor_config.json gives none."""


class SslEncoderError(LofiError, ValueError):
    """An SSL encoder cannot be read; the message names the folder and what to do."""


PIECE_SECONDS = {"mert": 5.0, "m-hubert": 30.0}
"""How much an encoder hears at once: what it was trained on, and what the public trainer plays it."""
FRAME_SAMPLES = 320
PIECES_AT_ONCE = 8


@dataclass(frozen=True)
class HubertTargets:
    """One encoder, ready to be used."""

    model: "HubertModel"
    sample_rate: int
    """Hz that it hears: 24,000 for MERT, 16,000 for mHuBERT."""
    piece_seconds: float

    @property
    def width(self) -> int:
        """Numbers per frame."""
        return int(self.model.config.hidden_size)

    def encode(self, audio: "torch.Tensor", *, sample_rate: int) -> "torch.Tensor":
        """Audio (channels, n) in [-1, 1] -> (frames, width) float32 of the last layer.

        As the public trainer does it: mono, zero mean and unit variance over the track, pieces encoded by themselves
        with the last one zero-padded, and joined. A frame is 320 samples: 1/75 s for MERT, 1/50 s for mHuBERT.
        """
        import torch
        from torchaudio.functional import resample

        mono = resample(audio.float().mean(dim=0), sample_rate, self.sample_rate)
        mono = (mono - mono.mean()) / torch.sqrt(mono.var() + 1e-7)
        length = int(self.piece_seconds * self.sample_rate)
        pieces = torch.nn.functional.pad(mono, (0, -len(mono) % length)).view(-1, length)
        with torch.inference_mode():
            states = torch.cat([self.model(batch).last_hidden_state for batch in pieces.split(PIECES_AT_ONCE)])
        rest = len(mono) - (len(pieces) - 1) * length
        return torch.cat([states[:-1].flatten(0, 1), states[-1, : -(-rest // FRAME_SAMPLES)]])


def load_ssl_encoder(name: str, folder: Path, *, device: str) -> HubertTargets:
    """Read an encoder in float32 and evaluation mode.

    Args:
        folder: config.json, model.safetensors and, for another rate than 16 kHz, preprocessor_config.json.
    Raises:
        SslEncoderError: a file is absent, weights are pickled only, a tensor does not fit, or a part is not HuBERT's.
    """
    from transformers import HubertConfig, HubertModel

    described = _json(folder / "config.json")
    used = [part for part in UNSUPPORTED if described.get(part)]
    if used:
        raise SslEncoderError(f"{folder}: its {', '.join(used)} needs code that is not part of transformers")
    if not list(folder.glob("*.safetensors")):
        raise SslEncoderError(
            f"{folder}: holds no weights in safetensors, and nothing pickled is loaded; convert pytorch_model.bin first"
        )
    known = HubertConfig().to_dict().keys() - {"architectures", "auto_map", "model_type", "transformers_version"}
    config = HubertConfig(**{key: value for key, value in described.items() if key in known})
    with transformers_bars_on_terminals():
        loaded: Any = HubertModel.from_pretrained(
            str(folder), config=config, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    model, report = loaded
    # SpecAugment's mask and the clustering heads play no part in what is heard
    needed = {name for name in report["missing_keys"] if name != "masked_spec_embed"}
    if needed or report.get("mismatched_keys"):
        raise SslEncoderError(f"{folder}: weights do not fit config.json, for example {sorted(map(str, needed))[:3]}")
    rate = _json(folder / "preprocessor_config.json", absent={}).get("sampling_rate", DEFAULT_RATE)
    return HubertTargets(model.eval().to(device), int(rate), PIECE_SECONDS[name])


def _json(path: Path, *, absent: dict[str, Any] | None = None) -> dict[str, Any]:
    if not path.is_file():
        if absent is None:
            raise SslEncoderError(f"{path}: no such file; ssl_encoders must name a folder in the Hub's layout")
        return absent
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
