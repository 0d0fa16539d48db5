"""The bundle: what its manifest notices, what its documents say, and what counts as making audio."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import judge_asset, load_gates
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.lofi_onnx.pipeline import OnnxPipeline
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import load_profile
from lofi_assets.release import onnx_artifacts as bundle_module
from lofi_assets.release.bundle_documents import GraphsDifferError, attributions, licence_link, notice
from lofi_assets.release.bundle_environment import environment, versions_in
from lofi_assets.release.bundle_parity import PARITY
from lofi_assets.release.bundle_runs import Run, heard
from lofi_assets.release.onnx_artifacts import (
    MANIFEST,
    BundleError,
    ExampleRun,
    build_bundle,
    differences,
    try_bundle,
)
from lofi_assets.sources.inventory import SourceRow
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST as MANIFEST_OF_TIER
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.stage_rows import source_row, write_sources

TIERS = ("fp16", "int8", "int4")
RAN = ExampleRun(True, "")
PROFILE = load_profile("demo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three tiers of two tiny files each, and the tracks that they were trained on."""
    store = Store(tmp_path / "data")
    for tier in TIERS:
        write_tier(store, tier)
    deliver(store, "lofi-0123", [track_record("rain_01"), track_record("snow_02", split="validation")])
    write_sources(store, [source_row("rain_01"), source_row("snow_02")])
    return store


def put(path: Path, text: str) -> None:
    """Write as the assets do: a new file in the place of the old one, never into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def graph(about: str, *, inputs: tuple[str, ...] = ("sample",)) -> bytes:
    """A valid ONNX file that adds nothing to its first input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8, 16, "frames"]) for name in inputs]
    output = helper.make_tensor_value_info("velocity", TensorProto.FLOAT, ["batch", 8, 16, "frames"])
    made = helper.make_graph([helper.make_node("Identity", [inputs[0]], ["velocity"])], "transformer", values, [output])
    model: bytes = helper.make_model(made, doc_string=about).SerializeToString()
    return model


def write_tier(store: Store, tier: str, weights: str = "weights", **options: Any) -> None:
    folder = store.quantized / tier
    put(folder / "tokenizer.json", "{}")
    (folder / "transformer.onnx").unlink(missing_ok=True)
    (folder / "transformer.onnx").write_bytes(graph(f"{weights} of {tier}", **options))
    names = ("transformer.onnx", "tokenizer.json")
    files = {name: {"sha256": sha256_file(folder / name), "bytes": 1} for name in names}
    put(folder / "manifest.json", json.dumps(MANIFEST_OF_TIER | {"tier": tier, "files": files}))


