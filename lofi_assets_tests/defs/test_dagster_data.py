"""The real first assets on a small data root: what is counted, what is rejected, what moves the data version."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lofi_assets.constitution.verdicts import recorded
from lofi_assets.defs.reporting import evidence_of_runs
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.sources import (
    licensed_sources,
    licensed_sources_gates,
    style_taxonomy,
    style_taxonomy_gates,
)
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import Store


def source(source_id: str, *track_ids: str, **changes: Any) -> dict[str, Any]:
    """A licence record that permits training, but for the changes."""
    return {
        "source_id": source_id,
        "track_ids": list(track_ids),
        "source_type": "creative_commons",
        "provider": "Ada",
        "license_type": "CC-BY-4.0",
        "date_acquired": "2025-01-31",
        "verified_by": "Grace",
        "ai_training_rights": True,
        "evidence": "https://example.org/licence",
    } | changes


RECORDS = [
    source("ada", "rain", "snow"),
    source("denied", "fog", license_type="CC-BY-NC-4.0"),
    source("silent", "mist", ai_training_rights=False),
    source("tomorrow", "dawn", date_acquired="2999-01-01"),
    source("unpaid", "dusk", source_type="commissioned", license_type="AI-Training-Rights"),
    source("gone", "hail", revoked=True),
]

REJECTED = {
    "fog": "licence.denied",
    "mist": "licence.ai_training_rights",
    "dawn": "licence.date_acquired",
    "dusk": "licence.commissioned_cost",
    "hail": "licence.revoked",
    "stray": "licence.record",
}


class Root:
    """A data root whose first assets are materialised again and again."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.store, self.instance = Store(path), instance

    def raw(self, name: str, content: bytes) -> Path:
        path = self.store.raw / "creative-commons" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def records(self, records: list[dict[str, Any]]) -> None:
        path = self.store.metadata("sources.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records), encoding="utf-8")

    def run(self) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [licensed_sources, style_taxonomy, licensed_sources_gates, style_taxonomy_gates],
            instance=self.instance,
            resources={"platform": Platform(data_dir=str(self.store.root), profile_name="demo")},
            raise_on_error=False,
        )

    def version(self) -> str:
        """Run, and give the data version that Dagster then knows for the sources."""
        assert self.run().success
        event = self.instance.get_latest_materialization_event(licensed_sources.key)
        assert event is not None and event.asset_materialization is not None
        return (event.asset_materialization.tags or {})["dagster/data_version"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with dg.DagsterInstance.ephemeral() as instance:
        root = Root(tmp_path, instance)
        for track in ("rain", "snow", *REJECTED):
            root.raw(f"{track}.wav", track.encode())
        root.records(RECORDS)
        yield root


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_sources_are_counted_and_every_rejection_names_its_rule(root: Root) -> None:
    result = root.run()
    assert result.success
    shown = metadata_of(result, "licensed_sources")
    assert {name: shown[name] for name in ("raw_files", "verified", "rejected", "recomputed")} == {
        "raw_files": 8,
        "verified": 2,
        "rejected": 6,
        "recomputed": 8,
    }
    rows = {row.track_id: row for row in read_inventory(root.store)}
    assert {name: row.rule for name, row in rows.items() if row.status == "rejected"} == REJECTED
    assert all(row.reason for row in rows.values() if row.status == "rejected")


def test_rejected_files_are_shown_before_the_others(root: Root) -> None:
    shown = root.run().asset_materializations_for_node("licensed_sources")[0].metadata
    assert next(iter(shown)) == "summary" and "6 of 8 files stay out" in str(shown["summary"].value)
    needs, table = shown["needs a person"], shown["table"]
    assert isinstance(needs, dg.TableMetadataValue) and isinstance(table, dg.MarkdownMetadataValue)
    assert {str(record.data["rule and why"]).partition(":")[0] for record in needs.records} == set(REJECTED.values())
    first = table.md_str.splitlines()[2 : 2 + len(REJECTED)]
    assert {line.split("|")[1].strip().replace("\\", "") for line in first} == set(REJECTED)


def test_every_gate_of_the_sources_passes_when_bad_tracks_are_only_rejected(root: Root) -> None:
    found = root.run().get_asset_check_evaluations()
    assert len(found) == 10
    assert all(evaluation.passed for evaluation in found)


def test_an_unchanged_library_keeps_its_data_version_and_reads_no_file(root: Root) -> None:
    before = root.version()
    assert metadata_of(root.run(), "licensed_sources")["recomputed"] == 0
    assert root.version() == before


def test_a_touched_file_with_the_same_bytes_keeps_the_data_version(root: Root) -> None:
    before = root.version()
    os.utime(root.store.raw / "creative-commons" / "rain.wav", (1, 1))
    assert root.version() == before


def test_other_bytes_move_the_data_version(root: Root) -> None:
    before = root.version()
    root.raw("rain.wav", b"another take")
    assert root.version() != before


def test_a_new_licensed_track_moves_the_data_version(root: Root) -> None:
    before = root.version()
    root.raw("sun.wav", b"sun")
    root.records([*RECORDS, source("late", "sun")])
    assert root.version() != before


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"revoked": True}, "licence.revoked"), ({"ai_training_rights": False}, "licence.ai_training_rights")],
    ids=["revoked", "rights withdrawn"],
)
def test_a_withdrawn_licence_moves_the_data_version_and_rejects_its_tracks(
    root: Root, change: dict[str, Any], rule: str
) -> None:
    root.raw("sun.wav", b"sun")
    root.records([*RECORDS, source("late", "sun")])
    before = root.version()
    root.records([*RECORDS, source("late", "sun", **change)])
    assert root.version() != before
    rows = {row.track_id: row.rule for row in read_inventory(root.store)}
    assert rows["sun"] == rule


