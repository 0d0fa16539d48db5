"""Files of a dataset that somebody changed or removed: what they can break, who says so, and what is put back."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.dataset.build import recorded_splits, verify_dataset
from lofi_assets.dataset.versions import DatasetError
from lofi_assets.files import recorded_hashes as file_hashes
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import Store
from lofi_assets_tests.dataset.test_dataset import built, candidate, library


def in_place(path: Path, text: bytes = b"TAG") -> None:
    """What a tagger does that cares for no permission: same file, same size, same time of writing."""
    before = path.stat()
    path.chmod(before.st_mode | 0o200)
    with path.open("r+b") as file:
        file.write(text)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("folder", ["final", "validation", "processed/core"])
def test_a_tagger_that_writes_into_what_people_open_breaks_no_version(store: Store, folder: str) -> None:
    version = built(store, library(store)).folder
    in_place(store.root / folder / ("c.mp3" if folder == "validation" else "a.mp3"))
    assert verify_dataset(version)


@pytest.mark.parametrize("folder", ["final", "validation"])
@pytest.mark.parametrize("suffix", [".mp3", "_prompt.txt"])
def test_a_changed_file_in_a_split_folder_is_named_and_put_back(store: Store, folder: str, suffix: str) -> None:
    candidates = library(store)
    built(store, candidates)
    path = store.root / folder / f"{'c' if folder == 'validation' else 'a'}{suffix}"
    sound = path.read_bytes()
    in_place(path)
    again = built(store, candidates)
    (told,) = again.mended
    assert told.startswith(f"{folder}/{path.name}: had been changed or removed; put back from dataset/lofi-")
    assert path.read_bytes() == sound and not again.fault
    assert built(store, candidates).mended == ()


def test_what_is_right_is_neither_read_nor_copied_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(file_hashes, "sha256_file", lambda path: read.append(path.name) or sha256_file(path))
    tracks = library(store)
    assert not built(store, tracks).fault and read
    read.clear()
    assert not built(store, tracks).fault and read == []
    assert not built(store, [*tracks, candidate(store, "d")]).fault
    assert not {"a.mp3", "b.mp3", "c.mp3"} & set(read), "a new version shares what did not change"


def test_a_version_is_read_only_where_it_shares_files(store: Store) -> None:
    folder = built(store, library(store)).folder
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder / "audio").iterdir())
    assert all(path.stat().st_mode & 0o200 for path in store.final.iterdir())


@pytest.mark.parametrize("name", ["b.mp3", "b_prompt.txt", "b_lyrics.txt"])
@pytest.mark.parametrize("harm", [in_place, Path.unlink], ids=["changed", "removed"])
def test_a_version_that_was_changed_is_mended_and_says_so(store: Store, harm: Any, name: str) -> None:
    candidates = library(store)
    folder = built(store, candidates).folder
    sound = (folder / "audio" / name).read_bytes()
    harm(folder / "audio" / name)
    assert not verify_dataset(folder)
    again = built(store, candidates)
    assert not again.created and not again.fault and verify_dataset(folder)
    assert (folder / "audio" / name).read_bytes() == sound
    (told,) = again.mended
    assert told.startswith(f"{store.relative(folder)}/audio/{name}: had been changed or removed; ")


@pytest.mark.parametrize("name", ["a.mp3", "a_prompt.txt"])
def test_versions_that_share_a_changed_file_are_all_mended(store: Store, name: str) -> None:
    first = built(store, library(store)).folder
    candidates = [*library(store), candidate(store, "d")]
    second = built(store, candidates).folder
    in_place(second / "audio" / name)
    assert not verify_dataset(first) and not verify_dataset(second)
    assert len(built(store, candidates).mended) == 1
    assert verify_dataset(first) and verify_dataset(second)
    assert (first / "audio" / name).samefile(second / "audio" / name)


def test_a_version_of_which_no_sound_copy_is_left_does_not_pass_and_the_file_is_named(store: Store) -> None:
    candidates = library(store)
    folder = built(store, candidates).folder
    for path in (store.final / "a.mp3", store.processed / "core" / "a.mp3", folder / "audio" / "a.mp3"):
        in_place(path)
    again = built(store, candidates)
    assert str(folder / "audio" / "a.mp3") in again.fault
    assert "no sound copy is left; materialise processed_tracks" in again.fault and not verify_dataset(folder)


def test_audio_that_is_not_what_was_judged_enters_no_version(store: Store) -> None:
    candidates = library(store)
    in_place(store.processed / "core" / "a.mp3")
    with pytest.raises(DatasetError, match=r"core/a\.mp3: is not the audio that was judged; materialise processed_tr"):
        built(store, candidates)
    assert not list(store.datasets.glob("*"))


def test_files_that_were_links_become_files_of_their_own(store: Store) -> None:
    candidates = library(store)
    folder = built(store, candidates).folder
    for path in store.final.iterdir():
        path.unlink()
        os.link(folder / "audio" / path.name, path)
    built(store, candidates)
    assert not any(path.samefile(folder / "audio" / path.name) for path in store.final.iterdir())


def test_a_version_without_its_own_record_says_what_to_do(store: Store) -> None:
    candidates = library(store)
    folder = built(store, candidates).folder
    (folder / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"dataset\.json: is missing; move .* away and materialise dataset_manifest"):
        built(store, candidates)
    folder.rename(store.root / "elsewhere")
    assert verify_dataset(built(store, candidates).folder)


def test_recorded_splits_outlive_the_version_and_the_track(store: Store) -> None:
    shutil.rmtree(built(store, library(store)).folder)
    assert recorded_splits(store) == {"a": "train", "b": "train", "c": "validation"}
    built(store, library(store)[:2])
    assert recorded_splits(store)["c"] == "validation", "a track that comes back is where it was"


def test_splits_of_a_root_without_their_record_are_those_of_the_version(store: Store) -> None:
    built(store, library(store))
    store.metadata("dataset_splits.json").unlink()
    assert recorded_splits(store) == {"a": "train", "b": "train", "c": "validation"}


def test_records_of_a_version_that_were_edited_do_not_pass_and_say_what_to_do(store: Store) -> None:
    candidates = library(store)
    folder = built(store, candidates).folder
    path = folder / "tracks.json"
    path.write_text(path.read_text("utf-8").replace('"source_001"', '"source_002"'), encoding="utf-8")
    assert f"move {folder} away and materialise dataset_manifest" in built(store, candidates).fault
    folder.rename(store.root / "elsewhere")
    assert not built(store, candidates).fault
