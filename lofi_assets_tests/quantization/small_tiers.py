"""Four tiers of models that are made in milliseconds: chains of linear layers with the components' names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.quantization.components import write_cpu_profile
from lofi_assets.quantization.graph import save
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.linear_weights import store_rest_as_half
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.tier_manifest import TierName

LAYOUT = ACE_STEP_V1.layout
WIDTH = 64
LAYERS = {
    "text_encoder": ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.0.SelfAttention.k"],
    "condition_encoder": ["speaker_embedder", "lyric_encoder.encoders.0.self_attn.linear_q", "lyric_proj"],
    "transformer": ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v", "t_block.1"],
    "dcae_decoder": ["up_blocks.0.attn.to_q", "conv_out"],
    "vocoder": ["backbone.pwconv1", "head.conv_post"],
}


def component_model(component: str, *, half: bool = False) -> onnx.ModelProto:
    """A chain of linear layers with the component's names, and one reduction that 17 and 18 write differently."""
    rng = np.random.default_rng(1)
    kind, element = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
    nodes, constants, value = [], [], "x"
    if half:
        nodes.append(helper.make_node("Cast", ["x"], ["x_half"], "narrow", to=element))
        value = "x_half"
    for layer in LAYERS[component]:
        weight = rng.standard_normal((WIDTH, WIDTH)).astype(kind)
        constants.append(numpy_helper.from_array(weight, f"{layer}.weight"))
        nodes.append(helper.make_node("MatMul", [value, f"{layer}.weight"], [f"{layer}_out"], layer))
        value = f"{layer}_out"
    constants.append(numpy_helper.from_array(np.array([-1], np.int64), "axes"))
    nodes.append(helper.make_node("ReduceMean", [value, "axes"], ["mean" if half else "y"], "mean"))
    if half:
        nodes.append(helper.make_node("Cast", ["mean"], ["y"], "widen", to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        component,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", WIDTH))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def everything(module: str) -> bool:
    return True


def body(module: str) -> bool:
    return not module.startswith("t_block")


def int8_model(component: str) -> onnx.ModelProto:
    if component in ("dcae_decoder", "vocoder"):
        return lower_to_17(component_model(component, half=True))
    model = lower_to_17(component_model(component))
    quantize_int8(model, wanted=body)
    store_rest_as_half(model)
    return model


def int4_model(component: str) -> onnx.ModelProto:
    model = raise_from_18(component_model(component, half=True))
    if component == "transformer":
        quantize_int4(model, wanted=body)
    elif component not in ("dcae_decoder", "vocoder"):
        quantize_int8(model, wanted=everything)
    return model


MAKERS: dict[TierName, Callable[[str], onnx.ModelProto]] = {
    "fp32": component_model,
    "fp16": lambda component: component_model(component, half=True),
    "int8": int8_model,
    "int4": int4_model,
}


def write_small_tiers(root: Path) -> None:
    """All four tiers of small models, each as its recipe makes it."""
    for tier, make in MAKERS.items():
        for component in LAYOUT.components:
            save(make(component), root / tier / f"{component}.onnx", weights_beside=tier == "int8")
    write_cpu_profile(root / "int8" / "transformer.onnx", root / "int8" / "transformer.cpu.onnx")
