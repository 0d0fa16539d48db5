"""What people read when something is not as it must be: one sentence with file and remedy, wherever it happens."""

import ast
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from lofi_assets.cli.main import main
from lofi_assets.defs.faults import explained
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.sources import licensed_sources
from lofi_assets.errors import REMEDIES, DiskError, LofiError, explanation
from lofi_assets.evaluation import quality_metrics as evaluation
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.writing import atomic_folder
from lofi_assets.profiles import Profile, ProfileError, load_profile
from lofi_assets.store import Store
from lofi_assets.training.ending import FILES
from lofi_assets.training.feature_cache import cache_dataset_features
from lofi_assets.workers.process_pool import LocalProcesses
from lofi_assets_tests.dataset.stand_in_version import deliver
from lofi_assets_tests.test_layering import MODULES, asset_functions, relative

IN_THE_BUNDLE = {"ClipError", "DescriptionError", "LyricError", "ProviderError", "RuntimeFolderError"}
"""Of modules that run without this package, beside the released files."""


def test_every_error_of_the_project_is_one_that_its_message_explains() -> None:
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name not in IN_THE_BUNDLE
    }

    def explained(name: str) -> bool:
        return name == "LofiError" or any(explained(base) for base in bases.get(name, ()))

    assert len(bases) > 20 and not [name for name in bases if not explained(name)]


def test_every_asset_explains_its_errors_in_the_one_place() -> None:
    for path, function in asset_functions():
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        assert decorators[-1] == "explained", f"{relative(path)}: {function.name}"


# --- the command line -------------------------------------------------------------------------------------------------


def lofi(root: Path, *arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"LOFI_DATA_DIR": str(root), **environment})


def assert_one_sentence(done: Result, *parts: str) -> None:
    assert done.exit_code == 1
    assert done.output.startswith("Error: ") and done.output.count("\n") == 1, done.output
    for part in parts:
        assert part in done.output


@pytest.mark.parametrize("arguments", [("train",), ("train", "--plan"), ("inspect", "a.wav")], ids=" ".join)
def test_an_unknown_profile_is_named_with_those_that_there_are(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = lofi(tmp_path, *arguments, LOFI_PROFILE="prod")
    assert_one_sentence(done, "profiles/prod.yaml: no such profile; LOFI_PROFILE can be demo, production")


@pytest.mark.parametrize(
    ("file", "content", "arguments", "parts"),
    [
        ("metadata/dataset_manifest.json", "{", ("train",), ("not JSON", "materialise dataset_manifest again")),
        ("metadata/dataset_manifest.json", "[]", ("train",), ("names no dataset version",)),
        ("metadata/feature_cache.json", "{", ("train",), ("not JSON", "materialise feature_cache again")),
        ("metadata/feature_cache.json", '{"tracks": 3}', ("train",), ("materialise feature_cache again",)),
        ("metadata/evidence/prompts.json", "{", ("constitution",), ("materialise prompts again",)),
        ("metadata/evidence/prompts.json", '{"x": 1}', ("constitution",), ("materialise prompts again",)),
        ("metadata/sources.json", "{", ("sources", "list"), ("not JSON",)),
    ],
)
def test_a_broken_file_is_named_with_its_remedy(
    tmp_path: Path, file: str, content: str, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    if "feature_cache" in file:
        deliver(Store(tmp_path), "ds-1")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content, encoding="utf-8")
    assert_one_sentence(lofi(tmp_path, *arguments), str(tmp_path / file), *parts)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.touch()
    done = lofi(root, "demo-corpus")
    assert_one_sentence(done, str(root), "a file stands where a folder must be")


def test_a_defect_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("lofi_assets.cli.train.load_profile", defect)
    assert isinstance(lofi(tmp_path, "train").exception, KeyError)


# --- the assets -------------------------------------------------------------------------------------------------------


def materialize(asset: dg.AssetsDefinition, root: Path) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(data_dir=str(root), profile_name="demo")
        done = dg.materialize([asset], instance=instance, resources={"platform": platform}, raise_on_error=False)
    (failure,) = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    return failure


def test_an_asset_fails_with_the_sentence_and_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "raw_inventory.parquet").write_bytes(b"PAR1 cut short")
    failure = materialize(licensed_sources, tmp_path)
    sentence = failure.user_failure_data.description
    assert str(tmp_path / "metadata" / "raw_inventory.parquet") in sentence and "remove it" in sentence
    assert failure.error.cause is None and "read_rows" not in "".join(failure.error.stack)


