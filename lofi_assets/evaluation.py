"""Samples -> numbers: FAD, KAD, alignment, coverage of every checkpoint; scores into the manifest; retention.

What belongs here: what has to be measured again, and which numbers the gates see. What does not: the formulas
(`metrics/`), the listening test (`listening.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lofi_assets import pictures
from lofi_assets.experiment import current_dataset, training_settings
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import EvaluationSettings, Profile
from lofi_assets.records import Checkpoint, QualityMetrics, dump
from lofi_assets.sampling import generated_samples, reference_tracks, samples_of
from lofi_assets.store import Store, fingerprint, read_json, write_json
from lofi_assets.training.checkpoints import best, prune, read_manifest, update_record

METRICS_VERSION = "1"
"""Raised when a measure changes: every checkpoint is then evaluated again."""


def load_encoder(store: Store, settings: EvaluationSettings) -> Any:
    """The profile's FAD encoder."""
    from lofi_assets.metrics.embedders import load_embedder

    weights = store.root / settings.encoder_weights if settings.encoder_weights else None
    return load_embedder(settings.encoder, weights=weights, device=settings.device)


def evaluate_checkpoints(store: Store, profile: Profile, *, now: datetime) -> Outcome:
    """Measure every checkpoint that has samples, write the scores into the manifest, then prune by retention."""
    records = read_manifest(store.checkpoints)
    known = read_json(store.metadata("quality_metrics.json"), default={})
    wanted = {record.checkpoint_id: _metrics_key(store, profile, record) for record in records}
    todo = [r for r in records if known.get(r.checkpoint_id, {}).get("key") != wanted[r.checkpoint_id]]
    if todo:
        known = known | _evaluate(store, profile, todo, wanted, now)
        write_json(store.metadata("quality_metrics.json"), known)
    for record in records:
        scores = known[record.checkpoint_id]["record"]
        update_record(
            store.checkpoints,
            record.checkpoint_id,
            fad_score=scores.get("fad_score"),
            clap_score=scores.get("clap_score"),
        )
    pruned = prune(store.checkpoints, keep_best=training_settings(profile).keep_best)
    return _quality_outcome(store, records, known, pruned=len(pruned), recomputed=len(todo))


def _metrics_key(store: Store, profile: Profile, record: Checkpoint) -> str:
    _, manifest, _ = current_dataset(store)
    samples = samples_of(store, record).get("key", "")
    return fingerprint(METRICS_VERSION, samples, manifest["hash"], profile.evaluation.model_dump())


def _evaluate(
    store: Store, profile: Profile, records: Sequence[Checkpoint], keys: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    from lofi_assets.metrics.clap import ClapEmbedder
    from lofi_assets.metrics.evaluate import evaluate_checkpoint

    settings = profile.evaluation
    embedder = load_encoder(store, settings)
    clap = ClapEmbedder.load(store.root / settings.clap, device=settings.device) if settings.clap else None
    reference = reference_tracks(store)
    found = {}
    for record in records:
        evaluation = evaluate_checkpoint(
            checkpoint_id=record.checkpoint_id,
            samples=generated_samples(store, record, seconds=profile.sampling.seconds),
            reference=reference,
            embedder=embedder,
            clap=clap,
            cache_dir=store.cache / "embeddings",
            seed=profile.sampling.seed,
            n_resamples=settings.resamples,
        ).as_dict()
        metrics = QualityMetrics(
            checkpoint_id=record.checkpoint_id,
            evaluation_date=now,
            fad_score=evaluation["fad"]["value"],
            clap_score=(evaluation["clap"] or {}).get("lower"),
            style_coverage=evaluation["style_coverage"]["styles"],
        )
        found[record.checkpoint_id] = {
            "key": keys[record.checkpoint_id],
            "record": dump(metrics),
            "evaluation": evaluation,
        }
    return found


def _quality_outcome(
    store: Store, records: Sequence[Checkpoint], known: Mapping[str, Any], *, pruned: int, recomputed: int
) -> Outcome:
    kept = read_manifest(store.checkpoints)
    chosen = best(kept)
    evaluations = {record.step: known[record.checkpoint_id]["evaluation"] for record in records}
    scores = {step: item["fad"]["value"] for step, item in evaluations.items() if item["fad"]["value"] is not None}
    judged = known[chosen.checkpoint_id]["evaluation"] if chosen else None
    return Outcome(
        data_version=fingerprint([(record.checkpoint_id, known[record.checkpoint_id]["key"]) for record in kept]),
        counts={"checkpoints": len(records), "pruned": pruned, "recomputed": recomputed},
        values=_quality_values(judged) | {"unevaluated_checkpoints": len(records) - len(scores)},
        rows=[_shown(step, item) for step, item in evaluations.items()],
        details={
            "best_checkpoint": chosen.checkpoint_id if chosen else None,
            "encoder": judged["encoder"] if judged else None,
            "fad": judged["fad"] if judged else None,
            "tag_alignment": judged["tag_alignment"] if judged else None,
            "clap_note": judged["clap_note"] if judged else None,
            "style_coverage": judged["style_coverage"]["styles"] if judged else None,
        },
        pictures={"FAD by step": lambda: _fad_by_step(scores, judged)} if scores else {},
    )


def _quality_values(judged: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the gates judge: the best checkpoint's numbers, each with the encoder that produced it."""
    if judged is None:
        return {}
    encoder = {"encoder": judged["encoder"], "trained": judged["trained"], "note": judged["fad"]["note"]}
    clap = judged["clap"] or {}
    styles = judged["style_coverage"]["styles"]
    return {
        "fad": {"value": judged["fad"]["value"], **encoder},
        "fad_over_floor": {"value": judged["fad"]["over_floor"], **encoder},
        "clap_alignment": {
            "value": clap.get("lower"),
            "encoder": "laion_clap" if clap else None,
            "note": clap.get("note") or judged["clap_note"],
        },
        "styles_not_generated": sum(not style["generated"] for style in styles.values()),
    }


def _shown(step: int, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    fad, tags, clap = evaluation["fad"], evaluation["tag_alignment"] or {}, evaluation["clap"] or {}
    return {
        "step": step,
        "fad": fad["value"],
        "interval": fad["interval"],
        "floor": fad["floor"],
        "fad_over_floor": fad["over_floor"],
        "kad": fad["kad"],
        "tag_auc": tags.get("auc"),
        "clap": clap.get("value"),
        "clips": fad["n_clips"],
        "windows": fad["n_windows"],
        "encoder": evaluation["encoder"],
        "note": fad["note"],
    }


def _fad_by_step(scores: Mapping[int, float], judged: Mapping[str, Any] | None) -> bytes:
    floor = judged["fad"]["floor"] if judged else None
    marks = {"floor: reference against itself": floor} if floor is not None else {}
    return pictures.score_by_step(scores, label=f"FAD ({judged['encoder'] if judged else ''})", marks=marks)
