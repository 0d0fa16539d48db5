"""The plan of a run before it starts: does it fit, how long, how much disk, and what to change, with the arithmetic.

What belongs here: from sizes and settings to a `Plan`. What does not: the memory formulas (`memory`), its text
(`text`), where a profile's numbers come from (`profile_plan`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from lofi_assets.backbones.features import LatentShape
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.planning.calibration import Calibration
from lofi_assets.training.planning.cards import Card, launch_floor
from lofi_assets.training.planning.disk import RunDisk
from lofi_assets.training.planning.memory import (
    Choices,
    Memory,
    Term,
    Workload,
    device_memory,
    host_memory,
    step_operations,
    step_traffic,
)

UTILISATION = 0.3
"""Assumed share of the data sheet's throughput that a step reaches; public ACE-Step v1 trainers report 0.1 to 0.3."""
CROP_GRID = 64
"""Crops are offered in multiples of this many frames."""
SHORTEST_CROP = 256
WORTHWHILE = 0.99
"""A change that leaves more than this share of the memory is not offered."""


@dataclass(frozen=True)
class Remedy:
    """A change, on top of those before it, and what the plan then comes to."""

    change: str
    cost: str
    total: float


@dataclass(frozen=True)
class _Offer:
    """A change of the settings that takes less memory."""

    change: str
    cost: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a run takes."""

    size: ModelSize
    choices: Choices
    work: Workload
    settings: TrainingSettings
    card: Card
    memory: Memory
    host: tuple[Term, ...]
    disk: tuple[Term, ...]
    operations: float
    """Of one step of one process."""
    hours: float | None
    """In which the steps are wanted."""
    architecture: str = ""
    calibrations: tuple[Calibration, ...] = ()
    """What runs on this card measured, the latest first."""
    free_disk: float | None = None
    """Bytes; None where nobody looked."""

    @property
    def fits(self) -> bool | None:
        """Whether it fits the card, None where the card's memory is unknown."""
        return None if self.card.memory is None else self.memory.total <= self.card.memory

    @property
    def disk_needed(self) -> float:
        """Bytes that are not there yet."""
        there = ("feature cache",) if self.work.cached else ()
        return sum(term.bytes for term in self.disk if term.part not in there)

    @property
    def disk_fits(self) -> bool | None:
        """Whether the free disk is enough, None where nobody looked."""
        return None if self.free_disk is None else self.disk_needed <= self.free_disk

    @property
    def floor_seconds(self) -> float:
        """What the host takes to start the kernels of a step; 0 for a CPU."""
        return launch_floor(self.size, passes=self.choices.accumulate) if self.card.is_gpu else 0.0

    @property
    def assumed_seconds(self) -> float | None:
        """Per step, at the assumed utilisation or the higher floor; None where nobody knows the card's speed."""
        if self.card.tflops is None:
            return None
        computed = self.operations / (self.card.tflops * 1e12 * UTILISATION)
        return max(computed, self.floor_seconds, self.traffic_seconds)

    @property
    def traffic_seconds(self) -> float:
        """What the card's memory takes to hand out the weights of a step; 0 where nobody says its bandwidth."""
        return step_traffic(self.size, self.choices) / (self.card.bandwidth * 1e9) if self.card.bandwidth else 0.0

    @property
    def calibration(self) -> Calibration | None:
        """What a run measured whose steps compute what these will."""
        alike = (
            found
            for found in self.calibrations
            if found.of_step_like(architecture=self.architecture, layers=self.size.layers, choices=self.choices)
        )
        return next(alike, None)

    @property
    def seconds_per_step(self) -> float | None:
        """As a run on this card measured it, for items as long as this run's; else as assumed.

        Measured time grows with the operations, and does not fall below the launch floor.
        """
        found = self.calibration
        if found is None:
            return self.assumed_seconds
        then = replace(self.work, frames=round(found.frames))
        ratio = self.typical_operations / step_operations(self.size, replace(self.choices, crop_frames=None), then)
        return max(found.seconds * ratio, min(self.floor_seconds, found.seconds))

    @property
    def typical_operations(self) -> float:
        """Of a step whose items have the mean length of a track."""
        usual = replace(self.work, frames=min(self.work.frames, self.work.mean_frames or self.work.frames))
        return step_operations(self.size, self.choices, usual)