def test_an_error_that_nothing_explains_keeps_its_traceback_in_the_run(tmp_path: Path) -> None:
    @dg.asset
    @explained
    def broken(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        raise KeyError("a defect")

    failure = materialize(broken, tmp_path)
    assert failure.user_failure_data is None
    assert failure.error.cause.cls_name == "KeyError" and "a defect" in "".join(failure.error.cause.stack)


# --- the machine refuses ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", "-l", str(folder)], check=True)
            return
    pytest.skip("NOT RUN: only root can mount the small disk; the errors below stand in for it")


def test_a_full_disk_is_named_with_file_and_space_and_what_was_there_stays(small_disk: Path) -> None:
    path = small_disk / "metadata" / "scores.json"
    write_text(path, "before")
    with pytest.raises(DiskError) as caught:
        write_text(path, "x" * 3_000_000)
    sentence = explanation(caught.value)
    written = "0.0 MB free after 1.0 MB of it were written, and it needs more"
    assert sentence == f"{path}: the disk is full ({written}); make room and run again"
    assert path.read_text() == "before" and [file.name for file in path.parent.iterdir()] == ["scores.json"]
    assert write_text(path, "after") and path.read_text() == "after"


def test_a_root_that_cannot_be_written_is_named_by_commands_and_assets(small_disk: Path) -> None:
    (small_disk / "raw").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = lofi(small_disk, "demo-corpus")
    assert_one_sentence(done, str(small_disk), "read-only; mount it writable, or set LOFI_DATA_DIR")
    sentence = materialize(licensed_sources, small_disk).user_failure_data.description
    assert str(small_disk) in sentence and "read-only; mount it writable" in sentence


def test_a_full_disk_under_weights_is_named_although_the_library_says_it_in_its_own_words(small_disk: Path) -> None:
    folder = small_disk / "epoch=0-step=5_lora"
    weights = {"w": np.zeros(1_000_000, np.float32)}
    with pytest.raises(DiskError, match=r"step=5_lora: the disk is full"), atomic_folder(folder) as partial:
        save_file(weights, partial / "adapter_model.safetensors")
    assert not any(small_disk.iterdir())


@pytest.mark.parametrize("number", REMEDIES, ids=lambda number: errno.errorcode[number])
def test_what_the_machine_refuses_is_a_sentence_with_the_file_and_a_remedy(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = store.metadata("table.json")
    write_json(path, {"rows": 1})

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr("lofi_assets.files.writing.os.fsync", refuse)
        with pytest.raises(DiskError) as caught:
            write_json(path, {"rows": 2})
    assert caught.value.errno == number and str(caught.value).startswith(f"{path}: ")
    assert ";" in str(caught.value) and "{" not in str(caught.value)
    assert read_json(path) == {"rows": 1}
    assert write_json(path, {"rows": 2}), "the next run goes on"


def test_the_trainer_says_it_too_though_not_even_its_ending_can_be_written(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lofi_assets.training import __main__ as trainer
    from lofi_assets.training.config import save_run

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/checkpoints/.resume/step=3")

    save_run(tmp_path / "run.json", make_run())
    monkeypatch.setattr("lofi_assets.training.trainer.loop.train", full)
    monkeypatch.setattr("lofi_assets.files.writing.os.fsync", full)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert trainer.main(["--config", str(tmp_path / "run.json")]) == FILES
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert "error: /data/checkpoints/.resume/step=3: the disk is full" in said and "Traceback" not in said


def fill(job: str) -> str:
    if job == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/cache/work/x.mp3")
    return job


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_the_stage_and_rejects_no_track(workers: int) -> None:
    done = []
    results = LocalProcesses(workers, 60, 2.0)(fill, ["a", "full", "b"], label="test")
    with pytest.raises(OSError) as caught:
        done += [job for job, _ in iter(results)]
    assert "/data/cache/work/x.mp3: the disk is full" in str(explanation(caught.value))


def test_a_file_that_is_not_there_is_no_fault_of_the_machine() -> None:
    assert explanation(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None
    assert explanation(BrokenPipeError(errno.EPIPE, "pipe")) is None


# --- settings ---------------------------------------------------------------------------------------------------------


def production(**changes: object) -> Profile:
    return load_profile("production").model_copy(update=changes)


@pytest.mark.parametrize(
    ("key", "use", "remedy"),
    [
        ("base_model", lambda store: cache_dataset_features(store, production()), "give the revision"),
        (
            "lyric_vocabulary",
            lambda store: cache_dataset_features(
                store,
                production(
                    base_model=load_profile("demo").base_model,
                    lyric_vocabulary=load_profile("production").lyric_vocabulary.model_copy(
                        update={"source": "models/vocab.json"}
                    ),
                ),
            ),
            "put ACE-Step's vocab.json there",
        ),
        ("evaluation.encoder_weights", lambda store: evaluation.load_encoder(store, production()), "Download vggish"),
        ("evaluation.clap", lambda store: evaluation.load_clap(store, production()), "convert-clap"),
    ],
    ids=["hub revision", "lyric vocabulary", "VGGish", "CLAP"],
)
def test_what_production_lacks_is_named_by_file_and_key_with_where_to_get_it(
    store: Store, key: str, use: Callable[[Store], object], remedy: str
) -> None:
    deliver(store, "ds-1")
    with pytest.raises(ProfileError) as caught:
        use(store)
    assert f"config/profiles/production.yaml, {key}: " in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sampling: {cuont: 3}", "sampling.cuont"),
        ("audio: [", "not YAML"),
        ("- a list", "not YAML"),
        ("base_model: {kind: moon}", "base_model.kind: Input should be 'tiny', 'shipped', 'folder' or 'hub'"),
    ],
)
def test_a_profile_that_cannot_be_read_says_file_and_key_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "profiles").mkdir()
    path = tmp_path / "profiles" / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LofiError) as caught:
        load_profile("mine", config_dir=tmp_path)
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)
