"""Weights that no trainer of the run wrote are never recorded as trained."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from lofi_assets.constitution import evidence
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import Store
from lofi_assets.training import lora_checkpoints as asset
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.files import (
    COMFYUI_WEIGHTS,
    DESCRIPTION,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    RUN_CONFIG,
    CheckpointError,
    checkpoint_id,
)
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import open_run
from lofi_assets.training.config import TrainingRun, TrainingSettings
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.opening import open_folder
from lofi_assets_tests.training.fixtures import MakeRun
from lofi_assets_tests.training.test_training_config import a_run

FILES = (PEFT_WEIGHTS, PEFT_CONFIG, DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS, RUN_CONFIG, DESCRIPTION)
ASSET = "lora_checkpoints"


def quiet(message: str) -> None:
    del message


def hashed(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def foreign(run: TrainingRun, *vouched: Mapping[str, str]) -> dict[str, str]:
    names = [path.name for path in sorted(run.checkpoints_dir.glob("epoch=0-step=*_lora"))]
    return trainer_record.foreign(run, names, sha256=hashed, vouched=vouched)


def save(run: TrainingRun, step: int) -> None:
    """A checkpoint as the trainer leaves it, with a line for each file's content."""
    folder = run.checkpoints_dir / checkpoint_id(step)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(f"{name} of step {step}", encoding="utf-8")
    trainer_record.enter(run, folder, step=step)


def go_on(run: TrainingRun) -> None:
    """What a trainer does before its first step."""
    with ExitStack() as held:
        open_folder(run, held, fresh=False, say=quiet)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingRun:
    monkeypatch.delenv("LOFI_SIGNING_KEY", raising=False)
    run = a_run(checkpoints_dir=tmp_path / "checkpoints", logs_dir=tmp_path / "logs")
    for step in (3, 6):
        save(run, step)
    return run


def test_every_checkpoint_has_a_document_with_the_hash_of_each_file_after_the_one_before(trained: TrainingRun) -> None:
    first, second = trainer_record.documents(trained)
    assert [path.name for path in (first, second)] == [
        "000001-epoch=0-step=3_lora.json",
        "000002-epoch=0-step=6_lora.json",
    ]
    folder = trained.checkpoints_dir / checkpoint_id(6)
    data = json.loads(second.read_text(encoding="utf-8"))
    assert {item["name"]: item["digest"]["sha256"] for item in data["subject"]} == {
        name: sha256_file(folder / name) for name in FILES
    }
    assert data["predicate"]["previous"] == sha256_file(first)
    assert (data["predicate"]["run_id"], data["predicate"]["step"]) == (trained.run_id, 6)
    assert foreign(trained) == {}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_since_is_named(trained: TrainingRun, name: str) -> None:
    path = trained.checkpoints_dir / checkpoint_id(3) / name
    path.write_bytes(path.read_bytes() + b" ")
    assert foreign(trained) == {checkpoint_id(3): f"{name} is not what the trainer wrote"}
    path.unlink()
    assert foreign(trained) == {checkpoint_id(3): f"{name} is not what the trainer wrote"}


def test_a_folder_that_the_trainer_never_wrote_is_named(trained: TrainingRun) -> None:
    shutil.copytree(trained.checkpoints_dir / checkpoint_id(6), trained.checkpoints_dir / checkpoint_id(9))
    assert foreign(trained) == {checkpoint_id(9): "the trainer left no document of it in written/"}


def test_another_runs_document_does_not_vouch(trained: TrainingRun) -> None:
    other = trained.model_copy(update={"training": TrainingSettings(seed=1)})
    assert set(foreign(other)) == {checkpoint_id(3), checkpoint_id(6)}
    shutil.copytree(trainer_record.folder_of(trained), trainer_record.folder_of(other))
    with pytest.raises(CheckpointError, match="does not follow from the document before it"):
        foreign(other)


