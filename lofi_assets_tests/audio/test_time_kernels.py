"""Convolutions over time of windows that overlap, against torch's own convolution of each window."""

import pytest
import torch

from lofi_assets.audio.time_kernels import BLOCK, HELD, largest_over_bands, time_kernel

LENGTH, BANDS, FILTERS = 50, 6, 5


def _by_torch(kernel: torch.Tensor, bias: torch.Tensor, image: torch.Tensor, starts: list[int]) -> torch.Tensor:
    taps = kernel.shape[1]
    before = (taps - 1) // 2
    windows = torch.stack([image[start : start + LENGTH] for start in starts])[:, None]
    padded = torch.nn.functional.pad(windows, (0, 0, before, taps - 1 - before))
    return torch.nn.functional.conv2d(padded, kernel[:, None, :, None], bias).amax(3)


@pytest.mark.parametrize("taps", [1, 2, 31, 32])
@pytest.mark.parametrize(
    ("step", "count"),
    [(7, HELD + 3), (BLOCK, 4), (LENGTH // 2, 5), (LENGTH // 2 + 1, 4), (LENGTH, 3), (1, 1)],
    ids=["several groups", "whole blocks", "half", "just more than half", "apart", "one window"],
)
def test_each_window_is_convolved_as_if_it_were_alone(taps: int, step: int, count: int) -> None:
    torch.manual_seed(0)
    kernel, bias = torch.randn(FILTERS, taps), torch.randn(FILTERS)
    starts = [3 + step * index for index in range(count)]
    image = torch.randn(starts[-1] + LENGTH + 2, BANDS)  # frames before the first window, and after the last
    found = largest_over_bands(time_kernel(kernel, bias), image, starts, LENGTH)
    assert found.shape == (count, FILTERS, LENGTH)
    torch.testing.assert_close(found, _by_torch(kernel, bias, image, starts), atol=1e-4, rtol=1e-4)
