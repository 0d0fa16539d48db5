"""A revoked licence, through Dagster with the real definitions: what leaves, what is marked, what is refused.

The data assets, their checks, the training plan and the guard are the real ones. The sound of a track, the optimiser
and what follows training are stand-ins.
"""

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dagster as dg
import numpy as np
import pytest

from lofi_assets.constitution.evidence import current_sha256
from lofi_assets.constitution.gates import GUARDED_ASSETS
from lofi_assets.constitution.verdicts import recorded
from lofi_assets.dataset.split import split_of
from lofi_assets.dataset.versions import current_dataset
from lofi_assets.definitions import build_defs
from lofi_assets.defs import tracks, training
from lofi_assets.defs.gates import held_back
from lofi_assets.defs.resources import Platform, Workers
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import hash_of, sha256_file, sha256_folder
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.records import Checkpoint, dump
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.sources.ledger import revoke
from lofi_assets.sources.ledger_page import used_in
from lofi_assets.store import Store
from lofi_assets.tracks.curation import curated_tempo_ranges
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult
from lofi_assets.tracks.tagged_tracks import categories
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.manifest import add_record
from lofi_assets.training.checkpoints.runs import current_run, log_path, open_run
from lofi_assets.training.feature_cache import FEATURES
from lofi_assets.training.lora_checkpoints import PlannedRun, plan_training
from lofi_assets.training.made_from import uses
from lofi_assets.workers.mapping import MapTracks
from lofi_assets_tests.defs.test_gate_checks import SEAMS, StandIns, materialized, passing_value
from lofi_assets_tests.recorded_evidence import report_build
from lofi_assets_tests.training.test_training_checkpoints import write_weights

TODAY = datetime(2026, 1, 15, tzinfo=UTC).date()
REAL = ("licensed_sources", "style_taxonomy", "processed_tracks", "prompts", "dataset_manifest", "lora_checkpoints")
DATA = REAL[:-1]
LINEAGE = list(SEAMS)
TRAINED = LINEAGE[: LINEAGE.index("lora_checkpoints") + 1]
AFTER_TRAINING = LINEAGE[len(TRAINED) : -1]
ORIGINALS = {asset: getattr(*SEAMS[asset]) for asset in REAL}
CURATED = (curated_tempo_ranges, categories)
STEPS = 2


def names(split: str, count: int) -> list[str]:
    """Track ids that the split's hash puts where a test needs them."""
    return [name for name in (f"track_{number:03}" for number in range(500)) if split_of(name) == split][:count]


KEPT = [*names("train", 3), *names("validation", 1)]
GONE = [*names("train", 5)[3:], *names("validation", 2)[1:]]
"""Tracks of the source whose licence will be withdrawn, on both sides of the split."""


def source(source_id: str, tracks: Sequence[str]) -> dict[str, Any]:
    return {
        "source_id": source_id,
        "track_ids": list(tracks),
        "source_type": "partnership",
        "provider": f"Label {source_id}",
        "license_type": "Partnership (AI training)",
        "date_acquired": "2025-01-31",
        "verified_by": "Grace",
        "ai_training_rights": True,
        "evidence": "https://example.org/contract",
    }


def heard(job: ProcessJob) -> ProcessResult:
    """A track that passes every gate, with a sound of its own."""
    words = np.random.default_rng(int(hash_of(job.track_id)[:8], 16)).integers(0, 2**32, 600, dtype=np.uint32)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.target.write_bytes(f"sound of {job.track_id}".encode())
    measures = {gate.measure: passing_value(gate) for gate in job.gates if gate.measure != "duplicate_similarity"}
    return ProcessResult(
        job.track_id,
        measures={**measures, "duration_s": 60.0, "quality_score": 80, "tempo_bpm": 75.0, "tempo_confidence": 0.9},
        fingerprint=words.astype("<u4").tobytes(),
        source_sha256=sha256_file(job.source),
        sha256=sha256_file(job.target),
        envelope=np.zeros((2, 2), np.float32),
    )


class Answers(Workers):
    """What a track gave, without its audio being worked on."""

    def map_tracks(self, settings: AudioSettings) -> MapTracks:
        return cast(MapTracks, lambda function, jobs, *, label: ((job, heard(job)) for job in jobs))


