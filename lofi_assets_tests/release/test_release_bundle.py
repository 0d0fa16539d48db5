"""The bundle: what its manifest notices, what its documents say, and what counts as making audio."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lofi_assets.constitution.gates import judge_asset, load_gates
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_folder
from lofi_assets.outcome import Outcome
from lofi_assets.release.bundle_parity import PARITY
from lofi_assets.release.bundle_runs import heard
from lofi_assets.release.onnx_artifacts import (
    MANIFEST,
    BundleError,
    ExampleRun,
    differences,
    try_bundle,
)
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets_tests.release.stand_in_bundle import (
    RAN,
    TIERS,
    built,
    by,
    faults,
    graph,
    put,
    runs,
    store,
    tried,
    write_tier,
)
from lofi_assets_tests.stage_rows import source_row, write_sources

__all__ = ["runs", "store"]


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
    said = ("the folder /home/someone", "the path /home/someone/checkpoints", "the track rain_01")
    note = "; ".join(f"int8/transformer.onnx: {found}" for found in said)
    assert outcome.values["private_strings"] == {"value": 3, "note": note}


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
