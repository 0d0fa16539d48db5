"""A dataset version and a base model -> cached features, and the training run over them (constitution II).

What belongs here: which base a profile means, the run's configuration file, and what a finished run says to the gates.
What does not: the optimisation itself (`training/`), which runs in its own process.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lofi_assets.dataset.card import DatasetError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint
from lofi_assets.files.writing import atomic_folder
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import BaseModelSettings, Profile, ProfileError, broken_keys, setting
from lofi_assets.records import Checkpoint
from lofi_assets.store import CONFIG_DIR, PACKAGE, Store
from lofi_assets.training import report as training_report
from lofi_assets.training.checkpoints.manifest import PRUNED, describe, fault, read_manifest, update_record
from lofi_assets.training.checkpoints.runs import RUN, current_run, finished, log_path
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import (
    LoraSettings,
    TrackFeatures,
    TrainingRun,
    TrainingSettings,
    load_lora_settings,
    save_run,
)
from lofi_assets.training.features.files import FeatureError, exclusive, keys_of_runs, unneeded_files
from lofi_assets.training.trained_on import on_revoked_tracks
from lofi_assets.training.trainer.log import read_log
from lofi_assets.wording import rounded, tallied

MANIFEST = "dataset_manifest.json"
FEATURES = "feature_cache.json"
RUN_CONFIG = "training_run.json"
SHIPPED_BASE = PACKAGE / "demo" / "base_recipe" / "weights"
"""The small trained base, as `lofi train-base` wrote it."""
REQUIRED_STATE = ("seed", "record.dataset_hash", "record.config_hash", "provenance.command", "provenance.packages")
"""What a checkpoint must say of itself to be reproducible (constitution II)."""


@dataclass(frozen=True)
class PlannedRun:
    """A training run as it will be, or was, executed."""

    run: TrainingRun
    config: Path
    remaining_steps: int

    @property
    def command(self) -> list[str]:
        """What trains it, alone or under Dagster Pipes."""
        return [sys.executable, "-m", "lofi_assets.training", "--config", str(self.config)]


def resolve_base(store: Store, settings: BaseModelSettings) -> Path:
    """Folder of the base model in the Hub's layout; a tiny one is written, a Hub one downloaded, if it is not there."""
    if settings.kind == "tiny":
        folder = store.base_models / "tiny"
        if not folder.is_dir():
            from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

            with atomic_folder(folder) as temporary:
                write_tiny_base(temporary)
        return folder
    if settings.kind == "shipped":
        if not SHIPPED_BASE.is_dir():
            raise ProfileError(f"{SHIPPED_BASE}: this build ships no base; set base_model.kind to tiny, folder or hub")
        return SHIPPED_BASE
    if settings.kind == "folder":
        folder = store.root / settings.path  # an absolute path stays what it is
        if not folder.is_dir():
            raise ProfileError(f"{folder}: no such folder; put a base model in the Hub's layout there, or correct path")
        return folder
    from lofi_assets.backbones.ace_step_v1.loading import base_directory

    return base_directory(settings.path, revision=settings.revision)


def base_identity(folder: Path) -> str:
    """Fingerprint of a base model's weights and configuration."""
    from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint

    return base_fingerprint(folder)


