"""The page of one checkpoint: verdicts, numbers, clips, styles, listeners, licences, what it was made with."""

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from lofi_assets.constitution.gates import Verdict
from lofi_assets.evaluation.reports import clips
from lofi_assets.evaluation.reports.facts import Facts, Model
from lofi_assets.evaluation.reports.gate_rows import gate_verdicts, gates_table, tally
from lofi_assets.evaluation.reports.made_with import made_with
from lofi_assets.evaluation.reports.markup import (
    NOT_MEASURED,
    STYLE,
    number,
    section,
    share,
    span,
    table,
)
from lofi_assets.evaluation.reports.sounds import Sounds
from lofi_assets.evaluation.sample_gates import by_style
from lofi_assets.evaluation.samples import Clip
from lofi_assets.html.frame import framed
from lofi_assets.html.player import KEYS
from lofi_assets.metrics.results import EncoderProof, Evaluation
from lofi_assets.store import Store
from lofi_assets.wording import counted
from lofi_assets.workers.side_by_side import side_by_side

OTHER_CLIPS = (
    "The clips or weights that lie there now are not those that the numbers are of: materialise generated_samples and "
    "quality_metrics again before hearing and numbers are compared."
)
FALLS = (
    "FAD falls when a model copies, and does not see whether a prompt was followed. The grey line is the best "
    "checkpoint by FAD; base is the model before training."
)
NOT_SCORED = "no scorer is named by the profile (evaluation.aesthetics); the scores would be advisory."
BESIDES = (
    "Gates on the dataset and on what is made from a checkpoint (merge, tiers, bundle, card) are on the pages of "
    "those assets; <code>lofi constitution</code> has them all."
)


def checkpoint_page(store: Store, page: Facts, model: Model, sounds: Sounds, *, steps: str) -> str:
    """The whole page.

    Args:
        steps: the figure by step (HTML), which is the same on every page.
    """
    verdicts = gate_verdicts(store, page, model)
    parts = [
        _head(page, model, verdicts, sounds),
        section("Gates", f"<p>{BESIDES}</p>\n{gates_table(verdicts, page, model)}", place="gates"),
        section("Distances and alignment", _numbers(page, model), place="numbers"),
        section("FAD beside what was asked for", f"<p>{FALLS}</p>{steps}", place="steps"),
        section("Clips", _clips(store, page, model, sounds), place="clips"),
        section("Styles", _styles(model), place="styles"),
        section("Listeners", _listeners(page, model), place="listeners"),
        section("Real tracks on this page", _licences(page, model), place="licences"),
        section("Made with", made_with(store, page, model), place="made"),
    ]
    return framed(title=f"{model.title}: report", body="\n".join(parts), style=STYLE, scripted=True)


def _head(page: Facts, model: Model, verdicts: Sequence[Verdict], sounds: Sounds) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in tally(verdicts).items())
    is_best = page.best is not None and page.best.checkpoint_id == model.name
    rank = " It is the best by FAD." if is_best else f" The best by FAD is {_best(page)}."
    warnings = [] if model.as_measured else [OTHER_CLIPS]
    warnings += ["Its weights were given up by retention."] if model.pruned else []
    warnings += [sounds.note] if sounds.note else []
    listed = "".join(f"<p><strong>{escape(line)}</strong></p>" for line in warnings)
    return (
        f'<p><a href="index.html">All checkpoints, compared</a></p>\n<h1>{escape(model.title)}: report</h1>\n'
        f"<p><code>{escape(model.name)}</code>. Gates: {counts}.{escape(rank)}</p>\n{listed}"
    )


def _best(page: Facts) -> str:
    return f"step {page.best.step:,}" if page.best else "none yet"


def _numbers(page: Facts, model: Model) -> str:
    base = page.models[0].evaluation if page.models[0].step == 0 else None
    item = model.evaluation
    trusted = "proved itself" if item.trained else "did not prove itself trained: no gate counts its numbers"
    note = f"<p>{escape(item.fad.note)}</p>" if item.fad.note else ""
    few = "" if item.fad.enough_windows else "<p>There are few windows for the encoder's dimension: FAD reads high.</p>"
    rows = [_fad(item, base), _kad(item, base), _clap(item, base), _tags(item, base), _tempo(item, base)]
    heads = ("measure", "this checkpoint", "95 % interval", "base", "real clips", "n")
    said = "Beside each number what the base and real clips have."
    return (
        f"{table(heads, rows, caption=said)}{note}{few}\n<p>Encoder of FAD and KAD: {escape(item.encoder)} "
        f"{escape(item.encoder_version)}, weights <span class='hash'>{escape(item.encoder_weights_sha256)}</span>; it "
        f"{trusted}.</p>\n{_proof(item.proof, item.encoder)}\n<p>CLAP: {escape(item.clap_note) or 'measured'}.</p>\n"
        f"{_proof(item.clap_proof, 'CLAP') if item.clap or item.clap_proof else ''}\n{_aesthetics(item, base)}"
    )


