"""What the floors of `bundle.parity` tell apart, on the tiny base: honest tiers lie above them, other models below.

The base stands for the merged model. Another strength of the adapter is the base with some of a LoRA taken off that
moves its outputs as far as the demo's moves the demo's (`adapter_effect` about 1). Decision 036 has the demo's numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.quantization.merge import merge_lora
from lofi_assets.quantization.quantized_tiers import VARIANTS
from lofi_assets.release.bundle_parity import FLOORS_DB, difference, torch_clip
from lofi_assets.release.bundle_runs import CLIP, Clip
from lofi_assets.release.deep_clips import played

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tiny_tiers")]
ASKED, GUIDANCE = replace(CLIP, lyrics=""), 3.0
SPREAD = 0.1
"""Of the LoRA's B, its A being of 1: as strong as the demo's."""
Audio = NDArray[np.float32]


@pytest.fixture(scope="module")
def heard(tiny_base: Path, tiny_tiers: Path) -> dict[str, Audio]:
    """The clip by torch, and by each way to run a tier."""
    found = {"torch": torch_clip(ACE_STEP_V1, tiny_base, clip=ASKED, guidance_scale=GUIDANCE)}
    for name in VARIANTS:
        found[name] = played(tiny_tiers, name, ASKED, backbone=ACE_STEP_V1, guidance_scale=GUIDANCE)
    return found


def decibels(wanted: Audio, found: Audio) -> float:
    told = difference(wanted, found)["audio_snr_db"]
    assert told is not None
    return told


@pytest.fixture(scope="module")
def without(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[float], Audio]]:
    """Torch's clip of the model with a share of the adapter taken off."""
    root = tmp_path_factory.mktemp("without")

    def clip(share: float) -> Audio:
        torch.manual_seed(5)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        model = get_peft_model(ACE_STEP_V1.mergeable(tiny_base), LoraConfig(r=4, lora_alpha=4, target_modules=targets))
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data.normal_(0.0, SPREAD if "lora_B" in name else 1.0)
            if "lora_B" in name:
                weight.data.mul_(-share)
        model.save_pretrained(str(root / "adapter"))
        report = merge_lora(tiny_base, root / "adapter", root / "merged", backbone=ACE_STEP_V1)
        assert report.adapter_effect == pytest.approx(1.4 * share, rel=0.25)
        return torch_clip(ACE_STEP_V1, root / "merged", clip=ASKED, guidance_scale=GUIDANCE)

    yield clip


def test_every_honest_variant_lies_above_its_floor(heard: dict[str, Audio]) -> None:
    for name in VARIANTS:
        assert decibels(heard["torch"], heard[name]) >= FLOORS_DB[name] + 2.0, name


@pytest.mark.parametrize(
    ("share", "told_by"),
    [(0.02, ("fp16",)), (0.15, ("fp16", "int8", "int8.cpu")), (1.0, VARIANTS)],
    ids=["adapter at 98 %", "adapter at 85 %", "the base alone"],
)
def test_another_strength_of_the_adapter_lies_below(
    heard: dict[str, Audio], without: Callable[[float], Audio], share: float, told_by: tuple[str, ...]
) -> None:
    wanted = without(share)
    for name in told_by:
        assert decibels(wanted, heard[name]) < FLOORS_DB[name] - 1.0, name


@pytest.mark.parametrize(
    ("asked", "guidance", "told_by"),
    [
        (ASKED, 3.3, ("fp16",)),
        (replace(ASKED, prompt="techno, 140 bpm, synth"), GUIDANCE, ("fp16", "int8", "int8.cpu")),
        (replace(ASKED, seed=ASKED.seed + 1), GUIDANCE, VARIANTS),
    ],
    ids=["guidance", "prompt", "seed"],
)
def test_another_way_of_asking_lies_below(
    tiny_base: Path, heard: dict[str, Audio], asked: Clip, guidance: float, told_by: tuple[str, ...]
) -> None:
    wanted = torch_clip(ACE_STEP_V1, tiny_base, clip=asked, guidance_scale=guidance)
    for name in told_by:
        assert decibels(wanted, heard[name]) < FLOORS_DB[name] - 1.0, name
