"""The gates on a checkpoint's page: verdict, value, limit, interval, n, and what each means.

What belongs here: which gates are about a checkpoint, and which interval and count stand behind each measure. What does
not: the verdicts (`judged.py`, `constitution.gates`).
"""

from collections.abc import Sequence
from html import escape

from lofi_assets.constitution.gates import Gate, Verdict, gates_of, judge_asset, load_gates, shown
from lofi_assets.constitution.verdicts import recorded, verdict
from lofi_assets.evaluation.human_evaluation import listening_values
from lofi_assets.evaluation.judged import verdicts_of
from lofi_assets.evaluation.reports.facts import Facts, Model
from lofi_assets.evaluation.reports.markup import NOT_MEASURED, span, table, verdict_badge
from lofi_assets.store import Store
from lofi_assets.wording import counted

OF_ALL = ("lora_checkpoints", "generated_samples")
"""Assets whose gates are about every checkpoint of the run at once."""
ORDER = ("fail", "inconclusive", "pass")
NO_INTERVAL = '<span class="none">no interval</span>'
NOT_ITS_TEST = "listening tests are of the best checkpoint by FAD"


def gate_verdicts(store: Store, facts: Facts, model: Model) -> list[Verdict]:
    """Of training, samples, numbers and listeners, in this order."""
    gates = load_gates()
    others = [other.evaluation for other in facts.models]
    of_run = [
        verdict(gate, recorded(store, asset))
        for asset in OF_ALL
        for gate in gates_of(gates, asset=asset, scope="asset")
    ]
    own = verdicts_of(model.evaluation, others, gates, unevaluated=facts.unevaluated)
    return [*of_run, *own, *_heard(facts, model, gates)]


def _heard(facts: Facts, model: Model, gates: Sequence[Gate]) -> list[Verdict]:
    asked = gates_of(gates, asset="human_evaluation", scope="asset")
    if facts.heard is None or facts.heard.checkpoint_id != model.name:
        why = NOT_ITS_TEST if facts.best is None or facts.best.checkpoint_id != model.name else "no test was judged yet"
        return [Verdict(gate, "inconclusive", None, why) for gate in asked]
    return judge_asset(asked, listening_values(facts.heard))


def gates_table(verdicts: Sequence[Verdict], facts: Facts, model: Model) -> str:
    """One row per gate."""
    heads = ("gate", "verdict", "value", "limit", "95 % interval", "of", "what it means")
    first = sorted(verdicts, key=lambda found: ORDER.index(found.status))
    rows = [_row(found, facts, model) for found in first]
    caption = "Every gate on training, samples, numbers and listeners. What did not pass comes first."
    return table(heads, rows, caption=caption)


def _row(found: Verdict, facts: Facts, model: Model) -> tuple[str, ...]:
    gate = found.gate
    interval, count = _behind(gate, facts, model)
    note = f'<br><span class="small">{escape(found.note)}</span>' if found.note else ""
    effect = "holds a release" if "hub_release" in gate.holds else "stops the run" if gate.blocking else "a warning"
    why = f'{escape(gate.why)} <span class="small">({effect})</span>'
    value = NOT_MEASURED if found.value is None else escape(shown(found.value, gate))
    bound = f" ({gate.encoder})" if gate.encoder else ""
    limit = escape(f"{gate.op} {shown(gate.limit, gate)}{bound}")
    return f"<code>{escape(gate.id)}</code>", verdict_badge(found.status), value, limit, interval, count, why + note


def _behind(gate: Gate, facts: Facts, model: Model) -> tuple[str, str]:
    """Interval and count behind a gate's measure, HTML."""
    if gate.asset == "quality_metrics":
        made = _of_distances(model) | _of_checks(model)
        interval, count = made.get(gate.measure, (NO_INTERVAL, f"{len(facts.checkpoints)} checkpoints"))
        return interval, escape(count)
    if gate.asset == "human_evaluation" and facts.heard and facts.heard.checkpoint_id == model.name:
        found = facts.heard.statistics
        if found:
            people = f"{counted(found.evaluator_count, 'listener')}, {counted(found.n_trials, 'answer')}"
            return f"accuracy {span(found.accuracy_interval, 3)}", escape(people)
    return NO_INTERVAL, escape("all checkpoints" if gate.asset in OF_ALL else "nobody")


def _of_distances(model: Model) -> dict[str, tuple[str, str]]:
    item = model.evaluation
    fad, clap, styles = item.fad, item.clap, item.style_coverage.styles
    clips = f"{fad.n_clips} clips ({fad.n_windows} windows), {fad.n_reference_clips} real ({fad.n_reference_windows})"
    low, high = fad.interval or (None, None)
    over = (low / fad.floor, high / fad.floor) if fad.floor and low is not None and high is not None else None
    aligned = f"{clap.n_generated} clips, {clap.n_prompts} prompts, {clap.n_real} real" if clap else "nothing"
    return {
        "fad": (span(fad.interval), clips),
        "fad_over_floor": (span(over), clips),
        "clap_alignment": ("the value is a one-sided 95 % lower bound" if clap else NO_INTERVAL, aligned),
        "styles_not_generated": (NO_INTERVAL, counted(len(styles), "style")),
    }


def _of_checks(model: Model) -> dict[str, tuple[str, str]]:
    checks = model.evaluation.checks
    names = ("copy_similarity", "nearness_p", "sample_similarity", "spread_over_reference", "clips_with_artefacts")
    more = ("share_outside_reference", "tempo_adherence", "models_that_follow_better")
    if checks is None:
        return {name: (NO_INTERVAL, "nothing") for name in (*names, *more)}
    clips = counted(len(checks.clips), "clip")
    tracks, tempo = counted(checks.copies.n_recordings, "real track"), checks.adherence.tempo
    outside = sum(bool(clip.outside or clip.artefacts) for clip in checks.clips)
    faulty = sum(bool(clip.artefacts) for clip in checks.clips)
    real = counted(checks.signal.n_real, "real clip")
    found: dict[str, tuple[str, str]] = {
        "copy_similarity": (NO_INTERVAL, f"{clips}, {tracks}"),
        "nearness_p": (NO_INTERVAL, f"{clips}, {tracks}"),
        "sample_similarity": (NO_INTERVAL, clips),
        "spread_over_reference": (NO_INTERVAL, clips),
        "clips_with_artefacts": (f"share {_exact(faulty, len(checks.clips))}", clips),
        "share_outside_reference": (_exact(outside, len(checks.clips)), f"{clips}, {real}"),
        "tempo_adherence": (f"share in tempo {_exact(tempo.right, tempo.asked)}", counted(tempo.asked, "clip")),
        "models_that_follow_better": (NO_INTERVAL, "tempo and tags of all models"),
    }
    return found


def _exact(count: int, of: int) -> str:
    """Clopper-Pearson."""
    from lofi_assets.metrics.binomial import clopper_pearson

    return span(clopper_pearson(count, of)) if of else NO_INTERVAL


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Status -> how many."""
    return {status: sum(found.status == status for found in verdicts) for status in ORDER}