def _fad(item: Evaluation, base: Evaluation | None) -> tuple[str, ...]:
    fad = item.fad
    endless = f"FAD of endless clips: {number(fad.infinity, why=fad.infinity_note)}"
    n = f"{fad.n_clips} clips, {fad.n_reference_clips} real"
    what = f"FAD, lower is better<br><span class='small'>{endless}</span>"
    return what, number(fad.value, why=fad.note), span(fad.interval), _of(base, "fad"), _floor(fad.floor), n


def _floor(value: float | None) -> str:
    return f"{number(value)} <span class='small'>(floor at this n)</span>" if value is not None else NOT_MEASURED


def _of(base: Evaluation | None, name: str) -> str:
    if base is None:
        return NOT_MEASURED
    return number(base.fad.value if name == "fad" else base.fad.kad)


def _kad(item: Evaluation, base: Evaluation | None) -> tuple[str, ...]:
    fad = item.fad
    real = number(fad.kad_floor)
    below = f"{real} <span class='small'>(95 % lie below)</span>" if fad.kad_floor is not None else real
    n = f"{fad.n_clips} clips, {fad.n_reference_clips} real"
    return "KAD, lower is better", number(fad.kad), span(fad.kad_interval), _of(base, "kad"), below, n


def _clap(item: Evaluation, base: Evaluation | None) -> tuple[str, ...]:
    found, other = item.clap, base.clap if base else None
    what = "CLAP alignment, 0 as shuffled prompts, 1 as real clips"
    if found is None:
        return what, number(None, why=item.clap_note), span(None), number(other.value if other else None), "1", "none"
    at_least = f"at least {number(found.lower)}" if found.lower is not None else span(None)
    n = f"{found.n_generated} clips, {found.n_prompts} prompts"
    return what, number(found.value, why=found.note), at_least, number(other.value if other else None), "1", n


def _tags(item: Evaluation, base: Evaluation | None) -> tuple[str, ...]:
    found, other = item.tag_alignment, base.tag_alignment if base else None
    what = "AUC of the prompts' tags, .5 is chance"
    if found is None:
        return what, NOT_MEASURED, span(None), number(other.auc if other else None), NOT_MEASURED, "none"
    at_least = f"at least {found.lower:.2f}" if found.lower is not None else span(None)
    n = f"{found.n_clips} clips, {found.n_unmapped} without a tag"
    beside = number(other.auc if other else None)
    return what, number(found.auc, why=found.note), at_least, beside, number(found.reference_auc), n


def _tempo(item: Evaluation, base: Evaluation | None) -> tuple[str, ...]:
    from lofi_assets.metrics.binomial import clopper_pearson

    what = "Clips in the prompt's tempo, within 4 %, octaves allowed"
    if item.checks is None:
        return what, NOT_MEASURED, span(None), NOT_MEASURED, NOT_MEASURED, "none"
    own, real = item.checks.adherence.tempo, item.checks.adherence.real_tempo
    exact = span(clopper_pearson(own.right, own.asked)) if own.asked else span(None)
    other = base.checks.adherence.tempo if base and base.checks else None
    beside = share(other.right, other.asked) if other else NOT_MEASURED
    return (
        what,
        share(own.right, own.asked),
        f"share {exact}",
        beside,
        share(real.right, real.asked),
        f"{own.asked} clips",
    )


def _proof(proof: EncoderProof | None, encoder: str) -> str:
    if proof is None:
        return f'<p class="none">What {escape(encoder)} was asked to prove itself is not on record.</p>'
    words = {True: "passed", False: "failed", None: "decides nothing"}
    rows = [(escape(check.name), words[check.passed], escape(check.told)) for check in proof.checks]
    said = f"What {encoder} was asked when it was loaded"
    return table(("asked", "answer", "what came out"), rows, caption=said)


def _aesthetics(item: Evaluation, base: Evaluation | None) -> str:
    """Advisory scores, with what their weights proved."""
    found = item.aesthetics
    if found is None:
        return f'<p class="none">Aesthetics: {NOT_SCORED}</p>'
    beside = base.aesthetics.means if base and base.aesthetics else {}
    n = f"{len(found.clips)} clips"
    rows = [
        (escape(f"{name} ({axis})"), number(found.means.get(axis)), number(beside.get(axis)), n)
        for axis, name in clips.AXES.items()
    ]
    weights = "proved themselves" if found.trained else "did not prove themselves, so that the scores may mean nothing"
    said = f"Advisory: {found.scorer}, 1 to 10. No gate reads it; its weights {weights}."
    note = f"<p>{escape(found.note)}</p>" if found.note else ""
    heads = ("predicted score", "this checkpoint", "base", "n")
    return f"{table(heads, rows, caption=said)}{note}\n{_proof(found.proof, found.scorer)}"