def cache_dataset_features(store: Store, profile: Profile) -> Outcome:
    """Features of every track of the current dataset version; what is cached is read, not computed again."""
    from lofi_assets.training.features.cache import cache_features
    from lofi_assets.training.features.jobs import feature_jobs, lyric_vocabulary, ssl_folders

    folder, manifest, tracks = current_dataset(store)
    with setting(profile, "base_model"):
        base = resolve_base(store, profile.base_model)
        identity = base_identity(base)
    with setting(profile, "lyric_vocabulary"):
        vocabulary = lyric_vocabulary(store, profile.lyric_vocabulary)
    rows = cache_features(
        feature_jobs(store, folder, tracks),
        base_path=base,
        base_fingerprint=identity,
        cache_dir=store.features,
        device=profile.training.get("device", "cpu"),
        vocabulary=vocabulary,
        ssl_encoders=ssl_folders(store, profile),
    )
    splits = {track["track_id"]: track["split"] for track in tracks}
    features = [{"track_id": row.track_id, "key": row.key, "split": splits[row.track_id]} for row in rows]
    languages = {row.track_id: row.language for row in rows if row.language}
    write_json(
        store.metadata(FEATURES),
        {"base": str(base), "base_fingerprint": identity, "tracks": features}
        | {"dataset_id": manifest["dataset_id"], "dataset_hash": manifest["hash"]}
        | {"lyric_vocabulary": str(vocabulary) if vocabulary else None, "languages": languages},
    )
    computed, orphaned = sum(not row.reused for row in rows), len(unneeded_features(store))
    return Outcome(
        # The dataset's hash covers what no key does: which tracks are trained on, and which validate.
        data_version=fingerprint(identity, manifest["hash"], [(row.track_id, row.key) for row in rows]),
        summary=training_report.features_summary(len(rows), computed=computed, orphaned=orphaned),
        counts={
            "tracks": len(rows),
            "latent_frames": sum(row.frames for row in rows),
            "recomputed": computed,
            "orphaned_files": orphaned,
        },
        values={"missing_features": sum(not all(path.is_file() for path in row.files.values()) for row in rows)},
        details={"base": f"{base.name} {identity[:12]}", "languages": tallied(languages.values()) or None},
    )


def unneeded_features(store: Store) -> list[Path]:
    """Cached files that neither the current features nor any run, archived ones among them, name."""
    keys = keys_of_runs(store.metadata(FEATURES), store.metadata(RUN_CONFIG), store.checkpoints)
    return unneeded_files(store.features, keys)


def prune_features(store: Store) -> list[Path]:
    """Remove what `unneeded_features` lists.

    Raises:
        FeatureError: features are being computed right now.
    """
    with exclusive(store.features):
        unneeded = unneeded_features(store)
        for path in unneeded:
            path.unlink()
    return unneeded


def current_dataset(store: Store) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Folder, manifest and tracks of the current dataset version.

    Raises:
        DatasetError: no dataset was built yet, or what tells of it is broken.
    """
    manifest = _dataset_on_record(store)
    folder = store.datasets / manifest["dataset_id"]
    path, remedy = folder / "tracks.json", "restore it, or move the folder away and materialise dataset_manifest again"
    tracks = read_json(path, remedy=remedy)
    if not isinstance(tracks, list):
        raise DatasetError(f"{path}: {'absent' if tracks is None else 'not an array of tracks'}; {remedy}")
    return folder, manifest, tracks


def _dataset_on_record(store: Store) -> dict[str, Any]:
    path, remedy = store.metadata("dataset_manifest.json"), "remove it and materialise dataset_manifest again"
    manifest = read_json(path, remedy=remedy)
    if manifest is None:
        raise DatasetError(f"{path}: no dataset yet; materialise dataset_manifest")
    if not isinstance(manifest, dict) or not {"dataset_id", "hash"} <= manifest.keys():
        raise DatasetError(f"{path}: names no dataset version; {remedy}")
    return manifest


def trained_dataset(store: Store) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Folder, manifest and tracks of the version that the checkpoints were trained on; the current one before any.

    What a checkpoint is sampled and measured with comes from here: a later dataset may hold in training what this one
    validated against, and moves nothing until it is trained on.

    Raises:
        DatasetError: that version's folder is gone.
    """
    run = read_json(store.checkpoints / RUN, default={})
    current = read_json(store.metadata(MANIFEST), default={})
    if not run or run["dataset_hash"] == current.get("hash"):
        return current_dataset(store)
    folder = store.datasets / run["dataset_id"]
    manifest = read_json(folder / "dataset.json", default={})
    if manifest.get("hash") != run["dataset_hash"]:
        raise DatasetError(
            f"{folder}: is not there, and the checkpoints were trained on it; restore that version from a backup, or "
            "train on the current one: materialise feature_cache and lora_checkpoints"
        )
    return folder, manifest, read_json(folder / "tracks.json", default=[])


