"""The same bits twice: proven before the first step, refused by name, kept by what is compiled."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.objective import Objective as FlowObjective
from lofi_assets.backbones.ace_step_v1.transformer import _stretched
from lofi_assets.backbones.determinism import deterministic
from lofi_assets.backbones.training import Item, Objective
from lofi_assets.training.config import ConfigError, TrainingSettings
from lofi_assets.training.distributed import Processes
from lofi_assets.training.trainer import model as models
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.model import compile_blocks, compiles
from lofi_assets.training.trainer.passes import Passes
from lofi_assets_tests.backbones.kernel_counts import loss_of, model_of
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.test_training_options import stop_after
from lofi_assets_tests.training.test_training_runs import digests, quiet

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: exactness on CUDA is NOT run here")


@dataclass
class Loss:
    """An objective of one parameter."""

    parameter: torch.nn.Parameter
    noise: float = 0.0
    refuses: str = ""
    device: torch.device = CPU

    @property
    def model(self) -> Callable[..., Any]:
        return torch.nn.Identity()

    def losses(self, items: Sequence[Item]) -> torch.Tensor:
        if self.refuses:
            raise RuntimeError(self.refuses)
        return (self.parameter * (1 + self.noise * torch.rand(()))).square().sum()[None]


def passes_of(objective: Objective, parameters: Iterable[torch.nn.Parameter]) -> Passes:
    return Passes.of(objective, list(parameters), TrainingSettings(), Processes())


ITEM = Item("song", torch.zeros(1), torch.zeros(1), 0.5, {})


def test_a_pass_that_gives_the_same_bits_is_let_through_and_leaves_no_gradient() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    prove_exact(passes_of(Loss(parameter), [parameter]), [ITEM], {"x": parameter})
    assert parameter.grad is None


def test_gradients_that_differ_by_a_bit_are_named_before_the_first_step() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ConfigError, match="song gave other bits in 1 of 1 gradients, first in x"):
        prove_exact(passes_of(Loss(parameter, noise=1e-6), [parameter]), [ITEM], {"x": parameter})


def test_an_operation_without_a_deterministic_kernel_is_named() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    told = "upsample_linear1d_backward_out_cuda does not have a deterministic implementation, but you set ..."
    with pytest.raises(ConfigError, match="no deterministic kernel for upsample_linear1d_backward_out_cuda"):
        prove_exact(passes_of(Loss(parameter, refuses=told), [parameter]), [ITEM], {"x": parameter})
    with pytest.raises(RuntimeError, match="out of memory"):
        prove_exact(passes_of(Loss(parameter, refuses="CUDA out of memory"), [parameter]), [ITEM], {"x": parameter})


def test_a_gpu_is_held_to_it_as_a_cpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for device in (CPU, CUDA):
        with deterministic(device):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


@pytest.mark.parametrize(("frames", "count"), [(7, 20), (20, 7), (9, 9), (1, 4)])
def test_frames_are_stretched_as_interpolate_does(frames: int, count: int) -> None:
    x = torch.randn(frames, 5, requires_grad=True)
    found, expected = _stretched(x, count), F.interpolate(x.T[None], size=count, mode="linear")[0].T
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(count, 5)
    one, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_auto_leaves_the_id_of_a_run_alone_and_a_compiler_asked_for_does_not() -> None:
    auto, off, on = (TrainingSettings(compile=choice).identifying for choice in ("auto", False, True))
    assert auto == off == TrainingSettings().identifying and off["compile"] is False and on["compile"] is True


def test_auto_compiles_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: name == "triton")
    monkeypatch.setattr("shutil.which", lambda name: name == "gcc")
    assert compiles(TrainingSettings(), CUDA) and not compiles(TrainingSettings(), CPU)
    assert compiles(TrainingSettings(compile=True), CPU) and not compiles(TrainingSettings(compile=False), CUDA)
    assert not compiles(TrainingSettings(base_quantization="nf4"), CUDA)
    assert not compiles(TrainingSettings(parallel="fsdp", processes=2), CUDA)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not compiles(TrainingSettings(), CUDA)


# dynamo looks for a gradient on what it fakes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("eager", torch.bfloat16),
        pytest.param("aot_eager", torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("aot_eager", torch.float32, marks=pytest.mark.slow),
    ],
)
def test_blocks_compile_without_a_graph_break_over_three_lengths(backend: str, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    layers = 1 if backend == "eager" else 2
    plain, compiled = (model_of(layers=layers, dtype=dtype) for _ in range(2))
    compile_blocks(list(compiled.transformer_blocks), backend=backend)
    counters.clear()
    for frames, length in ((16, 11), (32, 25), (48, 41)):
        losses = [loss_of(model, frames=frames, length=length) for model in (plain, compiled)]
        for loss in losses:
            loss.backward()
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5 if dtype == torch.float32 else 1e-2)
    assert not counters["graph_break"], counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == layers * 3  # the first block asks for no gradient of its input
    gradients = [torch.cat([p.grad.flatten() for p in m.parameters() if p.requires_grad]) for m in (plain, compiled)]
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert (gradients[0] - gradients[1]).norm() < tolerance * gradients[0].norm()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_cuda_a_killed_and_resumed_run_gives_the_same_bits(make_run: MakeRun, compiled: bool, graphs: bool) -> None:
    settings: Settings = {"precision": "bf16-mixed", "compile": compiled, "cuda_graphs": graphs}
    runs = (make_run(name, **settings) for name in ("whole", "again", "stopped"))
    whole, again, stopped = (run.model_copy(update={"device": "cuda"}) for run in runs)
    train(whole, say=quiet)
    train(again, say=quiet)
    assert train(stopped, say=quiet, stop=stop_after(4)).interrupted
    train(stopped, say=quiet)
    assert digests(whole) == digests(again) == digests(stopped) and digests(whole)


@pytest.mark.gpu
@needs_gpu
def test_on_cuda_gradients_are_the_same_twice_on_a_context_of_800_tokens() -> None:
    model = model_of(layers=4, dtype=torch.bfloat16).cuda()
    conditions = conditions_of(torch.randn(256, 12), torch.ones(544, dtype=torch.long), torch.zeros(8))
    latents = torch.randn(8, 16, 1292)
    item = Item("long", latents, torch.randn(latents.shape), 0.5, conditions)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with deterministic(CUDA):
        prove_exact(passes_of(FlowObjective(model, torch.bfloat16, CUDA), parameters.values()), [item], parameters)
