"""What a bundle carries beside its tiers: code, requirements, description, notice, whom its licences ask to name."""

import ast
import sys
from pathlib import Path

import pytest

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.profiles import load_profile
from lofi_assets.release import onnx_artifacts as bundle_module
from lofi_assets.release.bundle_documents import GraphsDifferError, attributions, licence_link, notice
from lofi_assets.release.bundle_parity import PARITY
from lofi_assets.store import Store
from lofi_assets_tests.release.stand_in_bundle import (
    PROFILE,
    TIERS,
    built,
    by,
    graph,
    runs,
    store,
    write_tier,
)
from lofi_assets_tests.stage_rows import source_row, write_sources

__all__ = ["runs", "store"]


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
