"""Data files and graphs beside a tier's main ones, altered: each a change of an honest folder, and what it is refused
for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from lofi_assets.quantization.graph import load
from lofi_assets_tests.quantization.alterations import put


def _graph(folder: Path) -> tuple[Path, onnx.ModelProto]:
    path = folder / "transformer.onnx"
    return path, load(path, weights=False)


def _set(folder: Path, key: str, value: str, *, index: int = 0) -> None:
    path, model = _graph(folder)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    for entry in outside[index].external_data:
        if entry.key == key:
            entry.value = value
    path.write_bytes(model.SerializeToString())


def longer(folder: Path) -> None:
    with (folder / "transformer.onnx.data").open("ab") as file:
        file.write(bytes(100))


def shorter(folder: Path) -> None:
    data = folder / "transformer.onnx.data"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


def absent(folder: Path) -> None:
    (folder / "transformer.onnx.data").unlink()


def linked(folder: Path) -> None:
    data = folder / "transformer.onnx.data"
    data.rename(folder / "elsewhere.data")
    data.symlink_to(folder / "elsewhere.data")


def linked_graph(folder: Path) -> None:
    path = folder / "transformer.onnx"
    path.rename(folder / "elsewhere.onnx")
    path.symlink_to(folder / "elsewhere.onnx")


def other_bytes(folder: Path) -> None:
    data = folder / "transformer.onnx.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    data.write_bytes(bytes(content))


def overlap(folder: Path) -> None:
    _, model = _graph(folder)
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    first = next(entry.value for entry in outside[0].external_data if entry.key == "offset")
    _set(folder, "offset", first, index=1)


def gap(folder: Path) -> None:
    """The last tensor moved far behind the others."""
    path, model = _graph(folder)
    data = folder / "transformer.onnx.data"
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    entries = {entry.key: entry for entry in outside[-1].external_data}
    start, length = int(entries["offset"].value), int(entries["length"].value)
    content = data.read_bytes()
    entries["offset"].value = str(len(content) + 100_000)
    data.write_bytes(content + bytes(100_000) + content[start : start + length])
    path.write_bytes(model.SerializeToString())


def own_file(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "other.data").write_bytes((folder / "transformer.onnx.data").read_bytes())
        _set(folder, "location", name.format(folder=folder))

    return change


def as_data_of_another(folder: Path) -> None:
    """Another component's bytes."""
    data = folder / "transformer.onnx.data"
    size = data.stat().st_size
    data.write_bytes((folder / "vocoder.onnx").read_bytes().ljust(size, b"\0")[:size])


def other_cpu_graph(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / "transformer.cpu.onnx"
        model = load(path, weights=False)
        change(model)
        path.write_bytes(model.SerializeToString())

    return changed


def coarser_rows(model: onnx.ModelProto) -> None:
    put(model, "rounding/step", np.asarray(np.float32(1 / 7)))


def asked_wrongly(model: onnx.ModelProto) -> None:
    """The question that finds out what the CPU does answers yes always."""
    put(model, "kernel/right", np.asarray(np.int32(0)))


def another_branch(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "If")
    for found in node.attribute:
        if found.name == "else_branch":
            found.g.node[-1].op_type = "MatMul"


def sparse_too(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(4)


def cpu_in_float(folder: Path) -> None:
    save_as = load(folder / "transformer.onnx", weights=False)
    (folder / "transformer.cpu.onnx").write_bytes(save_as.SerializeToString())


FILES: list[tuple[str, Callable[[Path], None], str]] = [
    ("data longer", longer, "its tensors need"),
    ("data shorter", shorter, "its tensors need"),
    ("data absent", absent, "transformer.onnx.data is absent"),
    ("data a link", linked, "transformer.onnx.data is a link"),
    ("graph a link", linked_graph, "transformer.onnx is a link"),
    ("other bytes", other_bytes, "differs from the FP32 file by"),
    ("another component's data", as_data_of_another, "transformer: "),
    ("tensors overlap", overlap, "overlaps the tensor before it"),
    ("gap", gap, "belong to no tensor"),
    ("another file", own_file("other.data"), "lies in 'other.data'"),
    ("file above", own_file("../other.data"), "lies in '../other.data'"),
    ("absolute path", own_file("{folder}/other.data"), "only transformer.onnx.data beside the graph"),
    ("length too small", lambda folder: _set(folder, "length", "16"), "has 16 bytes"),
    ("length too large", lambda folder: _set(folder, "length", "99999999"), "has 99999999 bytes"),
    ("negative offset", lambda folder: _set(folder, "offset", "-4096"), "from -4096 on"),
    ("offset beyond the end", lambda folder: _set(folder, "offset", "1000000000"), "its tensors need"),
    ("offset no number", lambda folder: _set(folder, "offset", "0x10"), "no number"),
    ("CPU graph rounds rows more", other_cpu_graph(coarser_rows), "first at initializer 'rounding/step'"),
    ("CPU graph asks wrongly", other_cpu_graph(asked_wrongly), "first at initializer 'kernel/right'"),
    ("CPU graph's other branch", other_cpu_graph(another_branch), "is not the integer form"),
    ("CPU graph with a sparse weight", other_cpu_graph(sparse_too), "is not the integer form"),
    ("CPU graph in float", cpu_in_float, "is not the integer form"),
]  # fmt: skip
