"""The plan of a run for people, with its arithmetic.

What belongs here: words and their layout. What does not: what a run takes (`plan`).
"""

from dataclasses import replace

from lofi_assets.training.planning.calibration import STEPS
from lofi_assets.training.planning.cards import Card
from lofi_assets.training.planning.memory import GB, Term, device_memory, step_operations
from lofi_assets.training.planning.plan import UTILISATION, Plan, remedies
from lofi_assets.wording import amount


def plan_text(plan: Plan) -> str:
    """The plan for people, with its arithmetic."""
    where = plan.card.name if plan.card.is_gpu else f"{plan.card.name} (memory of the host)"
    lines = [
        _model_line(plan),
        _work_line(plan),
        "1 GB = 10^9 bytes. The formulas: lofi_assets/training/planning/memory.py",
        "",
        f"Memory of {where}",
        *_card_lines(plan.card),
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
        _total(sum(term.bytes for term in plan.disk)) + _disk_verdict(plan),
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


def _card_lines(card: Card) -> list[str]:
    lines = []
    if card.desktop:
        lines.append(f"  {amount(card.desktop)} of it assumed to be taken by the desktop; --headless plans without")
    if card.unknown:
        lines.append("  not in the table of cards: its speed is unknown; --card NAME or --tflops says it")
    if not card.bfloat16:
        lines.append("  it has no bfloat16: training.precision '32', or another card")
    return lines


def _disk_verdict(plan: Plan) -> str:
    if plan.free_disk is None:
        return ""
    left = plan.free_disk - plan.disk_needed
    of = f"   {amount(plan.disk_needed)} still to be written, {amount(plan.free_disk)} free: "
    return of + (f"enough, {amount(left)} to spare" if left >= 0 else f"not enough, {amount(-left)} short")


def _time(plan: Plan) -> list[str]:
    tera, steps = plan.operations / 1e12, plan.settings.max_steps
    items = plan.choices.batch_size * plan.choices.accumulate
    each = f"{items} x the longest track" if items > 1 else "the longest track"
    lines = ["Time", f"  {tera:.3g} TFLOP per step of {each}, validation and checkpoints not counted"]
    lines += _speed(plan)
    if seconds := plan.seconds_per_step:
        lines.append(
            f"  {seconds:.2f} s per step, {3600 / seconds:,.0f} steps per hour, {steps:,} steps in "
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


def _speed(plan: Plan) -> list[str]:
    """Where the time of a step is from."""
    card, found = plan.card, plan.calibration
    lines = []
    if card.tflops:
        lines.append(f"  {card.name}: {card.tflops:g} TFLOP/s ({card.source}), {UTILISATION:.0%} of it assumed")
    if card.is_gpu:
        lines.append(f"  launch floor {plan.floor_seconds:.2f} s: kernels of a step x what the host takes to start one")
    if card.bandwidth:
        lines.append(f"  bandwidth floor {plan.traffic_seconds:.2f} s: {card.bandwidth:g} GB/s for weights and moments")
    if found:
        lines.append(
            f"  measured on {found.card}: {found.seconds:.3g} s per step of {found.frames:.0f} frames; that counts, "
            "scaled to the mean length of a track"
        )
    elif plan.assumed_seconds is None:
        lines.append(f"  {card.name}: nobody has measured it yet; the first {STEPS} steps of a run do, into its log")
    return lines
