"""The SSL losses: off unless asked for, on the frames that a step hears, and felt by the adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import TrackFeatures, TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.batches import Source, crop_target
from lofi_assets_tests.feature_material import Given

KEY = ".".join("a" * 32 for _ in range(4))
FRAMES = 40


@pytest.fixture
def base(tiny_base: Path) -> Path:
    return tiny_base


def a_source(**settings: Any) -> Source:
    """One track whose SSL targets count its frames."""
    random = torch.Generator().manual_seed(0)
    conditions = conditions_of(
        text=torch.randn(5, 32, generator=random),
        lyric_ids=torch.zeros(1, dtype=torch.long),
        speaker=torch.zeros(512),
    )
    counted = torch.arange(7.0 * FRAMES)[:, None]
    features = Given(
        latents=lambda _: torch.randn(8, 16, FRAMES, generator=torch.Generator().manual_seed(1)),
        conditions=lambda _: conditions,
        frames=lambda _: FRAMES,
        targets=lambda _: {"mert": counted.repeat(1, 32), "m-hubert": counted[::2].repeat(1, 24)},
    )
    return Source((TrackFeatures(track_id="one", key=KEY),), TrainingSettings(**settings), ACE_STEP_V1, features)


def an_objective(base: Path, *, weight: float, projectors: bool = True) -> tuple[Objective, list[torch.nn.Parameter]]:
    options = {"build_projectors": projectors}
    transformer = load_base(base, components=("transformer",), transformer_options=options).transformer
    lora = LoraSettings(r=4, lora_alpha=4, target_modules=("to_q", "to_k"))
    parameters = list(adapters.add_lora(transformer, lora, seed=0).values())
    return Objective(transformer, torch.float32, torch.device("cpu"), ssl_weight=weight), parameters


def losses(base: Path, items: list[Item], **options: Any) -> torch.Tensor:
    return an_objective(base, **options)[0].losses(items)


def test_the_losses_are_off_by_default_and_targets_are_not_read() -> None:
    assert not a_source().item(0).targets


def test_a_crop_hears_the_targets_of_its_own_frames() -> None:
    item = a_source(ssl_weight=1.0, crop_frames=10).item(3)
    whole = a_source().item(3).latents
    (start,) = (i for i in range(FRAMES) if whole[..., i : i + 10].equal(item.latents))
    mert, hubert = item.targets["mert"][:, 0], item.targets["m-hubert"][:, 0]
    assert len(mert) == 70 and len(hubert) == 35
    assert abs(float(mert[0]) - 7 * start) < 7 and abs(float(hubert[0]) - 7 * start) < 7


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_whole_track_has_all_its_targets(place: float) -> None:
    assert len(crop_target(torch.zeros(75, 4), share=1.0, place=place)) == 75


def test_the_weight_scales_what_the_projectors_say_and_zero_leaves_it_out(base: Path) -> None:
    item = a_source(ssl_weight=1.0).item(0)
    plain, half, full = (losses(base, [item], weight=weight) for weight in (0.0, 0.5, 1.0))
    assert bool(full - plain > 0.1)
    assert torch.allclose(half - plain, (full - plain) / 2, atol=1e-5)
    without_targets = a_source().item(0)
    assert losses(base, [without_targets], weight=1.0, projectors=False).equal(plain)


def test_a_batch_has_the_mean_of_its_items_losses(base: Path) -> None:
    items = [a_source(ssl_weight=1.0).item(position) for position in range(2)]
    together = losses(base, items, weight=1.0).mean()
    alone = torch.stack([losses(base, [item], weight=1.0).mean() for item in items]).mean()
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_adapter_feels_the_losses(base: Path) -> None:
    gradients = []
    for weight in (0.0, 1.0):
        objective, parameters = an_objective(base, weight=weight)
        objective.losses([a_source(ssl_weight=1.0).item(0)]).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert gradients[0].shape == gradients[1].shape and not torch.allclose(gradients[0], gradients[1], rtol=1e-3)


def test_without_projectors_targets_are_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="build_projectors"):
        losses(base, [a_source(ssl_weight=1.0).item(0)], weight=1.0, projectors=False)
