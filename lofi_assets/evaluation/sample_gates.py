"""What the gates judge of the samples beside distances, and how people see it: copies, spread, signal, adherence.

What belongs here: measures, columns and plots from `SampleChecks`. What does not: the measuring (`metrics/`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from lofi_assets import pictures
from lofi_assets.evaluation.measured import Marks
from lofi_assets.metrics.results import Evaluation
from lofi_assets.metrics.sample_checks import COPY_FROM, Adherence, CheckedClip, SampleChecks
from lofi_assets.wording import rounded

NOT_CHECKED = "these samples were measured by a version without it; materialise quality_metrics again"
TAG_NOISE = 0.02
"""AUC by which tags must differ before one checkpoint is said to follow its prompts better."""


def values(judged: Evaluation | None, others: Sequence[Evaluation]) -> dict[str, Any]:
    """Measures of the best checkpoint by FAD.

    Args:
        others: every checkpoint, the best one too, and the base.
    """
    if judged is None:
        return {}
    checks = judged.checks
    if checks is None:
        names = ("copy_similarity", "nearness_p", "sample_similarity", "spread_over_reference", "clips_with_artefacts")
        more = ("share_outside_reference", "tempo_adherence", "models_that_follow_better")
        return {name: {"value": None, "note": NOT_CHECKED} for name in (*names, *more)}
    copies, spread, signal = checks.copies, checks.diversity, checks.signal
    encoder = {"encoder": judged.encoder, "trained": judged.trained}
    return {
        "copy_similarity": _copies(checks),
        "nearness_p": {"value": copies.nearness_p, "note": copies.nearness_note or _distances(checks), **encoder},
        "sample_similarity": {"value": spread.similarity, "note": spread.note or _pair(checks)},
        "spread_over_reference": {"value": spread.over_reference, "note": spread.note, **encoder},
        "clips_with_artefacts": {
            "value": signal.clips_with_artefacts,
            "note": signal.note or _first(checks, "artefacts"),
        },
        "share_outside_reference": {"value": signal.share_outside, "note": signal.note or _first(checks, "outside")},
        "tempo_adherence": {"value": checks.adherence.relative_tempo, "note": _tempo(checks.adherence)},
        "models_that_follow_better": _better(judged, others),
    }


def follows_better(a: Evaluation, b: Evaluation) -> bool:
    """Whether a follows its prompts better than b: by tempo or tags, and by neither worse."""
    if a.checks is None or b.checks is None:
        return False
    pairs = [(_share(a), _share(b), 0.0), (_auc(a), _auc(b), TAG_NOISE)]
    known = [(x - y, least) for x, y, least in pairs if x is not None and y is not None]
    return any(gain > least for gain, least in known) and all(gain >= -least for gain, least in known)


def beside(
    rows: Sequence[Mapping[str, Any]], evaluations: Mapping[int, Evaluation], marks: Marks | None
) -> list[dict[str, Any]]:
    """The rows of the checkpoints, by step, with their checks; step 0 is the base."""
    found = dict(evaluations) | ({0: marks.base} if marks else {})
    return [{**row, **columns(found.get(row["step"]))} for row in rows]


def numbers(judged: Evaluation | None) -> dict[str, Any]:
    """The best checkpoint's checks as numbers that the UI plots, and its per-style table as text."""
    if judged is None or judged.checks is None:
        return {}
    checks = judged.checks
    return {
        "copy_similarity": rounded(checks.copies.similarity, 3),
        "copy_similarity_of_validation": rounded(checks.copies.validation, 3),
        "tempo_right": checks.adherence.tempo.right,
        "tempo_asked": checks.adherence.tempo.asked,
        "real_tempo_right": checks.adherence.real_tempo.right,
        "key_right": checks.adherence.key.right if checks.adherence.key.asked else None,
        "spread_over_reference": rounded(checks.diversity.over_reference, 2),
        "by style": "; ".join(
            f"{row['style']}: {row['tempo']} in tempo, tags {_shown(row['tag_auc'])}" for row in by_style(checks)
        ),
        **{f"artefacts: {clip.file}": ", ".join(clip.artefacts) for clip in checks.clips if clip.artefacts},
        **{f"outside: {clip.file}": ", ".join(clip.outside) for clip in checks.clips if clip.outside},
    }


def by_style(checks: SampleChecks) -> list[dict[str, Any]]:
    """A row per style: how many of its samples have the tempo of their prompt, its mean tag AUC, and no artefact."""
    styles = sorted({clip.style_id for clip in checks.clips})
    return [_style(style, [clip for clip in checks.clips if clip.style_id == style]) for style in styles]