def _clips(store: Store, page: Facts, model: Model, sounds: Sounds) -> str:
    if not model.clips:
        return '<p class="none">The clips are gone; generated_samples makes them again.</p>'
    lost = len(model.checked.keys() - {clips.file_name(clip) for clip in model.clips})
    missing = f'<p class="none">{counted(lost, "measured clip")} not there any more.</p>' if lost else ""
    shown = "\n".join(side_by_side(lambda clip: _clip(store, page, model, clip, sounds), model.clips))
    return f"<p>{escape(KEYS)}</p>{missing}\n{shown}"


def _clip(store: Store, page: Facts, model: Model, clip: Clip, sounds: Sounds) -> str:
    checked, own = model.checked.get(clips.file_name(clip)), clips.own_track(clip, page)
    figures = [clips.clip_figure(store, f"{model.title}, the whole clip", clip, sounds)]
    figures += clips.copied_pair(store, clip, checked.nearest if checked else None, page, sounds)
    if own is not None:
        figures.append(clips.track_figure(store, f"prompted for: {own.track_id}, a real track", own, sounds))
    return (
        f'<article class="clip"><h3>{escape(clip.prompt)}</h3>\n<p class="small">{escape(clips.file_name(clip))}, '
        f"style {escape(clip.style_id)}, seed {clip.seed}</p>\n{clips.row(figures, together=False)}\n"
        f"{clips.clip_facts(clip, model)}</article>"
    )


def _styles(model: Model) -> str:
    checks, found = model.evaluation.checks, model.evaluation.style_coverage
    counts = {row["style"]: row for row in by_style(checks)} if checks else {}
    rows = []
    for style in sorted({*found.styles, *counts}):
        row, covered = counts.get(style), found.styles.get(style)
        rows.append(
            (
                escape(style),
                str(row["clips"]) if row else NOT_MEASURED,
                escape(str(row["tempo"])) if row else NOT_MEASURED,
                number(row["tag_auc"]) if row else NOT_MEASURED,
                f"{row['sound']} of {row['clips']}" if row else NOT_MEASURED,
                _yes(covered.generated if covered else None),
                _yes(covered.recognizable if covered else None),
            )
        )
    heads = ("style", "clips", "in tempo", "own tags above others", "without artefact", "music", "recognised")
    said = (
        f"Nearest to its own style's real tracks: {number(found.top1)} of clips, at least {number(found.top1_lower)}, "
        f"chance {number(found.chance)}."
    )
    unknown = ", ".join(found.without_reference)
    more = f"<p>No real track has {escape(unknown)}, so it cannot be recognised.</p>" if unknown else ""
    return f"{table(heads, rows, caption='By style of the prompt')}<p>{said}</p>{more}"


def _yes(value: bool | None) -> str:
    return NOT_MEASURED if value is None else "yes" if value else "no"


def _listeners(page: Facts, model: Model) -> str:
    heard = page.heard
    if heard is None or heard.checkpoint_id != model.name:
        return '<p class="none">Nobody was asked about this checkpoint.</p>'
    rows = [
        (escape(test.test), test.verdict or "goes on", escape(test.lifted) or "no", escape(test.note))
        for test in heard.tests
    ]
    tests = table(("test", "verdict", "lifted", "note"), rows, caption="Every test ever opened for it") if rows else ""
    found = heard.statistics
    if found is None:
        return f'<p class="none">No result: {escape(heard.note)}.</p>{tests}'
    people = f"{counted(found.evaluator_count, 'listener')}, {counted(found.n_trials, 'answer')}"
    low, high = found.accuracy_interval
    look = f"look {found.look} of {found.looks}" if found.looks else "of a version without planned looks: no claim"
    return (
        f"<p>{escape(found.verdict)}: {found.accuracy:.1%} right ({low:.1%} to {high:.1%}; guessing is 50 %), "
        f"{people}, {look}; p {number(found.adjusted_p, 4)}, equivalence p {number(found.equivalence_p, 4)} at a "
        f"margin of {found.margin:g}. {escape('; '.join(found.notes))}</p>{tests}"
    )


def _licences(page: Facts, model: Model) -> str:
    names = [own.track_id for clip in model.clips if (own := clips.own_track(clip, page))]
    names += [found.nearest.recording for found in model.checked.values() if found.nearest]
    return clips.licence_table(sorted(set(names)), page)


def page_name(checkpoint: str) -> str:
    """File name of a checkpoint's page."""
    return f"{checkpoint}.html"


def link(model: Model) -> str:
    """To a checkpoint's page from the one beside it; the base has none."""
    if model.step == 0:
        return escape(model.title)
    return f'<a href="{quote(page_name(model.name))}">{escape(model.title)}</a>'
