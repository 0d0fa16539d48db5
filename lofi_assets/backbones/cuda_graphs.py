"""One launch in place of thousands: a function of tensors, recorded as a CUDA graph for each size that comes again.

A pass of a large transformer launches thousands of kernels that take less time to run than to launch. A graph replays
the very kernels that were recorded, so that its results are those of the function, bit by bit.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Work = Callable[[], Tensor]
Record = Callable[[Work], Work]
Size = tuple[tuple[str, tuple[int, ...] | None, torch.dtype | None], ...]

MOST_SIZES = 64
"""Sizes that are recorded; beyond, the function is called."""


class CudaGraphs:
    """Records work on the current CUDA device. All graphs share one pool of memory: one is replayed at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        """`work` without doing it: each call of what is returned does it, and gives the same tensor each time."""
        torch.cuda.empty_cache()  # what was kept for the next call without a graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@dataclass(frozen=True)
class _Recorded:
    inputs: dict[str, Tensor]
    replay: Work


@dataclass
class Replayed:
    """`function` of tensors by name, some of them None; it may write to memory that outlives it, as gradients do.

    The first call with inputs of a size is a plain one, which compiles and chooses kernels; the second is recorded.
    The function must not move tensors between host and device, nor let values decide what it launches.
    """

    function: Callable[..., Tensor]
    record: Record
    seen: set[Size] = field(default_factory=set)
    graphs: dict[Size, _Recorded] = field(default_factory=dict)

    def __call__(self, tensors: Mapping[str, Tensor | None]) -> Tensor:
        """The function's result; the caller's own, no later call changes it."""
        size = _size(tensors)
        if size not in self.seen or (size not in self.graphs and len(self.graphs) == MOST_SIZES):
            self.seen.add(size)
            return self.function(**tensors)
        if size not in self.graphs:
            inputs = {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}
            absent = {name: None for name, tensor in tensors.items() if tensor is None}
            self.graphs[size] = _Recorded(inputs, self.record(lambda: self.function(**inputs, **absent)))
        recorded = self.graphs[size]
        for name, place in recorded.inputs.items():
            place.copy_(tensors[name])  # type: ignore[arg-type]
        return recorded.replay().clone()


def _size(tensors: Mapping[str, Tensor | None]) -> Size:
    return tuple(
        (name, None, None) if tensor is None else (name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in sorted(tensors.items())
    )
