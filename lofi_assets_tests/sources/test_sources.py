"""Which raw files may be used today, and what is said of those that may not."""

import json
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lofi_assets.sources.raw_files
from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import plain_row
from lofi_assets.outcome import Outcome
from lofi_assets.records import TrackId
from lofi_assets.sources.claims import load_sources
from lofi_assets.sources.curator_files import CuratorFiles
from lofi_assets.sources.inventory import SourceRow, read_inventory, withdrawn_tracks
from lofi_assets.sources.licences import SourceError, load_licences
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.sources.raw_files import scan_raw, track_id_of, tree_of
from lofi_assets.store import CONFIG_DIR, Store

TODAY = date(2025, 12, 22)
GATES = load_gates()
GOOD: dict[str, Any] = {
    "source_id": "source_001",
    "track_ids": ["track_001"],
    "source_type": "creative_commons",
    "provider": "A. Artist",
    "license_type": "CC BY 4.0",
    "date_acquired": "2025-12-22",
    "ai_training_rights": True,
    "verified_by": "B. Lawyer",
    "evidence": "https://example.org/licence",
}
REJECTED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "denied licence": ("licence.denied", {"license_type": "CC-BY-NC-4.0"}),
    "denied licence in other words": ("licence.denied", {"license_type": "cc by nc 4.0"}),
    "denied licence with rights claimed": ("licence.denied", {"license_type": "All rights reserved"}),
    "ambiguous licence without rights": (
        "licence.ai_training_rights",
        {"license_type": "Royalty-Free", "ai_training_rights": False},
    ),
    "unlisted licence without rights": (
        "licence.ai_training_rights",
        {"license_type": "Bespoke 7", "ai_training_rights": False},
    ),
    "permitted licence without rights": ("licence.ai_training_rights", {"ai_training_rights": False}),
    "rights nobody verified": ("licence.ai_training_rights", {"verified_by": None}),
    "rights without evidence": ("licence.ai_training_rights", {"evidence": None}),
    "rights with empty evidence": ("licence.ai_training_rights", {"evidence": ""}),
    "acquired tomorrow": ("licence.date_acquired", {"date_acquired": "2025-12-23"}),
    "commissioned without cost": ("licence.commissioned_cost", {"source_type": "commissioned"}),
    "revoked": ("licence.revoked", {"revoked": True}),
}


def raw(store: Store, name: str, content: bytes = b"RIFF music") -> Path:
    path = store.raw / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def records(store: Store, *items: object) -> None:
    write_json(store.metadata("sources.json"), list(items))


def changed(**changes: object) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}


def inventory(store: Store, *, today: date = TODAY) -> tuple[Outcome, dict[str, SourceRow]]:
    outcome = inventory_sources(store, gates=GATES, today=today)
    return outcome, {row.path: row for row in read_inventory(store)}


def only_row(store: Store) -> SourceRow:
    (row,) = inventory(store)[1].values()
    return row


# --- the rules -------------------------------------------------------------------------------------------------------


def test_a_track_with_verified_rights_may_be_used(store: Store) -> None:
    path = raw(store, "creative-commons/track_001.wav")
    records(store, GOOD)
    row = only_row(store)
    assert (row.status, row.rule, row.source_id) == ("verified", "", "source_001")
    assert row.sha256 == sha256_file(path) and row.path == "raw/creative-commons/track_001.wav"


@pytest.mark.parametrize("case", REJECTED)
def test_every_licence_rule_rejects_with_its_own_id(store: Store, case: str) -> None:
    rule, changes = REJECTED[case]
    raw(store, "a/track_001.wav")
    records(store, changed(**changes))
    row = only_row(store)
    assert (row.status, row.rule) == ("rejected", rule)
    assert "source_001" in row.reason and withdrawn_tracks([row]) == {"track_001": row.reason}


def test_every_licence_rule_of_the_table_is_tried_here() -> None:
    table = {gate.id for gate in gates_of(GATES, asset="licensed_sources", scope="track")}
    assert table == {rule for rule, _ in REJECTED.values()} | {"licence.record"}


@pytest.mark.parametrize("field", ["verified_by", "evidence"])
def test_a_blank_verifier_or_evidence_is_none(store: Store, field: str) -> None:
    raw(store, "a/track_001.wav")
    records(store, changed(**{field: "  "}))
    assert only_row(store).rule == "licence.ai_training_rights"


