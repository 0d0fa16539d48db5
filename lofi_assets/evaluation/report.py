"""What people see first of the measured checkpoints: the best one's scores between the base, noise and the floor."""

from collections.abc import Mapping
from typing import Any

from lofi_assets.evaluation.measured import Marks
from lofi_assets.metrics.results import Evaluation
from lofi_assets.records import Checkpoint
from lofi_assets.wording import counted, named, rounded


def summary(chosen: Checkpoint | None, judged: Evaluation | None, marks: Marks | None, *, checkpoints: int) -> str:
    """What to look at.

    Args:
        judged: the evaluation of the chosen, best checkpoint.
        marks: the base and noise, measured in the same way; None before.
    """
    if chosen is None or judged is None:
        return f"No checkpoint has a FAD, of {counted(checkpoints, 'checkpoint')}: see below why."
    against = {"base": marks.base.fad.value, "noise": marks.noise.fad} if marks else {}
    against |= {"floor": judged.fad.floor}
    known = ", ".join(f"{name} {value:.4g}" for name, value in against.items() if value is not None)
    return (
        f"Best of {checkpoints}: step {chosen.step:,} with FAD {judged.fad.value:.4g} by {judged.encoder} ({known}; "
        f"lower is better, the floor is what as many real clips have). {_silent(judged)}"
    )


def _silent(judged: Evaluation) -> str:
    styles = judged.style_coverage.styles
    missing = sorted(name for name, style in styles.items() if not style.generated)
    if missing:
        return f"Listen to {named(missing)}: silence or noise instead of music."
    return f"All {counted(len(styles), 'style')} prompted for yield music; whether it is good, hear them."


def unmeasured(evaluations: Mapping[int, Evaluation]) -> list[dict[str, Any]]:
    """Checkpoints without a FAD, and why.

    Args:
        evaluations: step -> evaluation.
    """
    return [
        {"step": step, "why": found.fad.note or "no FAD was measured", "clips": found.fad.n_clips}
        for step, found in evaluations.items()
        if found.fad.value is None
    ]


def by_step(evaluations: Mapping[int, Evaluation], marks: Marks | None) -> list[dict[str, Any]]:
    """A row per checkpoint, the latest first; the base without an adapter is step 0."""
    rows = [{"step": step} | row(found) for step, found in sorted(evaluations.items(), reverse=True)]
    return [*rows, *([{"step": 0} | row(marks.base)] if marks else ())]


def row(found: Evaluation) -> dict[str, Any]:
    """The numbers of a model in few columns."""
    fad, tags, clap = found.fad, found.tag_alignment, found.clap
    return {
        "fad": rounded(fad.value, 2),
        "fad_95_at_n": _span(fad.interval),
        "kad": rounded(fad.kad, 2),
        "kad_95": _span(fad.kad_interval),
        "tag_auc": rounded(tags.auc if tags else None, 3),
        "clap": rounded(clap.value if clap else None, 3),
        "clips": fad.n_clips,
        "note": fad.note,
    }


def _span(interval: tuple[float | None, float | None] | None) -> str:
    low, high = interval or (None, None)
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def numbers(chosen: Checkpoint | None, judged: Evaluation | None, marks: Marks | None) -> dict[str, Any]:
    """The best checkpoint's scores, as numbers that the UI plots."""
    if chosen is None or judged is None:
        return {}
    shown, tags, fad, clap = row(judged), judged.tag_alignment, judged.fad, judged.clap
    styles = judged.style_coverage.styles
    return {
        **{name: shown[name] for name in ("fad", "kad", "clap", "tag_auc")},
        "fad_floor_at_n": rounded(fad.floor, 2),
        "fad_over_floor": rounded(fad.over_floor, 2),
        "fad_infinity": rounded(fad.infinity, 2),
        "kad_floor_95": rounded(fad.kad_floor, 2),
        "base_fad": rounded(marks.base.fad.value, 2) if marks else None,
        "noise_fad": rounded(marks.noise.fad, 2) if marks else None,
        "real_tag_auc": rounded(tags.reference_auc if tags else None, 3),
        "tag_auc_at_least": rounded(tags.lower if tags else None, 3),
        "clap_at_least": rounded(clap.lower if clap else None, 3),
        "clap_recall": rounded(clap.recall if clap else None, 3),
        "clap_recall_chance": rounded(clap.recall_chance if clap else None, 3),
        "generated": sum(style.generated for style in styles.values()),
        "recognizable": sum(style.recognizable for style in styles.values()),
        "checkpoint": chosen.checkpoint_id,
        "encoder": judged.encoder,
        "farthest_clip": _farthest(judged),
        "clap_note": (clap.note if clap else "") or judged.clap_note or None,
    }


def _farthest(judged: Evaluation) -> str | None:
    """The clip that lies farthest from the reference by itself, beside what real clips have."""
    name, value = next(iter(judged.fad.by_clip.items()), (None, None))
    if name is None or value is None:
        return None
    median, highest = judged.fad.real_by_clip or (None, None)
    real = "" if median is None or highest is None else f" (real clips {median:.1f}, at most {highest:.1f})"
    return f"{name}: {value:.1f}{real}"
