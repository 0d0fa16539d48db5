"""The page that compares all evaluated checkpoints with the base and the validation set: numbers, and by ear."""

from html import escape

from lofi_assets.evaluation.reports import clips
from lofi_assets.evaluation.reports.checkpoint_page import FALLS, link
from lofi_assets.evaluation.reports.facts import Facts, Model
from lofi_assets.evaluation.reports.gate_rows import gate_verdicts, tally
from lofi_assets.evaluation.reports.markup import (
    NOT_MEASURED,
    STYLE,
    interval_bar,
    number,
    section,
    share,
    span,
    table,
)
from lofi_assets.evaluation.reports.sounds import Sounds
from lofi_assets.evaluation.samples import Clip
from lofi_assets.html.frame import framed
from lofi_assets.html.player import KEYS
from lofi_assets.metrics.results import Evaluation
from lofi_assets.store import Store
from lofi_assets.wording import counted, named
from lofi_assets.workers.side_by_side import side_by_side

HEADS = (
    *("model", "FAD", "95 % interval", "", "FAD less base", "KAD", "CLAP"),
    *("in tempo", "tags AUC", "tags less base", "nearest copy", "with artefacts", "outside range", "gates"),
)
TITLE = "Checkpoints, compared"


def comparison_page(store: Store, page: Facts, sounds: Sounds, *, steps: str) -> str:
    """The whole page.

    Args:
        steps: the figure by step (HTML).
    """
    parts = [
        _head(page, sounds),
        section("FAD beside what was asked for", f"<p>{FALLS}</p>{steps}", place="steps"),
        section("All models", _table(store, page), place="models"),
        section("Prompt by prompt", _prompts(page), place="prompts"),
        section("To hear", _heard(store, page, sounds), place="hear"),
        section("Real tracks on this page", _licences(page), place="licences"),
    ]
    return framed(title=TITLE, body="\n".join(parts), style=STYLE, scripted=True)


def _head(page: Facts, sounds: Sounds) -> str:
    best = f"The best by FAD is step {page.best.step:,}." if page.best else "No checkpoint has a FAD."
    lines = [] if page.marks else ["The base was not measured."]
    lines += [f"Not measured yet: {named(page.unmeasured, most=10)}."] if page.unmeasured else []
    strange = [model.title for model in page.models if not model.as_measured]
    lines += [f"Other clips or weights lie there than were measured: {named(strange, most=10)}."] if strange else []
    lines += [sounds.note] if sounds.note else []
    listed = "".join(f"<p><strong>{escape(line)}</strong></p>" for line in lines)
    return (
        f"<h1>{TITLE}</h1>\n<p>Same prompts, same seeds. {escape(best)} Each step has a page of its own, with every "
        f"gate and every clip.</p>\n{listed}"
    )


def _table(store: Store, page: Facts) -> str:
    base = page.models[0].evaluation if page.models[0].step == 0 else None
    most = max((end for model in page.models for end in _ends(model.evaluation)), default=0.0)
    rows = [_row(store, page, model, base, most) for model in page.models]
    attributes = [_attributes(page, model) for model in page.models]
    buttons = (
        '<p><button type="button" data-sort="step" aria-pressed="true">By step</button> '
        '<button type="button" data-sort="fad" aria-pressed="false">By FAD</button></p>'
    )
    said = "Dots are FAD, thick lines its interval, dashed lines what as many real clips have."
    real = _real(page)
    return f"{buttons}\n{table(HEADS, rows, caption=said, attributes=attributes)}\n{real}"


def _ends(item: Evaluation) -> list[float]:
    return [end for end in (item.fad.value, *(item.fad.interval or ())) if end is not None]


def _attributes(page: Facts, model: Model) -> str:
    value = model.evaluation.fad.value
    kind = ' class="best"' if page.best and page.best.checkpoint_id == model.name else ""
    return f'data-step="{model.step}" data-fad="{"" if value is None else f"{value:.6f}"}"{kind}'


def _row(store: Store, page: Facts, model: Model, base: Evaluation | None, most: float) -> tuple[str, ...]:
    item, first = model.evaluation, model.step == 0
    fad, tags, checks, clap = item.fad, item.tag_alignment, item.checks, item.clap
    tempo = checks.adherence.tempo if checks else None
    auc = tags.auc if tags else None
    other = base.tag_alignment.auc if base and base.tag_alignment else None
    clips_ = len(checks.clips) if checks else 0
    outside = checks.signal.share_outside if checks else None
    counts = tally(gate_verdicts(store, page, model)) if not first else {}
    name = link(model) + (" (pruned)" if model.pruned else "")
    return (
        f"{name} <strong>best</strong>" if page.best and page.best.checkpoint_id == model.name else name,
        number(fad.value, why=fad.note),
        span(fad.interval),
        interval_bar(fad.value, fad.interval, most=most, mark=fad.floor),
        "-" if first else _change(fad.value, base.fad.value if base else None, 1),
        number(fad.kad),
        number(clap.value if clap else None),
        share(tempo.right, tempo.asked) if tempo else NOT_MEASURED,
        number(auc),
        "-" if first else _change(auc, other, 2),
        number(checks.copies.similarity if checks else None),
        f"{checks.signal.clips_with_artefacts} of {clips_}" if checks and clips_ else NOT_MEASURED,
        NOT_MEASURED if outside is None else f"{outside:.0%}",
        ", ".join(f"{count} {status}" for status, count in counts.items()) or "no gate judges it",
    )


