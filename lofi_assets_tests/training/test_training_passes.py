"""A run whose passes are recorded has the bits of one whose passes are not; what cannot be recorded is refused."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lofi_assets.backbones.cuda_graphs import Work
from lofi_assets.training.config import ConfigError, TrainingRun, TrainingSettings
from lofi_assets.training.distributed import Processes
from lofi_assets.training.trainer import loop
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.passes import Passes
from lofi_assets_tests.backbones.test_cuda_graphs import Recorder
from lofi_assets_tests.training.fixtures import MakeRun
from lofi_assets_tests.training.test_training_exactness import ITEM, Loss
from lofi_assets_tests.training.test_training_options import stop_after
from lofi_assets_tests.training.test_training_runs import digests, quiet


def recorded(run: TrainingRun) -> TrainingRun:
    """The same run, by its id too."""
    wanted = run.training.model_copy(update={"cuda_graphs": True})
    other = run.model_copy(update={"training": wanted})
    assert other.run_id == run.run_id
    return other


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """In place of CUDA graphs."""
    recorder = Recorder()

    class Recorded(Passes):
        of = partial(Passes.of, record=recorder.record)

    monkeypatch.setattr(loop, "Passes", Recorded)
    return recorder


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_recorded_run_killed_and_resumed_has_the_bits_of_one_that_is_not(
    make_run: MakeRun, recorder: Recorder, precision: str
) -> None:
    plain, replayed = (
        make_run(name, precision=precision, accumulate=2, crop_frames=12) for name in ("plain", "replayed")
    )
    train(plain, say=quiet)
    assert not recorder.recorded
    assert train(recorded(replayed), say=quiet, stop=stop_after(4)).interrupted
    assert recorder.recorded
    train(recorded(replayed), say=quiet)
    assert digests(replayed) == digests(plain) and digests(plain)


def test_a_replay_that_gives_other_gradients_is_found_before_the_first_step() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))

    def spoils(work: Work) -> Work:
        def replay() -> torch.Tensor:
            losses = work()
            assert parameter.grad is not None
            parameter.grad += 1e-6
            return losses

        return replay

    passes = passes_of(Tensors(parameter), parameter, record=spoils)
    with pytest.raises(ConfigError, match=r"gave other bits in 1 of 1 gradients, first in x.*cuda_graphs"):
        prove_exact(passes, [ITEM], {"x": parameter})


def test_gradients_stay_where_they_were_recorded() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    passes = passes_of(Tensors(parameter), parameter, record=Recorder().record)
    prove_exact(passes, [ITEM], {"x": parameter})
    place = parameter.grad
    assert place is not None and place.tolist() == [0.0] * 3
    passes([ITEM], last=False)
    losses, skipped = passes([ITEM], last=True)
    assert parameter.grad is place and place.tolist() == [4.0] * 3
    assert losses.tolist() == [3.0] and not losses.requires_grad and not skipped.any()
    passes.clear()
    assert parameter.grad is place and place.tolist() == [0.0] * 3


def test_what_cannot_be_recorded_is_refused() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ConfigError, match="cuda_graphs: Loss cannot be recorded"):
        passes_of(Loss(parameter), parameter)
    with pytest.raises(ConfigError, match="cuda_graphs needs a CUDA device, not cpu"):
        passes_of(Tensors(parameter), parameter)
    for other in ({"processes": 2}, {"ssl_weight": 1.0}, {"skip_share": 0.1}, {"base_quantization": "nf4"}):
        with pytest.raises(ValueError, match="cuda_graphs holds passes of one process"):
            TrainingSettings.model_validate({"cuda_graphs": True, **other})


def test_an_adapter_that_drops_inputs_is_not_recorded(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="cannot hold the masks of lora_dropout"):
        make_run("dropout", cuda_graphs=True, lora={"lora_dropout": 0.1})


class Tensors(Loss):
    """A loss that is a function of tensors."""

    def tensors(self, items: object) -> dict[str, torch.Tensor | None]:
        return {"ones": torch.ones(3), "mask": None}

    def losses_of(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return (self.parameter * tensors["ones"]).square().sum()[None]


def passes_of(objective: Loss, parameter: torch.nn.Parameter, record: Callable[[Work], Work] | None = None) -> Passes:
    return Passes.of(objective, [parameter], TrainingSettings(cuda_graphs=True), Processes(), record=record)
