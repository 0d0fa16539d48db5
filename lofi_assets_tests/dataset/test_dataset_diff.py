"""Versions are listed, compared and verified from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lofi_assets.cli.main import main
from lofi_assets.dataset.build import BuiltDataset, build_dataset
from lofi_assets.dataset.difference import difference
from lofi_assets.dataset.verification import dataset_faults
from lofi_assets.dataset.versions import DatasetError, find_version
from lofi_assets.store import Store
from lofi_assets_tests.dataset.test_dataset import LATER, NOW, candidate


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path))
    return Store(tmp_path)


def with_hash(item: Any) -> Any:
    track = item.track.model_copy(update={"audio_sha256": item.audio_sha256})
    return item.__class__(**(item.__dict__ | {"track": track}))


@pytest.fixture
def versions(store: Store) -> tuple[BuiltDataset, BuiltDataset]:
    """b leaves, e comes, a sounds different, c has another prompt, d moved and has other lyrics and style."""
    first = [candidate(store, track_id) for track_id in "abcd"]
    before = build_dataset(store, list(map(with_hash, first)), now=NOW)
    (store.processed / "core" / "a.mp3").unlink()
    second = [
        candidate(store, "a", audio=b"ID3 again"),
        candidate(store, "c", prompt="lofi, sad, 74 bpm"),
        candidate(store, "d", split="validation", lyrics="[Verse]\nrain", style_ids=["THEME-02"]),
        candidate(store, "e"),
    ]
    return before, build_dataset(store, list(map(with_hash, second)), now=LATER)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dataset", *arguments])


def test_a_difference_names_every_change_and_nothing_else(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    found = difference(versions[0].folder, versions[1].folder)
    assert (found.added, found.removed) == (("e",), ("b",))
    assert found.changed["split"] == {"d": ("train", "validation")}
    assert found.changed["prompt"] == {"c": ("lofi, chill, 74 bpm", "lofi, sad, 74 bpm")}
    assert found.changed["lyrics"] == {"d": ("[Instrumental]", "[Verse]\nrain")}
    assert list(found.changed["audio"]) == ["a"]
    assert found.changed["style_ids"] == {"d": (["CORE-01"], ["THEME-02"])}
    assert found.changed["source_id"] == {}
    assert found.styles == {"CORE-01": (4, 3), "THEME-02": (0, 1)}
    assert (found.tracks, found.splits["validation"], found.hours) == ((4, 4), (0, 1), (0.1, 0.1))


def test_the_difference_is_told_in_text_and_in_json(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    first, second = (version.record.dataset_id for version in versions)
    told = run("diff", first)
    assert told.exit_code == 0
    for line in (f"{first} -> {second}", "validation: 0 -> 1 (+1)", "added: 1", "removed: 1", "prompt changed: 1"):
        assert line in told.output
    assert "d: [Instrumental] -> [Verse] / rain" in told.output
    assert json.loads(run("diff", first, second, "--json").output)["added"] == ["e"]


def test_a_version_does_not_differ_from_itself(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    same = versions[0].record.dataset_id
    assert "no track differs" in run("diff", same, same).output


def test_an_id_may_be_shortened_but_not_guessed(store: Store, versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    assert find_version(store, versions[0].folder.name[5:11]) == versions[0].folder
    assert find_version(store) == versions[1].folder
    with pytest.raises(DatasetError, match="2 versions are named"):
        find_version(store, "lofi-")
    missing = run("diff", "lofi-nothing")
    assert missing.exit_code == 1 and versions[0].folder.name in missing.output


def test_every_version_is_kept_and_listed(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    lines = run("list").output.splitlines()
    assert [line[2:].split()[0] for line in lines] == [version.folder.name for version in versions]
    assert [line[0] for line in lines] == [" ", "*"]
    assert [row["current"] for row in json.loads(run("list", "--json").output)] == [False, True]


def test_an_empty_store_has_no_versions(store: Store) -> None:
    assert "no version yet" in run("list").output
    assert run("verify").exit_code == 1


def test_intact_versions_verify(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    assert run("verify").exit_code == 0
    done = run("verify", "--all")
    assert done.exit_code == 0 and done.output.count("intact") == 2


@pytest.mark.parametrize("name", ["c.mp3", "c_prompt.txt", "c_lyrics.txt"])
def test_an_altered_file_is_named(versions: tuple[BuiltDataset, BuiltDataset], name: str) -> None:
    path = versions[1].folder / "audio" / name
    path.unlink()
    path.write_bytes(b"altered")
    done = run("verify")
    assert done.exit_code == 1 and "BROKEN" in done.output
    assert str(path.with_name("c")) in done.output


def test_a_missing_file_is_named(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    path = versions[1].folder / "audio" / "c_lyrics.txt"
    path.unlink()
    assert dataset_faults(versions[1].folder) == [f"{path}: is missing"]
    assert run("diff", versions[0].folder.name).exit_code == 1


def test_rows_of_the_trainer_that_say_something_else_are_found(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    rows = versions[1].folder / "train" / "data-00000-of-00001.arrow"
    other = versions[0].folder / "train" / "data-00000-of-00001.arrow"
    rows.write_bytes(other.read_bytes())
    assert run("verify").exit_code == 1


def test_a_split_changed_by_hand_is_found(versions: tuple[BuiltDataset, BuiltDataset]) -> None:
    path = versions[1].folder / "tracks.json"
    path.write_text(path.read_text().replace('"source_001"', '"source_002"'))
    done = run("verify")
    assert done.exit_code == 1 and "no longer has the recorded hash" in done.output