def _change(value: float | None, before: float | None, digits: int) -> str:
    """With its sign."""
    return NOT_MEASURED if value is None or before is None else f"{value - before:+.{digits}f}"


def _real(page: Facts) -> str:
    """What real clips have of the same measures."""
    item = page.models[-1].evaluation
    checks, tags = item.checks, item.tag_alignment
    tempo = checks.adherence.real_tempo if checks else None
    rows = [
        (
            "real clips",
            f"{number(item.fad.floor)} <span class='small'>floor at this n</span>",
            f"{number(item.fad.kad_floor)} <span class='small'>95 % lie below</span>",
            share(tempo.right, tempo.asked) if tempo else NOT_MEASURED,
            number(tags.reference_auc if tags else None),
            number(checks.copies.validation if checks else None),
        ),
        (
            "noise",
            number(page.marks.noise.fad if page.marks else None),
            number(page.marks.noise.kad if page.marks else None),
            *[NOT_MEASURED] * 3,
        ),
    ]
    heads = ("", "FAD", "KAD", "in tempo", "tags AUC", "nearest copy")
    return table(heads, rows, caption="The validation set and noise, measured in the same way")


def _prompts(page: Facts) -> str:
    """Per prompt and model: tempo found, and FAD of the clip alone."""
    heads = ("prompt", "asked", *(model.title for model in page.models))
    rows = []
    for name, prompt in _by_name(page).items():
        asked = next((found.bpm_asked for model in page.models if (found := model.checked.get(name))), None)
        cells = [_found(model, name) for model in page.models]
        rows.append((escape(prompt), f"{asked} BPM" if asked else "no tempo", *cells))
    return table(heads, rows, caption="Tempo found, and FAD of the clip alone (lower is nearer to real tracks)")


def _found(model: Model, name: str) -> str:
    from lofi_assets.metrics.adherence import in_tempo

    checked, alone = model.checked.get(name), model.evaluation.fad.by_clip.get(name)
    if checked is None:
        return NOT_MEASURED
    tempo = "no tempo" if checked.bpm_found is None else f"{checked.bpm_found:.0f} BPM"
    if checked.bpm_asked is not None:
        tempo += ", right" if in_tempo(checked.bpm_found, checked.bpm_asked) else ", missed"
    faults = f", {counted(len(checked.artefacts), 'artefact')}" if checked.artefacts else ""
    return f"{tempo}{faults}<br><span class='small'>FAD {number(alone, 1)}</span>"


def _by_name(page: Facts) -> dict[str, str]:
    """File name -> prompt, of all clips that lie there."""
    return dict(sorted((clips.file_name(clip), clip.prompt) for model in page.models for clip in model.clips))


def _heard(store: Store, page: Facts, sounds: Sounds) -> str:
    shown = side_by_side(lambda item: _prompt(store, page, *item, sounds), list(_by_name(page).items()))
    if not shown:
        return '<p class="none">The clips are gone; generated_samples makes them again.</p>'
    return f"<p>{escape(KEYS)} Within a prompt the other clip goes on at the same second.</p>\n" + "\n".join(shown)


def _prompt(store: Store, page: Facts, name: str, prompt: str, sounds: Sounds) -> str:
    """The clip of every model for a prompt, and the real track beside."""
    found = [(model, _named(model, name)) for model in page.models]
    figures = [_player(store, model, clip, sounds) for model, clip in found]
    any_clip = next(clip for _, clip in found if clip)
    if (own := clips.own_track(any_clip, page)) is not None:
        figures.append(clips.track_figure(store, f"{own.track_id}, the real track", own, sounds))
    return (
        f'<article class="clip"><h3>{escape(prompt)}</h3>\n<p class="small">seed {any_clip.seed}</p>\n'
        f"{clips.row(figures, together=True)}</article>"
    )


def _named(model: Model, name: str) -> Clip | None:
    return next((clip for clip in model.clips if clips.file_name(clip) == name), None)


def _player(store: Store, model: Model, clip: Clip | None, sounds: Sounds) -> str:
    return clips.gone(model.title) if clip is None else clips.clip_figure(store, model.title, clip, sounds)


def _licences(page: Facts) -> str:
    names: set[str] = {
        own.track_id for model in page.models for clip in model.clips if (own := clips.own_track(clip, page))
    }
    return clips.licence_table(sorted(names), page)
