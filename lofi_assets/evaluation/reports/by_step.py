"""FAD by step beside what the prompts got: the picture by which a checkpoint is chosen with both in view."""

from collections.abc import Callable, Sequence

from lofi_assets import pictures
from lofi_assets.evaluation.reports.facts import Facts, Model
from lofi_assets.evaluation.reports.markup import picture

SHARE = (-0.06, 1.18)
"""Scale of what lies between 0 and 1, with room for a label."""


def by_step_figure(page: Facts) -> str:
    """FAD, tempo and tags by step, the base as step 0, the best marked; what was not measured is named under it."""
    chosen = page.best.step if page.best else None
    panels = [_distance(page), _tempo(page), _tags(page)]
    drawn = [panel for panel in panels if panel.points]
    missing = [f"{panel.label}: not measured of any model" for panel in panels if not panel.points]
    missing += [f"{panel.label}: not measured of {lost}" for panel in drawn if (lost := _without(panel, page))]
    notes = "".join(f'<p class="none">{line}</p>' for line in missing)
    if not drawn:
        return notes
    said = "; ".join(f"{panel.label}: {_told(panel)}" for panel in drawn)
    return f"<p>{picture(pictures.panels_by_step(drawn, chosen=chosen), said=said, kind='chart')}</p>{notes}"


def _without(panel: pictures.Panel, page: Facts) -> str:
    return ", ".join(model.title.lower() for model in page.models if model.step not in panel.points)


def _told(panel: pictures.Panel) -> str:
    """In words, for whoever does not see the picture."""
    points = ", ".join(f"{'base' if step == 0 else f'step {step}'} {value:.3g}" for step, value in panel.points.items())
    marks = "".join(f", {name} {value:.3g}" for name, value in panel.marks.items())
    return points + marks


def _distance(page: Facts) -> pictures.Panel:
    last = page.models[-1].evaluation
    spans = {model.step: model.evaluation.fad.interval for model in page.models}
    floor = last.fad.floor
    return pictures.Panel(
        label=f"FAD ({last.encoder})",
        points=_points(page.models, lambda model: model.evaluation.fad.value),
        intervals={
            step: (low, high)
            for step, span in spans.items()
            if span
            for low, high in [span]
            if low is not None and high is not None
        },
        marks={"as many real clips": floor} if floor is not None else {},
    )


def _tempo(page: Facts) -> pictures.Panel:
    checks = next((model.evaluation.checks for model in page.models if model.evaluation.checks), None)
    real = checks.adherence.real_tempo.share if checks else None
    return pictures.Panel(
        label="share in tempo",
        points=_points(
            page.models,
            lambda model: model.evaluation.checks.adherence.tempo.share if model.evaluation.checks else None,
        ),
        marks={"real clips": real} if real is not None else {},
        limits=SHARE,
    )


def _tags(page: Facts) -> pictures.Panel:
    found = next((model.evaluation.tag_alignment for model in page.models if model.evaluation.tag_alignment), None)
    real = found.reference_auc if found else None
    return pictures.Panel(
        label="AUC of tags",
        points=_points(
            page.models, lambda model: model.evaluation.tag_alignment.auc if model.evaluation.tag_alignment else None
        ),
        marks={"real clips": real} if real is not None else {},
        limits=SHARE,
    )


def _points(models: Sequence[Model], value: Callable[[Model], float | None]) -> dict[int, float]:
    return {model.step: found for model in models if (found := value(model)) is not None}