@pytest.mark.parametrize("licence", ["Royalty-Free", "Bespoke contract 7"])
def test_an_ambiguous_licence_passes_with_verified_rights(store: Store, licence: str) -> None:
    raw(store, "a/track_001.wav")
    records(store, changed(license_type=licence))
    assert only_row(store).status == "verified"


def test_commissioned_work_at_no_cost_is_recorded_as_such(store: Store) -> None:
    raw(store, "a/track_001.wav")
    records(store, changed(source_type="commissioned", cost=0))
    assert only_row(store).status == "verified"


def test_rights_acquired_tomorrow_are_held_tomorrow(store: Store) -> None:
    raw(store, "a/track_001.wav")
    records(store, changed(date_acquired="2025-12-23"))
    _, rows = inventory(store, today=date(2025, 12, 23))
    assert [row.status for row in rows.values()] == ["verified"]


def test_a_file_that_no_record_lists_is_rejected(store: Store) -> None:
    raw(store, "a/track_002.wav")
    records(store, GOOD)
    row = only_row(store)
    assert row.rule == "licence.record" and "no record" in row.reason


def test_without_any_records_nothing_may_be_used(store: Store) -> None:
    raw(store, "a/track_001.wav")
    assert only_row(store).rule == "licence.record"


def test_a_track_that_two_records_claim_is_rejected_and_both_are_named(store: Store) -> None:
    raw(store, "a/track_001.wav")
    records(store, GOOD, changed(source_id="source_002"))
    row = only_row(store)
    assert row.rule == "licence.record"
    assert "source_001" in row.reason and "source_002" in row.reason


def test_two_records_with_one_identifier_give_no_rights(store: Store) -> None:
    """Which of them a revocation or a verification means could not be told."""
    raw(store, "a/track_001.wav")
    raw(store, "a/track_002.wav")
    records(store, GOOD, changed(track_ids=["track_002"]))
    outcome, rows = inventory(store)
    assert {row.status for row in rows.values()} == {"rejected"}
    assert "'source_001' is used by more than one record" in str(outcome.details["problems"])


def test_a_record_that_lists_a_track_twice_claims_it_once(store: Store) -> None:
    raw(store, "a/track_001.wav")
    records(store, changed(track_ids=["track_001", "track_001"]))
    assert only_row(store).status == "verified"


def test_two_files_with_one_track_id_are_both_rejected(store: Store) -> None:
    raw(store, "a/track_001.wav")
    raw(store, "b/track_001.flac")
    records(store, GOOD)
    _, rows = inventory(store)
    assert [row.rule for row in rows.values()] == ["licence.record"] * 2
    assert all("share this track id" in row.reason for row in rows.values())


def test_an_invalid_record_does_not_hide_the_others(store: Store) -> None:
    for name in ("track_001", "track_002", "track_003"):
        raw(store, f"a/{name}.wav")
    broken = changed(source_id="source_002", track_ids=["track_002"], source_type="found")
    records(store, broken, "no record", GOOD, changed(source_id="source_003", track_ids=["track_003"]))
    outcome, rows = inventory(store)
    assert {row.track_id: row.status for row in rows.values()} == {
        "track_001": "verified",
        "track_002": "rejected",
        "track_003": "verified",
    }
    assert outcome.values == {"invalid_records": 2, "verified_tracks": 2, "licences": {"CC-BY-4.0": 2}}
    assert "sources.json[0]" in outcome.details["problems"] and "source_type" in outcome.details["problems"]


def test_a_record_with_a_number_that_is_none_does_not_hide_the_others(store: Store) -> None:
    raw(store, "a/track_001.wav")
    path = store.metadata("sources.json")
    path.parent.mkdir(parents=True)
    broken = changed(source_id="source_002", track_ids=["track_002"], cost=float("nan"))
    path.write_text(json.dumps([GOOD, broken]), encoding="utf-8")
    assert only_row(store).status == "verified"


def test_two_records_with_one_id_are_both_refused(store: Store) -> None:
    records(store, GOOD, changed(track_ids=["track_002"]))
    found = load_sources(store.metadata("sources.json"))
    assert found.records == () and "source_001" in found.problems[0]


