"""What the gates see of one checkpoint: its distances and the checks of its samples, and their verdicts."""

from collections.abc import Sequence
from typing import Any

from lofi_assets.constitution.gates import Gate, Verdict, gates_of, judge_asset
from lofi_assets.evaluation import sample_gates
from lofi_assets.metrics.results import Evaluation
from lofi_assets.wording import counted


def judged_values(judged: Evaluation | None, others: Sequence[Evaluation], *, conditions: str = "") -> dict[str, Any]:
    """Measures of a checkpoint, each with the encoder that produced it.

    Args:
        others: every checkpoint, the judged one too, and the base.
        conditions: of the clips (`SamplingSettings.conditions`).
    """
    return _distances(judged, conditions) | sample_gates.values(judged, others)


def verdicts_of(
    judged: Evaluation, others: Sequence[Evaluation], gates: Sequence[Gate], *, unevaluated: int
) -> list[Verdict]:
    """What the gates of `quality_metrics` say of one checkpoint; a measure that is not there is inconclusive.

    Args:
        unevaluated: checkpoints without a FAD, of all.
    """
    values = judged_values(judged, others) | {"unevaluated_checkpoints": unevaluated}
    return judge_asset(gates_of(gates, asset="quality_metrics", scope="asset"), values)


def _distances(judged: Evaluation | None, conditions: str) -> dict[str, Any]:
    """FAD, alignment and coverage."""
    if judged is None:
        return {}
    of = counted(judged.fad.n_clips, "clip") + (f" of {conditions}" if conditions else "")
    encoder = {"encoder": judged.encoder, "trained": judged.trained, "of": of, "note": judged.fad.note}
    clap, styles = judged.clap, judged.style_coverage.styles
    return {
        "fad": {"value": judged.fad.value, **encoder},
        "fad_over_floor": {"value": judged.fad.over_floor, **encoder},
        "clap_alignment": {
            "value": clap.lower if clap else None,
            "encoder": "laion_clap" if clap else None,
            "trained": judged.clap_proof.trained if judged.clap_proof else None,
            "note": (clap.note if clap else "") or judged.clap_note,
        },
        "styles_not_generated": {
            "value": sum(not style.generated for style in styles.values()) if styles else None,
            "note": "" if styles else "no style was asked for",
        },
    }