class Lineage(StandIns):
    """The real definitions on a data root of seven tracks from two sources."""

    instance: dg.DagsterInstance

    @cached_property
    def defs(self) -> dg.Definitions:
        """The real definitions, with answers for the worker processes."""
        platform = Platform(data_dir=str(self.root), profile_name="demo")
        return build_defs(resources_overrides={"platform": platform, "workers": Answers()})

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Lineage":
        super().install(monkeypatch)
        for asset in REAL:
            monkeypatch.setattr(*SEAMS[asset], ORIGINALS[asset])
        monkeypatch.setattr(tracks, "curated_tempo_ranges", CURATED[0])
        monkeypatch.setattr(tracks, "categories", CURATED[1])
        monkeypatch.setattr(training, "cache_dataset_features", lambda store, _: self.cache())
        monkeypatch.setattr(training, "plan_training", lambda store, profile: self.train(profile))
        return self

    def deliver(self) -> None:
        """Raw files and their records."""
        for track in (*KEPT, *GONE):
            path = self.store.raw / "partnerships" / f"{track}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(track.encode())
        write_json(self.store.metadata("sources.json"), [source("kept", KEPT), source("gone", GONE)])

    def cache(self) -> Outcome:
        """Features of the current dataset, by key alone."""
        _, manifest, tracks = current_dataset(self.store)
        rows = [
            {"track_id": track.track_id, "key": hash_of(track.track_id)[:32] + f".{'b' * 32}" * 3}
            | {"split": track.split}
            for track in tracks
        ]
        features = {"base": "base", "base_fingerprint": "f" * 64, "dataset_hash": manifest.hash, "tracks": rows}
        write_json(self.store.metadata(FEATURES), features)
        measured = {"missing_features": 0, "outlying_latents": 0, "unusual_latents": 0}
        return Outcome(hash_of(rows), {"recomputed": 0}, values=measured)

    def train(self, profile: Any) -> PlannedRun:
        """What the trainer leaves behind for the run that is planned, without its hours."""
        planned = plan_training(self.store, profile)
        run, folder = planned.run, self.store.checkpoints
        if current_run(folder) != run.run_id:
            open_run(run)
            interval = planned.run.training.checkpoint_interval
            for step in range(interval, interval * STEPS + 1, interval):
                self.save_checkpoint(planned, step)
        log_path(run).parent.mkdir(parents=True, exist_ok=True)
        log_path(run).write_text('{"step": 10, "loss": 0.5}\n')
        return PlannedRun(run, planned.config, 0)

    def save_checkpoint(self, planned: PlannedRun, step: int) -> None:
        run, folder = planned.run, write_weights(self.store.checkpoints / checkpoint_id(step))
        checkpoint = Checkpoint(
            checkpoint_id=checkpoint_id(step),
            step=step,
            path=f"checkpoints/{checkpoint_id(step)}",
            timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            is_valid=True,
            config_hash=run.config_hash,
            dataset_hash=run.dataset_hash,
        )
        write_json(folder / "config.json", run.model_dump(mode="json"))
        state = {"record": dump(checkpoint), "seed": 1, "provenance": {"command": "train", "packages": {"torch": "2"}}}
        write_json(folder / "checkpoint.json", state)
        trainer_record.enter(run, folder, step=step)
        add_record(self.store.checkpoints, checkpoint)

    def run(self, *assets: str) -> dg.ExecuteInProcessResult:
        """One run of its own, which must be green."""
        result = self.materialize(self.instance, *assets)
        assert result.success and materialized(result) == sorted(assets, key=LINEAGE.index)
        return result

    def revoke(self, track: str | None = None) -> None:
        revoke(self.store, "gone", track=track, reason="contract ended", by="Grace", today=TODAY)

    def refused(self, asset: str) -> str:
        """What the guard says in a run of its own; the asset's work must not be done."""
        self.worked.clear()
        result = self.materialize(self.instance, asset)
        assert not result.success and self.worked == []
        (failure,) = [event for event in result.all_events if event.is_step_failure and event.step_key == asset]
        return failure.step_failure_data.error_display_string

    def held(self, asset: str = "hub_release") -> dict[str, str]:
        """Gate id -> status, of the gates that hold an asset back now."""
        return {found.gate.id: found.status for found in held_back(self.instance, self.store, asset)}

    def dataset_tracks(self) -> set[str]:
        return {track.track_id for track in current_dataset(self.store).tracks}