def built(store: Store) -> Outcome:
    return build_bundle(store, PROFILE)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The bundle is taken to have run; returns the folders where it was."""
    return tried(monkeypatch, RAN)


def tried(monkeypatch: pytest.MonkeyPatch, example: ExampleRun) -> list[Path]:
    folders: list[Path] = []

    def stand_in(folder: Path, environments: Path, *, scratch: Path) -> tuple[ExampleRun, Mapping[str, Run]]:
        folders.append(folder)
        return example, {}

    monkeypatch.setattr(bundle_module, "try_bundle", stand_in)
    return folders


def faults(store: Store) -> Any:
    return built(store).values["missing_or_altered_files"]


# --- the manifest ----------------------------------------------------------------------------------------------------


def test_a_bundle_holds_the_tiers_the_runtime_and_the_documents_and_lists_them_all(
    store: Store, runs: list[Path]
) -> None:
    outcome = built(store)
    listed = read_json(store.export / MANIFEST)["files"]
    assert {f"{tier}/{name}" for tier in TIERS for name in ("transformer.onnx", "manifest.json")} <= listed.keys()
    documents = {"BUNDLE.md", "LICENSE", "NOTICE", "ATTRIBUTION.md", "pipeline.json", PARITY}
    assert documents | {"generate.py", "requirements.txt", "runtime/lofi_onnx/pipeline.py"} <= listed.keys()
    assert listed == {name: digest for name, digest in sha256_folder(store.export).items() if name != MANIFEST}
    assert {row["file"]: row["sha256"] for row in outcome.rows} == listed
    assert outcome.values["missing_or_altered_files"] == {"value": 0, "note": ""}
    for tier in TIERS:
        copied = onnx.load(store.export / tier / "transformer.onnx", load_external_data=False)
        assert copied.doc_string == f"weights of {tier}"


def test_the_manifest_notices_every_file_that_is_altered_missing_or_not_listed(store: Store, runs: list[Path]) -> None:
    built(store)
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
    first, again = built(store), built(store)
    assert (again.data_version, again.counts["recomputed"], len(runs)) == (first.data_version, 0, 1)
    for damage in ("extra.txt", "int4/transformer.onnx"):
        put(store.export / damage, "damaged")
        assert built(store).counts["recomputed"] == 1 and differences(store.export) == ()
    assert len(runs) == 3


def test_running_the_bundle_in_place_does_not_count_as_a_change(store: Store, runs: list[Path]) -> None:
    built(store)
    put(store.export / "runtime" / "lofi_onnx" / "__pycache__" / "runtime.cpython-311.pyc", "cache")
    assert built(store).counts["recomputed"] == 0


def test_another_tier_is_another_bundle(store: Store, runs: list[Path]) -> None:
    first = built(store)
    write_tier(store, "int8", weights="better weights")
    assert built(store).data_version != first.data_version
    assert (store.export / "int8" / "transformer.onnx").read_bytes() == graph("better weights of int8")


def test_another_licence_of_a_track_is_another_bundle(store: Store, runs: list[Path]) -> None:
    first = built(store)
    write_sources(store, [source_row("rain_01", license_type="CC-BY-4.0"), source_row("snow_02")])
    assert built(store).data_version != first.data_version


def test_weights_that_are_not_those_the_tier_was_proven_with_fail_by_name(store: Store, runs: list[Path]) -> None:
    (store.quantized / "int4" / "transformer.onnx").write_bytes(graph("damaged after it was proven"))
    assert faults(store) == {"value": 1, "note": "altered int4/transformer.onnx"}
    assert faults(store)["value"] == 1, "and it stays so until the tier is put right"
    write_tier(store, "int4")
    assert faults(store)["value"] == 0


def test_what_a_tier_does_not_list_stays_out_of_the_bundle(store: Store, runs: list[Path], tmp_path: Path) -> None:
    put(tmp_path / "secret", "token")
    (store.quantized / "int8" / "notes.txt").symlink_to(tmp_path / "secret")
    put(store.quantized / "fp16" / "other.onnx.data", "weights of something else")
    outcome = built(store)
    assert not [name for name in read_json(store.export / MANIFEST)["files"] if "notes" in name or "other" in name]
    assert outcome.values["missing_or_altered_files"]["value"] == 0 and differences(store.export) == ()


def test_a_listed_file_that_leads_elsewhere_is_altered(store: Store, runs: list[Path], tmp_path: Path) -> None:
    put(tmp_path / "secret", "token")
    (store.quantized / "int8" / "tokenizer.json").unlink()
    (store.quantized / "int8" / "tokenizer.json").symlink_to(tmp_path / "secret")
    assert faults(store) == {"value": 1, "note": "altered int8/tokenizer.json"}
    (store.quantized / "int8" / "tokenizer.json").unlink()
    assert faults(store) == {"value": 1, "note": "missing int8/tokenizer.json"}


def test_a_missing_tier_is_named(store: Store) -> None:
    shutil.rmtree(store.quantized / "int8")
    with pytest.raises(BundleError, match=r"int8/manifest\.json: absent; materialise quantized_tiers"):
        built(store)


def test_tiers_of_two_model_families_make_no_bundle(store: Store) -> None:
    record = store.quantized / "int4" / "manifest.json"
    put(record, json.dumps(read_json(record) | {"architecture": "toy"}))
    with pytest.raises(BundleError, match="the tiers are of ace_step_v1 and toy; materialise quantized_tiers again"):
        built(store)


# --- what it is taken for ---------------------------------------------------------------------------------------------


def status_of(gate: str, outcome: Outcome, *, config: Path = CONFIG_DIR) -> str:
    gates = [found for found in load_gates(config) if found.id == gate]
    (verdict,) = judge_asset(gates, outcome.values)
    return verdict.status


@pytest.mark.parametrize(
    ("example", "status"),
    [
        (RAN, "pass"),
        (ExampleRun(False, "int4: silent"), "fail"),
        (ExampleRun(None, "no index of packages can be reached"), "inconclusive"),
    ],
)
def test_only_a_bundle_that_made_audio_passes_its_gate(
    store: Store, monkeypatch: pytest.MonkeyPatch, example: ExampleRun, status: str
) -> None:
    tries = tried(monkeypatch, example)
    outcome = built(store)
    assert outcome.values["example_runs"] == {"value": example.ran, "note": example.note}
    assert status_of("bundle.runs", outcome) == status
    assert built(store).counts["recomputed"] == (status != "pass"), "what did not pass is tried again"
    assert len(tries) == 1 + (status != "pass")


def test_the_record_of_a_failure_tells_no_path_of_this_machine(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, ExampleRun(False, f'File "{store.root}/export/generate.py", "/root/.pyenv/lib/runpy.py"'))
    outcome = built(store)
    assert outcome.values["example_runs"]["note"] == 'File ".../export/generate.py", ".../lib/runpy.py"'
    assert outcome.values["private_strings"]["value"] == 0


ROWS = """
- id: bundle.private
  article: "Development Workflow / Export"
  asset: onnx_artifacts
  scope: asset
  measure: private_strings
  op: "=="
  limit: 0
  blocking: true
  holds: [hub_release]
  why: No file of the bundle holds a path of a machine, a user's name or the id of a track.
