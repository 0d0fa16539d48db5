"""The merged file of a release, measured again: written anew from base and adapter, and compared tensor by tensor."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.backbones import ACE_STEP_V1
from lofi_assets.errors import LofiError
from lofi_assets.release.comfyui_checkpoint import CHECKPOINT, checkpoint_blocks, model_files
from lofi_assets.release.deep_verification import MERGED_FILE, MeasuredAgain
from lofi_assets.release.files import ReleaseRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_MOVED, ALWAYS_ALLOWED = 1e-3, 4
"""Share of a tensor's BF16 numbers that may lie one step beside those written here, and how many of a small one may.
Another CPU's float32 product moves a weight by some 2^-24 of it, and a step of BF16 is 2^-8: about one in ten thousand
crosses the middle between two. An adapter at 98 % of its strength moves several in a hundred."""


def merged_again(folder: Path, record: ReleaseRecord, *, merged: Path | None) -> MeasuredAgain:
    """The file for ComfyUI against one that is written here.

    Args:
        merged: base and adapter of this release, merged here; None where they could not be.
    """
    if merged is None:
        text = "needs the adapter's repository and --base FOLDER"
        return MeasuredAgain(MERGED_FILE, "not measured", text=text)
    if not (folder / CHECKPOINT).is_file():
        return MeasuredAgain(MERGED_FILE, "differs", CHECKPOINT, "none", "the repository has no such file")
    about = {"checkpoint": record.checkpoint, "adapter_sha256": record.adapter_sha256}
    try:
        model_files(merged, architecture=ACE_STEP_V1)
        odd = list(_odd(folder / CHECKPOINT, checkpoint_blocks(merged, about=about)))
    except LofiError as error:
        text = str(error).replace(str(merged), "the merged model")
        return MeasuredAgain(MERGED_FILE, "not measured", text=text)
    text = "; ".join(odd[:5]) or (
        f"codec byte by byte; in BF16 at most {MOST_MOVED:.1%} of a tensor one step beside what is written here"
    )
    here = f"{len(odd)} differ" if odd else "every tensor"
    return MeasuredAgain(MERGED_FILE, "differs" if odd else "same", "every tensor", here, text)


def _odd(path: Path, wanted: Iterator[bytes]) -> Iterator[str]:
    """What of a file is not what it has to be, in words; one tensor is in memory at a time."""
    start = next(wanted)
    (length,) = struct.unpack("<Q", start[:8])
    tensors = {name: told for name, told in json.loads(start[8 : 8 + length]).items() if name != "__metadata__"}
    with path.open("rb") as file:
        if file.read(len(start)) != start:
            yield "its header is another: names, types, shapes, or of which checkpoint and adapter it says that it is"
            return
        for (name, told), block in zip(tensors.items(), wanted, strict=True):
            found = file.read(len(block))
            if found != block and (reason := _moved(found, block, told["dtype"])):
                yield f"{name}: {reason}"
        if file.read(1):
            yield "it is longer than its tensors"


def _moved(found: bytes, wanted: bytes, kind: str) -> str:
    """Why bytes that differ are no rounding of another CPU; "" if they may be."""
    import numpy as np

    if len(found) != len(wanted):
        return "is cut short"
    if kind != "BF16":
        return "has other bytes"
    steps = np.abs(_in_order(found) - _in_order(wanted))
    moved, allowed = int(np.count_nonzero(steps)), max(ALWAYS_ALLOWED, MOST_MOVED * len(steps))
    if steps.max() > 1:
        return f"{moved} of {len(steps)} numbers are others, by up to {steps.max()} steps of BF16"
    return f"{moved} of {len(steps)} numbers lie one step of BF16 beside" if moved > allowed else ""


def _in_order(data: bytes) -> "NDArray[np.int32]":
    """BF16 numbers as integers in the order of the numbers: neighbours differ by 1."""
    import numpy as np

    bits = np.frombuffer(data, "<u2").astype(np.int32)
    return np.where(bits < 0x8000, bits, 0x8000 - bits)