def test_without_one_verified_track_the_run_fails(root: Root) -> None:
    root.records([])
    result = root.run()
    assert not result.success
    failed = {found.check_name for found in result.get_asset_check_evaluations() if not found.passed}
    assert failed == {"sources_verified"}


def test_a_record_that_breaks_its_schema_warns_and_hides_no_other(root: Root) -> None:
    root.records([*RECORDS, {"source_id": "half"}])
    result = root.run()
    assert result.success
    failed = [found for found in result.get_asset_check_evaluations() if not found.passed]
    assert [(found.check_name, found.severity) for found in failed] == [
        ("sources_records_valid", dg.AssetCheckSeverity.WARN)
    ]
    assert "half" in metadata_of(result, "licensed_sources")["problems"] or "sources.json[6]" in str(
        metadata_of(result, "licensed_sources")["problems"]
    )


def test_the_taxonomy_counts_seven_categories_and_38_presets(root: Root) -> None:
    shown = metadata_of(root.run(), "style_taxonomy")
    assert (shown["categories"], shown["presets"]) == (7, 38)
    assert shown["dagster/row_count"] == 38


def test_the_taxonomys_data_version_is_stable(root: Root) -> None:
    versions = []
    for _ in range(2):
        root.run()
        found = recorded(root.store, "style_taxonomy")
        assert found is not None
        versions.append(found.data_version)
    assert versions[0] == versions[1] != ""


def test_an_asset_reads_the_evidence_of_all_its_runs_the_latest_first(root: Root) -> None:
    versions = [root.version()]
    root.raw("more.wav", b"more")
    versions.append(root.version())

    def read() -> list[str]:
        return [one.data_version for one in evidence_of_runs(root.instance, root.store, "licensed_sources")]

    assert read() == versions[::-1] and len(set(versions)) == 2
    for document in (root.store.root / "metadata" / "evidence" / "licensed_sources").glob("*.json"):
        if versions[0] in document.read_text("utf-8"):
            document.write_text("{}", encoding="utf-8")
    assert read() == versions[1:]