def make_plan(
    size: ModelSize,
    settings: TrainingSettings,
    work: Workload,
    card: Card,
    *,
    hours: float | None = None,
    architecture: str = "",
    calibrations: Sequence[Calibration] = (),
    free_disk: float | None = None,
) -> Plan:
    """The plan of a run with these settings, on this card."""
    choices = Choices.of(settings)
    return Plan(
        size=size,
        choices=choices,
        work=work,
        settings=settings,
        card=card,
        memory=device_memory(size, choices, work, on_gpu=card.is_gpu),
        host=host_memory(size, choices, on_gpu=card.is_gpu),
        disk=_disk(size, work, settings),
        operations=step_operations(size, choices, work),
        hours=hours,
        architecture=architecture,
        calibrations=tuple(calibrations),
        free_disk=free_disk,
    )


def remedies(plan: Plan) -> list[Remedy]:
    """The cheapest changes that together make the plan fit, each on top of those before it; all that help if none do.

    What does not lower the peak is left out. A lower rank is not among them: the constitution fixes r = 256.
    """
    choices, total, found, offers = plan.choices, plan.memory.total, [], _candidates(plan)
    while plan.card.memory is None or total > plan.card.memory:
        for offer in offers:
            changed = replace(choices, **offer.fields)
            lower = device_memory(plan.size, changed, plan.work, on_gpu=plan.card.is_gpu).total
            if lower < WORTHWHILE * total:
                break
        else:
            break
        offers.remove(offer)
        choices, total = changed, lower
        found.append(Remedy(offer.change, offer.cost, total))
    return found


def _candidates(plan: Plan) -> list[_Offer]:
    """Everything that can be changed, cheapest first."""
    now, offers = plan.choices, []
    if now.cuda_graphs:
        offers.append(_Offer("cuda_graphs: false", "slower where launching is, same gradients", {"cuda_graphs": False}))
    if not now.gradient_checkpointing:
        fields: dict[str, Any] = {"gradient_checkpointing": True}
        offers.append(_Offer("gradient_checkpointing: true", "about a third more time, same gradients", fields))
    if now.batch_size > 1:
        passes = now.batch_size * now.accumulate
        fields = {"batch_size": 1, "accumulate": passes}
        offers.append(_Offer(f"batch_size: 1, accumulate: {passes}", "a little more time, same gradient", fields))
    if now.preview_count:
        offers.append(_Offer("preview_count: 0", "nothing to hear while it trains", {"preview_count": 0}))
    frames = plan.work.step_frames(now)
    for crop in (c // CROP_GRID * CROP_GRID for c in (frames * 3 // 4, frames // 2, frames // 4)):
        if crop >= SHORTEST_CROP:
            seconds = crop / plan.size.latents.frames_per_second
            cost = f"a step sees at most {seconds:.0f} s of a track, a random part each time"
            offers.append(_Offer(f"crop_frames: {crop}", cost, {"crop_frames": crop}))
    if now.optimizer == "adamw":
        offers.append(_Offer("optimizer: adamw_8bit", "moments in 8 bits; other weights", {"optimizer": "adamw_8bit"}))
    for kind in {"none": ("int8", "nf4"), "int8": ("nf4",), "nf4": ()}[now.base_quantization]:
        cost = "the adapter is trained on a rounded base; slower steps"
        offers.append(_Offer(f"base_quantization: {kind}", cost, {"base_quantization": kind}))
    if now.quantized_parts == "attention" and "feed-forward" in plan.size.parts:
        cost = "the feed-forward layers are rounded too"
        offers.append(_Offer("quantized_parts: blocks", cost, {"quantized_parts": "blocks"}))
    return offers


def _disk(size: ModelSize, work: Workload, settings: TrainingSettings) -> tuple[Term, ...]:
    run = RunDisk(size, settings)
    each, texts = _latent_bytes_per_minute(size.latents), size.cached_conditions(work.tokens)
    prompts = work.tracks * settings.prompt_variants
    cache = Term(
        "feature cache",
        work.minutes * each + prompts * texts.bytes,
        f"{work.minutes:.0f} min x {each / 1e6:.3f} MB + {prompts} prompts x {texts.arithmetic}",
    )
    download = (Term("base model", size.download_bytes, "to be downloaded"),) if size.download_bytes else ()
    return (*download, run.checkpoints, run.states, cache, run.logs)


def _latent_bytes_per_minute(latents: LatentShape) -> float:
    """Of the feature cache, which holds float32."""
    return 60 * latents.frames_per_second * 4 * prod(size for size in latents.shape if size is not None)
