"""The model card: what it must hold, and that a person approves exactly the text they read."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution.verdicts import Measures
from lofi_assets.evaluation.measured import Measured, write_measured
from lofi_assets.files.documents import write_text
from lofi_assets.profiles import load_profile
from lofi_assets.records import QualityMetrics
from lofi_assets.release.comfyui import workflow
from lofi_assets.release.model_card import (
    SECTIONS,
    Approval,
    ApprovalError,
    approve,
    card_text,
    missing_sections,
    write_card,
)
from lofi_assets.sources.inventory import SourceRow
from lofi_assets.store import Store
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.metrics.stand_in_results import EVALUATION, evaluation
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.recorded_evidence import record
from lofi_assets_tests.stage_rows import source_row, write_sources

NOW = datetime(2025, 12, 22, 12, 0, tzinfo=UTC)
CHECKPOINT = "epoch=0-step=5000_lora"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a dataset and its licences, and nothing measured yet."""
    store = Store(tmp_path / "data")
    deliver(store, "lofi-0123", [track_record("a"), track_record("b", split="validation")])
    write_sources(store, [licensed("a"), licensed("b", attribution="B. Artist, CC BY"), licensed("unused")])
    return store


def licensed(track_id: str, **changes: str) -> SourceRow:
    return source_row(track_id, **({"license_type": "CC-BY-4.0", "provider": f"of {track_id}"} | changes))


def digest_of(store: Store) -> str:
    return hashlib.sha256((store.release / "README.md").read_bytes()).hexdigest()


def approved(store: Store) -> dict[str, Any]:
    return write_card(store, load_profile("demo")).values["approved"]


# --- sections --------------------------------------------------------------------------------------------------------


def whole_card() -> str:
    return "# A model\n" + "".join(f"\n## {section}\n\nText.\n" for section in SECTIONS)


def test_a_card_with_text_under_every_heading_lacks_nothing() -> None:
    assert missing_sections(whole_card()) == []


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_absent_or_empty_is_missing(section: str) -> None:
    assert missing_sections(whole_card().replace(f"\n## {section}\n\nText.\n", "")) == [section]
    assert missing_sections(whole_card().replace(f"## {section}\n\nText.", f"## {section}\n\n  ")) == [section]
    assert missing_sections(whole_card().replace(f"## {section}\n", f"### {section}\n")) == [section]


def test_an_empty_card_lacks_everything() -> None:
    assert missing_sections("") == list(SECTIONS)


# --- the text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["demo", "production"])
def test_a_generated_card_has_every_section_even_when_nothing_was_measured(store: Store, profile: str) -> None:
    text = card_text(store, load_profile(profile))
    assert missing_sections(text) == [] and "not measured" in text
    assert write_card(store, load_profile(profile)).values["missing_sections"] == 0


def test_the_card_names_dataset_licences_and_attribution_of_what_was_used(store: Store) -> None:
    text = card_text(store, load_profile("demo"))
    assert "lofi-0123" in text and "d" * 64 in text
    assert "CC-BY-4.0 (of a)" in text and "B. Artist, CC BY" in text and "of unused" not in text


def test_the_cards_front_matter_names_the_base_that_was_adapted(store: Store) -> None:
    text = card_text(store, load_profile("production"))
    front = text.split("---\n")[1]
    assert "base_model: ACE-Step/ACE-Step-v1-3.5B" in front and "license: apache-2.0" in front
    assert "base_model" not in card_text(store, load_profile("demo")).split("---\n")[1]


def test_a_score_is_in_the_card_as_measured_with_its_encoder(store: Store) -> None:
    merged_model(checkpoint_id=CHECKPOINT).write(store)
    fad = EVALUATION["fad"] | {"value": 3.25, "n_clips": 64, "n_windows": 3840, "floor": 1.5, "kad": 0.02}
    row = QualityMetrics(checkpoint_id=CHECKPOINT, evaluation_date=NOW, fad_score=3.25)
    write_measured(store, {CHECKPOINT: Measured("key", row, evaluation(encoder="vggish", fad=fad))})
    text = card_text(store, load_profile("production"))
    assert "FAD 3.25 (vggish, 64 clips" in text and CHECKPOINT in text
    assert re.search(r"value: 3\.25", text.split("---\n")[1])


def measured_card(store: Store) -> str:
    merged_model(checkpoint_id=CHECKPOINT).write(store)
    fad = EVALUATION["fad"] | {"value": 3.25, "interval": [2.9, 3.6], "n_clips": 64, "kad": 0.02, "kad_interval": None}
    row = QualityMetrics(checkpoint_id=CHECKPOINT, evaluation_date=NOW, fad_score=3.25)
    write_measured(store, {CHECKPOINT: Measured("key", row, evaluation(encoder="vggish", fad=fad))})
    production = load_profile("production")
    base = production.base_model.model_copy(update={"revision": "1" * 40})
    return card_text(store, production.model_copy(update={"base_model": base}))


