"""Audio that somebody changed in place, from the library to the dataset: noticed, named, put back, and never spread."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import load_gates
from lofi_assets.constitution.verdicts import Measures, verdict
from lofi_assets.dataset.build import recorded_splits
from lofi_assets.dataset.dataset_manifest import assemble
from lofi_assets.files import recorded_hashes as file_hashes
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.store import Store
from lofi_assets.tracks.prompt_table import write_prompt_rows
from lofi_assets_tests.dataset.test_dataset_copies import in_place
from lofi_assets_tests.stage_rows import prompt_row
from lofi_assets_tests.tracks.stand_in_audio import Run, inventory

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TRACKS = ("rain", "snow", "wind")


class Library:
    """Three tracks in the dataset, as one run after the other leaves them."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store, self.run = store, run
        inventory(store, **{name: str(number) for number, name in enumerate(TRACKS)})
        self.process()
        write_prompt_rows(store, [prompt_row(name, prompt=f"lofi, {name}, 74 bpm") for name in TRACKS])
        self.folder = store.datasets / str(self.build().details["dataset_id"])

    def process(self) -> tuple[str, list[str]]:
        """What a person is told of changed files, and what was worked on."""
        outcome, worked = self.run()
        return str(outcome.details["mended"] or ""), worked

    def build(self) -> Outcome:
        return assemble(self.store, now=NOW)

    def work(self, name: str) -> Path:
        (path,) = (self.store.cache / "tracks").glob(f"{name}.*.mp3")
        return path

    def copies(self, name: str) -> list[Path]:
        """Every file with the audio of a track."""
        shown = [folder / f"{name}.mp3" for folder in (self.store.final, self.store.validation)]
        placed = [self.store.processed / "core" / f"{name}.mp3", self.folder / "audio" / f"{name}.mp3"]
        return [self.work(name), *placed, *(path for path in shown if path.is_file())]


@pytest.fixture
def tracks(store: Store, run: Run) -> Library:
    return Library(store, run)


def hash_gate(outcome: Outcome) -> tuple[str, str]:
    (gate,) = [gate for gate in load_gates() if gate.id == "dataset.hash"]
    found = verdict(gate, Measures("dataset_manifest", "1", values=outcome.values))
    return found.status, found.text


def test_no_two_places_that_people_open_share_a_file(tracks: Library) -> None:
    for name in TRACKS:
        copies = tracks.copies(name)
        assert len(copies) == 4 and len({path.stat().st_ino for path in copies}) == 4
        assert len({sha256_file(path) for path in copies}) == 1


@pytest.mark.parametrize("place", ["final", "validation", "processed", "cache"])
def test_a_tagger_breaks_one_copy_which_is_named_and_put_back(tracks: Library, place: str) -> None:
    files = [(name, path) for name in TRACKS for path in tracks.copies(name)]
    name, harmed = next(found for found in files if found[1].is_relative_to(tracks.store.root / place))
    sound = sha256_file(harmed)
    in_place(harmed)
    assert sum(sha256_file(path) != sound for path in tracks.copies(name)) == 1
    told, worked = tracks.process()
    told += str(tracks.build().details["mended"])
    assert worked == [] and f"- {tracks.store.relative(harmed)}: had been changed or removed; put back" in told
    assert {sha256_file(path) for path in tracks.copies(name)} == {sound}
    assert tracks.process() == ("", []) and tracks.build().details["mended"] is None


def test_a_changed_version_is_put_back_and_passes(tracks: Library) -> None:
    harmed = tracks.folder / "audio" / "rain.mp3"
    in_place(harmed)
    built = tracks.build()
    assert "dataset/lofi-" in str(built.details["mended"]) and "put back from processed/core/rain.mp3" in str(
        built.details["mended"]
    )
    assert hash_gate(built)[0] == "pass"


def test_where_no_sound_copy_is_left_the_raw_file_is_worked_on_again(tracks: Library) -> None:
    for path in tracks.copies("rain"):
        in_place(path)
    status, text = hash_gate(tracks.build())
    assert status == "fail" and "audio/rain.mp3: not the audio that was judged" in text
    assert "materialise processed_tracks" in text
    told, worked = tracks.process()
    assert worked == ["rain"] and "raw/rain.wav was processed again" in told
    assert hash_gate(tracks.build())[0] == "pass"
    assert len({sha256_file(path) for path in tracks.copies("rain")}) == 1


def test_a_cache_that_was_deleted_is_filled_from_the_copies(tracks: Library) -> None:
    shutil.rmtree(tracks.store.cache)
    told, worked = tracks.process()
    assert worked == [] and told.count("put back from processed/core/") == 3


def test_nothing_that_is_right_is_read_again(tracks: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks.process()
    read: list[Path] = []
    monkeypatch.setattr(file_hashes, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    monkeypatch.setattr(file_hashes, "copy_file", lambda *paths: pytest.fail(f"copied: {paths}"))
    assert tracks.process() == ("", [])
    assert tracks.build().counts["recomputed"] == 0
    assert read == []


@pytest.mark.parametrize("harm", ["audio", "records", "gone"])
def test_the_remedy_that_verify_prints_mends_a_version_and_keeps_the_splits(
    tracks: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tracks.store.root))
    splits, digest = recorded_splits(tracks.store), tracks.build().data_version
    if harm == "audio":
        in_place(tracks.folder / "audio" / "rain.mp3")
    elif harm == "records":
        (tracks.folder / "tracks.json").write_text("[]")
    else:
        (tracks.folder / "audio" / "rain.mp3").unlink()
    done = CliRunner().invoke(main, ["dataset", "verify"])
    assert done.exit_code == 1
    assert f"{tracks.folder.name}: BROKEN: move it away and materialise dataset_manifest" in done.output
    tracks.folder.rename(tracks.folder.with_name(f"{tracks.folder.name}.broken"))
    again = tracks.build()
    assert again.data_version == digest and recorded_splits(tracks.store) == splits
    assert [again.details[kind] for kind in ("added", "removed", "moved")] == [0, 0, 0]
    done = CliRunner().invoke(main, ["dataset", "verify"])
    assert done.exit_code == 0 and f"{tracks.folder.name}: intact" in done.output


def test_an_earlier_version_that_is_broken_has_a_remedy_of_its_own(
    tracks: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tracks.store.root))
    inventory(tracks.store, rain="0", snow="1")
    tracks.process()
    assert tracks.build().details["dataset_id"] != tracks.folder.name
    (tracks.folder / "audio" / "wind.mp3").unlink()
    done = CliRunner().invoke(main, ["dataset", "verify", "--all"])
    assert done.exit_code == 1 and f"{tracks.folder.name}: BROKEN: restore it from a backup" in done.output
