"""What a training step launches, and that fewer kernels compute the same: budgets, adapters, convolutions, bfloat16."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1 import projections
from lofi_assets.backbones.ace_step_v1.blocks import PatchEmbed, _patches_as_product
from lofi_assets.backbones.ace_step_v1.convolution import Convolution
from lofi_assets.backbones.ace_step_v1.projections import project
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.verification.reference import _Folder, _Transformer
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.trainer import optimizer as optimizers
from lofi_assets_tests.backbones.kernel_counts import FRAMES, Kernels, loss_of, model_of, step_kernels

BUDGETS = {
    (torch.bfloat16, False): (260, 52),
    (torch.bfloat16, True): (360, 74),
    (torch.float32, False): (211, 3),
    (torch.float32, True): (291, 5),
}
"""Precision, recomputed -> most kernels and most copies of one block, forward and backward."""
BF16_EPS = 2.0**-8


@pytest.mark.parametrize(("dtype", "recomputed"), BUDGETS)
def test_a_block_launches_no_more_kernels_than_its_budget(dtype: torch.dtype, recomputed: bool) -> None:
    shallow, deep = (step_kernels(layers=layers, dtype=dtype, recomputed=recomputed) for layers in (2, 3))
    kernels, copies = BUDGETS[dtype, recomputed]
    assert sum((deep.names - shallow.names).values()) <= kernels, deep.names - shallow.names
    assert deep.copies - shallow.copies <= copies, deep.names - shallow.names
    assert not (deep.names - shallow.names)["convolution"]


def test_no_matrix_product_reads_rows_as_long_as_an_odd_track() -> None:
    with Kernels() as counted:
        loss_of(model_of(layers=2, dtype=torch.bfloat16)).backward()
    assert counted.leading and FRAMES not in counted.leading


def test_the_counter_sees_a_convolution_that_reads_an_odd_track_crosswise() -> None:
    with Kernels() as counted:
        torch.randn(64, FRAMES).t() @ torch.randn(64, 8)
        torch.zeros(3).double().clone()
    assert FRAMES in counted.leading and counted.copies == 2 and counted.names["randn"] == 2


def adapted(dtype: torch.dtype, **options: Any) -> nn.ModuleDict:
    """Three linear layers of one input with an adapter by peft, B not zero."""
    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {name: nn.Linear(24, width, dtype=dtype) for name, width in zip("qkv", (16, 16, 8), strict=True)}
    )
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=3, target_modules=["q", "k", "v"], **options), layers)
    for name, parameter in layers.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape) * 0.2
    return layers


def gradient_of(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad.clone()


def gradients(layers: nn.ModuleDict, outputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    loss = torch.stack([(o.float() * torch.randn(o.shape, generator=random)).sum() for o in outputs]).sum()
    layers.zero_grad()
    loss.backward()
    return {name: gradient_of(parameter) for name, parameter in layers.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"lora_dropout": 0.5}, {"use_rslora": True}], ids=str)
def test_layers_together_are_what_peft_computes_one_by_one(options: dict[str, Any]) -> None:
    layers, x = adapted(torch.float32, **options).eval(), torch.randn(2, 7, 24)
    apart = [layers[name](x) for name in "qkv"]
    expected = gradients(layers, apart)
    together = project(x, *(layers[name] for name in "qkv"))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(layers, together).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-5)


def test_a_float32_base_under_autocast_is_half_precision_as_by_peft() -> None:
    layers, x = adapted(torch.float32), torch.randn(2, 7, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        (together,), apart = project(x, layers["q"]), layers["q"](x)
    assert together.dtype == apart.dtype == torch.bfloat16
    torch.testing.assert_close(together, apart, atol=0.05, rtol=0.02)


def test_an_adapter_that_is_switched_off_or_merged_is_left_to_peft() -> None:
    layer: Any = adapted(torch.float32)["q"]
    x = torch.randn(1, 3, 24)
    with torch.no_grad():
        before = project(x, layer)[0]
        layer.merge()
        torch.testing.assert_close(project(x, layer)[0], before, atol=1e-5, rtol=1e-5)
        layer.unmerge()
        layer.enable_adapters(False)
        torch.testing.assert_close(project(x, layer)[0], layer.base_layer(x))
        assert (project(x, layer)[0] - before).abs().max() > 0.01


def test_in_half_precision_layers_together_are_nearer_to_the_truth_than_one_by_one() -> None:
    layers, x = adapted(torch.bfloat16), torch.randn(4, 50, 24).to(torch.bfloat16)
    errors = {"peft": 0.0, "ours": 0.0}
    with torch.no_grad():
        together = project(x, *(layers[name] for name in "qkv"))
        for name, ours in zip("qkv", together, strict=True):
            layer: Any = layers[name]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                theirs = layer(x)
            low = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
            base = layer.base_layer
            exact = F.linear(x.double(), base.weight.double() + 0.75 * low, base.bias.double())
            for side, found in (("peft", theirs), ("ours", ours)):
                errors[side] += float((found.double() - exact).square().sum())
    assert errors["ours"] < errors["peft"] < (BF16_EPS * 2) ** 2 * 4 * 50 * 40 * 4


@pytest.mark.parametrize("frozen", [True, False])
def test_a_convolution_is_torchs_with_its_gradients(frozen: bool) -> None:
    torch.manual_seed(0)
    for inputs, outputs, kernel, groups in ((12, 20, 1, 1), (12, 12, 3, 12), (12, 6, 3, 1)):
        ours = Convolution(inputs, outputs, kernel=kernel, groups=groups).requires_grad_(not frozen)
        x, weights = torch.randn(2, 9, inputs, requires_grad=True), torch.randn(2, 9, outputs)
        found: list[torch.Tensor] = []
        expected: list[torch.Tensor] = []
        for results, output in ((found, ours(x)), (expected, ours.conv(x.mT).mT)):
            x.grad = None
            ours.zero_grad()
            (output * weights).sum().backward()
            results += [output.detach(), gradient_of(x), *(gradient_of(p) for p in ours.parameters() if not frozen)]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_patches_in_bfloat16_are_those_of_float32_to_rounding() -> None:
    """At a size at which oneDNN's convolution is wrong on processors with AMX."""
    torch.manual_seed(0)
    embed, latents = PatchEmbed(8, 64, patch=(16, 1), mult=16), torch.randn(2, 8, 16, 61)
    wanted = embed(latents, mask=None)
    conv = embed.early_conv_layers[0]
    assert isinstance(conv, torch.nn.Conv2d)
    torch.testing.assert_close(_patches_as_product(latents, conv), conv(latents), atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = embed(latents, mask=None)
    rounded = embed.to(torch.bfloat16)(latents.to(torch.bfloat16), mask=None)
    for found in (mixed, rounded):
        assert float((found.float() - wanted).norm() / wanted.norm()) < 4 * BF16_EPS


def test_bfloat16_loss_and_gradient_are_those_of_float32_to_rounding() -> None:
    exact, rounded = model_of(layers=3, dtype=torch.float32), model_of(layers=3, dtype=torch.bfloat16)
    weights = dict(rounded.named_parameters())
    for name, parameter in exact.named_parameters():  # the same numbers in both
        parameter.data = weights[name].detach().float()
    losses = [loss_of(model) for model in (exact, rounded)]
    for loss in losses:
        loss.backward()
    assert abs(losses[1].item() / losses[0].item() - 1) < BF16_EPS
    flat = [
        torch.cat([gradient_of(p).flatten() for p in model.parameters() if p.requires_grad])
        for model in (exact, rounded)
    ]
    assert float((flat[0] - flat[1]).norm() / flat[0].norm()) < 8 * BF16_EPS


@torch.no_grad()
def test_bfloat16_agrees_with_upstreams_tensors_to_rounding(reference_dir: Path) -> None:
    reference = _Transformer(_Folder(reference_dir / "ace_step_v1"))
    wanted = reference.tensors["output.sample"]
    for parameter in reference.model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = reference.run(reference["hidden_states"].to(torch.bfloat16), reference["timestep"])
    error = float((found.sample.float() - wanted).square().mean().sqrt() / wanted.std())
    assert error < 4 * BF16_EPS
    for name in ("mert", "m-hubert"):
        loss = reference.tensors[f"output.proj_loss.{name}"]
        assert abs(float(found.projection_losses[name]) - float(loss)) < 4 * BF16_EPS


def test_names_on_the_disk_are_upstreams() -> None:
    names = ACEStepTransformer2DModel(num_layers=1, lyric_num_blocks=1, attention_head_dim=8).state_dict()
    kept = {name.rsplit(".", 1)[0] for name in names if ".ff." in name}
    assert kept == {f"transformer_blocks.0.ff.{part}.conv" for part in ("inverted_conv", "depth_conv", "point_conv")}


@pytest.mark.parametrize(("device", "fused"), [("cuda", True), ("cpu", None)])
def test_adamw_is_fused_on_a_gpu(monkeypatch: pytest.MonkeyPatch, device: str, fused: bool | None) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("torch.optim.AdamW", lambda trained, **options: asked.update(options))
    parameter: Any = SimpleNamespace(device=torch.device(device))
    optimizers.build_optimizer(TrainingSettings(), [parameter])
    assert asked["fused"] is fused and asked["lr"] == 1e-4 and asked["weight_decay"] == 1e-2


def test_plain_layers_go_through_their_own_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks on them are what an export's calibration listens to."""
    heard: list[torch.Tensor] = []
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda module, inputs, output: heard.append(output))
    assert project(torch.randn(1, 2, 4), layer)[0] is heard[0]
    assert projections._plain_adapter(layer) is None