- id: bundle.attribution
  article: "I. Data Quality & Provenance"
  asset: onnx_artifacts
  scope: asset
  measure: incomplete_attributions
  op: "=="
  limit: 0
  holds: [hub_release]
  why: Every training track whose licence asks for a name is credited as the licence asks.
"""
"""Rows of the constitution for two measures of the bundle."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The constitution with `ROWS`, unless it has them."""
    text = (CONFIG_DIR / "constitution.yaml").read_text(encoding="utf-8")
    before, line, after = text.partition("- id: bundle.runs\n")
    extended = f"{before.rstrip()}{ROWS}{line}{after}"
    put(tmp_path / "config" / "constitution.yaml", text if "bundle.private" in text else extended)
    return tmp_path / "config"


def test_a_path_or_a_track_in_a_file_of_the_bundle_fails_its_gate(store: Store, runs: list[Path], config: Path) -> None:
    assert status_of("bundle.private", built(store), config=config) == "pass"
    write_tier(store, "int8", weights="/home/someone/checkpoints, rain_01")
    outcome = built(store)
    assert status_of("bundle.private", outcome, config=config) == "fail"
    found = "int8/transformer.onnx: /home/someone; int8/transformer.onnx: rain_01"
    assert outcome.values["private_strings"] == {"value": 2, "note": found}


def test_a_work_without_its_credit_fails_its_gate(store: Store, runs: list[Path], config: Path) -> None:
    assert status_of("bundle.attribution", built(store), config=config) == "pass"
    write_sources(store, [by("rain_01", "cc"), source_row("snow_02")])
    assert status_of("bundle.attribution", built(store), config=config) == "fail"


def test_without_an_environment_nothing_is_run(store: Store, runs: list[Path], tmp_path: Path) -> None:
    built(store)
    put(store.export / "requirements.txt", "no-such-distribution-of-lofi==1.0\n")
    for answer, wanted, told in (("none", None, "it is not installed here"), ("0.9", False, "(from versions: 0.9)")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "run", pip_says(f"ERROR: no such version (from versions: {answer})"))
            example, made = try_bundle(store.export, tmp_path / "environments", scratch=tmp_path)
        assert example.ran is wanted and told in example.note and made == {}


