"""The bundle: what its manifest notices, and that its example needs nothing but the bundle and its requirements."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.release import onnx_artifacts as bundle_module
from lofi_assets.release.onnx_artifacts import (
    MANIFEST,
    BundleError,
    ExampleRun,
    build_bundle,
    differences,
    outside,
    run_example,
)
from lofi_assets.store import PACKAGE, Store
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST as MANIFEST_OF_TIER

TIERS = ("fp16", "int8", "int4")
RAN = ExampleRun(True, "")
REQUIREMENTS = ACE_STEP_V1.release_runtime().requirements


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three tiers of two tiny files each."""
    store = Store(tmp_path / "data")
    for tier in TIERS:
        write_tier(store, tier)
    return store


def put(path: Path, text: str) -> None:
    """Write as the assets do: a new file in the place of the old one, never into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def write_tier(store: Store, tier: str, weights: str = "weights") -> None:
    folder = store.quantized / tier
    put(folder / "transformer.onnx", f"{weights} of {tier}")
    put(folder / "tokenizer.json", "{}")
    names = ("transformer.onnx", "tokenizer.json")
    files = {name: {"sha256": sha256_file(folder / name), "bytes": 1} for name in names}
    put(folder / "manifest.json", json.dumps(MANIFEST_OF_TIER | {"tier": tier, "files": files}))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The example is taken to have run; returns the folders where it was."""
    folders: list[Path] = []
    monkeypatch.setattr(bundle_module, "run_example", lambda folder, *, requirements: folders.append(folder) or RAN)
    return folders


def faults(store: Store) -> Any:
    return build_bundle(store).values["missing_or_altered_files"]


# --- the manifest ----------------------------------------------------------------------------------------------------


def test_a_bundle_holds_the_tiers_the_runtime_and_the_example_and_lists_them_all(
    store: Store, runs: list[Path]
) -> None:
    outcome = build_bundle(store)
    listed = read_json(store.export / MANIFEST)["files"]
    assert {f"{tier}/{name}" for tier in TIERS for name in ("transformer.onnx", "manifest.json")} <= listed.keys()
    assert {"example.py", "requirements.txt", "runtime/lofi_onnx/pipeline.py"} <= listed.keys()
    assert listed == {name: digest for name, digest in sha256_folder(store.export).items() if name != MANIFEST}
    assert {row["file"]: row["sha256"] for row in outcome.rows} == listed
    assert outcome.values["missing_or_altered_files"] == {"value": 0, "note": ""}
    for tier in TIERS:
        assert (store.export / tier / "transformer.onnx").read_bytes() == f"weights of {tier}".encode()


def test_the_manifest_notices_every_file_that_is_altered_missing_or_not_listed(store: Store, runs: list[Path]) -> None:
    build_bundle(store)
    assert differences(store.export) == ()
    put(store.export / "int8" / "transformer.onnx", "weights of int9")
    (store.export / "requirements.txt").unlink()
    put(store.export / "notes.txt", "private")
    assert differences(store.export) == (
        "altered int8/transformer.onnx",
        "not listed notes.txt",
        "missing requirements.txt",
    )


def test_a_folder_without_a_manifest_lists_nothing(tmp_path: Path) -> None:
    put(tmp_path / "bundle" / "a.txt", "a")
    assert differences(tmp_path / "bundle") == ("not listed a.txt",)
    assert differences(tmp_path / "absent", expected={"a.txt": "0" * 64}) == ("missing a.txt",)


def test_an_unchanged_bundle_is_left_alone_and_a_damaged_one_is_made_again(store: Store, runs: list[Path]) -> None:
    first, again = build_bundle(store), build_bundle(store)
    assert (again.data_version, again.counts["recomputed"], len(runs)) == (first.data_version, 0, 1)
    for damage in ("extra.txt", "int4/transformer.onnx"):
        put(store.export / damage, "damaged")
        assert build_bundle(store).counts["recomputed"] == 1 and differences(store.export) == ()
    assert len(runs) == 3


def test_running_the_example_in_place_does_not_count_as_a_change(store: Store, runs: list[Path]) -> None:
    build_bundle(store)
    put(store.export / "runtime" / "lofi_onnx" / "__pycache__" / "runtime.cpython-311.pyc", "cache")
    assert build_bundle(store).counts["recomputed"] == 0


def test_another_tier_is_another_bundle(store: Store, runs: list[Path]) -> None:
    first = build_bundle(store)
    write_tier(store, "int8", weights="better weights")
    assert build_bundle(store).data_version != first.data_version
    assert (store.export / "int8" / "transformer.onnx").read_bytes() == b"better weights of int8"


def test_weights_that_are_not_those_the_tier_was_proven_with_fail_by_name(store: Store, runs: list[Path]) -> None:
    put(store.quantized / "int4" / "transformer.onnx", "damaged after it was proven")
    assert faults(store) == {"value": 1, "note": "altered int4/transformer.onnx"}
    assert faults(store)["value"] == 1, "and it stays so until the tier is put right"
    write_tier(store, "int4")
    assert faults(store)["value"] == 0


