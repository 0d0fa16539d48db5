"""A day's work on a finished lineage, through the real daemon: what starts after each thing that people do.

The table at the end is printed as it stands (`pytest -m slow -s lofi_assets_tests/test_days_work.py`).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from lofi_assets.demo.corpus.catalogue import Entry, catalogue
from lofi_assets.demo.corpus.files import _Job, write_entry
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets_tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

SENSOR_SECONDS = 5
QUIET_SECONDS = 4 * SENSOR_SECONDS
"""With no run for so long every sensor has looked several times and found nothing to start."""
PATIENCE_SECONDS = 900.0
DATA = ("licensed_sources", "processed_tracks", "prompts", "dataset_manifest")
TRAINING_AND_AFTER = (
    "feature_cache",
    "lora_checkpoints",
    "generated_samples",
    "quality_metrics",
    "human_evaluation",
    "merged_model",
    "quantized_tiers",
    "onnx_artifacts",
    "model_card",
)
ACTIVE = [
    dg.DagsterRunStatus[name] for name in ("QUEUED", "NOT_STARTED", "STARTING", "MANAGED", "STARTED", "CANCELING")
]
TINY: dict[str, dict[str, object]] = {
    "base_model": {"kind": "tiny"},
    "training": {"max_steps": 4, "checkpoint_interval": 2, "preview_count": 0, "crop_frames": 40, "batch_size": 2},
    "sampling": {"count": 2, "seconds": 4, "steps": 2},
    "quantization": {"count": 2, "seconds": 4, "steps": 2},
    "evaluation": {"resamples": 20},
}
"""What the day's profile has other than the demo's: everything as small as it works."""


@dataclass(frozen=True)
class Trial:
    """What was seen after one thing that somebody did."""

    name: str
    runs: tuple[tuple[str, ...], ...]
    """Assets that each run materialised, in its order."""
    failed: int
    alerts: tuple[dict[str, str], ...]
    seconds: float
    """From the deed to the end of the last run."""

    @property
    def troubles(self) -> list[str]:
        """Alerts that say that something is wrong."""
        return [alert["title"] for alert in self.alerts if alert["type"] in ("failure", "warning")]


@dataclass
class Day:
    """A data root with a finished lineage, its Dagster instance, and who is told."""

    root: Path
    home: Path
    instance: dg.DagsterInstance
    received: list[dict[str, str]]
    trials: list[Trial] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def raw(self, name: str) -> Path:
        return self.store.raw / name

    def records(self, change: Callable[[list[dict[str, Any]]], None]) -> None:
        """What a person does to sources.json with an editor."""
        records = read_json(self.store.metadata("sources.json"))
        change(records)
        write_json(self.store.metadata("sources.json"), records)

    def lofi(self, *words: str) -> None:
        """The command line, as a person uses it."""
        subprocess.run(
            [sys.executable, "-m", "lofi_assets.cli.main", *words], check=True, capture_output=True, timeout=120
        )

    def after(self, name: str, deed: Callable[[], object], *, starts: bool = True) -> Trial:
        """Do it, wait until nothing goes on any more, and say what happened."""
        known = {run.run_id for run in self.instance.get_runs()}
        told, began = len(self.received), time.time()
        deed()
        new = self._settled(known, began, starts=starts)
        records = [self.instance.get_run_record_by_id(run.run_id) for run in new]
        ended = max((record.end_time or began for record in records if record), default=began)
        trial = Trial(
            name,
            tuple(self._materialised(run) for run in new),
            sum(run.status != dg.DagsterRunStatus.SUCCESS for run in new),
            tuple(self.received[told:]),
            ended - began,
        )
        self.trials.append(trial)
        return trial

    def _settled(self, known: set[str], began: float, *, starts: bool) -> list[dg.DagsterRun]:
        quiet_since = time.monotonic()
        while True:
            new = [run for run in self.instance.get_runs() if run.run_id not in known]
            if any(run.status in ACTIVE for run in new):
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since > QUIET_SECONDS and (new or not starts):
                return new[::-1]
            if time.time() - began > PATIENCE_SECONDS:
                pytest.fail(f"not settled after {PATIENCE_SECONDS:.0f} s: {[(r.job_name, r.status) for r in new]}")
            time.sleep(0.5)

    def _materialised(self, run: dg.DagsterRun) -> tuple[str, ...]:
        events = self.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = [record.event_log_entry.dagster_event for record in events.records]
        return tuple(event.asset_key.to_user_string() for event in found if event and event.asset_key)


def songs() -> list[Entry]:
    """Half a minute each of songs that pass, in lossless files."""
    good = [entry for entry in catalogue(seed=0) if not entry.expected_rule and not entry.lyrics]
    return [
        replace(entry, song=replace(entry.song, seconds=32.0), format=("flac", "PCM_16"), prompt=None)
        for entry in good[:8]
    ]


def record_of(entry: Entry) -> dict[str, Any]:
    return {
        "source_id": f"deal-{entry.track_id}",
        "track_ids": [entry.track_id],
        "source_type": "partnership",
        "provider": "Studio 7",
        "license_type": "AI Training Rights",
        "date_acquired": "2025-03-01",
        "ai_training_rights": True,
        "verified_by": "M. Keller",
        "evidence": "https://example.org/contract",
    }


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Where alerts arrive: an address for apprise, and what came."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, receiver: tuple[str, list[dict[str, str]]]) -> Iterator[Day]:
    """Five songs through the whole lineage, then the daemon on it."""
    root, home, config = (tmp_path_factory.mktemp(name) for name in ("data", "home", "config"))
    shutil.copytree(CONFIG_DIR, config, dirs_exist_ok=True)
    profile = yaml.safe_load((CONFIG_DIR / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    for section, values in TINY.items():
        profile[section] = {**profile[section], **values}
    (config / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    shutil.copyfile(REPOSITORY / "config" / "dagster.yaml", home / "dagster.yaml")
    shutil.copyfile(REPOSITORY / "workspace.yaml", home / "workspace.yaml")
    for entry in songs()[:5]:
        write_entry(_Job(entry, root / "raw" / "partnerships" / f"{entry.track_id}.flac"))
    write_json(Store(root).metadata("sources.json"), [record_of(entry) for entry in songs()[:5]])
    address, received = receiver
    surroundings = {
        "DAGSTER_HOME": str(home),
        "LOFI_DATA_DIR": str(root),
        "LOFI_CONFIG_DIR": str(config),
        "LOFI_PROFILE": "tiny",
        "LOFI_ALERT_URLS": address,
        "LOFI_SENSOR_SECONDS": str(SENSOR_SECONDS),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in surroundings.items():
            environment.setenv(name, value)
        finish = "from lofi_assets_tests.defs.test_days_work import finish_lineage; finish_lineage()"
        subprocess.run([sys.executable, "-c", finish], check=True, timeout=PATIENCE_SECONDS)
        with (home / "daemon.log").open("w") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with dg.DagsterInstance.get() as instance:
            yield Day(root, home, instance, received)
        os.killpg(daemon.pid, signal.SIGINT)
        daemon.wait(60)


def finish_lineage() -> None:
    """Everything but the release, in this process."""
    from lofi_assets.definitions import build_defs

    job = build_defs().resolve_job_def("everything")
    keys = [dg.AssetKey(name) for name in ("style_taxonomy", *DATA, *TRAINING_AND_AFTER)]
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(instance=instance, asset_selection=keys).success


def table(trials: list[Trial]) -> str:
    """Trial, runs, assets, alerts, seconds: one line each."""
    lines = [f"{'trial':<34} runs failed troubles told seconds  assets"]
    for trial in trials:
        assets = " | ".join(", ".join(run) for run in trial.runs) or "-"
        counts = f"{len(trial.runs):>4} {trial.failed:>6} {len(trial.troubles):>8} {len(trial.alerts):>4}"
        lines.append(f"{trial.name:<34} {counts} {trial.seconds:>7.0f}  {assets}")
    return "\n".join(lines)


def slow_upload(data: bytes, path: Path) -> None:
    """A copy over a slow line under the file's own name: it grows for three looks of the sensor."""
    for part in range(16):
        with path.open("ab") as file:
            file.write(data[len(data) * part // 16 : len(data) * (part + 1) // 16])
        time.sleep(1)


def test_exactly_the_right_things_happen(day: Day) -> None:
    new, slow, alien = songs()[5:8]
    first = songs()[0].track_id
    flac = {entry: day.root.parent / f"{entry.track_id}.flac" for entry in (new, slow, alien)}
    for entry, path in flac.items():
        write_entry(_Job(entry, path))
    partnerships = day.raw("partnerships")

    def drop(entry: Entry) -> None:
        shutil.copyfile(flac[entry], partnerships / f"{entry.track_id}.flac")
        day.records(lambda records: records.append(record_of(entry)))

    def upload() -> None:
        day.records(lambda records: records.append(record_of(slow)))
        slow_upload(flac[slow].read_bytes(), partnerships / f"{slow.track_id}.flac")

    def rename() -> None:
        (partnerships / f"{new.track_id}.flac").rename(partnerships / "renamed_01.flac")
        day.records(lambda records: records[5].update(track_ids=["renamed_01"]))

    def move() -> None:
        day.raw("commissioned").mkdir(exist_ok=True)
        (partnerships / "renamed_01.flac").rename(day.raw("commissioned") / "renamed_01.flac")

    def prompt() -> None:
        (partnerships / f"{first}_prompt.txt").write_text("lofi, chill, rhodes\n", encoding="utf-8")

    def styles(name: str) -> Callable[[], None]:
        path = day.store.metadata(name)
        chosen = ["THEME-02"] if name == "chosen_styles.json" else ["SEASON-01"]
        return lambda: void(write_json(path, {**read_json(path, default={}), first: chosen}))

    def rubbish() -> None:
        for name in (".DS_Store", "Thumbs.db", "rain.flac.part"):
            (partnerships / name).write_bytes(b"x")

    whole = (DATA,)
    wanted: list[tuple[str, Callable[[], object], tuple[tuple[str, ...], ...]]] = [
        ("daemon starts", lambda: None, (("licensed_sources", "style_taxonomy", *DATA[1:]),)),
        ("a track and its record", lambda: drop(new), whole),
        ("its prompt is written", prompt, (DATA[2:],)),
        ("lofi review accept", lambda: day.lofi("review", "accept", first, "--by", "Ada"), (DATA[2:],)),
        ("chosen_styles.json", styles("chosen_styles.json"), (DATA[1:],)),
        ("style_mapping.json edited by hand", styles("style_mapping.json"), (DATA[1:],)),
        ("a slow upload", upload, whole),
        ("what other programs leave", rubbish, ()),
        ("a file is renamed", rename, whole),
        ("a file is moved", move, whole),
        ("a licence is revoked", lambda: day.lofi("sources", "revoke", f"deal-{slow.track_id}", *WORDS), whole),
        ("a file is deleted", (day.raw("commissioned") / "renamed_01.flac").unlink, whole),
        ("an unlicensed file", lambda: shutil.copyfile(flac[alien], partnerships / "alien_01.flac"), whole),
    ]
    for name, deed, runs in wanted:
        day.after(name, deed, starts=bool(runs))
    print("\n" + table(day.trials))
    assert [(trial.name, sorted_runs(trial.runs)) for trial in day.trials] == [
        (name, sorted_runs(runs)) for name, _, runs in wanted
    ]
    assert [trial.name for trial in day.trials if trial.failed or any_failure(trial)] == []
    assert read_json(day.store.metadata("chosen_styles.json")) == {first: ["SEASON-01"]}


WORDS = ("--by", "Ada", "--reason", "contract ended")


def test_curating_does_not_wait_for_training(day: Day) -> None:
    """Both go on side by side; what follows training is part of its run, once."""

    def train_and_drop() -> None:
        command = ["dagster", "job", "launch", "-j", "train_and_judge", "-w", str(day.home / "workspace.yaml")]
        subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, timeout=120)
        shutil.copyfile(day.raw("partnerships") / "alien_01.flac", day.raw("partnerships") / "alien_02.flac")

    trial = day.after("training, and a file meanwhile", train_and_drop)
    print("\n" + table([trial]))
    assert sorted_runs(trial.runs) == sorted_runs((TRAINING_AND_AFTER, DATA))
    assert (trial.failed, any_failure(trial)) == (0, False)
    ends = {run.job_name: day.instance.get_run_record_by_id(run.run_id) for run in day.instance.get_runs(limit=2)}
    data, training = ends["refresh_data"], ends["train_and_judge"]
    assert data and training and data.end_time and training.end_time and data.end_time < training.end_time


def sorted_runs(runs: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
    """Runs whatever their order, each with its assets whatever order equals had."""
    return sorted(tuple(sorted(run)) for run in runs)


def any_failure(trial: Trial) -> bool:
    return any(alert["type"] == "failure" for alert in trial.alerts)


def void(_: object) -> None:
    """For deeds that give something back."""