def pip_says(text: str) -> Any:
    return lambda command, **options: subprocess.CompletedProcess(command, 1, "", text)


TIME = np.arange(4 * 48000) / 48000
TONE = (0.3 * np.sin(2 * np.pi * 220 * np.stack([TIME, TIME]))).astype(np.float32)


@pytest.mark.parametrize(
    ("audio", "problem"),
    [
        (TONE, ""),
        (TONE * 0, "silent"),
        (TONE * 1e-4, "silent"),
        (np.clip(TONE * 20, -1, 1), "clipped"),
        (np.where(np.arange(TONE.size).reshape(TONE.shape) == 5, np.nan, TONE).astype(np.float32), "NaN"),
        (TONE[:, :48000], "1.00 s instead of 4.00 s"),
        (TONE[:1], "shape (1, 192000)"),
        (TONE.astype(np.float64), "float64"),
        (TONE[:, :0], "empty"),
    ],
)
def test_silence_nan_clipping_and_clips_cut_short_are_no_audio(tmp_path: Path, audio: Any, problem: str) -> None:
    np.save(tmp_path / "clip.npy", audio)
    found = heard(tmp_path / "clip.npy", seconds=4.0)
    assert problem in found.problem and bool(found.problem) == bool(problem)
    assert (found.audio is None) == ("float32" in found.problem)


def test_a_file_that_is_no_array_is_no_audio(tmp_path: Path) -> None:
    put(tmp_path / "clip.npy", "RIFF")
    assert "no audio" in heard(tmp_path / "clip.npy", seconds=4.0).problem


# --- what it carries --------------------------------------------------------------------------------------------------


def test_the_runtime_imports_nothing_but_itself_its_requirements_and_python(store: Store, runs: list[Path]) -> None:
    built(store)
    optional = {"num2words", "pypinyin", "cutlet", "hangul_romanize", "py3langid"}
    allowed = {"numpy", "onnxruntime", "tokenizers", "lofi_onnx"} | sys.stdlib_module_names | optional
    for file in [*(store.export / "runtime").rglob("*.py"), store.export / "generate.py"]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        assert {name.partition(".")[0] for name in modules} <= allowed, file