@pytest.mark.parametrize("attack", ["edited", "removed", "renamed", "put in between", "not JSON", "of another kind"])
def test_a_chain_that_is_not_whole_is_named_and_nothing_is_trained_onto_it(trained: TrainingRun, attack: str) -> None:
    first, second = trainer_record.documents(trained)
    data = read_json(first)
    if attack == "edited":
        data["subject"][0]["digest"]["sha256"] = "0" * 64
        write_json(first, data)
    elif attack == "removed":
        first.unlink()
    elif attack == "renamed":
        second.rename(second.with_name("000003-epoch=0-step=6_lora.json"))
    elif attack == "put in between":
        shutil.copy(first, first.with_name("000001-zzz.json"))
    elif attack == "not JSON":
        second.write_text("{", encoding="utf-8")
    else:
        write_json(second, {**read_json(second), "predicateType": "urn:lofi-assets:evidence:1"})
    asks: tuple[Callable[[], object], ...] = (lambda: foreign(trained), lambda: go_on(trained))
    for ask in asks:
        with pytest.raises(CheckpointError, match=r"written/.*\.json: (does not follow|no document of a trainer)"):
            ask()


def test_the_chain_goes_on_when_a_run_does_and_when_it_starts_over(trained: TrainingRun) -> None:
    for step in (9, 3, 6):
        save(trained, step)
    names = [path.name.partition("-")[2] for path in trainer_record.documents(trained)]
    assert names == [f"{checkpoint_id(step)}.json" for step in (3, 6, 9, 3, 6)]
    assert foreign(trained) == {}


def test_what_an_earlier_start_of_a_run_wrote_is_still_what_the_trainer_wrote(trained: TrainingRun) -> None:
    """`--fresh` puts it into the archive, from where it comes back to the same name."""
    folder, archived = trained.checkpoints_dir / checkpoint_id(6), trained.checkpoints_dir / "archive" / "x"
    shutil.copytree(folder, archived)
    (folder / DESCRIPTION).write_text("written at another time", encoding="utf-8")
    trainer_record.enter(trained, folder, step=6)
    assert foreign(trained) == {}
    assert trainer_record.wrote(trained, archived, checkpoint=checkpoint_id(6))
    assert not trainer_record.wrote(trained, archived, checkpoint=checkpoint_id(3))
    shutil.rmtree(folder)
    shutil.copytree(archived, folder)
    assert foreign(trained) == {}
    (folder / PEFT_WEIGHTS).write_bytes(b"foreign")
    assert set(foreign(trained)) == {checkpoint_id(6)}


def test_what_was_evidence_before_there_were_documents_is_still_what_it_was(trained: TrainingRun) -> None:
    shutil.rmtree(trained.checkpoints_dir / trainer_record.FOLDER)
    names = [f"checkpoints/{checkpoint_id(step)}/{name}" for step in (3, 6) for name in FILES if name != DESCRIPTION]
    vouched = {name: sha256_file(trained.checkpoints_dir.parent / name) for name in names}
    assert set(foreign(trained)) == {checkpoint_id(3), checkpoint_id(6)}
    assert foreign(trained, vouched) == {}
    path = trained.checkpoints_dir / checkpoint_id(6) / PEFT_WEIGHTS
    path.write_bytes(path.read_bytes() + b" ")
    assert set(foreign(trained, vouched)) == {checkpoint_id(6)}
    assert set(foreign(trained, dict(list(vouched.items())[:4]))) == {checkpoint_id(3), checkpoint_id(6)}
    assert set(foreign(trained, {}, vouched)) == {checkpoint_id(6)}


def test_a_run_of_the_version_before_that_comes_back_from_the_archive_is_what_its_own_evidence_says(
    make_run: Callable[..., TrainingRun],
) -> None:
    """The evidence since then is of the run in between, whose checkpoints have the same names."""
    first = make_run(validation_limit=1)
    other = make_run(validation_limit=1, learning_rate=3e-5)
    store, left = Store(first.checkpoints_dir.parent), list[evidence.Evidence]()
    for run in (first, other):
        train(run, say=quiet)
        outcome = asset.describe_training(store, planned_of(store, run))
        left.append(evidence.read(store, ASSET, evidence.write(store, outcome, asset=ASSET, upstream=[])))
    kept = store.checkpoints / "kept"
    shutil.copytree(store.checkpoints / checkpoint_id(6), kept)
    shutil.rmtree(store.checkpoints / trainer_record.FOLDER)  # the version before kept none
    open_run(first)
    back = planned_of(store, first)
    with pytest.raises(CheckpointError, match="Nothing says that it was trained here"):
        asset.describe_training(store, back, earlier=left[1:])
    assert asset.describe_training(store, back, earlier=left[::-1]).values["checkpoints"] == 2

    shutil.rmtree(store.checkpoints / checkpoint_id(6))
    kept.rename(store.checkpoints / checkpoint_id(6))
    with pytest.raises(CheckpointError, match=f"checkpoints/{checkpoint_id(6)}: the trainer left no document"):
        asset.describe_training(store, back, earlier=left[::-1])


