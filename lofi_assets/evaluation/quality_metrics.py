"""Samples -> numbers: FAD, KAD, alignment, coverage of every checkpoint; scores into the manifest; retention.

What belongs here: what has to be measured again, and which numbers the gates see. What does not: the formulas
(`metrics/`), the document of the numbers (`measured.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from lofi_assets import pictures
from lofi_assets.evaluation import before_after, sample_gates
from lofi_assets.evaluation import report as quality_report
from lofi_assets.evaluation.judged import judged_values
from lofi_assets.evaluation.measured import (
    METRICS_VERSION,
    Marks,
    Measured,
    measured_files,
    read_measured,
    write_measured,
)
from lofi_assets.evaluation.reports.pages import report_links
from lofi_assets.evaluation.samples import (
    BASE,
    clips_of,
    generated_samples,
    reference_tracks,
    sample_prompts,
    samples_key,
    training_audio,
)
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import plain
from lofi_assets.metrics.results import Evaluation, NoiseDistances
from lofi_assets.metrics.sample_checks import CHECKS_VERSION
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile, setting
from lofi_assets.progress import over
from lofi_assets.records import Checkpoint, QualityMetrics
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.manifest import best, best_by_validation, prune, read_manifest, update_record
from lofi_assets.training.settings import training_settings
from lofi_assets.training.trained_on import trained_dataset


def load_encoder(store: Store, profile: Profile) -> Any:
    """The profile's FAD encoder.

    Raises:
        ProfileError: its weights cannot be had.
    """
    from lofi_assets.metrics.encoders import load_embedder

    settings = profile.evaluation
    weights = store.root / settings.encoder_weights if settings.encoder_weights else None
    with setting(profile, "evaluation.encoder_weights"):
        return load_embedder(settings.encoder, weights=weights, device=settings.device)


def load_clap(store: Store, profile: Profile) -> Any:
    """The profile's CLAP model, None if it names none.

    Raises:
        ProfileError: it cannot be had.
    """
    from lofi_assets.metrics.clap import ClapEmbedder

    settings = profile.evaluation
    with setting(profile, "evaluation.clap"):
        return ClapEmbedder.load(store.root / settings.clap, device=settings.device) if settings.clap else None


def load_aesthetics(store: Store, profile: Profile) -> Any:
    """The profile's scorer of aesthetics, None if it names none.

    Raises:
        ProfileError: it cannot be had.
    """
    from lofi_assets.metrics.aesthetics import AestheticsScorer

    settings = profile.evaluation
    with setting(profile, "evaluation.aesthetics"):
        folder = store.root / settings.aesthetics if settings.aesthetics else None
        return AestheticsScorer.load(folder, device=settings.device) if folder else None


def evaluate_checkpoints(store: Store, profile: Profile, *, now: datetime) -> Outcome:
    """Measure every checkpoint that has samples, write the scores into the manifest, then prune by retention.

    The base and noise are measured on the same prompts and seconds: what the checkpoints are read against.
    """
    records = read_manifest(store.checkpoints)
    known, marks = read_measured(store), Marks.read(store)
    wanted = {record.checkpoint_id: metrics_key(store, profile, record.checkpoint_id) for record in records}
    todo = [name for name, key in wanted.items() if name not in known or not still(known[name].key, key)]
    base_key = metrics_key(store, profile, BASE)
    unmarked = bool(records and samples_key(store, BASE)) and (marks is None or not still(marks.key, base_key))
    if todo or unmarked:
        measured, noise = evaluate_models(store, profile, [*todo, *([BASE] if unmarked else ())], with_noise=unmarked)
        known |= {name: _entry(name, wanted[name], measured[name], now) for name in todo}
        write_measured(store, known)
        if unmarked:
            marks = Marks(base_key, measured[BASE], noise)
            marks.write(store)
    for record in records:
        scores = known[record.checkpoint_id].record
        update_record(
            store.checkpoints,
            record.checkpoint_id,
            fad_score=scores.fad_score,
            clap_score=scores.clap_score,
        )
    settings = training_settings(profile)
    kept = best_by_validation(store.checkpoints) if settings.keep_best_validation else None
    pruned = prune(store.checkpoints, keep_best=settings.keep_best, keep=[kept] if kept else [])
    recomputed = len(todo) + unmarked
    return _quality_outcome(
        store,
        records,
        known,
        marks if records else None,
        conditions=profile.sampling.conditions,
        pruned=len(pruned),
        recomputed=recomputed,
    )


def metrics_key(store: Store, profile: Profile, model: str) -> str:
    """What the numbers of a model depend on, and after a dot the bytes of its clips; none where a clip is gone."""
    from lofi_assets.metrics.encoders import content_of

    files = [clip.file(store) for clip in clips_of(store, model)]
    others = hash_of(METRICS_VERSION, CHECKS_VERSION, samples_key(store, model) or "", evaluation_key(store, profile))
    return f"{others}.{content_of(files) if all(file.is_file() for file in files) else ''}"


def still(known: str, wanted: str) -> bool:
    """Whether numbers hold: nothing that they depend on has changed. Clips that are gone cannot have."""
    return known == wanted or (wanted.endswith(".") and known.startswith(wanted))


def evaluation_key(store: Store, profile: Profile) -> str:
    """What numbers depend on besides the clips: the reference, the profile's settings, the bytes of named weights."""
    from lofi_assets.metrics.encoders import content_of

    settings = profile.evaluation
    named = [settings.encoder_weights, settings.clap, *([settings.aesthetics] if settings.aesthetics else ())]
    weights = content_of(store.root / path if path else None for path in named)
    # A scorer that nobody named leaves the key as it was before there were any.
    asked = settings.model_dump(exclude=None if settings.aesthetics else {"aesthetics"})
    return hash_of(trained_dataset(store).record.hash, asked, weights)


