"""Dropout of the adapter: masks that follow from seed and position, on while gradients are taken and then only."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.adapters import add_lora
from lofi_assets.training.trainer.batches import generator
from lofi_assets.training.trainer.dropout import GradientDropout, masked
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets_tests.conftest import TARGETS
from lofi_assets_tests.training.fixtures import MakeRun, TrainingMaterial
from lofi_assets_tests.training.test_training_exactness import passes_of
from lofi_assets_tests.training.test_training_objective import items

CPU = torch.device("cpu")
Gradients = Callable[..., torch.Tensor]
"""Of a pass whose first item is at a position, as one vector."""


@pytest.fixture
def gradients(training_material: TrainingMaterial) -> Gradients:
    def taken(position: int, *, share: float = 0.2, seed: int = 0, recomputed: bool = False) -> torch.Tensor:
        transformer = load_transformer(training_material["base"] / TRANSFORMER)
        lora = LoraSettings(r=4, lora_alpha=8, target_modules=TARGETS, lora_dropout=share)
        parameters = add_lora(transformer, lora, seed=0)
        for index, parameter in enumerate(parameters.values()):
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator(index))
        if recomputed:
            transformer.recompute_blocks()
        objective = masked(Objective(transformer, torch.float32, CPU), share=share, seed=seed)
        batch = [Item(**{**vars(item), "position": position + place}) for place, item in enumerate(items()[:2])]
        prove_exact(passes_of(objective, parameters.values()), batch, parameters)
        before = torch.random.get_rng_state()
        objective.losses(batch).mean().backward()
        assert torch.random.get_rng_state().equal(before), "the global generator is as it was"
        with torch.no_grad():
            plain = Objective(transformer, torch.float32, CPU).losses(batch)
            assert objective.losses(batch).equal(plain), "without gradients nothing is dropped"
        return torch.cat([parameter.grad.flatten() for parameter in parameters.values()])

    return taken


def test_masks_follow_from_seed_and_position_alone(gradients: Gradients) -> None:
    first = gradients(4)
    torch.rand(7)
    assert gradients(4).equal(first)
    assert gradients(4, recomputed=True).equal(first), "a block that is computed again has the same masks"
    others = (gradients(5), gradients(4, seed=1), gradients(4, share=0.0))
    assert not any(torch.allclose(other, first, rtol=1e-2) for other in others)


def test_a_share_is_zeroed_and_the_mean_stays() -> None:
    x, dropout = torch.ones(20_000, requires_grad=True), GradientDropout(0.25)
    dropped = dropout(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.detach().mean()) == pytest.approx(1.0, abs=0.03)
    with torch.no_grad():
        assert dropout(x) is x


def test_none_is_the_run_of_before_and_some_is_another(make_run: MakeRun) -> None:
    plain, none, some = (make_run("a", lora=lora) for lora in ({}, {"lora_dropout": 0.0}, {"lora_dropout": 0.1}))
    assert plain.run_id == none.run_id != some.run_id


def test_a_dora_is_refused() -> None:
    with pytest.raises(ValidationError, match="use_dora takes no lora_dropout"):
        LoraSettings(target_modules=("to_q",), use_dora=True, lora_dropout=0.1)


def test_an_adapter_without_dropout_keeps_its_few_kernels(training_material: TrainingMaterial) -> None:
    transformer = load_transformer(training_material["base"] / TRANSFORMER)
    add_lora(transformer, LoraSettings(r=4, target_modules=TARGETS), seed=0)
    assert not any(isinstance(module, GradientDropout) for module in transformer.modules())
    objective = Objective(transformer, torch.float32, CPU)
    assert masked(objective, share=0.0, seed=TrainingSettings().seed) is objective