def trained_base(store: Store, checkpoints: Iterable[str]) -> dict[str, Any]:
    """`base`, `base_fingerprint` and `lyric_vocabulary` that the features were computed with, and checkpoints trained.

    Raises:
        FeatureError: there are none, or a checkpoint was trained on another base than they are of.
    """
    path = store.metadata(FEATURES)
    features: dict[str, Any] = read_json(path, default={})
    if "base_fingerprint" not in features:
        raise FeatureError(f"{path}: no features yet; materialise feature_cache")
    for name in checkpoints:
        of = read_json(store.checkpoints / name / "config.json", default={}).get("base_fingerprint")
        if of not in (None, features["base_fingerprint"]):
            raise FeatureError(
                f"{path}: the features are of the base {features['base_fingerprint'][:12]}, {name} was trained on "
                f"{of[:12]}; materialise lora_checkpoints, or set the profile's base back and materialise feature_cache"
            )
    return features


def plan_training(store: Store, profile: Profile, *, config_dir: Path = CONFIG_DIR) -> PlannedRun:
    """Write the run's configuration file, and say how many steps are left to do.

    Raises:
        FeatureError: no features yet, or those of another version or of another dataset than the current one.
    """
    manifest, features = _dataset_on_record(store), features_on_record(store)
    if features.get("dataset_hash") != manifest["hash"]:
        of = features.get("dataset_id") or f"a dataset of hash {str(features.get('dataset_hash'))[:12]}"
        raise FeatureError(
            f"{store.metadata(FEATURES)}: the features are of {of}, the current dataset is {manifest['dataset_id']}: "
            "materialise feature_cache, then lora_checkpoints"
        )
    run = TrainingRun.model_validate(
        {
            "base": features["base"],
            "base_fingerprint": features["base_fingerprint"],
            "features_dir": store.features,
            "tracks": features["tracks"],
            "dataset_id": manifest["dataset_id"],
            "dataset_hash": manifest["hash"],
            "checkpoints_dir": store.checkpoints,
            "logs_dir": store.logs,
            "lora": lora_settings(profile, config_dir=config_dir).model_dump(),
            "training": training_settings(profile).model_dump(),
            "device": profile.training.get("device", "auto"),
        }
    )
    config = store.metadata(RUN_CONFIG)
    save_run(config, run)
    return PlannedRun(run, config, 0 if finished(run) else run.training.max_steps - _steps_done(run))


