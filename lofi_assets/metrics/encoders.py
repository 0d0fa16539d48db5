"""The encoder that a profile names, loaded."""

from pathlib import Path

from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Embedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.musicnn import MusicnnEmbedder


def load_embedder(
    name: str, *, weights: Path | None = None, device: str = "cpu", lufs: float | None = LOUDNESS_LUFS
) -> Embedder:
    """The encoder of a name: "musicnn" (shipped), "vggish" (`weights`: a file), "laion_clap" (`weights`: a folder).

    Args:
        lufs: loudness that clips are brought to before it hears them; None leaves them at their own.

    Raises:
        MetricError: an unknown name, or weights that are absent; the message says where they come from.
    """
    if name == "musicnn":
        return MusicnnEmbedder(lufs=lufs)
    if name == "vggish":
        from lofi_assets.metrics.vggish import VggishEmbedder

        return VggishEmbedder.load(weights, device=device, lufs=lufs)
    if name == "laion_clap":
        from lofi_assets.metrics.clap import ClapEmbedder

        return ClapEmbedder.load(weights, device=device, lufs=lufs)
    raise MetricError(f"no encoder is called {name!r}; there are musicnn, vggish and laion_clap")