def test_the_metadata_is_what_huggingface_hub_reads_of_it(store: Store) -> None:
    """Its own reader, which refuses a `model-index` that is none; the Hub's check of a commit needs a connection."""
    from huggingface_hub import ModelCard

    data: Any = ModelCard(measured_card(store), ignore_metadata_errors=False).data
    assert (data.base_model, data.base_model_relation) == ("ACE-Step/ACE-Step-v1-3.5B", "adapter")
    assert data.to_dict()["base_model_revision"] == "1" * 40
    assert (data.language, data.license, data.pipeline_tag) == ("en", "apache-2.0", "text-to-audio")
    assert data.license_link == "https://www.apache.org/licenses/LICENSE-2.0"
    results = {result.metric_type: result for result in data.eval_results}
    assert results.keys() == {"fad", "kad"} and results["fad"].metric_value == 3.25
    assert results["fad"].metric_name == "FAD (vggish, 64 clips, 95 % 2.9 to 3.6)"
    assert results["kad"].metric_name == "KAD (vggish, 64 clips)"


def test_a_card_without_a_measure_claims_none(store: Store) -> None:
    from huggingface_hub import ModelCard

    data: Any = ModelCard(card_text(store, load_profile("demo")), ignore_metadata_errors=False).data
    assert data.eval_results is None and data.metrics is None and data.base_model is None


def test_the_card_says_how_each_application_takes_it_and_what_is_not_ours(store: Store) -> None:
    text = measured_card(store)
    usage = text.partition("## Usage")[2].partition("\n## ")[0]
    for application in ("ACE-Step's own pipeline", "ComfyUI", "peft and diffusers", "ONNX Runtime"):
        assert f"**{application}**" in usage
    assert "ComfyUI itself was not run" in " ".join(usage.split())
    assert f"Not licensed by us: the base (ACE-Step/ACE-Step-v1-3.5B at `{'1' * 40}`)" in text


def test_the_card_names_no_folder_and_no_track(store: Store) -> None:
    note = "nearest: 002_rain_walk_01.mp3 at 0 s"
    value = {"value": 0.5, "note": note}
    record(store, Measures(asset="quality_metrics", data_version="1", values={"copy_similarity": value}))
    deliver(store, "lofi-0123", [track_record("rain_walk_01")])
    write_sources(store, [licensed("rain_walk_01", provider="A. Artist")])
    folder = load_profile("demo").base_model.model_copy(update={"kind": "folder", "path": "/srv/models/base"})
    text = card_text(store, load_profile("demo").model_copy(update={"base_model": folder}))
    assert "copy_similarity = 0.5, must be" in text
    assert "rain_walk_01" not in text and "/srv/models" not in text


def test_the_workflow_links_lead_to_its_nodes_and_load_the_published_file() -> None:
    nodes = workflow()
    links = [value for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert len(links) == 10 and all(source in nodes and output in (0, 1, 2) for source, output in links)
    assert nodes["2"]["inputs"]["lora_name"] == "comfyui_lora.safetensors"
    assert nodes["6"]["inputs"]["positive"] != nodes["6"]["inputs"]["negative"]


def test_the_same_facts_give_the_same_card(store: Store) -> None:
    first = write_card(store, load_profile("demo"))
    again = write_card(store, load_profile("demo"))
    assert (again.data_version, again.counts["recomputed"]) == (first.data_version, 0)
    assert first.data_version == digest_of(store)


# --- approval --------------------------------------------------------------------------------------------------------


def test_a_card_is_not_approved_until_a_person_says_so_by_name(store: Store) -> None:
    before = approved(store)
    assert before["value"] is False and f"lofi approve-card {digest_of(store)[:12]}" in before["note"]
    assert approve(store, card=digest_of(store)[:12], by="R. Manager", now=NOW) == digest_of(store)
    assert approved(store) == {"value": True, "note": "approved by R. Manager"}
    assert Approval.read(store) == Approval(digest_of(store), "R. Manager", "2025-12-22T12:00:00+00:00")


def test_an_approval_is_void_when_the_card_changes(store: Store) -> None:
    approved(store)
    approve(store, card=digest_of(store), by="R. Manager", now=NOW)
    write_sources(store, [licensed("a", license_type="CC0-1.0"), licensed("b")])
    assert approved(store)["value"] is False


@pytest.mark.parametrize("card", ["", "abc", "0" * 12])
def test_only_the_hash_of_the_card_as_it_is_approves_it(store: Store, card: str) -> None:
    approved(store)
    for claimed in (card, digest_of(store)[:7]):
        with pytest.raises(ApprovalError, match="read the card as it is now"):
            approve(store, card=claimed, by="R. Manager")
    assert Approval.read(store) is None


def test_without_a_card_there_is_nothing_to_approve(store: Store) -> None:
    with pytest.raises(ApprovalError, match="materialise model_card"):
        approve(store, card="0" * 12, by="R. Manager")


@pytest.mark.parametrize("by", ["", "  "])
def test_nobody_cannot_approve(store: Store, by: str) -> None:
    write_text(store.release / "README.md", whole_card())
    with pytest.raises(ApprovalError):
        approve(store, card=digest_of(store), by=by)
