"""Which encoder made a number, how loud it heard the clips, and what it proved; without that there is no number."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Embedder
from lofi_assets.metrics.encoders import load_embedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.proof import proof_of, why_untrained
from lofi_assets.metrics.results import EncoderProof


@dataclass(frozen=True, kw_only=True, config=STORED)
class EncoderUsed:
    """An encoder as a result names it."""

    name: str
    version: str
    weights_sha256: str
    lufs: float | None
    """Loudness that clips were brought to; None: at their own level."""
    proof: EncoderProof


def loaded(
    name: str, *, weights: Path | str | None = None, lufs: float | None = LOUDNESS_LUFS, device: str = "cpu"
) -> tuple[Embedder, EncoderUsed]:
    """An encoder that proved itself, and its description.

    Raises:
        MetricError: an unknown name, weights that are absent, or an encoder that is not proven trained.
    """
    encoder = load_embedder(name, weights=Path(weights) if weights else None, device=device, lufs=lufs)
    proof = proof_of(encoder)
    if encoder.trained is not True or proof is None:
        raise MetricError(why_untrained(encoder))
    used = EncoderUsed(
        name=encoder.name,
        version=encoder.version,
        weights_sha256=encoder.weights_sha256,
        lufs=lufs,
        proof=proof,
    )
    return encoder, used