@pytest.mark.parametrize("text", ["{", "", "\xff", '{"source_id": "a"}', "null"])
def test_a_sources_file_that_cannot_be_read_is_named(store: Store, text: str) -> None:
    path = store.metadata("sources.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"sources\.json"):
        load_sources(path)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_link_is_listed_and_never_followed(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"not ours")
    raw(store, "a/track_002.wav").unlink()
    (store.raw / "a" / "track_001.wav").symlink_to(secret)
    records(store, GOOD)
    row = only_row(store)
    assert (row.status, row.rule, row.sha256) == ("rejected", "audio.readable", "")
    assert sha256_file(secret) not in json.dumps(plain_row(row))


def test_a_linked_folder_is_not_entered(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "track_001.wav").write_bytes(b"not ours")
    store.raw.mkdir(parents=True)
    (store.raw / "album").symlink_to(elsewhere, target_is_directory=True)
    assert scan_raw(store, tree_of(store.raw), memory={}) == []


def test_a_pipe_is_rejected_without_waiting_for_it(store: Store) -> None:
    store.raw.mkdir(parents=True)
    os.mkfifo(store.raw / "track_001.wav")
    records(store, GOOD)
    assert only_row(store).rule == "audio.readable"


def test_only_audio_files_are_listed(store: Store) -> None:
    for name in ("a.WAV", "b.flac", "b_prompt.txt", ".hidden.wav", "cover.jpg"):
        raw(store, name)
    assert [file.path for file in scan_raw(store, tree_of(store.raw), memory={})] == ["raw/a.WAV", "raw/b.flac"]


def test_an_unchanged_file_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(lofi_assets.sources.raw_files, "sha256_file", counted)
    first, second = raw(store, "a/track_001.wav"), raw(store, "a/track_002.wav")
    records(store, GOOD)
    outcome, before = inventory(store)
    assert outcome.counts["recomputed"] == 2 and sorted(read) == [first.name, second.name]
    again, after = inventory(store)
    assert again.counts["recomputed"] == 0 and len(read) == 2
    assert after == before and again.data_version == outcome.data_version
    second.write_bytes(b"RIFF other music")
    assert inventory(store)[0].counts["recomputed"] == 1 and read[2:] == [second.name]


def test_a_withdrawn_licence_changes_the_inventorys_version(store: Store) -> None:
    raw(store, "a/track_001.wav")
    records(store, GOOD)
    before = inventory(store)[0].data_version
    records(store, changed(revoked=True))
    assert inventory(store)[0].data_version != before


# --- names -----------------------------------------------------------------------------------------------------------

TRACK_ID = TrackId.__metadata__[0].metadata[0].pattern  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "track_id"),
    [
        ("track_001.wav", "track_001"),
        ("Café del Mar.flac", "Cafe_del_Mar"),
        ("01 - Rain (final mix).v2.wav", "01_-_Rain_final_mix_v2"),
        ("..-_weird_-.mp3", "weird"),
        ("a'; rm -rf ~.wav", "a_rm_-rf"),
    ],
)
def test_a_track_id_is_the_stem_in_plain_letters(name: str, track_id: str) -> None:
    assert track_id_of(Path(name)) == track_id


def test_names_without_a_plain_letter_get_distinct_ids() -> None:
    ids = {track_id_of(Path(f"{name}.wav")) for name in ("夜", "雨", "🎵", "___")}
    assert len(ids) == 4 and all(track_id.startswith("track_") for track_id in ids)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_every_file_name_gives_a_valid_track_id(name: str) -> None:
    assert re.fullmatch(TRACK_ID.removeprefix("^").removesuffix("$"), track_id_of(Path(f"{name}.wav")))


def test_licence_names_are_compared_without_case_and_punctuation() -> None:
    table = load_licences(CONFIG_DIR)
    assert {table.status(name) for name in ("CC-BY-4.0", "cc by 4.0", " CC_BY 4.0 ")} == {"permitted"}
    assert table.status("nobody knows this one") == "ambiguous"


@pytest.mark.parametrize("row", [{"id": "X"}, {"id": "X", "status": "fine"}, {"status": "permitted"}])
def test_a_licence_row_without_id_or_known_status_is_refused(tmp_path: Path, row: Mapping[str, str]) -> None:
    (tmp_path / "licenses.yaml").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(SourceError, match=r"licenses\.yaml"):
        load_licences(tmp_path)


# --- what curators put beside the files ------------------------------------------------------------------------------


def test_a_curators_prompt_and_lyrics_are_read(store: Store) -> None:
    raw(store, "a/track_001.wav")
    raw(store, "a/track_001_prompt.txt", "lofi, büro".encode())
    raw(store, "a/track_001_lyrics.txt", b"[Verse]\nrain")
    assert CuratorFiles(store).beside("raw/a/track_001.wav") == ("lofi, büro", "[Verse]\nrain", "")
