"""The plan of a run before it starts: does it fit, how long, how much disk, and what to change, with the arithmetic.

What belongs here: from sizes and settings to a `Plan`, and its text. What does not: the memory formulas (`memory`),
where a profile's numbers come from (`profile_plan`).
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from lofi_assets.backbones.features import LatentShape
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.training.checkpoints.state import BESIDE_KEPT, GENERATIONS
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.planning.memory import (
    GB,
    Choices,
    Memory,
    Term,
    Workload,
    device_memory,
    host_memory,
    state_bytes,
    step_operations,
)
from lofi_assets.wording import amount

ADAPTER_FILES = 2
"""Files of a checkpoint that hold the whole adapter in float32: PEFT and diffusers; ComfyUI's is a hard link."""
STATES_HELD = GENERATIONS + BESIDE_KEPT + 1
"""Resumable states on the disk at most: the last ones, those of the last checkpoints, and the one that is written."""
UTILISATION = 0.3
"""Assumed share of the data sheet's throughput that a step reaches; public ACE-Step v1 trainers report 0.1 to 0.3."""
CROP_GRID = 64
"""Crops are offered in multiples of this many frames."""
SHORTEST_CROP = 256
WORTHWHILE = 0.99
"""A change that leaves more than this share of the memory is not offered."""
PREVIEW_BYTES_PER_SECOND = 40_000
"""A preview is an MP3 at 320 kbit/s."""
LOG_BYTES_PER_STEP = 600
"""A line of the log and its TensorBoard events."""


@dataclass(frozen=True)
class Card:
    """What trains."""

    name: str
    memory: float | None
    """Bytes, None where nothing says."""
    tflops: float | None
    """Dense bfloat16 throughput by the data sheet, TFLOP/s; None for a CPU."""

    @property
    def is_gpu(self) -> bool:
        """Whether it has memory of its own."""
        return self.tflops is not None


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

    @property
    def fits(self) -> bool | None:
        """Whether it fits the card, None where the card's memory is unknown."""
        return None if self.card.memory is None else self.memory.total <= self.card.memory

    @property
    def seconds_per_step(self) -> float | None:
        """At the assumed utilisation; None for a CPU."""
        return None if self.card.tflops is None else self.operations / (self.card.tflops * 1e12 * UTILISATION)


