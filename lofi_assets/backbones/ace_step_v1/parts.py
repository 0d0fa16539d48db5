"""A function of a long signal computed over parts of it that overlap by what the function sees."""

from collections.abc import Callable
from fractions import Fraction

from torch import Tensor


def in_parts(
    function: Callable[[Tensor], Tensor], x: Tensor, *, part: int, reach: int, ratio: Fraction | int = 1
) -> Tensor:
    """`function(x)` for x (..., frames), computed over parts of its last dimension: equal to rounding.

    Frames that fit into one part are given to the function as they are, so that nothing is rounded differently.

    Args:
        function: local: each frame of its result comes from `reach` frames of `x` to each side of its place and none
            beyond. What it puts outside the ends (zeros, copies of the last frame) is the same at the ends of a part.
        part: frames of `x` that a part yields; a multiple of 1 / `ratio`.
        reach: frames of `x`, a multiple of 1 / `ratio`, so that parts begin where a frame of the result does.
        ratio: frames of the result for each frame of `x`.
    """
    frames = x.shape[-1]
    if frames <= part:
        return function(x)
    whole = None
    for start in range(0, frames, part):
        stop, first = min(start + part, frames), max(0, start - reach)
        made = function(x[..., first : min(frames, stop + reach)])
        made = made[..., int((start - first) * ratio) : int((stop - first) * ratio)]
        if whole is None:
            whole = made.new_empty((*made.shape[:-1], int(frames * ratio)))
        whole[..., int(start * ratio) : int(stop * ratio)] = made
    assert whole is not None
    return whole
