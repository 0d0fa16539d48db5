"""The licence ledger: what may be added, confirmed and withdrawn, and what stays as it was."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.sources.claims import load_sources, unlicensed
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.sources.ledger_page import ledger_page
from lofi_assets.sources.ledger_text import LedgerError
from lofi_assets.store import Store
from lofi_assets.training.made_from import uses
from lofi_assets_tests.sources.ledger_actions import (
    GATES,
    GOOD,
    LICENCES,
    TODAY,
    added,
    confirmed,
    contract,
    library,
    records,
    revoked,
    rules,
    surveyed,
    text_of,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return library(tmp_path / "data")


# --- adding ----------------------------------------------------------------------------------------------------------


def test_an_added_source_holds_and_the_inventory_uses_its_tracks(store: Store) -> None:
    added(store)
    assert rules(store) == {"rain": "", "snow": "", "fog": "licence.record"}
    assert records(store)["studio-7"] == {**GOOD, "verified_on": "2025-12-22"}


@pytest.mark.parametrize(
    ("changes", "field", "fix"),
    [
        ({"source_id": ""}, "source_id", "studio-7"),
        ({"source_id": "  "}, "source_id", "studio-7"),
        ({"track_ids": []}, "track_ids", "stems of raw files"),
        ({"track_ids": ["a b"]}, "track_ids", "stems of raw files"),
        ({"track_ids": ["../rain"]}, "track_ids", "stems of raw files"),
        ({"source_type": "found"}, "source_type", "commissioned, royalty_free"),
        ({"provider": ""}, "provider", "platform or artist"),
        ({"license_type": None}, "license_type", "licenses.yaml"),
        ({"cost": -1}, "cost", "US dollars"),
        ({"cost": None}, "cost", "commissioned work must have it"),
        ({"date_acquired": "4 May"}, "date_acquired", "YYYY-MM-DD"),
        ({"date_acquired": "2025-12-23"}, "date_acquired", "not in the future"),
        ({"verified_by": None}, "verified_by", "person who confirmed"),
        ({"verified_by": " "}, "verified_by", "person who confirmed"),
        ({"evidence": None}, "evidence", "--evidence-file"),
        ({"evidence": "contracts/none.pdf"}, "evidence", "--evidence-file"),
        ({"license_type": "CC-BY-NC-4.0"}, "license_type", "denied"),
    ],
)
def test_a_bad_record_is_refused_with_field_and_fix_and_nothing_is_written(
    store: Store, changes: dict[str, Any], field: str, fix: str
) -> None:
    with pytest.raises(LedgerError, match=field) as refused:
        added(store, **changes)
    assert fix in str(refused.value)
    assert not store.metadata("sources.json").exists()


def test_a_source_or_track_that_is_taken_is_refused_by_name(store: Store) -> None:
    added(store)
    before = text_of(store)
    with pytest.raises(LedgerError, match="is taken; a later delivery is a record of its own, such as studio-7-2"):
        added(store, track_ids=["fog"])
    with pytest.raises(LedgerError, match="rain belongs to source studio-7"):
        added(store, source_id="other", track_ids=["rain", "fog"])
    assert text_of(store) == before


def test_a_record_without_rights_may_be_added_and_its_tracks_wait(store: Store) -> None:
    added(store, ai_training_rights=None, verified_by=None, evidence=None)
    assert rules(store)["rain"] == "licence.ai_training_rights"
    confirmed(store, evidence="https://example.org/rider")
    assert rules(store)["rain"] == ""


# --- evidence --------------------------------------------------------------------------------------------------------


def test_an_evidence_file_is_copied_and_its_hash_goes_on_record(store: Store, tmp_path: Path) -> None:
    added(store, contract(tmp_path), evidence=None)
    record = records(store)["studio-7"]
    assert record["evidence_sha256"] == hashlib.sha256(b"signed").hexdigest()
    assert record["evidence"] == f"metadata/evidence/studio-7-{record['evidence_sha256'][:12]}.pdf"
    assert sha256_file(store.root / record["evidence"]) == record["evidence_sha256"]
    assert rules(store)["rain"] == ""


@pytest.mark.parametrize("harm", ["changed", "gone", "link", "linked folder"])
def test_evidence_that_is_not_what_was_recorded_confirms_nothing(store: Store, tmp_path: Path, harm: str) -> None:
    added(store, contract(tmp_path), evidence=None)
    path = store.root / records(store)["studio-7"]["evidence"]
    if harm == "changed":
        path.write_bytes(b"signed by nobody")
    elif harm == "gone":
        path.unlink()
    elif harm == "link":
        path.unlink()
        path.symlink_to(tmp_path / "Contract (final).PDF")
    else:
        path.parent.rename(tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    assert rules(store)["rain"] == "licence.ai_training_rights"
    (row,) = (row for row in read_inventory(store) if row.track_id == "rain")
    assert path.name in row.reason
    assert "NOT PROVEN" in ledger_page(store, surveyed(store), made=uses(store), today=TODAY)


@pytest.mark.parametrize("evidence", ["/etc/hostname", "../secret.pdf", "a/../../secret.pdf", "metadata", "x" * 5000])
def test_evidence_outside_the_data_root_or_no_file_is_none(store: Store, tmp_path: Path, evidence: str) -> None:
    (tmp_path / "secret.pdf").write_text("not ours")
    write_json(store.metadata("sources.json"), [{**GOOD, "evidence": evidence}])
    assert rules(store)["rain"] == "licence.ai_training_rights"
    with pytest.raises(LedgerError, match="evidence"):
        confirmed(store)


def test_a_refused_record_leaves_no_evidence_behind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        added(store, contract(tmp_path), evidence=None, cost=None)
    assert not store.metadata("evidence").exists()


@pytest.mark.parametrize("content", [b"", None])
def test_an_evidence_file_that_is_empty_or_absent_is_refused(
    store: Store, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "absent.pdf" if content is None else contract(tmp_path, content)
    with pytest.raises(LedgerError, match="--evidence-file"):
        added(store, path, evidence=None)


# --- confirming ------------------------------------------------------------------------------------------------------


def test_a_confirmation_says_who_when_and_by_what(store: Store, tmp_path: Path) -> None:
    added(store, ai_training_rights=None, verified_by=None)
    confirmed(store, evidence_file=contract(tmp_path))
    record = records(store)["studio-7"]
    assert (record["ai_training_rights"], record["verified_by"]) == (True, "M. Keller")
    assert record["verified_on"] == "2025-12-22" and record["evidence"].startswith("metadata/evidence/")
    assert sha256_file(store.root / record["evidence"]) == record["evidence_sha256"]


def test_a_confirmation_by_a_file_already_there_records_its_hash(store: Store) -> None:
    contract(store.root / "contracts")
    added(store, evidence="contracts/Contract (final).PDF")
    data = json.loads(text_of(store))
    data[0].pop("evidence_sha256")
    write_json(store.metadata("sources.json"), data)
    confirmed(store)
    assert records(store)["studio-7"]["evidence_sha256"] == hashlib.sha256(b"signed").hexdigest()
    confirmed(store, evidence="https://example.org/rider")
    assert "evidence_sha256" not in records(store)["studio-7"]


@pytest.mark.parametrize(
    ("changes", "by", "reason"),
    [
        ({"license_type": "CC-BY-ND-4.0"}, "M. Keller", "denied"),
        ({"revoked": True}, "M. Keller", "withdrawn"),
        ({"evidence": None}, "M. Keller", "no evidence"),
        ({}, "  ", "verified_by"),
    ],
)
def test_rights_that_cannot_be_confirmed_are_refused(
    store: Store, changes: dict[str, Any], by: str, reason: str
) -> None:
    record = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    write_json(store.metadata("sources.json"), [record | {"ai_training_rights": False}])
    before = text_of(store)
    with pytest.raises(LedgerError, match=reason):
        confirmed(store, by=by)
    assert text_of(store) == before


# --- withdrawing -----------------------------------------------------------------------------------------------------


def test_a_revocation_is_marked_and_deletes_nothing(store: Store) -> None:
    added(store)
    before = records(store)["studio-7"]
    assert revoked(store) == ("rain", "snow")
    mark = {"date": "2025-12-22", "by": "K", "reason": "ended"}
    assert records(store)["studio-7"] == {**before, "revoked": mark}
    assert rules(store) == {"rain": "licence.revoked", "snow": "licence.revoked", "fog": "licence.record"}


def test_tracks_are_withdrawn_one_by_one(store: Store) -> None:
    added(store)
    assert revoked(store, track="snow") == ("snow",)
    assert rules(store)["rain"] == "" and rules(store)["snow"] == "licence.revoked"
    revoked(store, track="rain", reason="also ended")
    assert set(records(store)["studio-7"]["revoked_tracks"]) == {"rain", "snow"}


def test_the_first_mark_of_a_revocation_stays(store: Store) -> None:
    added(store)
    revoked(store, track="snow")
    with pytest.raises(LedgerError, match=r"snow is revoked already.*ended"):
        revoked(store, track="snow", reason="another")
    revoked(store)
    for track in (None, "rain"):
        with pytest.raises(LedgerError, match="revoked already"):
            revoked(store, track=track)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"by": " "}, "--by"), ({"reason": ""}, "--reason"), ({"track": "fog"}, "does not list")]
)
def test_a_revocation_needs_name_reason_and_a_track_of_the_source(
    store: Store, changes: dict[str, Any], reason: str
) -> None:
    added(store)
    with pytest.raises(LedgerError, match=reason):
        revoked(store, **changes)


def test_an_invalid_record_can_be_revoked(store: Store) -> None:
    write_json(store.metadata("sources.json"), [{**GOOD, "cost": "much"}])
    assert revoked(store) == ("rain", "snow")


@pytest.mark.parametrize("mark", ["2025-01-01", {}, {"date": "2025-01-01"}, ["rain"], 1])
def test_a_mark_of_another_form_withdraws_too(store: Store, mark: object) -> None:
    """A hand-written mark makes the record invalid at worst; it never leaves the tracks in use."""
    write_json(store.metadata("sources.json"), [{**GOOD, "revoked": mark}])
    assert rules(store)["rain"].startswith("licence.")


def test_an_invalid_record_keeps_other_records_off_its_tracks(store: Store) -> None:
    write_json(store.metadata("sources.json"), [{**GOOD, "revoked": "yes"}, {**GOOD, "source_id": "other"}])
    assert rules(store)["rain"] == "licence.record"


def test_rights_in_a_track_end_with_the_record_whether_or_not_its_file_is_there(store: Store) -> None:
    added(store)
    asked: dict[str, Any] = {"licences": LICENCES, "gates": GATES, "today": TODAY}
    assert unlicensed(store, ["rain", "snow"], **asked) == {}
    revoked(store, track="snow")
    (store.raw / "a" / "snow.wav").unlink()
    found = unlicensed(store, ["rain", "snow", "unknown"], **asked)
    assert set(found) == {"snow", "unknown"} and found["snow"].startswith("licence.revoked: ")


# --- the file --------------------------------------------------------------------------------------------------------

OTHERS = [{"zeta": 1, **GOOD, "source_id": "b", "track_ids": ["fog"], "mood": "naïve"}, "no record", {"half": 1.50}]
FORMS: dict[str, Callable[[list[Any]], str]] = {
    "two": lambda data: json.dumps(data, indent=2) + "\n",
    "four": lambda data: json.dumps(data, indent=4, ensure_ascii=False),
    "tabs": lambda data: json.dumps(data, indent="\t") + "\n\n",
    "windows": lambda data: json.dumps(data, indent=2).replace("\n", "\r\n"),
    "one line": lambda data: json.dumps(data),
    "a line each": lambda data: "[\n" + ",\n".join(map(json.dumps, data)) + "\n]\n",
    "odd": lambda data: "[ " + " , ".join(json.dumps(item, indent=1) for item in data) + " ]",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_edit_leaves_every_other_byte_as_it_was(store: Store, form: str, place: int) -> None:
    data: list[Any] = [*OTHERS[:place], {**GOOD, "own": {"field": [1.0, "é"]}}, *OTHERS[place:]]
    text = FORMS[form](data)
    store.metadata("sources.json").parent.mkdir(parents=True)
    store.metadata("sources.json").write_bytes(text.encode())
    revoked(store)
    mark = {"revoked": {"date": "2025-12-22", "by": "K", "reason": "ended"}}
    expected = [*data[:place], {**data[place], **mark}, *data[place + 1 :]]
    assert json.loads(text_of(store)) == expected
    if form != "odd":
        assert text_of(store) == FORMS[form](expected)
    added(store, source_id="new", track_ids=["late"])
    assert text_of(store).startswith(FORMS[form](expected).rstrip().rstrip("]").rstrip()) or form == "odd"
    assert json.loads(text_of(store))[:-1] == expected
    assert list(json.loads(text_of(store))[place])[-2:] == ["own", "revoked"]


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff[]", b"null"])
def test_a_file_that_cannot_be_read_is_left_alone_and_named(store: Store, content: bytes) -> None:
    path = store.metadata("sources.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"sources\.json"):
        added(store)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"[]", b"[ ]\n"])
def test_an_empty_file_receives_its_first_record(store: Store, content: bytes) -> None:
    store.metadata("sources.json").parent.mkdir(parents=True)
    store.metadata("sources.json").write_bytes(content)
    added(store)
    assert text_of(store).startswith('[\n  {\n    "source_id": "studio-7",')


def _add_many(root: Path, name: str) -> None:
    for number in range(10):
        added(Store(root), source_id=f"{name}-{number}", track_ids=[f"{name}_{number}"])


def test_edits_at_the_same_time_lose_nothing(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_many, args=(store.root, name)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(load_sources(store.metadata("sources.json")).records) == 30
