"""1-d convolutions over time of (B, T, channels), the layout that the blocks' matrix products read.

torch's own convolution works on (B, channels, T): every block would turn its widest tensors around twice, and where T
is odd a convolution of one frame runs on matrix products whose rows are not aligned (44 % of a step on an H200).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = 3


class Convolution(nn.Module):
    """A convolution of one frame, or of three for each channel by itself, under the name `conv`."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, inputs) -> (B, T, outputs)."""
        conv: Any = self.conv
        if isinstance(conv, nn.Linear):  # what an export puts in place of a convolution of one frame
            return conv(x)  # type: ignore[no-any-return]
        if type(conv) is nn.Conv1d and conv.kernel_size == (1,):
            return F.linear(x, conv.weight.squeeze(-1), conv.bias)
        if type(conv) is nn.Conv1d and _of_neighbours(conv) and not torch.compiler.is_exporting():
            return _neighbours(x, conv)
        convolved: Tensor = conv(x.transpose(1, 2)).transpose(1, 2)
        return convolved


def _of_neighbours(conv: nn.Conv1d) -> bool:
    """Whether each channel is mixed with its own neighbours in time, and nothing else."""
    alone = conv.groups == conv.in_channels == conv.out_channels
    return alone and conv.kernel_size == (TAPS,) and conv.padding == (1,) and conv.bias is not None


def _neighbours(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """Depthwise convolution of x (B, T, C) by weights (C, 1, 3) and bias (C,), with zeros outside."""
    weight, bias = conv.weight, conv.bias
    assert bias is not None
    if torch.is_autocast_enabled(x.device.type):
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    convolved: Tensor = _Neighbours.apply(x, weight[:, 0].t().contiguous(), bias)
    return convolved


class _Neighbours(torch.autograd.Function):
    """x (B, T, C), taps (3, C) for the frame before, the frame and the one after, bias (C,).

    Written out because autograd, given the three slices, would make a tensor of zeros for each in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x if taps.requires_grad else None, taps)
        before, here, after = taps
        mixed = torch.addcmul(bias, x, here)
        mixed[:, 1:].addcmul_(x[:, :-1], before)
        mixed[:, :-1].addcmul_(x[:, 1:], after)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, taps = ctx.saved_tensors
        before, here, after = taps
        of_x = gradient * here
        of_x[:, :-1].addcmul_(gradient[:, 1:], before)
        of_x[:, 1:].addcmul_(gradient[:, :-1], after)
        of_taps = of_bias = None
        if ctx.needs_input_grad[1]:
            shifted = ((gradient[:, 1:], x[:, :-1]), (gradient, x), (gradient[:, :-1], x[:, 1:]))
            of_taps = torch.stack([(one * other).sum(dim=(0, 1)) for one, other in shifted])
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 1))
        return of_x, of_taps, of_bias