def make_plan(
    size: ModelSize, settings: TrainingSettings, work: Workload, card: Card, *, hours: float | None = None
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
        disk=_disk(size, choices, work, settings),
        operations=step_operations(size, choices, work),
        hours=hours,
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
    return offers


def _disk(size: ModelSize, choices: Choices, work: Workload, settings: TrainingSettings) -> tuple[Term, ...]:
    state = state_bytes(size, choices)
    checkpoint = ADAPTER_FILES * 4.0 * size.adapter
    count = max(1, settings.max_steps // settings.checkpoint_interval)
    kept = min(count, settings.keep_best + 1)
    one = f"({ADAPTER_FILES} files x {size.adapter:,} x 4 B = {amount(checkpoint)})"
    each, texts = _latent_bytes_per_minute(size.latents), size.cached_conditions(work.tokens)
    clips = choices.preview_count * choices.preview_seconds * PREVIEW_BYTES_PER_SECOND * (count + 1)
    download = (Term("base model", size.download_bytes, "to be downloaded"),) if size.download_bytes else ()
    return (
        *download,
        Term(
            "checkpoints until judged",
            count * checkpoint,
            f"{count} x {one}; once they have their FAD, the best {settings.keep_best} and the latest stay: "
            f"{amount(kept * checkpoint)}",
        ),
        Term(
            "resumable state",
            STATES_HELD * state,
            f"{STATES_HELD} x {amount(state)}: the last {GENERATIONS}, those of the last {BESIDE_KEPT} checkpoints, "
            "and the one that is written",
        ),
        Term(
            "feature cache",
            work.minutes * each + work.tracks * texts.bytes,
            f"{work.minutes:.0f} min x {each / 1e6:.3f} MB + {work.tracks} prompts x {texts.arithmetic}",
        ),
        Term(
            "logs and previews",
            clips + settings.max_steps * LOG_BYTES_PER_STEP,
            f"{settings.max_steps:,} steps x {LOG_BYTES_PER_STEP} B + {choices.preview_count} previews x "
            f"{choices.preview_seconds:g} s x {count + 1}",
        ),
    )


def _latent_bytes_per_minute(latents: LatentShape) -> float:
    """Of the feature cache, which holds float32."""
    return 60 * latents.frames_per_second * 4 * prod(size for size in latents.shape if size is not None)


def plan_text(plan: Plan) -> str:
    """The plan for people, with its arithmetic."""
    where = plan.card.name if plan.card.is_gpu else f"{plan.card.name} (memory of the host)"
    lines = [
        _model_line(plan),
        _work_line(plan),
        "1 GB = 10^9 bytes. The formulas: lofi_assets/training/planning/memory.py",
        "",
        f"Memory of {where}",
        *_rows(plan.memory.stays),
        "  then the largest of:",
        *_rows(plan.memory.phases, marked=plan.memory.peak_phase),
        *_rows((plan.memory.margin,)),
        f"{_total(plan.memory.total)}   {_verdict(plan)}",
        "",
        *_advice(plan),
        "Memory of the host",
        *_rows(plan.host),
        _total(sum(term.bytes for term in plan.host)),
        "",
        "Disk",
        *_rows(plan.disk),
        _total(sum(term.bytes for term in plan.disk)),
        "",
        *_time(plan),
    ]
    return "\n".join(lines)


def does_not_fit(plan: Plan, *, free: float) -> str:
    """Why a run should not be started with `free` bytes left on its device, and what to change."""
    short = replace(plan, card=replace(plan.card, memory=free))
    return "\n".join(
        [
            f"{plan.card.name} has {free / GB:.1f} GB free, and this run takes {plan.memory.total / GB:.1f} GB.",
            *_advice(short),
            "`lofi train --plan` prints the arithmetic; --force starts all the same.",
        ]
    )


def _model_line(plan: Plan) -> str:
    sizes = "the published sizes, since the base is not on this machine yet" if plan.size.download_bytes else "the base"
    return (
        f"Model: {sizes}; {sum(plan.size.parts.values()):,} frozen parameters (what training does not read is not "
        f"loaded), adapter of {plan.size.adapter:,}"
    )


def _work_line(plan: Plan) -> str:
    work = plan.work
    seconds = work.frames / plan.size.latents.frames_per_second
    tokens = ", ".join(f"{kind} {count}" for kind, count in work.tokens.items())
    return (
        f"Data: longest track {work.frames} frames ({seconds:.0f} s), most tokens: {tokens}; {work.tracks} tracks, "
        f"{work.minutes:.0f} min ({work.source})"
    )


def _rows(terms: tuple[Term, ...], *, marked: Term | None = None) -> list[str]:
    return [
        f"{'> ' if term is marked else '  '}{term.part:32}{amount(term.bytes):>12}   {term.arithmetic}"
        for term in terms
    ]


def _total(count: float) -> str:
    return f"  {'total':32}{amount(count):>12}"


def _verdict(plan: Plan) -> str:
    if plan.card.memory is None:
        return "give --memory to compare"
    left = plan.card.memory - plan.memory.total
    of = f"of {plan.card.memory / GB:.1f} GB"
    return f"{of}: fits, {amount(left)} to spare" if left >= 0 else f"{of}: does not fit, {amount(-left)} short"


def _advice(plan: Plan) -> list[str]:
    if plan.fits is None:
        return []
    if plan.fits:
        faster = _without_checkpointing(plan)
        return [faster, ""] if faster else []
    offers = remedies(plan)
    enough = offers and plan.card.memory is not None and offers[-1].total <= plan.card.memory
    lines = ["To make it fit, cheapest first, each with those before it (profile, section training):"]
    lines += [f"  {offer.change:34}{offer.total / GB:7.3f} GB   {offer.cost}" for offer in offers]
    lines.append(f"  A lower rank is not offered: the constitution fixes r = 256 (this adapter: {plan.size.rank}).")
    if not enough:
        lines.append("  Even all of this does not fit: it takes a larger card, or parallel: fsdp over several.")
    return [*lines, ""]


def _without_checkpointing(plan: Plan) -> str | None:
    """That recomputing is not needed, where it is not."""
    if not plan.choices.gradient_checkpointing or plan.card.memory is None:
        return None
    choices = replace(plan.choices, gradient_checkpointing=False)
    total = device_memory(plan.size, choices, plan.work, on_gpu=plan.card.is_gpu).total
    if total > plan.card.memory:
        return None
    saved = 1 - step_operations(plan.size, choices, plan.work) / plan.operations
    return f"gradient_checkpointing: false fits too, at {amount(total)}, and saves {saved:.0%} of the operations"


def _time(plan: Plan) -> list[str]:
    tera, steps = plan.operations / 1e12, plan.settings.max_steps
    items = plan.choices.batch_size * plan.choices.accumulate
    each = f"{items} x the longest track" if items > 1 else "the longest track"
    lines = ["Time", f"  {tera:.3g} TFLOP per step of {each}, validation and checkpoints not counted"]
    seconds = plan.seconds_per_step
    if seconds and plan.card.tflops:
        lines.append(
            f"  {plan.card.name}: {plan.card.tflops:g} TFLOP/s by the data sheet, {UTILISATION:.0%} of it assumed: "
            f"{seconds:.2f} s per step, {3600 / seconds:,.0f} steps per hour, {steps:,} steps in "
            f"{steps * seconds / 3600:,.1f} h"
        )
    if plan.hours:
        wanted = steps / plan.hours
        speed = tera * wanted / 3600
        share = f", {speed / plan.card.tflops:.0%} of the card" if plan.card.tflops else ""
        lines.append(
            f"  asked for: {steps:,} steps in {plan.hours:g} h = {wanted:,.0f} steps/h = {speed:.3g} TFLOP/s{share}"
        )
    return lines