def evaluate_models(
    store: Store, profile: Profile, models: Sequence[str], *, with_noise: bool
) -> tuple[dict[str, Evaluation], NoiseDistances]:
    """Evaluations by model (a folder of `samples/`), and the distances of noise."""
    from lofi_assets.metrics.errors import attempt
    from lofi_assets.metrics.known_music import known_music
    from lofi_assets.metrics.noise import noise_distances
    from lofi_assets.metrics.sample_quality import evaluate_checkpoint

    settings, sampling, embeddings = profile.evaluation, profile.sampling, store.cache / "embeddings"
    embedder = load_encoder(store, profile)
    clap = load_clap(store, profile)
    aesthetics = load_aesthetics(store, profile)
    reference = reference_tracks(store)
    known = known_music(
        training=training_audio(store),
        validation=[track.path for track in reference],
        prompts=[track.prompt for track in reference],
        embedder=embedder,
        cache_dir=embeddings,
        seconds=sampling.seconds,
    )
    asked = [prompt.style_id for prompt in sample_prompts(store, sampling)]
    found = {
        model: evaluate_checkpoint(
            checkpoint_id=model,
            samples=generated_samples(store, model, seconds=sampling.seconds),
            reference=reference,
            embedder=embedder,
            clap=clap,
            cache_dir=embeddings,
            seed=sampling.seed,
            n_resamples=settings.resamples,
            asked=asked,
            known=known,
            aesthetics=aesthetics,
        )
        for model in over(models, "measuring checkpoints", unit="model")
    }
    if not with_noise or not embedder.trained:
        return found, NoiseDistances()
    noise, _ = attempt(
        lambda: noise_distances(
            [track.path for track in reference],
            embedder=embedder,
            cache_dir=embeddings,
            count=sampling.count,
            seconds=sampling.seconds,
            seed=sampling.seed,
        )
    )
    return found, noise or NoiseDistances()


def _entry(checkpoint_id: str, key: str, evaluation: Evaluation, now: datetime) -> Measured:
    record = QualityMetrics(
        checkpoint_id=checkpoint_id,
        evaluation_date=now,
        fad_score=evaluation.fad.value,
        clap_score=evaluation.clap.lower if evaluation.clap else None,
        style_coverage={name: plain(found) for name, found in evaluation.style_coverage.styles.items()},
    )
    return Measured(key, record, evaluation)


def _quality_outcome(
    store: Store,
    records: Sequence[Checkpoint],
    known: Mapping[str, Measured],
    marks: Marks | None,
    *,
    conditions: str,
    pruned: int,
    recomputed: int,
) -> Outcome:
    kept = read_manifest(store.checkpoints)
    chosen = best(kept)
    evaluations = {record.step: known[record.checkpoint_id].evaluation for record in records}
    unevaluated = sum(item.fad.value is None for item in evaluations.values())
    judged = known[chosen.checkpoint_id].evaluation if chosen else None
    drawn = _pictures(evaluations, judged, marks)
    if chosen and marks and before_after.rows(store, chosen):
        drawn["before and after"] = partial(before_after.spectrograms, store, chosen)
    links, unwritten = report_links(store, chosen.checkpoint_id if chosen else None)
    return Outcome(
        data_version=hash_of([(record.checkpoint_id, known[record.checkpoint_id].key) for record in kept]),
        written=Written(
            files=measured_files(store),
            materials=[clip.file(store) for clip in clips_of(store, chosen.checkpoint_id)] if chosen else [],
        ),
        summary=quality_report.summary(chosen, judged, marks, checkpoints=len(records)),
        needs=quality_report.unmeasured(evaluations),
        counts={"checkpoints": len(records), "pruned": pruned, "recomputed": recomputed},
        values=judged_values(judged, [*evaluations.values(), *([marks.base] if marks else ())], conditions=conditions)
        | {"unevaluated_checkpoints": unevaluated},
        rows=sample_gates.beside(quality_report.by_step(evaluations, marks), evaluations, marks),
        links=links,
        details=quality_report.numbers(chosen, judged, marks)
        | sample_gates.numbers(judged)
        | {"no pages": unwritten or None},
        pictures=drawn,
    )


def _pictures(
    evaluations: Mapping[int, Evaluation], judged: Evaluation | None, marks: Marks | None
) -> dict[str, Callable[[], bytes]]:
    """FAD and KAD of every checkpoint by step, between the floor and noise, with the base they started from.

    Each is drawn when the UI shows it.
    """
    drawn: dict[str, Callable[[], bytes]] = {}
    if judged is None:
        return drawn
    noise = marks.noise if marks else NoiseDistances()
    base_fad, base_kad = (marks.base.fad.value, marks.base.fad.kad) if marks else (None, None)
    for name, value, interval, lines in (
        (
            "FAD",
            "value",
            "interval",
            {"floor: as many real clips": judged.fad.floor, "noise": noise.fad, "base": base_fad},
        ),
        (
            "KAD",
            "kad",
            "kad_interval",
            {
                "95 % of real sets lie below": judged.fad.kad_floor,
                "noise": noise.kad,
                "base": base_kad,
            },
        ),
    ):
        found = {step: getattr(item.fad, value) for step, item in evaluations.items()}
        scores = {step: score for step, score in found.items() if score is not None}
        spans = {step: getattr(evaluations[step].fad, interval) for step in scores}
        if scores:
            drawn[f"{name} by step"] = partial(
                pictures.score_by_step,
                scores,
                label=f"{name} ({judged.encoder})",
                marks={mark: score for mark, score in lines.items() if score is not None},
                intervals={step: span for step, span in spans.items() if span and None not in span},
            )
    return drawn | sample_gates.drawn(evaluations, marks)
