"""What is recorded and replayed, with a recorder that runs the work: no GPU is needed for the order of things."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lofi_assets.backbones import cuda_graphs
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.cuda_graphs import Replayed, Work
from lofi_assets.backbones.training import Item
from lofi_assets_tests.backbones.kernel_counts import model_of

CUDA = torch.device("cuda")


class Recorder:
    """Keeps what was recorded; a replay runs it, on the memory that it was recorded with, into one tensor."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, work: Work) -> Work:
        self.recorded += 1
        kept: list[Tensor] = []

        def replay() -> Tensor:
            result = work()
            if not kept:
                kept.append(result.clone())
            return kept[0].copy_(result)

        return replay


def test_the_second_call_of_a_size_is_recorded_and_later_ones_are_replayed_on_its_memory() -> None:
    recorder, calls = Recorder(), list[int]()

    def double(x: Tensor, y: Tensor | None) -> Tensor:
        calls.append(x.data_ptr())
        return 2 * x if y is None else 2 * x + y

    replayed = Replayed(double, recorder.record)
    results = [replayed({"x": torch.full((3,), float(value)), "y": None}) for value in range(4)]
    assert [result.tolist() for result in results] == [[2.0 * value] * 3 for value in range(4)]
    assert recorder.recorded == 1 and len(set(calls[1:])) == 1
    for size in (4, 5):  # sizes of their own, each plain at first
        assert replayed({"x": torch.ones(size), "y": torch.ones(size)}).tolist() == [3.0] * size
    assert recorder.recorded == 1
    assert replayed({"x": torch.ones(4), "y": torch.zeros(4)}).tolist() == [2.0] * 4
    assert recorder.recorded == 2
    assert replayed({"x": torch.ones(4, dtype=torch.float64), "y": torch.zeros(4)}).dtype == torch.float64
    assert recorder.recorded == 2


def test_beyond_the_largest_number_of_sizes_the_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST_SIZES", 1)
    recorder = Recorder()
    replayed = Replayed(lambda x: x + 1, recorder.record)
    for size in (1, 2, 1, 2, 2, 1):
        assert replayed({"x": torch.zeros(size)}).tolist() == [1.0] * size
    assert recorder.recorded == 1


class OnTheDevice(TorchDispatchMode):
    """Refuses what a recorded pass must not do: bring a value from the host. Fake tensors refuse to be read there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        hosted = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        assert not hosted, f"{function} reads {hosted} on the host"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_pass_over_the_transformer_works_on_the_device_alone(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tensors that only say where they are. The backward pass, which needs a GPU even so, brings none of its own."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    items = [_item(frames, tokens) for frames, tokens in ((24, 3), (17, 5))]
    model = model_of(layers=2, dtype=dtype)
    tensors = Objective(model, dtype, torch.device("cpu"), stepped=True).tensors(items)
    with FakeTensorMode():
        _to_cuda(model)
        there = {name: _on_cuda(tensor) for name, tensor in tensors.items() if tensor is not None}
        with OnTheDevice():
            losses = Objective(model, dtype, CUDA).losses_of(there)
    assert losses.shape == (2,) and losses.requires_grad and losses.device.type == "cuda"


@pytest.mark.parametrize("work", [lambda x: x * torch.tensor([-1.0, 1.0]).to(x.device), lambda x: x[x > 0], float])
def test_a_value_that_crosses_between_host_and_device_is_seen(work: Callable[[Tensor], object]) -> None:
    seen = (AssertionError, DataDependentOutputException, DynamicOutputShapeException)
    with FakeTensorMode(), pytest.raises(seen), OnTheDevice():
        work(torch.ones(2, device="cuda")[0] if work is float else torch.ones(2, device="cuda"))


def _on_cuda(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def _to_cuda(model: torch.nn.Module) -> None:
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fake = torch.nn.Parameter(_on_cuda(parameter), requires_grad=parameter.requires_grad)
            module.register_parameter(name, fake)


def _item(frames: int, tokens: int) -> Item:
    random = torch.Generator().manual_seed(frames)
    latents, noise = (torch.randn(8, 16, frames, generator=random) for _ in range(2))
    ids = torch.ones(tokens, dtype=torch.long)
    conditions = {"text": torch.randn(tokens, 12), "lyric_ids": ids, "lyric_mask": ids, "speaker": torch.zeros(8)}
    return Item("song", latents, noise, 0.5, conditions)
