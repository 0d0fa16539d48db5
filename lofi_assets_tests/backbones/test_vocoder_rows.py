"""The vocoder's head in rows is the head of published operators."""

from collections.abc import Sequence

import pytest
import torch

from lofi_assets.backbones.ace_step_v1 import vocoder, vocoder_rows
from lofi_assets.backbones.ace_step_v1.vocoder import HiFiGANGenerator

Dilations = Sequence[Sequence[int]]


def head(
    *,
    rates: Sequence[int] = (4, 2),
    kernels: Sequence[int] = (8, 4),
    taps: Sequence[int] = (3,),
    dilations: Dilations = ((1,),),
    post: int = 13,
) -> HiFiGANGenerator:
    """A small head whose kernels let sound through, with biases that are heard too."""
    torch.manual_seed(0)
    made = HiFiGANGenerator(
        inputs=6,
        initial=16,
        rates=rates,
        kernels=kernels,
        residual_kernels=taps,
        residual_dilations=dilations,
        pre_kernel=7,
        post_kernel=post,
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 if name.endswith("bias") else parameter * 20)
    return made


@pytest.mark.parametrize("stretch", [1, 64, 2**19])
@pytest.mark.parametrize("frames", [1, 2, 37])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"taps": (3, 3), "dilations": ((1, 3, 5), (1,))},
        {"taps": (1,), "post": 1},
        {"rates": (3, 5), "kernels": (9, 5)},
        {"kernels": (10, 2)},
    ],
    ids=["the demo's", "two stacks with dilations", "one tap", "three frames and one", "a kernel of no whole frames"],
)
def test_rows_are_the_published_operators(
    sizes: dict[str, Sequence[int]], frames: int, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocoder_rows, "STRETCH", stretch)
    made, features = head(**sizes), torch.randn(2, 6, frames)  # type: ignore[arg-type]
    published = made(features).detach()
    assert published.std() > 0.005
    with torch.no_grad():
        found = made(features)
    assert found.shape == published.shape
    torch.testing.assert_close(found, published, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("taps", "in_rows"), [((3,), True), ((3, 7, 11, 13), False)])
def test_rows_are_for_few_taps(taps: Sequence[int], in_rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(vocoder, "waveform", lambda head, features: asked.append(features))
    with torch.no_grad():
        head(taps=taps, dilations=((1,),) * len(taps))(torch.randn(1, 6, 5))
    assert bool(asked) == in_rows


def test_half_precision_and_gradients_keep_the_published_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocoder, "waveform", lambda head, features: pytest.fail("in rows"))
    made, features = head(), torch.randn(1, 6, 5)
    made(features).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    with torch.no_grad():
        assert made.bfloat16()(features.bfloat16()).dtype == torch.bfloat16


def test_an_exported_graph_keeps_the_published_operators() -> None:
    with torch.no_grad():
        graph = str(torch.export.export(head(), (torch.randn(1, 6, 9),)).graph)
    assert "conv_transpose1d" in graph and "addmm" not in graph
