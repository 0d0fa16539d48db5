"""The exporter's rules are asked where they can apply."""

from typing import Any

import onnx_ir as ir
import pytest
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import slice_split_rule

from lofi_assets.quantization.export import _faster

HALVES = """<ir_version: 8, opset_import: ["" : 18]>
halves (float[B, 6] x) => (float[B, 3] y)
<int64[1] zero = {0}, int64[1] three = {3}, int64[1] six = {6}, int64[1] last = {1}>
{
    root = Sqrt(x)
    first = Slice(root, zero, three, last)
    second = Slice(root, three, six, last)
    sum = Add(first, second)
    y = Relu(sum)
}"""


def simplify() -> None:
    rewriter.rewrite(ir.from_onnx_text(HALVES), [slice_split_rule])


def test_the_rule_for_pairs_of_slices_is_asked_at_slices_alone_and_is_itself_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def noted(model: Any, graph: Any, node: ir.Node, **options: Any) -> None:
        asked.append(node.op_type)

    monkeypatch.setattr(slice_split_rule, "try_rewrite", noted)
    with pytest.raises(ZeroDivisionError), _faster():
        simplify()
        raise ZeroDivisionError
    assert asked == ["Slice", "Slice"] and slice_split_rule.try_rewrite is noted
