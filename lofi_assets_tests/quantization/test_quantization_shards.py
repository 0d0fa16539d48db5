"""Data files under 2 GB, numbers that stay on disk, and what is refused of them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lofi_assets.files.hashing import sha256_file
from lofi_assets.quantization import graph, linear_weights, shards
from lofi_assets.quantization.build import is_current
from lofi_assets.quantization.components import write_cpu_profile
from lofi_assets.quantization.graph import GraphError, open_graph, save
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.linear_weights import store_rest_as_half
from lofi_assets.quantization.mapped import SMALL, halve, on_disk
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import check_tier
from lofi_assets.quantization.spool import LARGE, spooled
from lofi_assets_tests.quantization.small_tiers import LAYOUT, body, component_model, int8_model, write_small_tiers
from lofi_assets_tests.quantization.stand_in_manifest import tier_manifest

LIMIT = 9000
"""Bytes of a data file: an INT8 weight of the small tiers has 4,096."""
FIRST, SECOND = "transformer-00001-of-00002.onnx.data", "transformer-00002-of-00002.onnx.data"


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiers")
    write_small_tiers(root)
    return root


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The INT8 tier of small models, in data files of two weights at most."""
    monkeypatch.setattr(graph, "EXTERNAL_DATA_FROM", 0)
    monkeypatch.setattr(shards, "SHARD_BYTES", LIMIT)
    folder = tmp_path / "int8"
    for component in LAYOUT.components:
        save(int8_model(component), folder / f"{component}.onnx", weights_beside=True)
    write_cpu_profile(folder / "transformer.onnx", folder / "transformer.cpu.onnx")
    return folder


def violations(folder: Path, tiers: Path) -> tuple[str, ...]:
    return check_tier(folder, tier="int8", layout=LAYOUT, baseline=tiers / "fp32").violations


def test_a_file_is_filled_until_the_next_tensor_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 10)
    assert shards.shards([]) == []
    assert shards.shards([4, 5]) == [range(2)]
    assert shards.shards([4, 5, 1, 9, 9]) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    with pytest.raises(ValueError, match="a tensor of 10 bytes fits in no data file"):
        shards.shards([1, 10])


def test_only_a_component_s_own_files_are_called_as_its_data(tmp_path: Path) -> None:
    own = ["a.onnx.data", "a-00001-of-00002.onnx.data", "a-3-of-2.onnx.data"]
    for name in (*own, "a.onnx", "aa.onnx.data", "a-b.onnx.data", "a.cpu.onnx", "a.onnx.data.bak"):
        (tmp_path / name).touch()
    assert [path.name for path in shards.data_files(tmp_path, "a")] == sorted(own)


def test_shards_are_judged_and_run_as_one_file_is(sharded: Path, tiers: Path) -> None:
    names = {path.name: path.stat().st_size for path in sharded.glob("transformer*.data")}
    assert set(names) == {FIRST, SECOND} and max(names.values()) < LIMIT
    assert violations(sharded, tiers) == ()
    x = np.random.default_rng(4).standard_normal((3, 64)).astype(np.float32)
    for name in ("transformer", "transformer.cpu"):
        whole, parts = (
            onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
            for folder in (tiers / "int8", sharded)
        )
        np.testing.assert_array_equal(whole.run(None, {"x": x})[0], parts.run(None, {"x": x})[0])
    assert graph.stored_bytes(sharded / "transformer.onnx") > sum(names.values())


def test_writing_again_leaves_no_data_file_of_before(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 2_000_000_000)
    save(int8_model("transformer"), sharded / "transformer.onnx")
    assert [path.name for path in sharded.glob("transformer*.data")] == ["transformer.onnx.data"]


def test_a_tensor_as_large_as_a_data_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 4096)
    with pytest.raises(GraphError, match=r"vocoder\.onnx: a tensor of 16384 bytes fits in no data file"):
        save(component_model("vocoder"), tmp_path / "vocoder.onnx", weights_beside=True)


def _renamed(before: str, after: str) -> Callable[[Path], None]:
    """A data file under another name, in the graph and in the folder."""

    def change(folder: Path) -> None:
        (folder / before).rename(folder / after)
        _refer(folder, before, after)

    return change


