"""Absence is never consent: what people write by hand and what files are called, with the verdict and what is said."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import load_gates
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import StoreError
from lofi_assets.outcome import Outcome
from lofi_assets.sources.inventory import SourceRow, read_inventory
from lofi_assets.sources.licences import SourceError, load_licences
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.sources.rights import latest_day
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import Store
from lofi_assets.tracks.review import ReviewError, decide, read_reviews

TODAY = date(2025, 12, 22)
RECORD = """{
    "source_id": "studio-7",
    "track_ids": ["rain_01"],
    "source_type": "royalty_free",
    "provider": "Studio 7",
    "license_type": "AI Training Rights",
    "date_acquired": "2025-05-04",
    "verified_by": "M. Keller",
    "ai_training_rights": true,
    "evidence": "https://example.org/contract"%s
  }"""
OTHER: dict[str, Any] = {
    "source_id": "other",
    "track_ids": ["snow"],
    "source_type": "royalty_free",
    "provider": "Studio 7",
    "license_type": "AI Training Rights",
    "date_acquired": "2025-05-04",
    "verified_by": "M. Keller",
    "ai_training_rights": True,
    "evidence": "https://example.org/contract",
}


def raw(store: Store, name: str, content: bytes = b"RIFF music") -> Path:
    path = store.raw / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ledger(store: Store, more: str = "") -> Path:
    """A record with something added at its end, and a sound one after it."""
    path = store.metadata("sources.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n  {RECORD % more},\n  {json.dumps(OTHER)}\n]\n", encoding="utf-8")
    return path


def inventory(store: Store) -> tuple[Outcome, dict[str, SourceRow]]:
    outcome = inventory_sources(store, gates=load_gates(), today=TODAY)
    return outcome, {row.track_id: row for row in read_inventory(store)}


def lofi(store: Store, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["sources", *arguments], env={"LOFI_DATA_DIR": str(store.root)})
    assert done.exception is None or isinstance(done.exception, SystemExit), "a traceback says nothing to a curator"
    return done.exit_code, done.output


@pytest.mark.parametrize("stands", ["a folder", "a pipe"])
def test_what_stands_where_the_ledger_must_be_is_said_and_is_no_empty_ledger(store: Store, stands: str) -> None:
    raw(store, "royalty-free/rain_01.wav")
    path = store.metadata("sources.json")
    path.parent.mkdir(parents=True)
    path.mkdir() if stands == "a folder" else os.mkfifo(path)
    with pytest.raises(SourceError, match=r"sources\.json: is no file"):
        inventory(store)
    code, said = lofi(store, "revoke", "studio-7", "--by", "K", "--reason", "over")
    assert code == 1 and "is no file" in said


# --- a name that names nobody ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["\u200b", "\u00a0", "\u3164", "\ufeff\u2060", "-", "..."])
def test_who_cannot_be_seen_confirms_withdraws_and_reviews_nothing(store: Store, name: str) -> None:
    raw(store, "royalty-free/rain_01.wav")
    ledger(store)
    path = store.metadata("sources.json")
    path.write_text(path.read_text("utf-8").replace("M. Keller", name, 1), encoding="utf-8")
    row = inventory(store)[1]["rain_01"]
    assert row.rule == "licence.ai_training_rights" and "verified_by names nobody" in row.reason
    for arguments in (["verify", "studio-7", "--by", name], ["revoke", "studio-7", "--by", name, "--reason", "over"]):
        assert lofi(store, *arguments)[0] == 1
    assert lofi(store, "revoke", "studio-7", "--by", "K", "--reason", name)[0] == 1
    with pytest.raises(ReviewError, match="needs a name"):
        decide(store, ["rain_01"], decision="accepted", by=name, at=datetime.now(UTC), vocabulary=vocabulary())


@pytest.mark.parametrize(
    "words", ["CC\u2011BY\u2011NC\u20114.0", "CC BY\u2013NC 4.0", "CC-BY\u200b-NC-4.0", "\uff23\uff23-BY-NC-4.0"]
)
def test_a_denied_licence_is_denied_however_an_editor_wrote_it(store: Store, words: str) -> None:
    raw(store, "royalty-free/rain_01.wav")
    ledger(store)
    path = store.metadata("sources.json")
    path.write_text(path.read_text("utf-8").replace("AI Training Rights", words, 1), encoding="utf-8")
    assert inventory(store)[1]["rain_01"].rule == "licence.denied"


# --- a record that leaves a choice -----------------------------------------------------------------------------------

MARK = '{"date": "2025-12-01", "by": "K", "reason": "ended"}'
UNCLEAR: Mapping[str, tuple[str, str]] = {
    "rights said twice": (', "ai_training_rights": false', "line 12: the key 'ai_training_rights' stands twice"),
    "withdrawn, and not": (f', "revoked": {MARK}, "revoked": null', "the key 'revoked' stands twice"),
    "two lists of tracks": (', "track_ids": ["fog"]', "the key 'track_ids' stands twice (first on line 4)"),
    "no number": (', "cost": Infinity', "line 12: cost is Infinity, which is no number"),
    "a number too large": (', "cost": 1e400', "cost is 1e400, which is no number"),
    "half of a character": (', "notes": "\\ud83d"', "half of a character"),
    "withdrawn in capitals": (', "Revoked": true', "Revoked: no such field, but it reads like revoked"),
    "withdrawn in other words": (', "revoked_on": "2025-12-01"', "revoked_on: a withdrawal that nothing reads"),
    "withdrawn under a longer name": (', "licence_revoked": true', "licence_revoked: a withdrawal that nothing reads"),
    "rights that end": (', "expires_on": "2020-01-01"', "expires_on: a withdrawal that nothing reads"),
    "withdrawn by a name with what nobody sees": (', "\u200brevoked": true', "it reads like revoked"),
    "withdrawn by one letter": (f', "revoked_track": {{"rain_01": {MARK}}}', "it reads like revoked_tracks"),
    "rights in capitals": (', "AI_training_rights": false', "it reads like ai_training_rights"),
    "a withdrawal of nothing": (
        f', "revoked_tracks": {{"Rain_01": {MARK}}}',
        "revoked_tracks: Rain_01 is not one of track_ids; is it rain_01?",
    ),
    "a withdrawal of another track": (
        f', "revoked_tracks": {{"fog": {MARK}}}',
        "revoked_tracks: fog is not one of track_ids; list it there too",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_record_that_leaves_a_choice_gives_no_rights_and_hides_no_other(store: Store, case: str) -> None:
    more, said = UNCLEAR[case]
    raw(store, "royalty-free/rain_01.wav")
    raw(store, "royalty-free/snow.wav")
    ledger(store, ("\n    " + more.removeprefix(", ")).join([",", ""]))
    outcome, rows = inventory(store)
    assert (rows["rain_01"].rule, rows["snow"].rule) == ("licence.record", "")
    assert "one that lists it is invalid" in rows["rain_01"].reason
    assert "sources.json[0] (studio-7" in outcome.details["problems"] and said in outcome.details["problems"]
    assert outcome.values["invalid_records"] == 1
    assert lofi(store, "list")[0] == 0 and lofi(store, "list", "--strict")[0] == 1


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_record_that_leaves_a_choice_can_be_withdrawn_and_not_confirmed(store: Store, case: str) -> None:
    path = ledger(store, UNCLEAR[case][0])
    before = path.read_text("utf-8")
    code, said = lofi(store, "verify", "studio-7", "--by", "K")
    assert code == 1 and said.startswith("Error: ") and path.read_text("utf-8") == before
    code, said = lofi(store, "revoke", "studio-7", "--by", "L", "--reason", "contract over")
    assert code == 0 and "revoked: rain_01" in said
    after = path.read_text("utf-8")
    assert after.count('"revoked": {') == 1 and '"revoked": null' not in after and '"reason": "contract over"' in after
    assert json.dumps(OTHER) in after, "the other record is as it was, byte for byte"
    assert after.startswith(before[: before.index("true")]), "nor did anything move in this one"


def test_no_mark_is_lost_where_a_record_says_twice_which_tracks_are_withdrawn(store: Store) -> None:
    marks = f', "revoked_tracks": {{"rain_01": {MARK}, "rain_01": null}}'
    path = ledger(store, marks)
    before = path.read_text("utf-8")
    code, said = lofi(store, "revoke", "studio-7", "--track", "rain_01", "--by", "L", "--reason", "over")
    assert code == 1 and "the key 'rain_01' stands twice" in said and "leave --track out" in said
    assert path.read_text("utf-8") == before
    assert lofi(store, "revoke", "studio-7", "--by", "L", "--reason", "over")[0] == 0


@pytest.mark.parametrize("claimed", ["rain_01", "fog"])
def test_tracks_of_an_unclear_record_stay_claimed(store: Store, claimed: str) -> None:
    ledger(store, ', "track_ids": ["fog"]')
    words = ("--type", "royalty_free", "--provider", "P", "--licence", "CC0", "--acquired", "2025-01-01")
    code, said = lofi(store, "add", "new", "--track", claimed, *words)
    assert code == 1 and f"{claimed} belongs to source studio-7" in said


# --- files that people write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("list",), ("revoke", "studio-7", "--by", "K", "--reason", "x")])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"provider": "Caf\xe9"}]', "sources.json: line 1 holds the byte 0xe9"),
        ("[]".encode("utf-16"), "sources.json: saved as UTF-16"),
        (b"[{}\n {}]", "sources.json: line 2, column 2: not JSON"),
        (b"{}", "sources.json: must be an array"),
    ],
)
def test_a_ledger_that_cannot_be_read_is_named_and_left_alone(
    store: Store, command: tuple[str, ...], content: bytes, said: str
) -> None:
    path = ledger(store)
    path.write_bytes(content)
    code, told = lofi(store, *command)
    assert code == 1 and said in told and path.read_bytes() == content


def test_a_byte_order_mark_before_the_ledger_changes_nothing(store: Store) -> None:
    raw(store, "royalty-free/rain_01.wav")
    path = ledger(store)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert inventory(store)[1]["rain_01"].rule == ""
    assert lofi(store, "revoke", "studio-7", "--by", "K", "--reason", "x")[0] == 0
    assert inventory(store)[1]["rain_01"].rule == "licence.revoked"


@pytest.mark.parametrize("name", ["style_mapping.json", "speakers.json"])
def test_a_key_that_stands_twice_in_another_file_of_a_curator_is_refused(store: Store, name: str) -> None:
    path = store.metadata(name)
    path.parent.mkdir(parents=True)
    path.write_text('{"rain_01": ["CORE-01"],\n "rain_01": ["CORE-02"]}', encoding="utf-8")
    with pytest.raises(StoreError, match=rf"{name}: line 2: the key 'rain_01' stands twice"):
        read_json(path)


def test_a_decision_that_is_two_is_none(store: Store) -> None:
    path = store.metadata("reviews.jsonl")
    path.parent.mkdir(parents=True)
    digest = "a" * 64
    text = (
        f'"track_id": "a", "by": "K", "at": "2025-01-01T00:00:00Z", "audio_sha256": "{digest}", "proposal": "{digest}"'
    )
    path.write_bytes(f'\ufeff{{"decision": "accepted", {text}}}\n'.encode())
    assert [review.decision for review in read_reviews(store)] == ["accepted"]
    path.write_text(f'{{"decision": "rejected", "decision": "accepted", {text}}}\n', encoding="utf-8")
    with pytest.raises(ReviewError, match=r"reviews\.jsonl:1: line 1: the key 'decision' stands twice"):
        read_reviews(store)


WORDS = ("--type", "royalty_free", "--licence", "CC0", "--acquired", "2025-01-01")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--provider", "P", "--cost", "inf"), "cost: Input should be a finite number"),
        (("--provider", "P", "--cost", "nan"), "cost: "),
        (("--provider", os.fsdecode(b"Caf\xe9")), "provider: Input should be a valid string"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_what_no_json_can_hold_is_refused_before_it_is_written(
    store: Store, empty: bool, more: tuple[str, ...], said: str
) -> None:
    path = store.metadata("sources.json")
    if not empty:
        ledger(store)
    before = path.read_bytes() if path.exists() else None
    code, told = lofi(store, "add", "new", "--track", "fog", *WORDS, *more)
    assert code == 1 and said in told and (path.read_bytes() if path.exists() else None) == before


def test_a_name_that_is_no_text_withdraws_nothing_and_says_why(store: Store) -> None:
    before = ledger(store).read_bytes()
    code, told = lofi(store, "revoke", "studio-7", "--by", os.fsdecode(b"Caf\xe9"), "--reason", "over")
    assert code == 1 and "not UTF-8 text; set the terminal to UTF-8" in told
    assert store.metadata("sources.json").read_bytes() == before


def test_a_file_can_be_claimed_by_its_own_name(store: Store) -> None:
    raw(store, "royalty-free/Дождь 1.wav")
    assert lofi(store, "add", "new", "--track", "Дождь 1", "--provider", "P", *WORDS)[0] == 0
    assert json.loads(store.metadata("sources.json").read_text("utf-8"))[0]["track_ids"] == ["1_5d9ff404"]


@pytest.mark.parametrize("there", [True, False])
def test_a_track_is_withdrawn_by_its_files_own_name_while_the_file_is_there_and_by_its_id_ever_after(
    store: Store, there: bool
) -> None:
    file = raw(store, "royalty-free/Дождь 1.wav")
    assert lofi(store, "add", "new", "--track", "Дождь 1", "--provider", "P", *WORDS)[0] == 0
    if not there:
        file.unlink()
    name = "Дождь 1" if there else "1_5d9ff404"
    code, said = lofi(store, "revoke", "new", "--track", name, "--by", "L", "--reason", "over")
    assert code == 0 and "revoked: 1_5d9ff404" in said


def test_a_licence_name_that_stands_in_two_rows_is_refused(tmp_path: Path) -> None:
    rows = [
        {"id": "A", "status": "permitted", "aliases": ["Mine"]},
        {"id": "B", "status": "denied", "aliases": ["mine"]},
    ]
    (tmp_path / "licenses.yaml").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(SourceError, match=r"licenses\.yaml: 'mine' is in the rows A and B"):
        load_licences(tmp_path)
    (tmp_path / "licenses.yaml").write_text("- id: A\n  status: denied\n  status: permitted\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"licenses\.yaml.*'status' stands twice"):
        load_licences(tmp_path)


# --- whose day -------------------------------------------------------------------------------------------------------


def test_today_in_tokyo_is_not_the_future(store: Store) -> None:
    now = datetime(2025, 12, 21, 16, 0, tzinfo=UTC)
    day = latest_day(now)
    assert day == date(2025, 12, 22) and latest_day(now.replace(hour=9)) == date(2025, 12, 21)
    raw(store, "royalty-free/snow.wav")
    write_json(store.metadata("sources.json"), [{**OTHER, "date_acquired": "2025-12-23"}])
    inventory_sources(store, gates=load_gates(), today=day)
    (row,) = read_inventory(store)
    assert row.rule == "licence.date_acquired"
    assert "2025-12-23 has not begun anywhere on Earth, where it is 2025-12-22 at the latest (UTC+14)" in row.reason
    inventory_sources(store, gates=load_gates(), today=date(2025, 12, 23))
    assert [row.rule for row in read_inventory(store)] == [""]


def test_adding_a_source_accepts_the_latest_day_and_names_verify_where_rights_are_not_confirmed(store: Store) -> None:
    raw(store, "royalty-free/rain_01.wav")
    latest = latest_day(datetime.now(UTC))
    words = ("--track", "rain_01", "--type", "royalty_free", "--provider", "P", "--licence", "Royalty-Free")
    code, said = lofi(store, "add", "late", *words, "--acquired", str(latest + timedelta(days=3)))
    assert code == 1 and "has not begun anywhere on Earth" in said
    code, said = lofi(store, "add", "studio 7", *words, "--acquired", str(latest))
    assert code == 0 and "lofi sources verify 'studio 7' --by NAME" in said
