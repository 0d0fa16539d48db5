"""Speaker embeddings: one vector per track or artist, made elsewhere, since no singer encoder was published.

Such a file is read and judged here; which track has which is in `training/features/jobs.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.errors import LofiError

if TYPE_CHECKING:
    import numpy as np


class SpeakerError(LofiError, ValueError):
    """A speaker file cannot be used; the message names it, the fault and the remedy."""


def read_speaker(path: Path, *, width: int) -> "np.ndarray":
    """The embedding (width,) float32 of a `.npy` or `.safetensors` file that holds one array. Nothing is unpickled.

    Raises:
        SpeakerError: absent, another format, another shape, or not finite.
    """
    import numpy as np

    vector = np.asarray(_array(path))
    if vector.dtype.kind not in "fiu" or vector.size != width or max(vector.shape, default=0) != width:
        raise SpeakerError(f"{path}: holds {vector.dtype} {vector.shape}, a speaker is one vector of {width} numbers")
    vector = vector.reshape(width).astype(np.float32)
    if not np.isfinite(vector).all():
        raise SpeakerError(f"{path}: holds NaN or infinite numbers; make the embedding again")
    return vector


def _array(path: Path) -> "np.ndarray":
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".npy":
            loaded: np.ndarray = np.load(path, allow_pickle=False)
            return loaded
        if path.suffix == ".safetensors":
            (only,) = load_file(path).values()
            return only
    except (OSError, ValueError, SafetensorError) as error:
        raise SpeakerError(f"{path}: holds no single array ({error}); save one vector per file") from error
    raise SpeakerError(f"{path}: a speaker is a .npy or .safetensors file, not {path.suffix or 'one without suffix'}")
