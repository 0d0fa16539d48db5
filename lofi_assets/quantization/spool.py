"""Numbers of tensors on disk while their graph is worked on, so that memory holds one tensor at a time.

A graph in memory may refer to numbers in any file, by absolute path: in a spool, or in the data files of a tier that it
is derived from. A saved graph refers to the data files beside it by name (`graph.save`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

LARGE: Final = 991
"""Bytes from which on numbers lie beside their graph: what `onnx.save_model` moves there at a threshold of 1024, which
counts the 33 bytes of a Python object."""
ALIGNED: Final = 64


class Spool:
    """A file that numbers are appended to, and tensors that refer to it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._path.parent

    def append(self, numbers: bytes) -> tuple[Path, int, int]:
        """Write numbers; returns file, offset and length."""
        self._file.write(bytes(-self._file.tell() % ALIGNED))
        offset = self._file.tell()
        self._file.write(numbers)
        self._file.flush()
        return self._path, offset, len(numbers)

    def keep(self, tensor: TensorProto) -> TensorProto:
        """The tensor itself, its numbers moved to the file if they are large."""
        if tensor.HasField("raw_data") and len(tensor.raw_data) >= LARGE:
            refer(tensor, *self.append(tensor.raw_data))
        return tensor


@contextmanager
def spooled(folder: Path) -> Iterator[Spool]:
    """A spool in a folder, which is gone after the block: whoever refers to it has to be saved by then.

    Two processes may have one each in the same folder.
    """
    with tempfile.NamedTemporaryFile(dir=folder.resolve(), prefix=".numbers-") as file:
        yield Spool(Path(file.name), file)


def keep(tensor: TensorProto, spool: Spool | None) -> TensorProto:
    """The tensor, its numbers in the spool if there is one."""
    return spool.keep(tensor) if spool is not None else tensor


def refer(tensor: TensorProto, path: Path | str, offset: int, length: int) -> None:
    """Let a tensor's numbers be those of a file, in place."""
    tensor.raw_data = b""
    onnx.external_data_helper.set_external_data(tensor, str(path), offset, length)
    tensor.ClearField("raw_data")


def place(tensor: TensorProto) -> tuple[Path, int, int] | None:
    """File, offset and length of numbers that do not lie in the tensor; None of one that holds them."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    found = {entry.key: entry.value for entry in tensor.external_data}
    return Path(found["location"]), int(found.get("offset", 0)), int(found["length"])


def numbers(tensor: TensorProto) -> NDArray[Any]:
    """The numbers of a tensor of whole bytes: those on disk as a view of the file, which is read as they are."""
    where = place(tensor)
    if where is None:
        return numpy_helper.to_array(tensor)
    path, offset, _ = where
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(path, mode="r", dtype=kind, offset=offset, shape=tuple(tensor.dims))


def raw(tensor: TensorProto) -> bytes | memoryview:
    """The bytes of a tensor's numbers."""
    where = place(tensor)
    if where is None:
        return bytes(tensor.raw_data)
    path, offset, length = where
    return np.memmap(path, mode="r", offset=offset, shape=(length,)).data


def hold(tensor: TensorProto) -> None:
    """Bring numbers from disk into the tensor, in place."""
    if place(tensor) is not None:
        tensor.raw_data = bytes(raw(tensor))
        del tensor.external_data[:]
        tensor.ClearField("data_location")
