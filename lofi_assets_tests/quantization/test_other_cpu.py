"""The tiers' arithmetic on a CPU without VNNI, in the libraries' own kernels and not an emulation of them.

`other_cpu` answers CPUID for this machine's libraries as such a CPU does, so that ONNX Runtime takes the kernel that
saturates. Where this machine cannot, the tests are skipped; where it has no VNNI itself they ask what it would say.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8
from lofi_assets_tests.other_cpu import NoOtherCpu, environment

ROWS, INNER, OUTER = 4, 64, 16


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    try:
        return environment(tmp_path_factory.mktemp("other_cpu"))
    except NoOtherCpu as reason:
        pytest.skip(f"NOT TESTED without VNNI: {reason}")


def run(code: str, *arguments: object, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=dict(variables), capture_output=True, text=True, timeout=120, check=False)


def plain_product(levels: np.ndarray) -> onnx.ModelProto:
    """Unsigned rows (n, INNER) times signed levels, as ONNX Runtime's kernel for them adds."""
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["rows", "levels"], ["y"])],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, ("n", INNER))],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ("n", OUTER))],
        [numpy_helper.from_array(levels, "levels")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tier_product(levels: np.ndarray) -> onnx.ModelProto:
    """The same levels as a layer of the INT8 tier for a CPU, with its sums as an output."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "a.weight"], ["y"], "a")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", INNER))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", OUTER))],
        [numpy_helper.from_array(levels.astype(np.float32), "a.weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    quantize_int8(model, wanted=lambda module: True)
    assert multiply_in_integers(model) == 1
    model.graph.output.append(helper.make_tensor_value_info("y/i32", TensorProto.INT32, ("n", OUTER)))
    return model


SUMS = """
import json, sys
import numpy as np, onnxruntime
plain, tier, rows = sys.argv[1], sys.argv[2], np.load(sys.argv[3])
def asked(path, name, value):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([name], {session.get_inputs()[0].name: value})[0].tolist()
print(json.dumps([asked(plain, "y", rows.astype(np.uint8)), asked(tier, "y/i32", (rows / 127).astype(np.float32))]))
"""


def test_the_tier_is_exact_where_onnx_runtime_saturates(variables: Mapping[str, str], tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows, levels = random.integers(100, 128, (ROWS, INNER)), random.integers(100, 128, (INNER, OUTER))
    rows[:, 0], levels[0] = 127, 127  # the largest of a row and of a column, so that rounding changes no level
    levels[:, ::2] *= -1
    rows_of_plain = rows + 128  # what a signed level is stored as
    paths = [tmp_path / "plain.onnx", tmp_path / "tier.onnx", tmp_path / "rows.npy"]
    onnx.save(plain_product(levels.astype(np.int8)), str(paths[0]))
    onnx.save(tier_product(levels), str(paths[1]))

    np.save(paths[2], rows_of_plain)
    done = run(SUMS, *paths, variables=variables)
    assert done.returncode == 0, done.stderr
    saturated, _ = map(np.array, json.loads(done.stdout))
    assert np.all(saturated != rows_of_plain @ levels), "the kernel in question is not the one that was asked"

    np.save(paths[2], rows)
    done = run(SUMS, *paths, variables=variables)
    assert done.returncode == 0, done.stderr
    _, sums = map(np.array, json.loads(done.stdout))
    np.testing.assert_array_equal(sums, rows @ levels)


def test_torch_has_the_kernels_of_avx2(variables: Mapping[str, str]) -> None:
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.randn(64, 64).mm(torch.eye(64)).shape)"
    done = run(code, variables=variables)
    assert done.stdout.split()[0] == "AVX2", done.stderr


@pytest.mark.parametrize("watched", [False, True])
def test_a_real_fault_still_ends_the_process(variables: Mapping[str, str], watched: bool) -> None:
    """What stands between a fault and its handler hides none."""
    watch = "import faulthandler; faulthandler.enable(); " if watched else ""
    done = run(f"{watch}import ctypes; ctypes.string_at(8)", variables=variables)
    assert done.returncode == -signal.SIGSEGV
    assert ("Segmentation fault" in done.stderr) == watched