def test_a_missing_tier_is_named(store: Store) -> None:
    shutil.rmtree(store.quantized / "int8")
    with pytest.raises(BundleError, match=r"int8/manifest\.json: absent; materialise quantized_tiers"):
        build_bundle(store)


def test_tiers_of_two_model_families_make_no_bundle(store: Store) -> None:
    record = store.quantized / "int4" / "manifest.json"
    put(record, json.dumps(read_json(record) | {"architecture": "toy"}))
    with pytest.raises(BundleError, match="the tiers are of ace_step_v1 and toy; materialise quantized_tiers again"):
        build_bundle(store)


# --- the example -----------------------------------------------------------------------------------------------------


def test_a_bundle_whose_example_fails_says_why_and_is_tried_again(store: Store) -> None:
    """These tiers hold no models, so the real example cannot run."""
    outcome = build_bundle(store)
    found = outcome.values["example_runs"]
    assert found["value"] is False and "tokenizer" in found["note"].lower()
    assert build_bundle(store).counts["recomputed"] == 1
    assert not (store.export / "example.wav").exists()


def example(folder: Path, code: str) -> ExampleRun:
    put(
        folder / "example.py", f"import sys\n{code}\nopen(sys.argv[sys.argv.index('--output') + 1], 'w').write('audio')"
    )
    return run_example(folder, requirements=REQUIREMENTS)


def test_the_example_cannot_import_this_project_nor_what_is_not_required(tmp_path: Path) -> None:
    """Each of these is installed here, lofi_assets as an editable package that no PYTHONPATH hides."""
    names = ("lofi_assets", "lofi_assets.lofi_onnx.pipeline", "torch", "transformers", "dagster", "onnx")
    tries = [
        f"try:\n    import {name}\n    sys.exit('{name} is there')\nexcept ImportError:\n    pass" for name in names
    ]
    assert example(tmp_path, "\n".join(tries)) == RAN
    found = example(tmp_path, "import lofi_assets")
    assert found.ran is False and "not in the bundle's requirements.txt" in found.note


def test_the_example_imports_what_is_required_and_the_bundles_own_runtime(tmp_path: Path) -> None:
    put(tmp_path / "runtime" / "lofi_onnx" / "__init__.py", "")
    lines = ["import numpy, onnxruntime, tokenizers, soundfile, wave", "from pathlib import Path"]
    lines += ["sys.path.insert(0, str(Path(__file__).resolve().parent / 'runtime'))", "import lofi_onnx"]
    assert example(tmp_path, "\n".join(lines)) == RAN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.py", "runtime"]


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONSTARTUP"])
def test_the_environment_cannot_bring_the_project_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(PACKAGE.parent))
    assert example(tmp_path, "import lofi_assets").ran is False


def test_an_example_that_writes_nothing_or_never_ends_did_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "example.py", "")
    assert run_example(tmp_path, requirements=REQUIREMENTS) == ExampleRun(False, "it wrote no audio")
    monkeypatch.setattr(bundle_module, "EXAMPLE_TIMEOUT_S", 0.2)
    assert example(tmp_path, "import time; time.sleep(30)") == ExampleRun(False, "not finished after 0.2 s")


def test_what_a_requirement_brings_with_it_is_not_refused() -> None:
    refused = outside(["soundfile"])
    assert "lofi_assets" in refused and "numpy" not in refused and "torch" in refused
    assert "torch" not in outside(["torch"])


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_the_bundle_of_a_real_tiny_model_makes_music_from_itself_alone(tiny_tiers: Path, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
    from lofi_assets.quantization.policy import check_tier

    store = Store(tmp_path / "data")
    shutil.copytree(tiny_tiers, store.quantized)
    outcome = build_bundle(store)
    assert outcome.values["example_runs"] == {"value": True, "note": ""}
    assert outcome.values["missing_or_altered_files"] == {"value": 0, "note": ""}
    for folder in (store.quantized, store.export):
        assert check_tier(
            folder / "int8", tier="int8", baseline=store.quantized / "fp32", layout=ACE_STEP_V1.layout
        ).holds
    shutil.copytree(store.export, tmp_path / "elsewhere")
    heard = tmp_path / "elsewhere" / "heard.wav"
    moved = (tmp_path / "elsewhere" / "example.py").read_text(encoding="utf-8")
    put(
        tmp_path / "elsewhere" / "example.py",
        moved + f"\nimport shutil\nshutil.copyfile(sys.argv[sys.argv.index('--output') + 1], {str(heard)!r})\n",
    )
    assert run_example(tmp_path / "elsewhere", requirements=REQUIREMENTS) == RAN
    audio, rate = soundfile.read(heard)
    assert audio.shape == (2 * 48000, 2) and rate == 48000 and np.abs(audio).max() > 0