def shown_tracks(store: Store) -> set[str]:
    """Track ids that `final/`, `validation/` and `processed/` show, by any of their files."""
    paths = [*store.final.iterdir(), *store.validation.iterdir(), *store.processed.glob("*/*")]
    return {track for track in (*KEPT, *GONE) for path in paths if path.name.startswith(track)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root that one run of everything up to the checkpoints leaves behind."""
    lineage = Lineage(tmp_path_factory.mktemp("built"))
    with dg.DagsterInstance.ephemeral() as lineage.instance, pytest.MonkeyPatch.context() as monkeypatch:
        lineage.install(monkeypatch)
        lineage.deliver()
        lineage.run(*TRAINED)
    return lineage.root


@pytest.fixture
def model(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lineage]:
    """A model that was trained on both sources, and that may be released."""
    model = Lineage(Path(shutil.copytree(built, tmp_path / "data")))
    with dg.DagsterInstance.ephemeral() as model.instance:
        model.install(monkeypatch)
        for asset in TRAINED:
            measures = recorded(model.store, asset)
            assert measures is not None
            report_build(model.instance, asset, measures.data_version, evidence=current_sha256(model.store, asset))
        model.report(model.instance, *AFTER_TRAINING)
        assert model.held() == {} and model.dataset_tracks() == {*KEPT, *GONE}
        yield model


def test_the_next_materialisation_takes_its_tracks_out_of_dataset_folders_and_manifest(model: Lineage) -> None:
    before, _, _ = current_dataset(model.store)
    content = sha256_folder(before)
    model.revoke()
    model.run(*DATA)
    folder, manifest, _ = current_dataset(model.store)
    assert model.dataset_tracks() == shown_tracks(model.store) == set(KEPT)
    assert manifest.track_count == len(KEPT) and folder != before
    assert sha256_folder(before) == content
    rows = {row.track_id: row for row in read_inventory(model.store)}
    quarantined = [read_json(model.store.quarantine / "sources" / f"{track}.json") for track in GONE]
    for track, kept in zip(GONE, quarantined, strict=True):
        assert rows[track].rule == kept["rule"] == "licence.revoked"
        assert "revoked 2026-01-15 by Grace: contract ended" in kept["reason"]


def test_one_track_can_be_withdrawn_while_its_source_holds(model: Lineage) -> None:
    model.revoke(track=GONE[0])
    model.run(*DATA)
    assert model.dataset_tracks() == shown_tracks(model.store) == {*KEPT, *GONE[1:]}


def test_what_was_built_from_it_is_refused_in_other_runs_before_anything_is_trained_again(model: Lineage) -> None:
    model.revoke()
    model.run("licensed_sources")
    for asset in GUARDED_ASSETS:
        message = model.refused(asset)
        assert "- checkpoint.revoked: " in message and "built from an earlier licensed_sources" in message
    model.run(*DATA[1:])
    assert all("checkpoint.revoked" in model.held(asset) for asset in GUARDED_ASSETS)


def test_a_release_is_refused_the_moment_the_licence_is_revoked(model: Lineage) -> None:
    model.revoke()
    for asset in GUARDED_ASSETS:
        message = model.refused(asset)
        assert "- checkpoint.revoked: fail" in message and "by Grace: contract ended" in message


def test_a_checkpoint_stays_marked_when_the_raw_file_is_gone(model: Lineage) -> None:
    model.revoke(track=GONE[0])
    (model.store.raw / "partnerships" / f"{GONE[0]}.wav").unlink()
    model.run("licensed_sources")
    model.run("lora_checkpoints")
    measures = recorded(model.store, "lora_checkpoints")
    assert measures is not None and measures.values["checkpoints_on_revoked_tracks"] == STEPS


def test_every_checkpoint_trained_on_it_is_marked_and_cannot_be_released(model: Lineage) -> None:
    model.revoke(track=GONE[0])
    model.run("licensed_sources")
    result = model.run("lora_checkpoints")
    (check,) = [found for found in result.get_asset_check_evaluations() if found.check_name == "checkpoint_revoked"]
    assert not check.passed and float(str(check.metadata["value"].value)) == STEPS
    measures = recorded(model.store, "lora_checkpoints")
    assert measures is not None and measures.values["checkpoints_on_revoked_tracks"] == STEPS
    assert all("checkpoint.revoked" in model.held(asset) for asset in GUARDED_ASSETS)
    assert {use.kind for use in used_in(uses(model.store), GONE[:1])} == {"dataset", "checkpoint"}


def test_a_track_that_was_only_validated_against_marks_no_checkpoint(model: Lineage) -> None:
    model.revoke(track=GONE[-1])
    model.run("licensed_sources")
    model.run("lora_checkpoints")
    measures = recorded(model.store, "lora_checkpoints")
    assert measures is not None and measures.values["checkpoints_on_revoked_tracks"] == 0
    assert "dataset.unlicensed" in model.held()


def test_a_model_trained_without_it_may_be_released_and_the_earlier_one_stays_on_record(model: Lineage) -> None:
    model.revoke()
    model.run(*TRAINED)
    model.report(model.instance, *AFTER_TRAINING)
    assert model.held() == {}
    found = [use.name for use in used_in(uses(model.store), GONE) if use.kind == "checkpoint"]
    assert len(found) == STEPS and all(name.startswith("checkpoints/archive/") for name in found)


def test_a_revocation_that_leaves_no_track_stops_the_run_and_the_release(model: Lineage) -> None:
    model.revoke()
    revoke(model.store, "kept", reason="contract ended", by="Grace", today=TODAY)
    result = model.materialize(model.instance, *DATA)
    assert not result.success and "processed_tracks" not in materialized(result)
    assert set(model.held()) >= {"checkpoint.revoked", "dataset.unlicensed"}
