"""The licence ledger as a lawyer reads it, and its command line."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.files.documents import write_json
from lofi_assets.sources.ledger_page import ledger_page
from lofi_assets.sources.licences import attribution_of
from lofi_assets.store import Store
from lofi_assets.training.made_from import uses
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.sources.ledger_actions import (
    GOOD,
    LICENCES,
    TODAY,
    added,
    contract,
    library,
    revoked,
    surveyed,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return library(tmp_path / "data")


# --- the page --------------------------------------------------------------------------------------------------------


def made(store: Store) -> None:
    """A dataset version and two checkpoints, one of them archived and one pruned."""
    tracks = [{"track_id": "rain", "split": "train"}, {"track_id": "snow", "split": "validation"}]
    deliver(store, "lofi-1", [track_record(**about) for about in tracks])
    folder = store.checkpoints / "archive" / "run1"
    write_json(folder / "epoch=0-step=10_lora" / "config.json", {"tracks": tracks})
    pruned = {
        **{"checkpoint_id": "epoch=0-step=5_lora", "step": 5, "path": "checkpoints/epoch=0-step=5_lora"},
        **{"timestamp": "2026-01-01T00:00:00Z", "is_valid": True, "config_hash": "c" * 64, "dataset_hash": "d" * 64},
    }
    write_json(store.checkpoints / "pruned.json", [pruned])


def test_what_was_made_from_a_track_is_found_wherever_it_lies(store: Store) -> None:
    made(store)
    found = {use.name: set(use.tracks) for use in uses(store)}
    assert found == {
        "dataset/lofi-1": {"rain", "snow"},
        "checkpoints/archive/run1/epoch=0-step=10_lora": {"rain"},
        "checkpoints/pruned.json: epoch=0-step=5_lora": {"rain"},
    }


def test_the_page_tells_a_lawyer_licence_evidence_costs_and_consequences(store: Store, tmp_path: Path) -> None:
    added(store, contract(tmp_path), evidence=None)
    attributed: dict[str, Any] = {
        "source_type": "creative_commons",
        "license_type": "CC BY 4.0",
        "cost": None,
        "studio": "x|y\n# z",
    }
    added(store, source_id="cc", track_ids=["late"], provider="A. Artist", **attributed)
    made(store)
    revoked(store, track="rain", reason="contract ended")
    page = ledger_page(store, surveyed(store), made=uses(store), today=TODAY)
    for told in (
        "AI Training Rights, read as AI-Training-Rights: permitted. The contract names AI training",
        "its sha256 is the recorded " + hashlib.sha256(b"signed").hexdigest(),
        "confirmed by M. Keller, 2025-12-22",
        "| commissioned | 1 | 2 | 2 | 1 | 120.00 |",
        "| creative_commons | 1 | 1 | 0 | 0 | 0.00 (1 without a cost) |",
        "| Attribution | A. Artist (CC-BY-4.0) |",
        "an address; its content is not checked",
        "| `studio-7` | `rain` | revoked 2025-12-22 by K: contract ended | `dataset/lofi-1`, `checkpoints/archive/run1",
        "| `raw/a/fog.wav` | licence.record | no record",
        r'| studio | "x\|y\n# z" |',
    ):
        assert told in page
    assert page == ledger_page(store, surveyed(store), made=uses(store), today=TODAY)


def test_files_without_exactly_one_claim_and_broken_records_are_reported(store: Store) -> None:
    broken = {**GOOD, "source_id": "broken", "track_ids": ["fog"], "cost": "much"}
    write_json(store.metadata("sources.json"), [GOOD, {**GOOD, "source_id": "twice", "track_ids": ["snow"]}, broken])
    found = surveyed(store)
    assert {row.file.track_id for row in found.stray} == {"snow", "fog"} and not found.clean
    page = ledger_page(store, found, made=uses(store), today=TODAY)
    assert "claimed by studio-7, twice" in page and "sources.json[2]" in page


def test_a_licence_that_asks_for_a_name_gets_one() -> None:
    assert attribution_of("By A", "P", LICENCES.find("CC0")) == "By A"
    assert attribution_of("  ", "P", LICENCES.find("CC-BY-4.0")) == "P (CC-BY-4.0)"
    assert attribution_of(None, "P", LICENCES.find("CC0")) == ""


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("https://creativecommons.org/licenses/by-nc/4.0/", "CC-BY-NC-4.0"),
        ("http://www.creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0"),
        ("creativecommons.org/publicdomain/zero/1.0", "CC0-1.0"),
        ("https://creativecommons.org.example/licenses/by/4.0/", ""),
        ("CC-BY-NC-SA-2.0-FR", "CC-BY-NC-SA-2.0"),
    ],
)
def test_deeds_and_ported_versions_are_read_as_their_licence(name: str, licence: str) -> None:
    assert LICENCES.find(name).id == licence


# --- the command line ------------------------------------------------------------------------------------------------


def lofi(store: Store, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["sources", *arguments], env={"LOFI_DATA_DIR": str(store.root)})
    return done.exit_code, done.output


def test_the_command_line_goes_from_a_delivery_to_its_withdrawal(store: Store, tmp_path: Path) -> None:
    described = ("--type", "partnership", "--provider", "Label", "--licence", "Partnership", "--acquired", "2025-01-01")
    code, said = lofi(store, "add", "label", "--tracks-in", "a", *described)
    assert code == 0 and "3 tracks added" in said and "licence.ai_training_rights" in said
    code, said = lofi(store, "verify", "label", "--by", "K", "--evidence-file", str(contract(tmp_path)))
    assert code == 0 and "not usable" not in said
    assert lofi(store, "list", "--strict")[0] == 0
    made(store)
    code, said = lofi(store, "revoke", "label", "--by", "K", "--reason", "ended")
    assert code == 0 and "checkpoint checkpoints/archive/run1/epoch=0-step=10_lora" in said
    assert "licence.revoked" in lofi(store, "list")[1]
    code, said = lofi(store, "report", "--output", str(tmp_path / "ledger.md"))
    assert code == 0 and "## Revoked" in (tmp_path / "ledger.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "nobody", "--by", "K"),
        ("revoke", "nobody", "--by", "K", "--reason", "x"),
        ("add", "a", "--type", "partnership", "--provider", "P", "--licence", "L", "--acquired", "never"),
        ("add", "a", "--tracks-in", "none", "--type", "partnership", "--provider", "P", "--licence", "L"),
    ],
)
def test_what_was_refused_exits_non_zero(store: Store, arguments: tuple[str, ...]) -> None:
    code, said = lofi(store, *arguments)
    assert code != 0 and "Error" in said
    assert not store.metadata("sources.json").exists()


def test_a_strict_list_fails_for_a_stray_file(store: Store) -> None:
    assert lofi(store, "list")[0] == 0
    code, said = lofi(store, "list", "--strict")
    assert code == 1 and "raw/a/fog.wav" in said