def features_on_record(store: Store) -> dict[str, Any]:
    """What `feature_cache` wrote: `base`, `base_fingerprint`, `tracks` and perhaps `lyric_vocabulary`.

    Raises:
        FeatureError: absent, or of another version.
        StoreError: not JSON.
    """
    path, remedy = store.metadata(FEATURES), "materialise feature_cache again"
    features: dict[str, Any] = read_json(path, default={}, remedy=f"remove it and {remedy}, which reads what is cached")
    try:
        needed = {"base": features["base"], "base_fingerprint": features["base_fingerprint"]}
        tracks = [TrackFeatures.model_validate(track) for track in features["tracks"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise FeatureError(f"{path}: absent or of another version; {remedy}") from error
    return features | needed | {"tracks": tracks}


def _steps_done(run: TrainingRun) -> int:
    point = resume_point(run.checkpoints_dir) if current_run(run.checkpoints_dir) == run.run_id else None
    return point.step if point else 0


def lora_settings(profile: Profile, *, config_dir: Path = CONFIG_DIR) -> LoraSettings:
    """`config/lofi_lora_config.json` with the profile's overrides.

    Raises:
        ConfigError: naming file, key and rule.
        ProfileError: naming the key of the profile that is unknown or does not fit.
    """
    values = load_lora_settings(config_dir / "lofi_lora_config.json").model_dump() | profile.lora
    try:
        return LoraSettings.model_validate(values)
    except ValidationError as error:
        raise ProfileError(f"config/profiles/{profile.name}.yaml, {broken_keys(error, below='lora')}") from error


def training_settings(profile: Profile) -> TrainingSettings:
    """The profile's training section over the trainer's defaults.

    Raises:
        ProfileError: naming the key that is unknown or does not fit.
    """
    values = {key: value for key, value in profile.training.items() if key != "device"}
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        raise ProfileError(f"config/profiles/{profile.name}.yaml, {broken_keys(error, below='training')}") from error


def describe_training(store: Store, planned: PlannedRun) -> Outcome:
    """What the checkpoints are, for the gates and for people; each is loaded to see whether it can be."""
    run = planned.run
    records = [_checked(store, record) for record in read_manifest(store.checkpoints)]
    states = {record.checkpoint_id: describe(store.checkpoints / record.checkpoint_id) for record in records}
    losses = read_losses(log_path(run))
    last_loss = losses[-1][1] if losses else None
    interval = run.training.checkpoint_interval
    return Outcome(
        data_version=fingerprint(run.run_id, max((record.step for record in records), default=0)),
        counts={
            "checkpoints": len(records),
            "steps": max((record.step for record in records), default=0),
            "recomputed": planned.remaining_steps,
        },
        values={
            # With the pruned ones: retention must not change what the run is said to have produced.
            "checkpoints": len(records) + len(read_json(store.checkpoints / PRUNED, default=[])),
            "invalid_checkpoints": sum(not record.is_valid for record in records),
            "off_interval_checkpoints": sum(
                record.step % interval != 0 and record.step != run.training.max_steps for record in records
            ),
            "unreproducible_checkpoints": sum(
                not _reproducible(store, record, states[record.checkpoint_id]) for record in records
            ),
            "foreign_dataset_checkpoints": sum(record.dataset_hash != run.dataset_hash for record in records),
            "checkpoints_on_revoked_tracks": len(on_revoked_tracks(store)),
            "last_loss": last_loss,
        },
        summary=training_report.training_summary(records, loss=last_loss, wanted=run.training.max_steps),
        needs=training_report.broken_checkpoints(store.checkpoints, records),
        rows=[_shown(record, states[record.checkpoint_id]) for record in reversed(records)],
        links=training_report.run_links(store, run),
        details=training_report.run_details(run, config=planned.config, losses=losses),
        pictures=training_report.run_pictures(run),
    )


def _checked(store: Store, record: Checkpoint) -> Checkpoint:
    valid = fault(store.checkpoints / record.checkpoint_id) is None
    if valid == record.is_valid:
        return record
    return update_record(store.checkpoints, record.checkpoint_id, is_valid=valid)


def _reproducible(store: Store, record: Checkpoint, state: Mapping[str, Any]) -> bool:
    folder = store.checkpoints / record.checkpoint_id
    return (folder / "config.json").is_file() and all(_nested(state, key) for key in REQUIRED_STATE)


def _nested(state: Mapping[str, Any], key: str) -> bool:
    value: Any = state
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value not in (None, "", {})


def _shown(record: Checkpoint, state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "checkpoint": record.checkpoint_id,
        "train_loss": rounded(state.get("train_loss"), 4),
        "validation_loss": rounded(state.get("validation_loss"), 4),
        "fad": rounded(record.fad_score, 2),
        "saved": f"{record.timestamp:%Y-%m-%d %H:%M}",
    }


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of every step in a training log."""
    return [(line["step"], line["loss"]) for line in read_log(path) if line.get("loss") is not None]