def planned_of(store: Store, run: TrainingRun) -> asset.PlannedRun:
    return asset.PlannedRun(run, store.metadata("training_run.json"), 0)


def key(path: Path) -> str:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, capture_output=True)
    return str(path)


def test_with_a_key_only_what_it_signed_was_trained(
    trained: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes into the checkpoints folder can write a document, but not this signature."""
    monkeypatch.setenv("LOFI_SIGNING_KEY", key(tmp_path / "key.pem"))
    save(trained, 9)
    unsigned = "the trainer left no document of it in written/, or none that the key in LOFI_SIGNING_KEY signed"
    assert foreign(trained) == {checkpoint_id(3): unsigned, checkpoint_id(6): unsigned}
    monkeypatch.setenv("LOFI_SIGNING_KEY", key(tmp_path / "other.pem"))
    assert set(foreign(trained)) == {checkpoint_id(3), checkpoint_id(6), checkpoint_id(9)}
    monkeypatch.delenv("LOFI_SIGNING_KEY")
    assert foreign(trained) == {}


def test_a_document_under_a_stolen_signature_counts_for_nothing(
    trained: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_SIGNING_KEY", key(tmp_path / "key.pem"))
    save(trained, 6)
    folder = trained.checkpoints_dir / checkpoint_id(6)
    (folder / PEFT_WEIGHTS).write_bytes(b"foreign")
    last = trainer_record.documents(trained)[-1]
    data = read_json(last)
    item = next(item for item in data["subject"] if item["name"] == PEFT_WEIGHTS)
    item["digest"]["sha256"] = sha256_file(folder / PEFT_WEIGHTS)
    last.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert "none that the key in LOFI_SIGNING_KEY signed" in foreign(trained)[checkpoint_id(6)]


def test_the_asset_refuses_a_foreign_checkpoint_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    trained = make_run(validation_limit=1)
    train(trained, say=quiet)
    store = Store(trained.checkpoints_dir.parent)
    planned = asset.PlannedRun(trained, store.metadata("training_run.json"), 0)
    written = asset.describe_training(store, planned).written.given
    assert {path.name for path in written if path.parent.name == trained.run_id} == {
        path.name for path in trainer_record.documents(trained)
    }
    shutil.copytree(store.checkpoints / checkpoint_id(6), store.checkpoints / checkpoint_id(9))
    description = read_json(store.checkpoints / checkpoint_id(9) / DESCRIPTION)
    record = {**description["record"], "checkpoint_id": checkpoint_id(9), "step": 9}
    manifest = read_json(store.checkpoints / "manifest.json")
    write_json(store.checkpoints / "manifest.json", [*manifest, record])
    with pytest.raises(CheckpointError, match=r"checkpoints/epoch=0-step=9_lora: the trainer left no document of it"):
        asset.describe_training(store, planned)
    (store.checkpoints / checkpoint_id(9) / PEFT_WEIGHTS).write_bytes(b"damaged")
    described = asset.describe_training(store, planned)
    assert described.values["invalid_checkpoints"] == 1, "one that does not load opens nothing, and has its own gate"
    assert [one.is_valid for one in read_manifest(store.checkpoints)] == [True, True, False]

    for name in (checkpoint_id(9), "manifest.json"):
        (store.checkpoints / name).rename(tmp_path / f"moved-{name}")
    assert asset.describe_training(store, planned).counts["checkpoints"] == 2, "the way out that the message names"
