"""What a deployment may set, and what makes two training runs of it the same run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lofi_assets.dataset.versions import DatasetError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.typed import write_typed
from lofi_assets.profiles import Profile, ProfileError, load_profile
from lofi_assets.store import CONFIG_DIR, Store, data_root
from lofi_assets.training.adapter_forms.adapter import AdapterError
from lofi_assets.training.config import load_run
from lofi_assets.training.feature_cache import FEATURES
from lofi_assets.training.initial import Taken
from lofi_assets.training.lora_checkpoints import PlannedRun, plan_training
from lofi_assets.training.settings import training_settings
from lofi_assets_tests.dataset.stand_in_version import deliver

PAIRS = {"count": 16, "seconds": 8, "steps": 6, "guidance_scale": 3.0, "seed": 9000}
KEY = f"{'a' * 32}" + f".{'b' * 32}" * 3


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A copy of the profiles: each test loads its own files, since profiles are read once per process."""
    shutil.copytree(CONFIG_DIR / "profiles", tmp_path / "config" / "profiles")
    return tmp_path / "config"


def edit(config_dir: Path, **changes: Any) -> None:
    path = config_dir / "profiles" / "demo.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), **changes}), encoding="utf-8")


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG_DIR / "profiles").glob("*.yaml")))
def test_the_shipped_profiles_load(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    training_settings(profile)


def test_the_demo_needs_no_account_and_production_changes_nothing_of_the_adapter() -> None:
    demo, production = load_profile("demo"), load_profile("production")
    assert (demo.base_model.kind, demo.release.target, demo.evaluation.clap) == ("shipped", "folder", None)
    assert (production.base_model.kind, production.evaluation.encoder, production.lora) == ("hub", "vggish", {})


def test_the_demo_is_the_default_and_the_environment_names_another(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOFI_PROFILE", raising=False)
    assert load_profile(config_dir=config_dir).name == "demo"


def test_the_environment_names_the_profile(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_PROFILE", "production")
    assert load_profile(config_dir=config_dir).name == "production"


def test_a_file_outside_the_audited_folder_is_no_profile(config_dir: Path) -> None:
    with pytest.raises(ProfileError, match="no such profile; LOFI_PROFILE can be"):
        load_profile("../profiles/demo", config_dir=config_dir)


def test_an_unknown_profile_says_which_there_are(config_dir: Path) -> None:
    with pytest.raises(ProfileError, match=r"staging\.yaml.*demo, production"):
        load_profile("staging", config_dir=config_dir)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"gates": {"quality.fad": 9.0}}, "gates"),
        ({"name": "other"}, "name"),
        ({"sampling": {"count": 4}}, "sampling.seconds"),
        ({"release": {"target": "ftp", "license": "mit"}}, "release.target"),
        ({"quantization": {**PAIRS, "precision": "bf16"}}, r"quantization(?s:.*)every tier runs in the precision"),
        ({"base_model": {"kind": "tiny", "trust_remote_code": True}}, "base_model.trust_remote_code"),
        *(
            ({"quantization": {**PAIRS, name: value}}, f"quantization.{name}: Input should be")
            for name, value in (
                ("count", 0),
                ("seconds", 0.0),
                ("seconds", float("inf")),
                ("steps", 0),
                ("guidance_scale", -1.0),
                ("guidance_scale", float("nan")),
                ("seed", -1),
            )
        ),
        (
            {"audio": {"workers": -1, "timeout_s": 0, "memory_gb": 0}},
            "audio.workers: .*audio.timeout_s: .*audio.memory_gb",
        ),
        ({"evaluation": {"encoder": "musicnn", "resamples": 0}}, "evaluation.resamples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_that_is_not_known_or_does_not_fit_is_named(config_dir: Path, changes: dict[str, Any], key: str) -> None:
    edit(config_dir, **changes)
    with pytest.raises(ProfileError, match=rf"demo\.yaml(?s:.*){key}"):
        load_profile("demo", config_dir=config_dir)


@pytest.mark.parametrize("text", ["", "[", "- a\n- b", "demo"])
def test_a_profile_that_is_no_table_is_named(config_dir: Path, text: str) -> None:
    (config_dir / "profiles" / "demo.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=r"demo\.yaml"):
        load_profile("demo", config_dir=config_dir)


def test_a_profile_may_change_single_settings_of_another(config_dir: Path) -> None:
    path = config_dir / "profiles" / "own.yaml"
    path.write_text("extends: demo\ntraining: {max_steps: 7}\nsampling: {count: 3}\n", encoding="utf-8")
    own, demo = load_profile("own", config_dir=config_dir), load_profile("demo", config_dir=config_dir)
    assert own.training == {**demo.training, "max_steps": 7}
    assert own.sampling == demo.sampling.model_copy(update={"count": 3})
    assert own.model_copy(update={"name": "demo", "training": demo.training, "sampling": demo.sampling}) == demo


@pytest.mark.parametrize("other", ["../profiles/demo", "absent", "own", "further", "[demo]"])
def test_a_profile_extends_a_whole_one_beside_it(other: str, config_dir: Path) -> None:
    (config_dir / "profiles" / "further.yaml").write_text("extends: demo\n", encoding="utf-8")
    (config_dir / "profiles" / "own.yaml").write_text(f"extends: {other}\n", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"own\.yaml: extends is"):
        load_profile("own", config_dir=config_dir)


def test_a_training_setting_that_does_not_exist_is_named() -> None:
    profile = load_profile("demo").model_copy(update={"training": {"max_step": 30}})
    with pytest.raises(ProfileError, match=r"config/profiles/demo\.yaml, training\.max_step"):
        training_settings(profile)


def test_the_data_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "elsewhere"))
    assert data_root() == tmp_path / "elsewhere"
    monkeypatch.delenv("LOFI_DATA_DIR")
    assert data_root() == CONFIG_DIR.parent / "data"


# --- the training run of a profile -----------------------------------------------------------------------------------


def a_store(root: Path, *, dataset_hash: str = "d" * 64, key: str = KEY) -> Store:
    """A store with a dataset and its cached features, as `feature_cache` leaves it."""
    store = Store(root)
    deliver(store, "lofi-1", digest=dataset_hash)
    tracks = [{"track_id": "one", "key": key, "split": "train"}, {"track_id": "two", "key": KEY, "split": "validation"}]
    features = {"base": str(root / "base"), "base_fingerprint": "f" * 64, "tracks": tracks}
    write_json(store.metadata(FEATURES), features | {"dataset_id": "lofi-1", "dataset_hash": dataset_hash})
    return store


def planned(root: Path, profile: Profile | None = None, **options: Any) -> PlannedRun:
    return plan_training(a_store(root, **options), profile or load_profile("demo"))


def with_training(**changes: Any) -> Profile:
    demo = load_profile("demo")
    return demo.model_copy(update={"training": {**demo.training, **changes}})


def test_the_same_data_and_profile_are_the_same_run_in_any_place(tmp_path: Path) -> None:
    first, again, moved = planned(tmp_path / "a"), planned(tmp_path / "a"), planned(tmp_path / "b")
    assert first == again
    assert moved.run.run_id == first.run.run_id and moved.run.features_dir != first.run.features_dir


def test_another_dataset_or_other_features_are_another_run(tmp_path: Path) -> None:
    runs = [
        planned(tmp_path),
        planned(tmp_path, dataset_hash="e" * 64),
        planned(tmp_path, key=KEY.replace("a", "c")),
    ]
    assert len({plan.run.run_id for plan in runs}) == 3


@pytest.mark.parametrize("changes", [{"learning_rate": 2e-4}, {"seed": 5}, {"crop_frames": 128}])
def test_a_setting_that_moves_the_weights_makes_another_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert planned(tmp_path, with_training(**changes)).run.run_id != planned(tmp_path).run.run_id


def test_another_rank_makes_another_run(tmp_path: Path) -> None:
    profile = load_profile("demo").model_copy(update={"lora": {"r": 16, "lora_alpha": 8}})
    assert planned(tmp_path, profile).run.config_hash != planned(tmp_path).run.config_hash


@pytest.mark.parametrize("changes", [{"max_steps": 60}, {"device": "cuda"}])
def test_more_steps_or_another_device_continue_the_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Under a constant rate; the demo's decays to zero at its last step."""
    before = planned(tmp_path, with_training(schedule="constant"))
    plan = planned(tmp_path, with_training(schedule="constant", **changes))
    assert plan.run.run_id == before.run.run_id
    assert plan.remaining_steps == plan.run.training.max_steps


def test_the_planned_run_is_on_disk_as_it_will_be_executed(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert load_run(plan.config) == plan.run
    assert read_json(plan.config)["lora"]["r"] == plan.run.lora.r == load_profile("demo").lora["r"]


def took_in(root: Path, **record: Any) -> Taken:
    """A LoRA from elsewhere as it stands in `adapters/`; planning reads its record and not its weights."""
    sha256 = "a" * 64
    about = {"sha256": sha256, "form": "comfyui", "source": "x", "base_fingerprint": "f" * 64, "foreign": (sha256,)}
    taken = Taken(**{**about, **record})
    write_typed(Store(root).adapters / taken.identifier / "taken.json", taken)
    return taken


def test_a_profile_may_name_the_lora_that_training_starts_from(tmp_path: Path) -> None:
    taken = took_in(tmp_path)
    named = load_profile("demo").model_copy(update={"init_from": taken.identifier})
    run = planned(tmp_path, named).run
    assert run.initial == taken.initial(Store(tmp_path).adapters / taken.identifier)
    assert run.run_id != planned(tmp_path).run.run_id
    asked = plan_training(a_store(tmp_path), load_profile("demo"), init_from=taken.identifier)
    assert asked.run.run_id == run.run_id == load_run(asked.config).run_id


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"base_fingerprint": "0" * 64}, "was read for the base"),
        ({"checkpoint": "run/x", "foreign": (), "trained_on": ("two",)}, "validates with"),
        ({"foreign": ()}, "was changed since"),
    ],
)
def test_a_lora_that_a_run_cannot_start_from_is_refused(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    taken = took_in(tmp_path, **record)
    with pytest.raises(AdapterError, match=said):
        planned(tmp_path, load_profile("demo").model_copy(update={"init_from": taken.identifier}))


def test_a_lora_that_was_never_taken_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no LoRA '\.\./\.\.' was taken in"):
        planned(tmp_path, load_profile("demo").model_copy(update={"init_from": "../.."}))


def test_production_trains_by_the_constitutions_table(tmp_path: Path) -> None:
    run = planned(tmp_path, load_profile("production")).run
    assert (run.lora.r, run.lora.lora_alpha, run.lora.use_rslora) == (256, 32, True)
    assert (run.training.max_steps, run.training.checkpoint_interval) == (100_000, 5_000)
    assert (run.training.learning_rate, run.training.precision) == (1e-4, "bf16-mixed")


def test_training_without_a_dataset_says_what_to_materialise_first(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="materialise dataset_manifest"):
        plan_training(Store(tmp_path), load_profile("demo"))
