"""The merged model as one file for ComfyUI's checkpoint loader, written tensor by tensor.

ComfyUI finds the parts of ACE-Step v1 by the beginnings of their names. They were read in the source of
comfyanonymous/ComfyUI (`comfy/ldm/ace`, `comfy/text_encoders/ace.py`) and in readers of Comfy-Org's
`ace_step_v1_3.5b.safetensors`; ComfyUI itself was not run with a file of this one.

    model.diffusion_model.                  the transformer, under its own names
    vae.dcae.  vae.vocoder.                 the codec, under its own names
    text_encoders.umt5base.transformer.     the text encoder, under its own names
    text_encoders.spiece_model              bytes of the text encoder's SentencePiece model

Transformer and text encoder are stored in BF16, rounded to nearest, ties to even; the codec, which decides what is
heard, as it is in the base. Projections that only training reads are left out: ComfyUI says that they are missing, and
does not read them.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.backbones import ACE_STEP_V1
from lofi_assets.release.files import ReleaseError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKPOINT = "ace_step_v1_lofi.safetensors"
SPIECE = "umt5-base/spiece.model"
"""In the base's folder, where google/umt5-base has it at its root: the Hub's base brings only `tokenizer.json`."""
SPIECE_TENSOR = "text_encoders.spiece_model"
TRANSFORMER = "ace_step_transformer"


@dataclass(frozen=True)
class Component:
    """A folder of a base, and what its tensors are called in the file."""

    folder: str
    prefix: str
    halved: bool
    """Whether it is stored in BF16."""


COMPONENTS = (
    Component(TRANSFORMER, "model.diffusion_model.", True),
    Component("umt5-base", "text_encoders.umt5base.transformer.", True),
    Component("music_dcae_f8c8", "vae.dcae.", False),
    Component("music_vocoder", "vae.vocoder.", False),
)
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}
FLOATS = ("F64", "F32", "F16")


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file, and where it comes from."""

    name: str
    file: Path
    source: str
    kind: str
    """Type in the source, by safetensors' name."""
    stored: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        size = SIZES[self.stored]
        for length in self.shape:
            size *= length
        return size


def model_files(model: Path, *, architecture: str) -> list[Path]:
    """Every file of a merged model that goes into the checkpoint, the transformer's first.

    Raises:
        ReleaseError: another family, or something is absent; the message says what to do.
    """
    if architecture != ACE_STEP_V1:
        raise ReleaseError(
            f"ComfyUI's all-in-one file is known for {ACE_STEP_V1} alone, and the model is {architecture}"
        )
    files = []
    for component in COMPONENTS:
        found = sorted((model / component.folder).glob("*.safetensors"))
        if not found:
            raise ReleaseError(f"{model / component.folder}: holds no safetensors; materialise merged_model again")
        files += found
    if not (model / SPIECE).is_file():
        raise ReleaseError(
            f"{model / SPIECE}: absent, and ComfyUI reads prompts by it: put spiece.model of google/umt5-base into the "
            f"base's folder as {SPIECE}, remove {model}, and materialise merged_model and what follows; or set "
            "release.comfyui_checkpoint to false"
        )
    return [*files, model / SPIECE]


def checkpoint_blocks(model: Path, *, about: dict[str, str]) -> Iterator[bytes]:
    """The file in blocks: header, then one tensor after the other; never more than one tensor is in memory.

    https://github.com/huggingface/safetensors#format: a length, a JSON header padded with spaces, the tensors without
    gaps, the widest types first.

    Args:
        model: a merged model whose `model_files` are all there.
        about: what the header says of the file, beside its format.
    Raises:
        ReleaseError: a tensor of a type that has no place here.
    """
    tensors = sorted(_tensors(model), key=lambda tensor: (-SIZES[tensor.stored], tensor.name))
    spiece = (model / SPIECE).read_bytes()
    header: dict[str, object] = {"__metadata__": {"format": "pt", **about}}
    end = 0
    for tensor in tensors:
        place = [end, end + tensor.bytes]
        header[tensor.name] = {"dtype": tensor.stored, "shape": list(tensor.shape), "data_offsets": place}
        end += tensor.bytes
    header[SPIECE_TENSOR] = {"dtype": "U8", "shape": [len(spiece)], "data_offsets": [end, end + len(spiece)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors:
        yield _content(tensor)
    yield spiece


def _tensors(model: Path) -> Iterator[_Tensor]:
    from safetensors import safe_open

    for component in COMPONENTS:
        for file in sorted((model / component.folder).glob("*.safetensors")):
            with safe_open(file, framework="numpy") as opened:
                for name in sorted(opened.keys()):
                    part = opened.get_slice(name)
                    kind = str(part.get_dtype())
                    if kind not in SIZES:
                        raise ReleaseError(f"{file}: {name} is {kind}, which is not written for ComfyUI")
                    stored = "BF16" if component.halved and kind in FLOATS else kind
                    yield _Tensor(component.prefix + name, file, name, kind, stored, tuple(part.get_shape()))


def _content(tensor: _Tensor) -> bytes:
    if tensor.kind == tensor.stored:
        return _raw(tensor)
    import ml_dtypes
    from safetensors import safe_open

    with safe_open(tensor.file, framework="numpy") as opened:
        value: NDArray[np.generic] = opened.get_tensor(tensor.source)
    return value.astype(ml_dtypes.bfloat16).tobytes()


def _raw(tensor: _Tensor) -> bytes:
    """The bytes as they are, without a library that would have to know the type (numpy has no BF16)."""
    with tensor.file.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start, end = json.loads(file.read(length))[tensor.source]["data_offsets"]
        file.seek(8 + length + start)
        return file.read(end - start)