def _refer(folder: Path, before: str, after: str) -> None:
    path = folder / "transformer.onnx"
    model = graph.load(path, weights=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == before:
                entry.value = after
    path.write_bytes(model.SerializeToString())


def _linked(folder: Path) -> None:
    (folder / SECOND).rename(folder / "elsewhere")
    (folder / SECOND).symlink_to(folder / "elsewhere")


def _longer(folder: Path) -> None:
    with (folder / SECOND).open("ab") as file:
        file.write(b"more")


def _swapped(folder: Path) -> None:
    first, second = (folder / FIRST).read_bytes(), (folder / SECOND).read_bytes()
    (folder / FIRST).write_bytes(second)
    (folder / SECOND).write_bytes(first)


def _all_in_one(folder: Path) -> None:
    """Shards that name each other, and a tensor that lies in the one file that there is without shards."""
    shutil.copy(folder / SECOND, folder / "transformer.onnx.data")
    _refer(folder, SECOND, "transformer.onnx.data")


ALTERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda folder: (folder / SECOND).unlink(), f"{SECOND} is absent"),
    "a link": (_linked, f"{SECOND} is a link"),
    "longer": (_longer, "its tensors need"),
    "swapped": (_swapped, "transformer: "),
    "one too many": (
        lambda folder: (folder / "transformer-00003-of-00003.onnx.data").write_bytes(b"x"),
        "transformer-00003-of-00003.onnx.data is called as the component's data file, but no tensor lies in it",
    ),
    "the whole beside them": (
        lambda folder: (folder / "transformer.onnx.data").write_bytes(b"x"),
        "transformer.onnx.data is called as the component's data file",
    ),
    "a number left out": (_renamed(SECOND, "transformer-00003-of-00002.onnx.data"), "lies in 'transformer-00003-of"),
    "another count": (_renamed(SECOND, "transformer-00002-of-00003.onnx.data"), "of-00003.onnx.data"),
    "short numbers": (_renamed(SECOND, "transformer-2-of-2.onnx.data"), "lies in 'transformer-2-of-2.onnx.data'"),
    "another component's": (_renamed(SECOND, "vocoder-00002-of-00002.onnx.data"), "lies in 'vocoder-00002"),
    "shards and the whole": (_all_in_one, "lies in 'transformer.onnx.data'"),
    "in a folder": (lambda folder: _refer(folder, SECOND, f"../int8/{SECOND}"), "lies in '../int8/"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_shards_are_refused(sharded: Path, tiers: Path, name: str) -> None:
    change, reason = ALTERED[name]
    change(sharded)
    found = violations(sharded, tiers)
    assert any(reason in text for text in found), found


def test_a_data_file_of_two_gigabytes_is_refused_and_built_again(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiers / "int8", tmp_path / "int8")
    files = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    fingerprint = "f" * 64
    tier_manifest(fingerprint=fingerprint, files=files).write(folder)
    assert is_current(folder, fingerprint)
    monkeypatch.setattr(shards, "SHARD_BYTES", (folder / "transformer.onnx.data").stat().st_size)
    assert any("2 GB and more go into several files" in text for text in violations(folder, tiers))
    assert not is_current(folder, fingerprint)


@pytest.mark.parametrize("beside", [False, True])
def test_numbers_that_were_on_disk_are_stored_as_those_in_memory(tmp_path: Path, beside: bool) -> None:
    def write(folder: Path, *, on_disk: bool) -> Path:
        folder.mkdir()
        save(component_model("transformer"), folder / "fp32.onnx", weights_beside=on_disk)
        save(component_model("transformer", half=True), folder / "fp16.onnx", weights_beside=on_disk)
        with spooled(folder) as spool:
            given = spool if on_disk else None
            int8 = lower_to_17(open_graph(folder / "fp32.onnx"))
            quantize_int8(int8, wanted=body, spool=given)
            store_rest_as_half(int8, spool=given)
            large = [tensor for tensor in int8.graph.initializer if tensor.ByteSize() > 2 * LARGE]
            assert len(large) == (0 if on_disk else 3)
            save(int8, folder / "int8.onnx", weights_beside=beside)
            int4 = raise_from_18(open_graph(folder / "fp16.onnx"))
            quantize_int4(int4, wanted=body, spool=given)
            save(int4, folder / "int4.onnx", weights_beside=beside)
        assert not list(folder.glob(".numbers*"))
        return folder

    disk, memory = write(tmp_path / "disk", on_disk=True), write(tmp_path / "memory", on_disk=False)
    names = ["int4.onnx", "int8.onnx", *(["int4.onnx.data", "int8.onnx.data"] if beside else [])]
    assert sorted(path.name for path in memory.glob("int*")) == sorted(names)
    for name in names:
        assert (disk / name).read_bytes() == (memory / name).read_bytes(), name


def test_data_files_are_laid_out_as_onnx_does(tmp_path: Path) -> None:
    model = int8_model("transformer")
    onnx.save_model(
        model, str(tmp_path / "theirs.onnx"), save_as_external_data=True, location="ours.onnx.data", size_threshold=1024
    )
    theirs = (tmp_path / "theirs.onnx").read_bytes(), (tmp_path / "ours.onnx.data").read_bytes()
    save(int8_model("transformer"), tmp_path / "ours.onnx", weights_beside=True)
    assert ((tmp_path / "ours.onnx").read_bytes(), (tmp_path / "ours.onnx.data").read_bytes()) == theirs


class _Tied(nn.Module):
    """Two layers with one weight, one that computes in float32, a buffer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.wo = nn.Linear(800, 800), nn.Linear(800, 800), nn.Linear(800, 800)
        self.b.weight = self.a.weight
        self.register_buffer("table", torch.linspace(0, 1, 7))
        self.register_buffer("count", torch.arange(3))


def test_weights_in_half_on_disk_are_those_of_half(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wanted = _Tied()
    module = _Tied()
    module.load_state_dict(wanted.state_dict())
    wanted.half().wo.float()
    halve(module, kept_in_float="wo", folder=tmp_path)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in module.state_dict().items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in wanted.state_dict().items()
    }
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in module.state_dict().items())
    assert module.a.weight is module.b.weight
    assert list(tmp_path.iterdir()) == [], "the files have no name"


def test_a_tensor_on_disk_is_the_tensor(tmp_path: Path) -> None:
    large = torch.arange(SMALL // 4 + 1, dtype=torch.float32).view(1, -1).T
    assert torch.equal(on_disk(large, tmp_path), large)
    small = torch.ones(4)
    assert on_disk(small, tmp_path) is small


def test_two_components_of_a_tier_have_a_spool_each(tmp_path: Path) -> None:
    with spooled(tmp_path) as first, spooled(tmp_path) as second:
        places = [spool.append(bytes([number]) * 5000) for number, spool in enumerate((first, second))]
        assert len({path for path, _, _ in places}) == 2
        for number, (path, offset, length) in enumerate(places):
            assert path.read_bytes()[offset : offset + length] == bytes([number]) * 5000
    assert not list(tmp_path.iterdir())


def test_int4_numbers_stay_packed_on_disk(tmp_path: Path) -> None:
    with spooled(tmp_path) as spool:
        model = raise_from_18(component_model("transformer", half=True))
        quantize_int4(model, wanted=body, spool=spool)
        packed = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT4]
        assert [int(tensor.external_data[2].value) for tensor in packed] == [64 * 64 // 2] * 2


def test_squares_of_a_few_numbers_at_a_time_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).standard_normal((7, 5)).astype(np.float32)
    other = values.round(1)
    whole = float(np.sqrt(np.mean(np.square(values - other, dtype=np.float64))))
    assert linear_weights.root_mean_square(values, other) == whole
    for count in (1, 5, 11, 34):
        monkeypatch.setattr(linear_weights, "SQUARED", count)
        assert linear_weights.root_mean_square(values, other) == pytest.approx(whole, rel=1e-12)
    assert linear_weights.root_mean_square(np.array([], np.float32).reshape(0, 3)) == 0
    assert linear_weights.root_mean_square(np.asarray(np.float32(-2))) == 2


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from lofi_assets.quantization.graph import load, open_graph, save
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.opset import raise_from_18
from lofi_assets.quantization.spool import spooled

folder, room, opened = Path(sys.argv[1]), int(sys.argv[2]), {"disk": open_graph, "memory": load}[sys.argv[3]]
np.square(np.ones(2), dtype=np.float64)
mapped = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(mapped.split()[1]) * 1024 + room
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for bits, quantize in ((8, quantize_int8), (4, quantize_int4)):
    with spooled(folder) as spool:
        model = raise_from_18(opened(folder / "fp32.onnx"))
        quantize(model, wanted=lambda module: True, spool=spool if opened is open_graph else None)
        save(model, folder / f"int{bits}.onnx", weights_beside=True)
"""
"""Private memory ends at so many bytes above what the imports take: beyond that, an allocation fails."""


def _quantized_within(folder: Path, room: int, where: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(folder), str(room), where]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_model_larger_than_memory_is_quantized(tmp_path: Path) -> None:
    """24 weights of 4 MB each; quantizing one takes a dozen times its size."""
    weights = [np.random.default_rng(n).standard_normal((1024, 1024)).astype(np.float32) for n in range(24)]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"l{n}.weight"], [f"x{n + 1}"], f"l{n}") for n in range(24)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 1024)) for name in ("x0", "x24")]
    constants = [numpy_helper.from_array(weight, f"l{n}.weight") for n, weight in enumerate(weights)]
    chain = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    model = helper.make_model(chain, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, tmp_path / "fp32.onnx", weights_beside=True)
    assert graph.stored_bytes(tmp_path / "fp32.onnx") > 96 * 2**20
    done = _quantized_within(tmp_path, 72 * 2**20, "disk")
    assert done.returncode == 0, done.stderr
    assert _quantized_within(tmp_path, 72 * 2**20, "memory").returncode != 0, "the limit is none"
