"""The split, the content hash, and the immutable dataset versions."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lofi_assets.dataset.build import (
    BuiltDataset,
    Candidate,
    build_dataset,
    dataset_hash,
    recorded_splits,
    verify_dataset,
)
from lofi_assets.dataset.card import style_distribution
from lofi_assets.files.documents import read_json, write_text
from lofi_assets.files.hashing import sha256_file
from lofi_assets.records import Split, Track
from lofi_assets.store import Store

settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")
NOW = datetime(2025, 12, 22, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
IDS = st.text("abcdef0123", min_size=1, max_size=3)
LIBRARY = st.sets(IDS, min_size=1, max_size=30)
PAIRS = st.lists(st.tuples(IDS, IDS), max_size=20)
SPLITS: st.SearchStrategy[Split] = st.sampled_from(["train", "validation"])
COLUMNS = ["keys", "filename", "tags", "speaker_emb_path", "norm_lyrics", "recaption"]


def candidate(store: Store, track_id: str, *, split: Split = "train", **changes: Any) -> Candidate:
    """A tagged track whose audio is a few bytes in the store."""
    category = changes.pop("category", "core")
    audio = store.processed / category / f"{track_id}.mp3"
    audio.parent.mkdir(parents=True, exist_ok=True)
    audio.write_bytes(changes.pop("audio", f"ID3 {track_id}".encode()))
    track = Track(
        track_id=track_id,
        filename=audio.name,
        audio_path=store.relative(audio),
        prompt_path=f"processed/{category}/{track_id}_prompt.txt",
        lyrics_path=f"processed/{category}/{track_id}_lyrics.txt",
        duration=90.0,
        sample_rate=48000,
        quality_score=80,
        style_ids=changes.pop("style_ids", ["CORE-01"]),
        source_id="source_001",
        split=split,
    )
    texts = {"prompt": "lofi, chill, 74 bpm", "lyrics": "[Instrumental]", **changes}
    return Candidate(track=track, audio=audio, audio_sha256=sha256_file(audio), group=track_id, **texts)


def library(store: Store) -> list[Candidate]:
    return [candidate(store, "a"), candidate(store, "b"), candidate(store, "c", split="validation")]


def built(store: Store, candidates: list[Candidate]) -> BuiltDataset:
    return build_dataset(store, candidates, now=NOW)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


# --- the hash --------------------------------------------------------------------------------------------------------


def test_the_hash_does_not_depend_on_the_order_of_files(store: Store) -> None:
    candidates = [candidate(store, f"track_{number}") for number in range(8)]
    shuffled = random.Random(3).sample(candidates, len(candidates))
    assert dataset_hash(shuffled) == dataset_hash(candidates)


def test_the_hash_does_not_depend_on_where_the_data_lie(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    assert dataset_hash(library(here)) == dataset_hash(library(there))


@pytest.mark.parametrize(
    "changes",
    [{"audio": b"ID3 other"}, {"prompt": "lofi, sad"}, {"lyrics": "[Verse]\nrain"}, {"split": "validation"}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_hash_moves_with_whatever_training_reads(store: Store, changes: dict[str, Any]) -> None:
    before = dataset_hash([candidate(store, "a")])
    assert dataset_hash([candidate(store, "a", **changes)]) != before


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True),
        st.tuples(st.text(max_size=20), st.text(max_size=20), SPLITS, st.binary(max_size=8)),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_the_hash_does_not_depend_on_order_or_machine(
    tmp_path_factory: pytest.TempPathFactory,
    tracks: dict[str, tuple[str, str, Split, bytes]],
    shuffle: random.Random,
) -> None:
    def made(order: list[str]) -> list[Candidate]:
        store = Store(tmp_path_factory.mktemp("machine"))
        texts = ((track_id, *tracks[track_id]) for track_id in order)
        return [candidate(store, key, prompt=p, lyrics=w, split=s, audio=a) for key, p, w, s, a in texts]

    names = sorted(tracks)
    digest = dataset_hash(made(names))
    assert dataset_hash(made(shuffle.sample(names, len(names)))) == digest
    first, *rest = names
    prompt, lyrics, split, audio = tracks[first]
    tracks[first] = (f"{prompt}.", lyrics, split, audio)
    assert dataset_hash(made([first, *rest])) != digest


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_version_holds_every_track_with_its_texts_and_counts_them(store: Store) -> None:
    found = built(store, library(store))
    names = {path.name for path in (found.folder / "audio").iterdir()}
    assert names == {f"{t}{suffix}" for t in "abc" for suffix in (".mp3", "_prompt.txt", "_lyrics.txt")}
    record = found.record
    assert (record.track_count, record.train_count, record.validation_count) == (3, 2, 1)
    assert record.total_duration == pytest.approx(3 * 90 / 3600)
    assert record.style_distribution == {"core": 3, "seasonal": 0, "thematic": 0, "instrumental": 0, "vocal": 0}
    assert record.dataset_id == found.folder.name and record.dataset_id.endswith(record.hash[:12])
    assert read_json(store.metadata("dataset_manifest.json"))["hash"] == record.hash
    assert recorded_splits(store) == {"a": "train", "b": "train", "c": "validation"}


def test_the_split_folders_show_the_current_version(store: Store) -> None:
    built(store, library(store))
    suffixes = (".mp3", "_lyrics.txt", "_prompt.txt")
    assert sorted(path.name for path in store.final.iterdir()) == [f"{t}{suffix}" for t in "ab" for suffix in suffixes]
    assert sorted(path.name for path in store.validation.iterdir()) == [f"c{suffix}" for suffix in suffixes]
    assert (store.final / "a_prompt.txt").read_text("utf-8") == "lofi, chill, 74 bpm"


def test_building_the_same_dataset_again_changes_nothing(store: Store) -> None:
    candidates = library(store)
    first = built(store, candidates)
    before = state(store.root)
    again = build_dataset(store, candidates, now=LATER)
    assert state(store.root) == before
    assert (first.created, again.created) == (True, False)
    assert again.record == first.record


def test_a_version_shares_what_did_not_change_with_the_one_before(store: Store) -> None:
    first = built(store, library(store))
    second = built(store, [*library(store), candidate(store, "d", prompt="lofi, rain")])
    for name in ("a.mp3", "a_prompt.txt", "a_lyrics.txt"):
        assert (first.folder / "audio" / name).samefile(second.folder / "audio" / name)
        assert not (second.folder / "audio" / name).samefile(store.final / name)
    changed = built(store, [candidate(store, "a", prompt="lofi, sad")])
    assert (changed.folder / "audio" / "a_prompt.txt").read_text() == "lofi, sad"
    assert (first.folder / "audio" / "a_prompt.txt").read_text() == "lofi, chill, 74 bpm"


def test_a_removed_track_leaves_the_split_folders_and_stays_in_the_old_version(store: Store) -> None:
    first = built(store, library(store))
    second = built(store, [item for item in library(store) if item.track.track_id != "a"])
    assert not list(store.final.glob("a*")) and (store.final / "b.mp3").is_file()
    assert second.folder != first.folder and verify_dataset(first.folder)


def test_a_track_that_changes_sides_is_on_one_side_only(store: Store) -> None:
    built(store, [candidate(store, "a"), candidate(store, "b", split="validation")])
    built(store, [candidate(store, "a", split="validation"), candidate(store, "b")])
    assert not list(store.final.glob("a*")) and (store.validation / "a.mp3").is_file()


def test_going_back_to_an_earlier_library_finds_its_version_again(store: Store) -> None:
    first = built(store, library(store))
    built(store, library(store)[:1])
    back = built(store, library(store))
    assert (back.folder, back.created) == (first.folder, False)
    assert (store.final / "b.mp3").is_file()


def test_other_files_in_the_split_folders_are_left_alone(store: Store) -> None:
    write_text(store.final / "notes.md", "mine")
    built(store, library(store))
    assert (store.final / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["b.mp3", "b_prompt.txt", "b_lyrics.txt"])
def test_a_flipped_bit_in_a_version_is_found(store: Store, name: str) -> None:
    folder = built(store, library(store)).folder
    assert verify_dataset(folder)
    path = folder / "audio" / name
    content = bytearray(path.read_bytes())
    content[1] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert not verify_dataset(folder)


def test_a_text_that_is_no_longer_text_is_found(store: Store) -> None:
    folder = built(store, library(store)).folder
    (folder / "audio" / "b_prompt.txt").unlink()
    (folder / "audio" / "b_prompt.txt").write_bytes(b"lofi\xff")
    assert verify_dataset(folder) is False


@pytest.mark.parametrize("name", ["audio/b.mp3", "audio/b_lyrics.txt", "tracks.json", "dataset.json"])
def test_a_missing_file_in_a_version_is_found(store: Store, name: str) -> None:
    folder = built(store, library(store)).folder
    (folder / name).unlink()
    assert not verify_dataset(folder)


def test_a_track_moved_to_the_other_side_by_hand_is_found(store: Store) -> None:
    folder = built(store, library(store)).folder
    path = folder / "tracks.json"
    path.write_text(path.read_text("utf-8").replace('"validation"', '"train"'), encoding="utf-8")
    assert not verify_dataset(folder)


@pytest.mark.parametrize("lyrics", ["[Verse]\nrain\n", "[Verse]\n雨 🌧\n\n[Chorus]", ""])
def test_whatever_the_lyrics_hold_a_version_verifies(store: Store, lyrics: str) -> None:
    assert verify_dataset(built(store, [candidate(store, "a", lyrics=lyrics)]).folder)


@pytest.mark.parametrize("lyrics", ["[Verse]\r\nrain", "[Verse]\rrain"])
def test_line_ends_of_other_systems_verify_too(store: Store, lyrics: str) -> None:
    assert verify_dataset(built(store, [candidate(store, "a", lyrics=lyrics)]).folder)


def test_changing_a_processed_file_later_does_not_change_a_version(store: Store) -> None:
    folder = built(store, library(store)).folder
    path = store.processed / "core" / "a.mp3"
    path.unlink()
    path.write_bytes(b"ID3 processed again")
    assert verify_dataset(folder)


def test_a_style_that_leaves_the_prompt_alone_still_reaches_the_manifest(store: Store) -> None:
    built(store, [candidate(store, "a")])
    moved = candidate(store, "a", style_ids=["SEASON-01"], category="seasonal")
    assert built(store, [moved]).record.style_distribution["seasonal"] == 1


def test_the_first_style_decides_where_a_track_counts(store: Store) -> None:
    track = candidate(store, "a", style_ids=["THEME-02", "CORE-01"]).track
    assert style_distribution([track]) == {"core": 0, "seasonal": 0, "thematic": 1, "instrumental": 0, "vocal": 0}


# --- the Hugging Face dataset ----------------------------------------------------------------------------------------


def test_each_split_loads_with_exactly_the_columns_that_the_public_trainer_reads(store: Store) -> None:
    import datasets

    found = built(store, library(store))
    train, validation = (datasets.load_from_disk(str(found.folder / split)) for split in ("train", "validation"))
    assert train.column_names == COLUMNS == validation.column_names
    assert train["keys"][:] == ["a", "b"] and validation["keys"][:] == ["c"]
    row = train[0]
    assert row["tags"] == ["lofi", "chill", "74 bpm"] and row["norm_lyrics"] == "[Instrumental]"
    assert row["speaker_emb_path"] == "" and not row["recaption"]
    assert (found.folder / row["filename"]).is_file()


def test_an_empty_split_is_not_written_since_nothing_could_load_it(store: Store) -> None:
    folder = built(store, [candidate(store, "a")]).folder
    assert (folder / "train").is_dir() and not (folder / "validation").exists()


@settings(max_examples=5, deadline=None)
@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_candidates_does_not_make_another_version(tmp_path_factory: Any, order: list[str]) -> None:
    store = Store(tmp_path_factory.mktemp("data"))
    by_id = {item.track.track_id: item for item in library(store)}
    found = built(store, [by_id[track_id] for track_id in order])
    assert [track.track_id for track in found.tracks] == ["a", "b", "c"]
    assert found.record.hash == dataset_hash(library(store))
