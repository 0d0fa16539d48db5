"""What quantization records: read back as it was written, as the release before wrote it, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.files.documents import write_json
from lofi_assets.files.typed import plain
from lofi_assets.files.writing import StoreError
from lofi_assets.quantization.merge_report import MergeReport, read_merge_report, write_merge_report
from lofi_assets.quantization.merged_model import MergedModel, NoMergedModelError
from lofi_assets.quantization.quantized_tiers import TIERS_VERSION, TierDistances, TierSamples
from lofi_assets.quantization.tier_manifest import TierFile, TierManifest, TierRecipe
from lofi_assets.store import Store
from lofi_assets_tests.metrics.stand_in_results import FIDELITY, fidelity
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST, MERGE, tier_manifest

CHECKPOINT = "epoch=0-step=240_lora"
REPORT = MergeReport(
    max_error=3.354943520555924e-05,
    adapter_effect=1.1568025713033019,
    modules=36,
    scale=5.656854249,
    rank=32,
    base_fingerprint="5" * 64,
    adapter_sha256="f" * 64,
)


def put(path: Path, content: Any) -> bytes:
    write_json(path, content)
    return path.read_bytes()


# --- as the release before wrote it ----------------------------------------------------------------------------------


def test_a_merge_is_read_and_written_again_byte_for_byte(tmp_path: Path) -> None:
    before = put(tmp_path / "merge.json", MERGE)
    assert read_merge_report(tmp_path) == REPORT
    write_merge_report(tmp_path, REPORT)
    assert (tmp_path / "merge.json").read_bytes() == before


def test_the_merged_model_is_read_and_named(store: Store) -> None:
    put(store.metadata("merged_model.json"), {"checkpoint_id": CHECKPOINT, **MERGE})
    found = MergedModel.current(store)
    assert found == MergedModel(checkpoint_id=CHECKPOINT, **plain(REPORT)) == MergedModel.read(store)
    assert found.folder(store) == store.merged / CHECKPOINT
    found.write(store)
    written = json.loads(store.metadata("merged_model.json").read_text())
    assert written == {"checkpoint_id": CHECKPOINT, "architecture": "ace_step_v1", **MERGE}
    assert next(iter(written)) == "checkpoint_id" and found.backbone.architecture == "ace_step_v1"


def test_a_tiers_manifest_of_before_is_read_and_written_again_with_its_family(tmp_path: Path) -> None:
    put(tmp_path / "manifest.json", MANIFEST)
    found = TierManifest.read(tmp_path)
    assert found == tier_manifest() and found is not None
    assert found.files == {"vocoder.onnx": TierFile("1" * 64, 574)} and found.recipe == TierRecipe((r"\.to_v$",), 32, 1)
    assert found.policy.holds and found.policy.components[0].elements_by_bits == {8: 327680, 32: 907}
    found.write(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        **MANIFEST,
        "architecture": "ace_step_v1",
        "half": None,
        "layers": None,
        "not_finite": None,
    }
    assert TierManifest.read(tmp_path) == found


def test_tier_distances_are_read_and_written_again_byte_for_byte(store: Store) -> None:
    path = store.metadata("tier_fad.json")
    distances = {"int8": FIDELITY, "int8.cpu": FIDELITY | {"upper": None}}
    before = put(path, {"key": "9" * 64, "fidelity": distances, "version": TIERS_VERSION})
    found = TierDistances.read(store)
    assert (
        found == TierDistances("9" * 64, {"int8": fidelity(), "int8.cpu": fidelity(upper=None)}) and found is not None
    )
    found.write(store)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [{}, {"version": "2"}, {"version": "99"}])
def test_tiers_that_were_compared_in_another_way_are_compared_again(store: Store, version: dict[str, str]) -> None:
    """Of 4 pairs the bootstrap had a bound, which a tier that was worse by the tolerance passed 1 time in 4."""
    put(store.metadata("tier_fad.json"), {"key": "9" * 64, "fidelity": {"int8": FIDELITY}} | version)
    assert TierDistances.read(store) is None


def test_the_clips_of_a_tier_are_marked_by_their_key(tmp_path: Path) -> None:
    before = put(tmp_path / "samples.json", {"key": "9" * 64})
    assert TierSamples.read(tmp_path) == TierSamples("9" * 64)
    TierSamples("9" * 64).write(tmp_path)
    assert (tmp_path / "samples.json").read_bytes() == before


# --- absent, or of another version -----------------------------------------------------------------------------------


def test_before_anything_was_merged_or_built_there_is_nothing_on_record(store: Store) -> None:
    assert read_merge_report(store.root) is None and MergedModel.read(store) is None
    assert TierManifest.read(store.root) is None
    assert TierDistances.read(store) is None and TierSamples.read(store.root) is None
    with pytest.raises(NoMergedModelError, match=r"merged_model\.json: absent; materialise merged_model"):
        MergedModel.current(store)


@pytest.mark.parametrize(
    ("file", "content", "read", "said"),
    [
        ("metadata/merged_model.json", MERGE, MergedModel.read, "checkpoint_id.*merged_model"),
        (
            "metadata/merged_model.json",
            {"checkpoint_id": "c", **MERGE, "dora": 1},
            MergedModel.read,
            "dora",
        ),
        ("merge.json", {"scale": 2.0}, lambda store: read_merge_report(store.root), "max_error.*merged_model"),
        ("merge.json", MERGE | {"rank": "big"}, lambda store: read_merge_report(store.root), "rank.*merged_model"),
        ("manifest.json", {"tier": "int8"}, lambda store: TierManifest.read(store.root), "opset.*quantized_tiers"),
        (
            "manifest.json",
            MANIFEST | {"tier": "int2"},
            lambda store: TierManifest.read(store.root),
            "tier",
        ),
        ("manifest.json", MANIFEST | {"bits": 8}, lambda store: TierManifest.read(store.root), "bits.*quantized_tiers"),
        (
            "metadata/tier_fad.json",
            {"key": "k", "fidelity": {"int8": {}}, "version": TIERS_VERSION},
            TierDistances.read,
            "int8.*quantized_tiers",
        ),
        (
            "metadata/tier_fad.json",
            {"fidelity": {}, "version": TIERS_VERSION},
            TierDistances.read,
            "key.*quantized_tiers",
        ),
        (
            "samples.json",
            {"key": "k", "clips": []},
            lambda store: TierSamples.read(store.root),
            "clips",
        ),
    ],
)
def test_a_record_of_another_version_is_refused_by_name(
    store: Store, file: str, content: Any, read: Callable[[Store], object], said: str
) -> None:
    put(store.root / file, content)
    with pytest.raises(StoreError, match=f"{store.root / file}: is of another version .*{said}.* again"):
        read(store)
