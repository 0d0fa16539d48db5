"""What people change, by the stage that reads it."""

import itertools
import os
from pathlib import Path

import pytest

from lofi_assets.constitution.verdicts import Measures
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.store import Store
from lofi_assets.tracks.curation import take_over, write_mapping
from lofi_assets.tracks.landing import Landing, landing_state
from lofi_assets_tests.recorded_evidence import record

PARTS = ("library", "styles", "words", "vocabulary")


def land(store: Store, name: str, content: bytes = b"RIFF") -> Path:
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def moved(before: Landing, after: Landing) -> set[str]:
    return {part for part in PARTS if getattr(before, part) != getattr(after, part)}


@pytest.fixture
def settled(store: Store) -> Landing:
    """A track with everything that may stand beside it."""
    for name in ("rain.wav", "rain_prompt.txt", "rain_lyrics.txt"):
        land(store, f"raw/commissioned/{name}")
    write_json(store.metadata("sources.json"), [])
    write_mapping(store, {"rain": ["CORE-01"]})
    return landing_state(store)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("raw/commissioned/snow.wav", "library"),
        ("raw/commissioned/rain.wav", "library"),
        ("raw/commissioned/snow_prompt.txt", "library"),
        ("raw/partnerships/rain_prompt.txt", "library"),
        ("metadata/sources.json", "library"),
        ("metadata/evidence/contract.pdf", "library"),
        ("metadata/evidence/contract.json", "library"),
        ("metadata/evidence/studio/contract.json", "library"),
        ("raw/commissioned/rain_prompt.txt", "words"),
        ("raw/commissioned/rain_lyrics.txt", "words"),
        ("metadata/reviews.jsonl", "words"),
    ],
)
def test_what_appears_or_changes_moves_the_part_that_reads_it(
    store: Store, settled: Landing, name: str, part: str
) -> None:
    land(store, name, b"something else")
    assert moved(settled, landing_state(store)) == {part}


def test_a_file_that_goes_moves_its_part(store: Store, settled: Landing) -> None:
    (store.raw / "commissioned" / "rain_lyrics.txt").unlink()
    assert moved(settled, landing_state(store)) == {"words"}


def test_the_same_bytes_at_another_time_are_looked_at_again(store: Store, settled: Landing) -> None:
    os.utime(store.raw / "commissioned" / "rain.wav", (1_000_000_000, 1_000_000_000))
    assert moved(settled, landing_state(store)) == {"library"}


@pytest.mark.parametrize("name", ["chosen_styles.json", "style_mapping.json"])
def test_a_persons_style_moves_the_styles(store: Store, settled: Landing, name: str) -> None:
    write_json(store.metadata(name), {"rain": ["THEME-02"]})
    assert moved(settled, landing_state(store)) == {"styles"}


def test_what_the_lineage_writes_itself_moves_nothing(store: Store, settled: Landing) -> None:
    write_mapping(store, {"rain": ["CORE-02"], "snow": ["CORE-01"]})
    land(store, "processed/core/rain_prompt.txt")
    write_json(store.metadata("quality_scores.json"), {})
    record(store, Measures("prompts", "1", {}, named={"prompts.styles": {"violating": ["rain"]}}))
    assert sorted(path.suffixes for path in store.metadata("evidence").rglob("*.json")) == [
        [".json"],
        [".json"],
        [".tracks", ".json"],
    ]
    assert moved(settled, landing_state(store)) == set()


def test_taking_over_an_edited_result_moves_nothing_more(store: Store, settled: Landing) -> None:
    write_json(store.metadata("style_mapping.json"), {"rain": ["THEME-02"]})
    edited = landing_state(store)
    take_over(store)
    write_mapping(store, {"rain": ["THEME-02"]})
    assert read_json(store.metadata("chosen_styles.json")) == {"rain": ["THEME-02"]}
    assert moved(edited, landing_state(store)) == set()


def test_an_unreadable_choice_is_a_state_and_no_crash(store: Store, settled: Landing) -> None:
    land(store, "metadata/chosen_styles.json", b"{")
    assert moved(settled, landing_state(store)) == {"styles"}


@pytest.mark.parametrize(
    ("name", "part"),
    [("sources.json", "library"), ("chosen_styles.json", "styles"), ("reviews.jsonl", "words")],
)
def test_a_link_that_leads_nowhere_is_a_state_and_no_crash(
    store: Store, settled: Landing, name: str, part: str
) -> None:
    for target in (store.root / "unmounted" / name, store.metadata(name)):  # the last is a link to itself
        store.metadata(name).unlink(missing_ok=True)
        store.metadata(name).symlink_to(target)
        assert moved(settled, landing_state(store)) <= {part}
    assert moved(settled, landing_state(store)) == {part}


def test_a_file_that_may_not_be_looked_at_is_a_state_and_no_crash(
    store: Store, settled: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, stat = store.raw / "commissioned" / "rain.wav", Path.stat

    def refuse(path: Path, **how: bool) -> os.stat_result:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refuse)
    assert moved(settled, landing_state(store)) == {"library"}


def test_a_table_that_cannot_be_read_is_no_business_of_a_tick(store: Store, settled: Landing) -> None:
    land(store, "metadata/processed_tracks.parquet", b"half")
    assert landing_state(store) == settled


def test_files_still_being_written_are_not_looked_at(store: Store, settled: Landing) -> None:
    land(store, "raw/commissioned/.snow.wav.part")
    assert landing_state(store) == settled


def test_amended_rules_and_vocabulary_are_landings_too(store: Store, settled: Landing, tmp_path: Path) -> None:
    states = []
    for name in ("", "licenses.yaml", "constitution.yaml", "styles/taxonomy.yaml"):
        path = tmp_path / "config" / (name or "unrelated.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a: 1")
        states.append(landing_state(store, config_dir=tmp_path / "config"))
    steps = [moved(before, after) for before, after in itertools.pairwise(states)]
    assert steps == [{"library"}, {"library"}, {"vocabulary"}]


@pytest.mark.parametrize("name", ["chosen_styles.json", "style_mapping.json", "reviews.jsonl", "sources.json"])
@pytest.mark.parametrize("stands", ["a folder", "a link to itself", "a pipe"])
def test_what_stands_where_a_file_must_be_is_a_state_and_no_crash(
    store: Store, settled: Landing, name: str, stands: str
) -> None:
    path = store.metadata(name)
    path.unlink(missing_ok=True)
    match stands:
        case "a folder":
            path.mkdir()
        case "a link to itself":
            path.symlink_to(name)
        case _:
            os.mkfifo(path)
    assert landing_state(store).vocabulary == settled.vocabulary
