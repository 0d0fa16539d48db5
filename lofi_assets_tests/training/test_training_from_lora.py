"""A run that starts from a LoRA computes what that computes, keeps its lineage, and is released with rights only."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.constitution.gates import Gate, judge
from lofi_assets.errors import LofiError
from lofi_assets.files.writing import StoreError
from lofi_assets.release.adapter_files import _expect_rights
from lofi_assets.release.card_start import foreign_licences, start_line
from lofi_assets.release.files import ReleaseError
from lofi_assets.store import Store
from lofi_assets.training.adapter_forms.adapter import AdapterError
from lofi_assets.training.adapter_forms.reading import layers_of
from lofi_assets.training.adapter_rights import on_unlicensed_adapters, unlicensed
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import RUN_CONFIG, checkpoint_id
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.config import ConfigError, TrainingRun, load_run, save_run
from lofi_assets.training.distributed import Processes
from lofi_assets.training.initial import TAKEN, initial_adapter, take_in
from lofi_assets.training.lora_checkpoints import _unlicensed
from lofi_assets.training.trained_on import TrainedOn
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.model import prepare_model
from lofi_assets_tests.training.fixtures import MakeRun, TrainingMaterial
from lofi_assets_tests.training.foreign_loras import MAKERS, ace_step, peft, random_pairs
from lofi_assets_tests.training.test_foreign_loras import RANKS, error, theirs
from lofi_assets_tests.training.test_training_forms import velocity

Layers = dict[str, tuple[int, ...]]
"""The layers that an adapter may have, and the shapes of their weights."""
Started = Callable[..., TrainingRun]
"""A run with these settings that starts from a file."""
CPU = torch.device("cpu")
ROUNDING = 1e-5
EVIDENCE = "https://example.org/licence"
RIGHTS = {"licence": "Apache-2.0", "release_permitted": True, "verified_by": "M. Keller", "evidence": EVIDENCE}


def quiet(message: str) -> None:
    del message


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


@pytest.fixture
def started(make_run: MakeRun, store: Store, training_material: TrainingMaterial) -> Started:
    """A run that starts from a file."""

    def start(
        path: Path, *, strength: float | None = None, validation: frozenset[str] = frozenset({"three"}), **settings: Any
    ) -> TrainingRun:
        base, fingerprint = training_material["base"], training_material["fingerprint"]
        identifier = take_in(
            store, path, backbone=ACE_STEP_V1, base=base, base_fingerprint=fingerprint, strength=strength
        )
        initial = initial_adapter(store, identifier, base_fingerprint=fingerprint, validation=validation)
        return make_run(**settings).model_copy(update={"initial": initial})

    return start


@pytest.fixture
def layers(tiny_base: Path) -> Layers:
    return layers_of(ACE_STEP_V1, tiny_base)


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("rank", [6, 9])
def test_a_run_starts_from_what_the_lora_computes(
    form: str,
    rank: int,
    tiny_base: Path,
    layers: Layers,
    tmp_path: Path,
    started: Started,
) -> None:
    if rank != 6 and form not in ("peft", "comfyui"):
        pytest.skip("a larger rank is filled up in the same way whatever the form")
    path, added = MAKERS[form](tmp_path, random_pairs(layers, ranks=RANKS.get(form)))
    run = started(path, lora={"r": rank})
    model = prepare_model(run, device=CPU, processes=Processes())
    assert error(velocity(model.model), theirs(tiny_base, added), theirs(tiny_base, {})) < ROUNDING


def test_a_checkpoint_goes_on_under_another_learning_rate_with_its_own_bits(
    make_run: MakeRun, store: Store, started: Started
) -> None:
    first = make_run()
    train(first, say=quiet)
    folder = first.checkpoints_dir / checkpoint_id(6)
    recorded = CheckpointDescription.read(folder)
    second = started(folder, learning_rate=3e-5)
    assert second.run_id != first.run_id
    start = adapters.snapshot(prepare_model(second, device=CPU, processes=Processes()).parameters)
    assert adapters.digest(start) == recorded.adapter_sha256

    train(second, say=quiet)  # archives the run that it started from
    before = next(line for line in read_log(log_path(second)) if "validation_loss" in line)
    assert (before["step"], before["validation_loss"]) == (0, recorded.validation_loss)
    found = CheckpointDescription.read(second.checkpoints_dir / checkpoint_id(3))
    assert found.started_from == second.initial.sha256
    assert found.adapter_sha256 != recorded.adapter_sha256
    assert TrainedOn.read(second.checkpoints_dir / checkpoint_id(3)).foreign == ()
    assert second.initial.checkpoint == f"{first.run_id}/{checkpoint_id(6)}"
    with pytest.raises(AdapterError, match=f"to go on with that run: --init-from {second.initial.folder.name}"):
        started(folder)  # by now another checkpoint of this name


def test_a_killed_run_goes_on_without_what_it_started_from(layers: Layers, tmp_path: Path, started: Started) -> None:
    run = started(ace_step(tmp_path, random_pairs(layers))[0], lora={"r": 6})
    train(run, say=quiet, stop=lambda: True)
    for file in run.initial.folder.iterdir():
        file.unlink()
    assert train(run, say=quiet).step == 6


def test_the_run_is_named_by_content_strength_and_lineage(
    layers: Layers, tmp_path: Path, started: Started, make_run: MakeRun
) -> None:
    path, _ = ace_step(tmp_path, random_pairs(layers))
    run = started(path, lora={"r": 6})
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "x.safetensors")
    record = (run.initial.folder / TAKEN).read_bytes()
    assert started(moved, lora={"r": 6}).run_id == run.run_id
    assert (run.initial.folder / TAKEN).read_bytes() == record  # evidence has its hash
    assert started(moved, strength=2.0, lora={"r": 6}).run_id != run.run_id
    assert make_run(lora={"r": 6}).run_id != run.run_id
    forged = run.model_copy(update={"initial": run.initial.model_copy(update={"foreign": ()})})
    assert forged.config_hash != run.config_hash


# --- lineage ----------------------------------------------------------------------------------------------------------


def test_what_a_checkpoint_goes_back_to_stays_with_what_starts_from_it(
    layers: Layers,
    tmp_path: Path,
    started: Started,
    store: Store,
    make_run: MakeRun,
) -> None:
    """Foreign LoRA -> run -> run: the third knows the first, and the tracks of the second."""
    foreign = started(ace_step(tmp_path, random_pairs(layers))[0], lora={"r": 6})
    train(foreign, say=quiet)
    again = started(foreign.checkpoints_dir / checkpoint_id(6), lora={"r": 6}, learning_rate=3e-5)
    assert again.initial.foreign == (foreign.initial.sha256,)
    assert again.initial.trained_on == ("one", "two")
    train(again, say=quiet)
    folder = again.checkpoints_dir / checkpoint_id(6)
    assert TrainedOn.read(folder).foreign == (foreign.initial.sha256,)
    alone = again.model_copy(update={"tracks": again.tracks[1:], "initial": again.initial})
    save_run(folder / RUN_CONFIG, alone)
    assert TrainedOn.read(folder).train == {"one", "two"}


def test_a_checkpoint_of_another_data_root_is_from_elsewhere(make_run: MakeRun, started: Started) -> None:
    other = make_run("other", max_steps=3)
    train(other, say=quiet)
    run = started(other.checkpoints_dir / checkpoint_id(3))
    assert (run.initial.checkpoint, run.initial.trained_on, run.initial.foreign) == ("", (), (run.initial.sha256,))


def test_a_checkpoint_put_among_this_data_roots_own_is_from_elsewhere_and_keeps_its_tracks(
    make_run: MakeRun, started: Started, store: Store
) -> None:
    other, own = make_run("other", max_steps=3), make_run(max_steps=3, learning_rate=3e-5)
    for run in (other, own):
        train(run, say=quiet)
    folder = store.checkpoints / "archive" / other.run_id / checkpoint_id(3)
    shutil.copytree(other.checkpoints_dir / checkpoint_id(3), folder)
    run = started(folder)
    assert (run.initial.trained_on, run.initial.foreign) == (("one", "two"), (run.initial.sha256,))
    mine = started(own.checkpoints_dir / checkpoint_id(3))
    assert mine.initial.foreign == ()
    document = next((store.checkpoints / "written" / own.run_id).glob("*.json"))
    document.unlink()
    assert started(own.checkpoints_dir / checkpoint_id(3)).initial.foreign == (mine.initial.sha256,)


def test_a_checkpoint_whose_record_was_changed_is_not_started_from(make_run: MakeRun, started: Started) -> None:
    run = make_run(max_steps=3)
    train(run, say=quiet)
    folder = run.checkpoints_dir / checkpoint_id(3)
    save_run(folder / RUN_CONFIG, load_run(folder / RUN_CONFIG).model_copy(update={"tracks": run.tracks[1:]}))
    with pytest.raises(AdapterError, match="what it was trained on is unknown"):
        started(folder)


def test_a_checkpoint_that_learnt_the_validation_tracks_is_not_started_from(
    make_run: MakeRun, started: Started
) -> None:
    run = make_run(max_steps=3)
    train(run, say=quiet)
    with pytest.raises(AdapterError, match=r"trained on 1 of the tracks that this run validates with \(one\)"):
        started(run.checkpoints_dir / checkpoint_id(3), validation=frozenset({"one"}))


def test_a_record_that_hides_where_a_lora_came_from_is_refused(
    layers: Layers, tmp_path: Path, started: Started
) -> None:
    path, _ = ace_step(tmp_path, random_pairs(layers))
    run = started(path)
    record = run.initial.folder / TAKEN
    record.write_text(json.dumps({**json.loads(record.read_text("utf-8")), "foreign": []}), encoding="utf-8")
    with pytest.raises(AdapterError, match="was changed since"):
        initial_adapter(
            Store(tmp_path / "run"),
            run.initial.folder.name,
            base_fingerprint=run.base_fingerprint,
            validation=frozenset(),
        )


# --- refused before the first step ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"r": 4}, "set lora.r to at least that"),
        ({"r": 6, "target_modules": ["to_q"]}, "lora.target_modules leaves out"),
        ({"r": 6, "use_dora": True}, "is no DoRA, and lora.use_dora is true"),
    ],
)
def test_a_lora_that_does_not_fit_the_adapter_is_refused(
    lora: dict[str, Any],
    said: str,
    layers: Layers,
    tmp_path: Path,
    started: Started,
) -> None:
    run = started(ace_step(tmp_path, random_pairs(layers))[0], lora=lora)
    with pytest.raises(ConfigError, match=said):
        train(run, say=quiet)


def test_a_copy_that_was_changed_is_refused(layers: Layers, tmp_path: Path, started: Started) -> None:
    run = started(peft(tmp_path, random_pairs(layers, ranks=RANKS["peft"]))[0], lora={"r": 6})
    config = run.initial.folder / "adapter_config.json"
    config.write_text(config.read_text("utf-8").replace('"lora_alpha": 12', '"lora_alpha": 13'), encoding="utf-8")
    with pytest.raises(ConfigError, match="is not the LoRA that the run starts from"):
        train(run, say=quiet)


# --- rights -----------------------------------------------------------------------------------------------------------


def write_rights(store: Store, **rights: dict) -> None:
    store.metadata("").mkdir(parents=True, exist_ok=True)
    store.metadata("adapters.json").write_text(json.dumps(rights), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "not on record"),
        ({"release_permitted": False}, "not permitted"),
        ({"verified_by": " - "}, "nobody"),
        ({"licence": ""}, "no licence"),
        ({"evidence": "metadata/evidence/absent.pdf"}, "no evidence"),
        ({"evidence": "/etc/hostname"}, "no evidence"),
        ({}, None),
    ],
)
def test_absence_of_rights_is_never_consent(changes: dict | None, said: str | None, store: Store) -> None:
    sha256 = "a" * 64
    write_rights(store, **({} if changes is None else {sha256: {**RIGHTS, **changes}}))
    found = unlicensed(store, (sha256,))
    assert (said is None and not found) or said in found[sha256]


@pytest.mark.parametrize("written", ["a" * 12, "A" * 64, "sha256:" + "a" * 64])
def test_rights_under_what_is_no_sha256_are_named(written: str, store: Store) -> None:
    write_rights(store, **{written: RIGHTS})
    with pytest.raises(StoreError, match=rf"adapters\.json: '{written}' is no sha256"):
        unlicensed(store, ("a" * 64,))


GATE = Gate(
    id="checkpoint.initial_adapter",
    article="I. Data Integrity & Licensing",
    asset="lora_checkpoints",
    scope="asset",
    measure="checkpoints_from_unlicensed_adapters",
    op="==",
    limit=0,
    holds=("merged_model", "quantized_tiers", "hub_release"),
    why="Nobody here knows what a LoRA from elsewhere was trained on; without recorded rights it is not released.",
)


def test_a_model_that_goes_back_to_a_lora_without_rights_fails_its_gate(
    layers: Layers, tmp_path: Path, started: Started, store: Store
) -> None:
    run = started(ace_step(tmp_path, random_pairs(layers))[0], lora={"r": 6})
    train(run, say=quiet)
    records = read_manifest(store.checkpoints)
    verdict = judge(GATE, _unlicensed(store, records))
    assert verdict.status == "fail" and run.initial.sha256 in verdict.note  # the key to write
    write_rights(store, **{run.initial.sha256: RIGHTS})
    assert judge(GATE, _unlicensed(store, records)).passed
    assert on_unlicensed_adapters(store, {"x": store.checkpoints / checkpoint_id(3)}) == {}


def test_a_release_asks_for_the_rights_as_they_stand(
    layers: Layers, tmp_path: Path, started: Started, store: Store
) -> None:
    run = started(ace_step(tmp_path, random_pairs(layers))[0], lora={"r": 6})
    with pytest.raises(ReleaseError, match=r"whose rights are not on record.*adapters\.json"):
        _expect_rights(store, run, where=tmp_path / RUN_CONFIG)
    write_rights(store, **{run.initial.sha256: RIGHTS})
    _expect_rights(store, run, where=tmp_path / RUN_CONFIG)
    write_rights(store, **{run.initial.sha256: {**RIGHTS, "release_permitted": False}})
    with pytest.raises(ReleaseError, match="not permitted"):
        _expect_rights(store, run, where=tmp_path / RUN_CONFIG)


def test_the_model_card_says_where_the_adapter_comes_from(
    layers: Layers,
    tmp_path: Path,
    started: Started,
    store: Store,
    make_run: MakeRun,
) -> None:
    run = started(ace_step(tmp_path, random_pairs(layers))[0], lora={"r": 6})
    write_rights(store, **{run.initial.sha256: {**RIGHTS, "name": "rap-lora"}})
    assert "what that was trained on is not known here, and copies of it were not looked for" in start_line(run)
    assert foreign_licences(store, run)[-1] == f"- rap-lora, sha256 `{run.initial.sha256}`: Apache-2.0 ({EVIDENCE})"
    assert (start_line(make_run()), foreign_licences(store, make_run())) == ("", [])


@pytest.mark.parametrize("consent", ["true", 1, "yes", None])
def test_nothing_but_true_is_consent(consent: object, store: Store) -> None:
    write_rights(store, **{"a" * 64: {**RIGHTS, "release_permitted": consent}})
    with pytest.raises(LofiError, match="release_permitted"):
        unlicensed(store, ("a" * 64,))


def test_a_checkpoint_without_its_configuration_has_no_rights(store: Store) -> None:
    folder = store.checkpoints / checkpoint_id(3)
    folder.mkdir(parents=True)
    assert "is absent" in on_unlicensed_adapters(store, {"x": folder})["x"]


def test_a_file_of_a_checkpoint_is_no_lora_from_elsewhere(layers: Layers, store: Store, started: Started) -> None:
    folder = store.checkpoints / checkpoint_id(3)
    folder.mkdir(parents=True)
    path, _ = ace_step(folder, random_pairs(layers))
    with pytest.raises(AdapterError, match="name its folder"):
        started(path)
