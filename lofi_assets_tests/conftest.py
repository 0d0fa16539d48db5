"""Fixtures that several test files share; what only one file needs is made in that file."""

import gc
import hashlib
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lofi_assets.store import Store
from lofi_assets_tests.once_per_run import once_per_run, run_folder

if TYPE_CHECKING:
    from lofi_assets_tests.training.fixtures import MakeRun, TrainingMaterial

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"
LONG = ("training", "demo", "evaluation", "backbones", "quantization", "tracks", "release", "lofi_assets_tests")
"""Folders with tests that take seconds each, by work or by waiting for processes: handed out first, so that short ones
fill up the end of a run."""

gc.disable()
"""While the tests are imported, with torch and Dagster: what is imported stays, and looking for garbage in it again and
again takes half of the time."""


def pytest_collection_finish() -> None:
    """From here on garbage is looked for after 10,000 new objects, not 700: a tenth of the time of Dagster's tests."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    _pass_messages_on()
    if "dagster" in sys.modules:
        from lofi_assets_tests import dagster_in_memory

        dagster_in_memory.install()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """For `--dist loadgroup`: a file's tests that share a fixture run on one worker, so that it is built once.

    The others are mixed: else all workers wait at once in the files whose tests wait.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None and _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=_turn)
    yield
    for item in items:
        # pytest-xdist 3.8 tells the group in `_nodeid`, which pytest 9.2 does not read (pytest-xdist #1386)
        if grouped := vars(item).get("_nodeid"):
            item._id = item.id.parse(grouped)


def _turn(item: pytest.Item) -> tuple[bool, str]:
    short = item.path.parent.name not in LONG
    alone = item.get_closest_marker("xdist_group") is None
    return short, hashlib.sha256(item.nodeid.encode()).hexdigest() if alone and not short else ""


def _pass_messages_on() -> None:
    """To the root logger, where pytest listens; to each of torch's 40 that does not it would go in every test."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True


def _shares_a_fixture(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(fixtures[-1].scope in ("module", "class") for fixtures in definitions)


def pytest_sessionstart() -> None:
    """What asks a trainer to end is ignored in a shell's background job and by what that starts; here it is not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written and renamed, but not followed onto the disk: that is for power failures, which no test has.

    Tests of a folder that are about it put their own fixture of this name in its place.
    """
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("lofi_assets.files.writing._sync_tree", lambda folder: None)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order() -> None:
    """The global generators start anew for each test, whatever ran before it on its worker."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # torch.manual_seed also notes the stack, for a GPU that may come
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny base model, to be read only: a test that changes one takes a copy."""
    from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

    with once_per_run(run_folder(tmp_path_factory), "tiny_base", write_tiny_base) as folder:
        yield folder


@pytest.fixture(scope="session")
def tiny_tiers(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All four tiers of the tiny base, to be read only. Two minutes: for slow tests, in the group `tiny_tiers`."""
    from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
    from lofi_assets.quantization.build import build_tiers

    with once_per_run(
        run_folder(tmp_path_factory), "tiny_tiers", lambda folder: build_tiers(tiny_base, folder, backbone=ACE_STEP_V1)
    ) as root:
        yield root


@pytest.fixture(scope="session")
def operators_read_once() -> Iterator[None]:
    """Torch's exporter parses the source of its 500 operators before each export, a tenth of its time: here once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Tensors computed by the public ACE-Step code and MusiCNN golden outputs; kept outside the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference tensors absent: {REFERENCE} (comparisons against upstream are NOT run here)")
    return REFERENCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty data root."""
    return Store(tmp_path / "data")


TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
SECONDS = {"one": 1.5, "two": 2.0, "three": 1.0}


@pytest.fixture(scope="session")
def training_material(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TrainingMaterial]":
    """The tiny base and its fingerprint, cached features of three short tracks and their keys; to be read only."""
    import numpy as np
    import soundfile

    from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
    from lofi_assets.backbones.features import FeatureJob
    from lofi_assets.files.hashing import sha256_file
    from lofi_assets_tests.feature_material import encoded

    fingerprint = base_fingerprint(tiny_base)

    def build(folder: Path) -> None:
        jobs = []
        for index, (name, seconds) in enumerate(SECONDS.items()):
            path = folder / f"{name}.wav"
            soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, (int(48_000 * seconds), 2)), 48_000)
            jobs.append(FeatureJob(name, path, sha256_file(path), f"lofi, {name}", lyrics="rain\n" * index))
        rows = encoded(jobs, tiny_base, folder / "features", base_fingerprint=fingerprint)
        (folder / "keys.json").write_text(json.dumps({row.track_id: row.key for row in rows}), encoding="utf-8")

    with once_per_run(run_folder(tmp_path_factory), "training", build) as folder:
        keys = json.loads((folder / "keys.json").read_text(encoding="utf-8"))
        yield {"base": tiny_base, "features": folder / "features", "fingerprint": fingerprint, "keys": keys}


@pytest.fixture
def make_run(training_material: "TrainingMaterial", tmp_path: Path) -> "MakeRun":
    """Runs on the tiny base, with checkpoints below this test's folder."""
    from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings
    from lofi_assets.training.lora_settings import LoraSettings

    def make(
        name: str = "run",
        *,
        dataset_hash: str = "d" * 64,
        lora: dict[str, Any] | None = None,
        **training: Any,
    ) -> TrainingRun:
        keys = training_material["keys"]
        tracks = [TrackFeatures(track_id=track, key=keys[track]) for track in ("one", "two")]
        tracks.append(TrackFeatures(track_id="three", key=keys["three"], split="validation"))
        settings = {"max_steps": 6, "checkpoint_interval": 3, "precision": "32", "gradient_checkpointing": False}
        settings |= {"preview_count": 0}
        return TrainingRun(
            base=training_material["base"],
            base_fingerprint=training_material["fingerprint"],
            features_dir=training_material["features"],
            tracks=tuple(tracks),
            dataset_id="ds-1",
            dataset_hash=dataset_hash,
            checkpoints_dir=tmp_path / name / "checkpoints",
            logs_dir=tmp_path / name / "logs",
            lora=LoraSettings(**{"r": 4, "lora_alpha": 32, "target_modules": TARGETS, **(lora or {})}),
            training=TrainingSettings(**{**settings, **training}),
            device="cpu",
        )

    return make