def drawn(evaluations: Mapping[int, Evaluation], marks: Marks | None) -> dict[str, Callable[[], bytes]]:
    """Adherence by step, with real clips and the base beside it."""
    shares = {step: share for step, item in sorted(evaluations.items()) if (share := _share(item)) is not None}
    aucs = {step: auc for step, item in sorted(evaluations.items()) if (auc := _auc(item)) is not None}
    if not shares:
        return {}
    checks = [item.checks.adherence for item in evaluations.values() if item.checks]
    lines = {"real clips": checks[0].real_tempo.share, "base": _share(marks.base) if marks else None}
    tags = {"real clips": _real_auc(evaluations), "base": _auc(marks.base) if marks else None}
    made = {"share of clips in the prompt's tempo": (shares, lines), "AUC of the prompt's tags": (aucs, tags)}
    titles = ("tempo by step", "tags by step")
    return {
        title: cache(partial(pictures.score_by_step, points, label=label, marks=_known(found)))
        for title, (label, (points, found)) in zip(titles, made.items(), strict=True)
        if points
    }


def _known(marks: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in marks.items() if value is not None}


def _real_auc(evaluations: Mapping[int, Evaluation]) -> float | None:
    found = [item.tag_alignment.reference_auc for item in evaluations.values() if item.tag_alignment]
    return found[0] if found else None


def _share(item: Evaluation) -> float | None:
    return item.checks.adherence.tempo.share if item.checks else None


def _auc(item: Evaluation) -> float | None:
    return item.tag_alignment.auc if item.tag_alignment else None


def _better(judged: Evaluation, others: Sequence[Evaluation]) -> dict[str, Any]:
    if _share(judged) is None and _auc(judged) is None:
        return {"value": None, "note": "neither tempo nor tags of this checkpoint could be measured"}
    better = [item for item in others if item is not judged and follows_better(item, judged)]
    said = [f"{item.checkpoint_id}: tempo {_shown(_share(item))}, tags {_shown(_auc(item))}" for item in better]
    own = f"against tempo {_shown(_share(judged))}, tags {_shown(_auc(judged))} of this one"
    return {"value": len(better), "note": "; ".join([*said[:3], own]) if better else ""}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def columns(item: Evaluation | None) -> dict[str, Any]:
    """Tempo, copies and artefacts of a model in few columns; empty where it was not checked."""
    checks = item.checks if item else None
    if checks is None:
        return {"tempo": "", "copy": None, "artefacts": None}
    tempo = checks.adherence.tempo
    return {
        "tempo": f"{tempo.right} of {tempo.asked}" if tempo.asked else "",
        "copy": rounded(checks.copies.similarity, 2),
        "artefacts": checks.signal.clips_with_artefacts,
    }


def _style(style: str, clips: Sequence[CheckedClip]) -> dict[str, Any]:
    from lofi_assets.metrics.adherence import in_tempo

    asked = [clip for clip in clips if clip.bpm_asked is not None]
    right = sum(in_tempo(clip.bpm_found, clip.bpm_asked or 0) for clip in asked)
    sound = sum(not clip.artefacts for clip in clips)
    aucs = [clip.tag_auc for clip in clips if clip.tag_auc is not None]
    auc = sum(aucs) / len(aucs) if aucs else None
    return {"style": style, "clips": len(clips), "tempo": f"{right} of {len(asked)}", "tag_auc": auc, "sound": sound}


def _copies(checks: SampleChecks) -> dict[str, Any]:
    """No number where held-out music reads as a copy too, and the samples are no nearer than that."""
    found = checks.copies
    if (
        found.similarity is not None
        and found.validation is not None
        and found.validation >= found.similarity >= COPY_FROM
    ):
        alike = f"a sample agrees in {found.similarity:.2f}, validation tracks in {found.validation:.2f}"
        return {"value": None, "note": f"{alike}: these tracks are too alike to tell; listen to them"}
    return {"value": found.similarity, "note": found.note or _nearest(checks)}


def _nearest(checks: SampleChecks) -> str:
    found = [(clip.nearest.similarity, clip) for clip in checks.clips if clip.nearest]
    if not found:
        return ""
    _, clip = max(found, key=lambda pair: pair[0])
    near, beside_it = clip.nearest, checks.copies.validation
    held_out = "" if beside_it is None else f"; validation tracks reach {beside_it:.2f}"
    copied = sum(similarity >= COPY_FROM for similarity, _ in found)
    count = f"{copied} of {len(found)} samples; " if copied else ""
    if near is None:
        return ""
    return f"{count}nearest: {clip.file} at {near.at_s:.0f} s to {near.recording} at {near.of_s:.0f} s{held_out}"


def _distances(checks: SampleChecks) -> str:
    own, real = checks.copies.distance, checks.copies.validation_distance
    return (
        "" if own is None or real is None else f"{own:.1f} to the nearest training track, validation tracks {real:.1f}"
    )


def _pair(checks: SampleChecks) -> str:
    spread = checks.diversity
    real = (
        ""
        if spread.reference_similarity is None
        else f"; two validation tracks reach {spread.reference_similarity:.2f}"
    )
    return f"{' and '.join(spread.pair)}{real}" if spread.pair else ""


def _first(checks: SampleChecks, kind: str) -> str:
    found = [(clip.file, getattr(clip, kind)) for clip in checks.clips if getattr(clip, kind)]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(f"{file}: {faults[0]}" for file, faults in found[:3]) + more


def _tempo(found: Adherence) -> str:
    own, real = found.tempo, found.real_tempo
    return found.note or f"{own.right} of {own.asked} clips; real clips {real.right} of {real.asked}"
