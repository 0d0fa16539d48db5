"""An item has the output, the loss and the gradient that it has alone, whatever it is batched with."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from lofi_assets.backbones.ace_step_v1.conditions import conditions_of, without
from lofi_assets.backbones.ace_step_v1.flow_matching import training_schedule
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.backbones.ace_step_v1.objective import FRAME_STEP, Objective, draw_sigma
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.adapters import add_lora
from lofi_assets.training.trainer.batches import generator
from lofi_assets_tests.conftest import TARGETS
from lofi_assets_tests.training.fixtures import TrainingMaterial

SIGMAS = training_schedule().sigmas.tolist()
LENGTHS = (40, 25, 7, 33)
"""Frames, all different, and with different numbers of text and lyric tokens."""


class Trained:
    """An objective whose adapter does something, and its gradients."""

    def __init__(self, transformer: torch.nn.Module, *, dora: bool) -> None:
        lora = LoraSettings(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=dora)
        self.parameters = add_lora(transformer, lora, seed=0)
        for index, parameter in enumerate(self.parameters.values()):
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator(index))
        self.outputs: list[torch.Tensor] = []
        transformer.register_forward_hook(lambda module, inputs, output: self.outputs.append(output.sample.detach()))
        self.objective = Objective(transformer, torch.float32, torch.device("cpu"))

    def gradient(self, batches: list[list[Item]]) -> torch.Tensor:
        """Of the mean loss over all items, as one vector."""
        for parameter in self.parameters.values():
            parameter.grad = None
        for batch in batches:
            (self.objective.losses(batch).mean() / len(batches)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters.values()])


@pytest.fixture(params=[False, True], ids=["lora", "dora"])
def trained(training_material: TrainingMaterial, request: pytest.FixtureRequest) -> Trained:
    return Trained(load_transformer(training_material["base"] / TRANSFORMER), dora=request.param)


def items() -> list[Item]:
    made = []
    for index, length in enumerate(LENGTHS):
        random = generator("item", index)
        ids = torch.randint(1, 20, (3 * index + 1,), generator=random)
        conditions = conditions_of(
            torch.randn(9 - 2 * index, 32, generator=random), ids, torch.randn(512, generator=random)
        )
        latents, noise = torch.randn(2, 8, 16, length, generator=random)
        kept = without(conditions, {3: ["text"], 2: ["speaker"], 1: ["lyrics"]}.get(index, []))
        made.append(Item(f"t{index}", latents, noise, SIGMAS[150 + 200 * index], kept))
    return made


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("place", range(1, 4))
def test_a_padded_item_has_the_output_and_the_gradient_that_it_has_alone(trained: Trained, place: int) -> None:
    longest, padded = items()[0], items()[place]
    alone = trained.gradient([[padded]])
    company = trained.gradient([[longest]])
    together = trained.gradient([[longest, padded]])
    frames = padded.latents.shape[-1]
    assert relative(trained.outputs[2][1, ..., :frames], trained.outputs[0][0]) < 1e-5
    assert relative(trained.outputs[2][0], trained.outputs[1][0]) < 1e-5
    assert relative(2 * together - company, alone) < 1e-5


def test_a_batch_of_four_has_the_gradient_of_four_batches_of_one(trained: Trained) -> None:
    batched = trained.gradient([items()])
    single = trained.gradient([[item] for item in items()])
    assert relative(batched, single) < 1e-5


def test_what_lies_in_the_padding_has_no_part_in_the_loss(trained: Trained) -> None:
    batch = items()
    before = trained.objective.losses(batch)
    alone = torch.cat([trained.objective.losses([item]) for item in batch])
    assert before.shape == (4,) and torch.allclose(before, alone, rtol=1e-5)


def test_padding_to_a_few_sizes_for_a_compiler_changes_no_gradient(trained: Trained) -> None:
    expected = trained.gradient([items()])
    trained.objective = replace(trained.objective, stepped=True)
    assert relative(trained.gradient([items()]), expected) < 1e-5
    assert trained.outputs[-1].shape[-1] == FRAME_STEP


@pytest.mark.parametrize("density", ["logit_normal", "mode", "uniform"])
def test_a_share_of_noise_has_the_density_that_public_trainers_draw_from(
    density: Literal["logit_normal", "mode", "uniform"],
) -> None:
    """The function of diffusers."""
    from diffusers.training_utils import compute_density_for_timestep_sampling

    settings = TrainingSettings(timestep_density=density, logit_mean=0.3, logit_std=0.8, mode_scale=1.2)
    drawn = [draw_sigma(settings, generator("density", index)) for index in range(200)]
    shares = [
        compute_density_for_timestep_sampling(density, 1, 0.3, 0.8, 1.2, generator=generator("density", index))
        for index in range(200)
    ]
    table = training_schedule(shift=settings.shift).sigmas.tolist()
    assert drawn == [table[min(max(int(share * 1_000), 0), 999)] for share in shares]
    assert len(set(drawn)) > 100
