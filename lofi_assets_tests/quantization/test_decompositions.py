"""What an export leaves out of torch's steps changes nothing: the same graph as torch's, which traces the module again
for calls without a translation and computes all values again for casts."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.fx.passes import type_promotion

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.export import Exportable
from lofi_assets.quantization import export as exporting
from lofi_assets.quantization.decompositions import traced_again
from lofi_assets.quantization.export import Precision, export

AGAIN = "traced again"
COMPUTED_AGAIN = type_promotion._TypePromotionInterpreter.run_node


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)
        return answer


class Everyday(nn.Module):
    """What models are made of and ONNX has no translation for: norms, casts, halves, axes, sums into a new tensor.

    And what comes twice, with other weights, arguments or sizes, and whole numbers among the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.another = nn.RMSNorm(8), nn.RMSNorm(8)
        nn.init.uniform_(self.another.weight)
        self.up = nn.ConvTranspose1d(8, 8, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.another(self.norm(x)).double().float().chunk(2, dim=-1)
        second = second.unflatten(-1, (2, 2)).flatten(-2)
        joined = torch.cat([second, first], dim=-1)
        moved = joined.unflatten(-1, (2, 4)).flatten(-2).unflatten(-1, (4, 2)).flatten(-2).movedim(-1, 1)
        total = self.up(moved) * torch.arange(2 * moved.shape[-1]) * 2
        total += torch.minimum(total, total.mean(dim=-1, keepdim=True))
        total *= 0.5
        return total.contiguous()


class DependsOnData(nn.Module):
    """How many rows are left is not known before they are there."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.nonzero(x > 0)
        return rows.chunk(3, dim=-1)[0].float() / rows.shape[0]


class WritesWhatIsRead(nn.Module):
    """The view sees what is written after it was taken."""

    def forward(self, x: Tensor) -> Tensor:
        total = x * 2
        view = total[:, :1]
        total += 1
        return view + total


def exportable(module: nn.Module) -> Exportable:
    module = Wrapped(module.eval()).requires_grad_(False)
    return Exportable(module, {"x": torch.ones(2, 6, 8)}, ("y",), {"x": {0: "batch", 1: "frames"}})


def as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "decompose", traced_again)
    monkeypatch.setattr(exporting, "_promoted", COMPUTED_AGAIN)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def weights(model: onnx.ModelProto) -> dict[str, bytes]:
    """By name, but for shapes, which have none of their own."""
    return {tensor.name: tensor.raw_data for tensor in model.graph.initializer if not tensor.name.startswith("val_")}


def answers(model: onnx.ModelProto, x: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {"x": x.numpy()})[0]
    return answer


def test_a_module_becomes_the_graph_that_torch_makes_of_it_without_being_traced_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module = Everyday()
    with caplog.at_level(logging.INFO):
        ours = export(exportable(module), precision="float32")
    assert AGAIN not in caplog.text
    as_torch_does(monkeypatch)
    whole = export(exportable(module), precision="float32")
    assert operators(ours)["Cast"] > 2  # the two that the module has, and one for its whole numbers
    assert operators(ours) == operators(whole) and weights(ours) == weights(whole)
    x = torch.randn(3, 11, 8)
    np.testing.assert_array_equal(answers(ours, x), answers(whole, x))
    np.testing.assert_allclose(answers(ours, x), module(x).detach(), atol=1e-5)


def test_a_module_that_writes_into_what_is_read_elsewhere_is_traced_again(caplog: pytest.LogCaptureFixture) -> None:
    module = WritesWhatIsRead()
    with caplog.at_level(logging.INFO):
        model = export(exportable(module), precision="float32")
    assert "writes into a tensor that something else may read" in caplog.text
    x = torch.randn(3, 5, 8)
    np.testing.assert_array_equal(answers(model, x), module(x))


def test_a_module_whose_sizes_depend_on_data_has_its_numbers() -> None:
    module = DependsOnData()
    model = export(exportable(module), precision="float32")
    x = torch.randn(3, 5, 8)
    np.testing.assert_allclose(answers(model, x), module(x), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "half"])
@pytest.mark.parametrize("component", ACE_STEP_V1.layout.components)
def test_every_component_becomes_the_graph_that_torch_makes_of_it(
    component: str,
    precision: Precision,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        ours = export(ACE_STEP_V1.exportable(component, tiny_base), precision=precision)
    assert AGAIN not in caplog.text
    as_torch_does(monkeypatch)
    whole = export(ACE_STEP_V1.exportable(component, tiny_base), precision=precision)
    assert operators(ours) == operators(whole) and weights(ours) == weights(whole)
