"""Cached features -> the training run over them, and what it left (constitution II).

The run's configuration file, and what a finished run says to the gates. The optimisation itself (`trainer/`) runs in
its own process.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.backbones.features import FeatureError
from lofi_assets.constitution.evidence import Evidence
from lofi_assets.dataset.versions import dataset_on_record
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.records import Checkpoint
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training import report as training_report
from lofi_assets.training import track_losses
from lofi_assets.training.adapter_rights import on_unlicensed_adapters
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.begun import as_begun
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import (
    COMFYUI_WEIGHTS,
    DESCRIPTION,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    RUN_CONFIG,
    CheckpointError,
)
from lofi_assets.training.checkpoints.manifest import pruned_records, read_manifest, update_record
from lofi_assets.training.checkpoints.runs import companion_folder, current_run, finished, log_path
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import (
    TRAINING_RUN,
    TrackFeatures,
    TrainingRun,
    save_run,
)
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.training.initial import initial_adapter
from lofi_assets.training.settings import lora_settings, training_settings
from lofi_assets.training.trained_on import on_revoked_tracks
from lofi_assets.training.trainer.log import read_log
from lofi_assets.wording import rounded


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


def plan_training(
    store: Store, profile: Profile, *, config_dir: Path = CONFIG_DIR, init_from: str | None = None
) -> PlannedRun:
    """Write the run's configuration file, and say how many steps are left to do.

    Args:
        init_from: id of a LoRA that was taken in (`training.initial`), in place of the profile's.
    Raises:
        AdapterError: there is none of that id, or it does not fit the run.
        FeatureError: no features yet, or those of another version, of another dataset than the current one, or of
            fewer wordings than the run is to have.
    """
    manifest, features = dataset_on_record(store), FeatureRecord.read(store)
    settings = training_settings(profile)
    if features.dataset_hash != manifest.hash:
        of = features.dataset_id or f"a dataset of hash {features.dataset_hash[:12] or 'unknown'}"
        raise FeatureError(
            f"{FeatureRecord.path(store)}: the features are of {of}, the current dataset is {manifest.dataset_id}: "
            "materialise feature_cache, then lora_checkpoints"
        )
    run = TrainingRun.model_validate(
        {
            "architecture": features.architecture,
            "base": features.base,
            "base_fingerprint": features.base_fingerprint,
            "features_dir": store.features,
            "tracks": _worded(features, settings.prompt_variants),
            "dataset_id": manifest.dataset_id,
            "dataset_hash": manifest.hash,
            "checkpoints_dir": store.checkpoints,
            "logs_dir": store.logs,
            "lora": lora_settings(profile, config_dir=config_dir).model_dump(),
            "training": settings.model_dump(),
            "initial": _initial(store, profile.init_from if init_from is None else init_from, features),
            "device": profile.training.get("device", "auto"),
        }
    )
    run, config = as_begun(run), store.metadata(TRAINING_RUN)
    save_run(config, run)
    return PlannedRun(run, config, 0 if finished(run) else run.training.max_steps - _steps_done(run))


def _worded(features: FeatureRecord, wordings: int) -> list[TrackFeatures]:
    """The tracks with as many wordings of their prompts as a run is to have, of those that the features have."""
    if wordings > features.prompt_variants:
        raise FeatureError(
            f"training.prompt_variants is {wordings}, the features have {features.prompt_variants} of each prompt: "
            "materialise feature_cache, then lora_checkpoints"
        )
    return [track.model_copy(update={"variants": track.variants[: wordings - 1]}) for track in features.tracks]


def _initial(store: Store, identifier: str, features: FeatureRecord) -> dict[str, Any] | None:
    if not identifier:
        return None
    validation = frozenset(track.track_id for track in features.tracks if track.split == "validation")
    found = initial_adapter(store, identifier, base_fingerprint=features.base_fingerprint, validation=validation)
    return found.model_dump()


def _steps_done(run: TrainingRun) -> int:
    point = resume_point(run.checkpoints_dir) if current_run(run.checkpoints_dir) == run.run_id else None
    return point.step if point else 0


def describe_training(store: Store, planned: PlannedRun, *, earlier: Iterable[Evidence] = ()) -> Outcome:
    """What the checkpoints are, for the gates and for people; each is loaded to see whether it can be.

    Args:
        earlier: what runs of Dagster left as evidence of this asset, the latest first; read as far as it has to be.
    Raises:
        CheckpointError: one is not what the trainer of this run wrote, and was not evidence before; names it.
    """
    run = planned.run
    records = [_checked(store, record) for record in read_manifest(store.checkpoints)]
    _require_trained(store, run, records, earlier)
    states = {name: CheckpointDescription.read(store.checkpoints / name) for name in (r.checkpoint_id for r in records)}
    lines = list(read_log(log_path(run)))
    losses, tracks_seen = read_losses(log_path(run)), track_losses.track_losses(lines)
    track_losses.write(companion_folder(run), tracks_seen)
    last_loss = losses[-1][1] if losses else None
    interval = run.training.checkpoint_interval
    return Outcome(
        data_version=_data_version(run, max((record.step for record in records), default=0)),
        counts={
            "checkpoints": len(records),
            "steps": max((record.step for record in records), default=0),
            "recomputed": planned.remaining_steps,
        },
        values={
            # With the pruned ones: retention must not change what the run is said to have produced.
            "checkpoints": len(records) + len(pruned_records(store.checkpoints)),
            "invalid_checkpoints": sum(not record.is_valid for record in records),
            "off_interval_checkpoints": sum(
                record.step % interval != 0 and record.step != run.training.max_steps for record in records
            ),
            "unreproducible_checkpoints": sum(
                not _reproducible(store, states[record.checkpoint_id]) for record in records
            ),
            "foreign_dataset_checkpoints": sum(record.dataset_hash != run.dataset_hash for record in records),
            "checkpoints_on_revoked_tracks": len(on_revoked_tracks(store)),
            "checkpoints_from_unlicensed_adapters": _unlicensed(store, records),
            "last_loss": last_loss,
            "outlying_track_losses": track_losses.outlying_tracks(tracks_seen),
            "skipped_items": track_losses.skipped_items(lines),
        },
        written=_written(store, run, records),
        summary=training_report.training_summary(
            records, loss=last_loss, wanted=run.training.max_steps, tracks_seen=tracks_seen
        ),
        needs=training_report.waiting(store.checkpoints, records, tracks_seen),
        rows=[_shown(record, states[record.checkpoint_id]) for record in reversed(records)],
        links=training_report.run_links(store, run),
        details=training_report.run_details(run, config=planned.config, losses=losses, tracks_seen=tracks_seen),
        pictures=training_report.run_pictures(run, tracks_seen),
    )


def _data_version(run: TrainingRun, last_step: int) -> str:
    """Evidence with it is of this run: checkpoints of another have the same names."""
    return hash_of(run.run_id, last_step)


def _last_step(files: Iterable[str]) -> int:
    """Of the checkpoints that files belong to; 0 for none."""
    return max((int(found[1]) for name in files if (found := _STEP.search(name))), default=0)


_STEP = re.compile(r"/epoch=0-step=(\d+)_lora/")


def _checked(store: Store, record: Checkpoint) -> Checkpoint:
    valid = fault(store.checkpoints / record.checkpoint_id) is None
    if valid == record.is_valid:
        return record
    return update_record(store.checkpoints, record.checkpoint_id, is_valid=valid)


def _unlicensed(store: Store, records: Sequence[Checkpoint]) -> dict[str, Any]:
    found = on_unlicensed_adapters(store, {r.checkpoint_id: store.checkpoints / r.checkpoint_id for r in records})
    return {"value": len(found), "note": next(iter(found.values()), "")}


def _require_trained(
    store: Store, run: TrainingRun, records: Sequence[Checkpoint], earlier: Iterable[Evidence]
) -> None:
    """One that does not load is left to its gate: nothing is made from it."""
    hashes = FileHashes(store.root, store.cache / "evidence" / "lora_checkpoints.json")
    names = [record.checkpoint_id for record in records if record.is_valid]
    vouched = (one.given for one in earlier if one.data_version == _data_version(run, _last_step(one.given)))
    found = trainer_record.foreign(run, names, sha256=hashes, vouched=vouched)
    hashes.save()
    if found:
        told = "; ".join(f"checkpoints/{name}: {reason}" for name, reason in found.items())
        raise CheckpointError(
            f"{told}. Nothing says that it was trained here, so it is not recorded as that: restore it from a copy, or "
            "move it and manifest.json out of checkpoints/ (each folder has its own record), and materialise "
            "lora_checkpoints again"
        )


def _written(store: Store, run: TrainingRun, records: Sequence[Checkpoint]) -> Written:
    """What the trainer left of each checkpoint, and what the run started from.

    The manifest says later that a checkpoint was sampled and measured.
    """
    folders = [store.checkpoints / record.checkpoint_id for record in records]
    names = (PEFT_WEIGHTS, PEFT_CONFIG, DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS, RUN_CONFIG, DESCRIPTION)
    files = [folder / name for folder in folders for name in names]
    start = sorted(run.initial.folder.iterdir()) if run.initial and run.initial.folder.is_dir() else []
    return Written(given=[*start, *files, *trainer_record.folder_of(run).glob("*.json")], prunable=folders)


def _reproducible(store: Store, description: CheckpointDescription) -> bool:
    run = store.checkpoints / description.record.checkpoint_id / RUN_CONFIG
    return run.is_file() and description.reproducible


def _shown(record: Checkpoint, description: CheckpointDescription) -> dict[str, Any]:
    return {
        "checkpoint": record.checkpoint_id,
        "train_loss": rounded(description.train_loss, 4),
        "validation_loss": rounded(description.validation_loss, 4),
        "fad": rounded(record.fad_score, 2),
        "saved": f"{record.timestamp:%Y-%m-%d %H:%M}",
    }


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of every step in a training log."""
    return [(line["step"], line["loss"]) for line in read_log(path) if line.get("loss") is not None]