def test_requirements_are_exact_whole_and_without_torch(store: Store, runs: list[Path]) -> None:
    built(store)
    lines = (store.export / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
    names = {line.partition("==")[0] for line in lines}
    assert {"numpy", "onnxruntime", "tokenizers", "protobuf", "huggingface-hub"} <= names
    assert all("==" in line for line in lines) and not {"torch", "lofi-assets", "soundfile"} & names


def test_the_pipeline_is_described_with_the_graphs_as_they_are(store: Store, runs: list[Path]) -> None:
    built(store)
    told = read_json(store.export / "pipeline.json")
    value = {"type": "float32", "shape": ["batch", 8, 16, "frames"]}
    assert told["graphs"] == {
        "transformer": {"file": "transformer.onnx", "inputs": {"sample": value}, "outputs": {"velocity": value}}
    }
    settings = PROFILE.quantization
    assert told["defaults"] == {"steps": settings.steps, "guidance_scale": settings.guidance_scale}
    assert told["tiers"]["int8"]["opset"] == 17 and told["tiers"].keys() == set(TIERS)


def test_tiers_that_are_called_differently_make_no_bundle(store: Store) -> None:
    write_tier(store, "int4", inputs=("sample", "mask"))
    with pytest.raises(GraphsDifferError, match="transformer: inputs or outputs of int4 are not those of fp16"):
        built(store)


def test_a_cpu_graph_that_is_called_differently_makes_no_bundle(store: Store) -> None:
    (store.quantized / "int8" / "transformer.cpu.onnx").write_bytes(graph("", inputs=("noisy",)))
    with pytest.raises(GraphsDifferError, match=r"transformer\.cpu\.onnx: its inputs or outputs are not those of"):
        built(store)


def test_the_licence_is_the_project_s_own() -> None:
    own = Path(bundle_module.__file__).parents[2] / "LICENSE"
    assert ACE_STEP_V1.release_runtime().licence.read_bytes() == own.read_bytes()


def test_the_notice_names_base_revision_licences_and_changes() -> None:
    carried = ACE_STEP_V1.release_runtime()
    production = load_profile("production")
    text = notice(carried, production)
    assert production.base_model.path in text and "Changes:" in text
    assert "ACE Studio" in text and "UMT5" in text and "https://www.apache.org/licenses/LICENSE-2.0" in text
    assert "not from the Hub" in notice(carried, PROFILE)


def by(track_id: str, source_id: str, **changes: str) -> SourceRow:
    about = {"license_type": "CC BY 4.0", "provider": f"of {track_id}", "source_id": source_id} | changes
    return source_row(track_id, **about)


def test_works_under_cc_by_are_credited_with_author_source_licence_and_changes(store: Store) -> None:
    record = {
        "source_id": "cc", "source_type": "creative_commons", "provider": "Jo", "license_type": "CC-BY-4.0",
        "date_acquired": "2025-01-01", "track_ids": ["rain_01"], "evidence": "https://example.org/rain",
    }  # fmt: skip
    write_json(store.metadata("sources.json"), [record])
    write_sources(store, [by("rain_01", "cc", attribution='"Rain" by Jo'), by("unused", "no"), source_row("snow_02")])
    found = attributions(store)
    row = next(line for line in found.text.splitlines() if "Rain" in line)
    assert row.startswith('| "Rain" by Jo | https://example.org/rain |') and "trained on" in row
    assert "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/)" in row
    assert "unused" not in found.text and "rain_01" not in found.text and found.incomplete == ()


def test_a_work_that_cannot_be_credited_as_its_licence_asks_is_counted(store: Store, runs: list[Path]) -> None:
    write_sources(store, [by("rain_01", "cc"), source_row("snow_02")])
    outcome = built(store)
    note = "cc: no attribution text with title and author"
    assert outcome.values["incomplete_attributions"] == {"value": 1, "note": note}
    assert "of rain_01 (CC-BY-4.0)" in (store.export / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_a_track_whose_source_is_unknown_is_counted(store: Store) -> None:
    write_sources(store, [source_row("rain_01")])
    assert attributions(store).incomplete == ("1 track without a source",)


@pytest.mark.parametrize(
    ("licence", "link"),
    [
        ("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/"),
        ("CC-BY-SA-3.0", "https://creativecommons.org/licenses/by-sa/3.0/"),
        ("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("Work-For-Hire-AI-Training", ""),
    ],
)
def test_public_licences_are_linked_and_contracts_are_not(licence: str, link: str) -> None:
    assert licence_link(licence) == link


def test_parity_that_was_not_measured_is_none_with_a_note(store: Store, runs: list[Path]) -> None:
    built(store)
    told = read_json(store.export / PARITY)
    assert told["note"].startswith("not compared with torch")
    assert {row["audio_snr_db"] for row in told["tiers"].values()} == {None}
    assert {row["fad_note"] for row in told["tiers"].values()} == {"not measured"}


# --- a real one -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tiny_base: Path, tiny_tiers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome, Path]:
    """The bundle of the tiny base, and the interpreter of its environment, which pip made."""
    store = Store(tmp_path_factory.mktemp("real") / "data")
    shutil.copytree(tiny_tiers, store.quantized)
    merged = merged_model("epoch=0-step=1_lora")
    merged.write(store)
    shutil.copytree(tiny_base, merged.folder(store))
    deliver(store, "lofi-0123", [track_record("rain_01")])
    write_sources(store, [source_row("rain_01")])
    outcome = built(store)
    if outcome.values["example_runs"]["value"] is None:
        pytest.skip(outcome.values["example_runs"]["note"])
    text = (store.export / "requirements.txt").read_text(encoding="utf-8")
    return store, outcome, environment(text, store.cache / "bundle_environments")


def in_its_environment(python: Path, folder: Path, *command: object) -> None:
    done = subprocess.run([str(python), "-I", *map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROMPT = "lofi hip hop, rhodes, 74 bpm"


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_every_tier_of_a_real_bundle_makes_audio_in_a_fresh_environment(real: tuple[Store, Outcome, Path]) -> None:
    store, outcome, python = real
    assert outcome.values["example_runs"] == {"value": True, "note": ""}
    assert outcome.values["missing_or_altered_files"] == {"value": 0, "note": ""}
    assert outcome.values["private_strings"] == {"value": 0, "note": ""}
    listed = (store.export / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert versions_in(python) == dict(line.split("==") for line in listed)
    told = read_json(store.export / PARITY)["tiers"]
    print({variant: row["audio_snr_db"] for variant, row in told.items()})
    assert told["fp16"]["audio_snr_db"] > told["int8"]["audio_snr_db"] > 0


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
@pytest.mark.parametrize("tier", TIERS)
def test_a_script_written_from_the_readme_alone_gives_the_same_latents(
    real: tuple[Store, Outcome, Path], tmp_path: Path, tier: str
) -> None:
    """From an environment without torch and without lofi_assets; the script is at most 60 lines."""
    store, _, python = real
    script = Path(__file__).with_name("from_the_readme.py")
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    in_its_environment(python, tmp_path, script, store.export, tier, PROMPT, 5, 7, "mine.npy")
    options = [PROMPT, "--tier", tier, "--seconds", 5, "--seed", 7, "--no-cpu-graph", "--latents", "bundle.npy"]
    in_its_environment(python, tmp_path, store.export / "generate.py", *options, "-o", "out.wav")
    np.testing.assert_allclose(np.load(tmp_path / "mine.npy"), np.load(tmp_path / "bundle.npy"), atol=1e-5)
    for name in ("torch", "lofi_assets"):
        with pytest.raises(AssertionError, match="No module named"):
            in_its_environment(python, tmp_path, "-c", f"import {name}")


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_the_command_of_this_package_and_the_bundle_s_own_script_give_the_same_clip(
    real: tuple[Store, Outcome, Path], tmp_path: Path
) -> None:
    store, _, python = real
    options = [PROMPT, "--tier", "int8", "--seconds", "2", "--seed", "3", "--threads", "1"]
    in_its_environment(python, tmp_path, store.export / "generate.py", *options, "-o", "bundle.wav")
    done = CliRunner().invoke(main, ["generate", "--bundle", str(store.export), *options, "-o", f"{tmp_path}/own.wav"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "own.wav").read_bytes() == (tmp_path / "bundle.wav").read_bytes()


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_a_tier_is_called_with_the_words_that_torch_is_called_with(
    real: tuple[Store, Outcome, Path], tiny_base: Path
) -> None:
    """The ids of prompt and lyrics, whatever language they are in."""
    import torch

    from lofi_assets.backbones.ace_step_v1.loading import load_base
    from lofi_assets.backbones.ace_step_v1.sampler import conditions_for

    store, _, _ = real
    base, tier = load_base(tiny_base), OnnxPipeline(store.quantized / "fp32")
    for words in ("", "[verse]\nrain on the window", "[Language: de]\nRegen am Fenster"):
        wanted = conditions_for(base, prompts=[PROMPT], lyrics=[words])
        found = tier.conditions([PROMPT], lyrics=[words])
        assert torch.equal(wanted.lyric_token_ids, torch.from_numpy(found.lyric_token_ids)), words
        np.testing.assert_allclose(wanted.text_hidden_states.numpy(), found.text_hidden_states, atol=1e-4)
