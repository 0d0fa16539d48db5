"""What ACE-Step v1's own trainer and converter would read of our dataset (facts: columns, paths, silent skips)."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from lofi_assets.audio.encode import SAMPLE_RATE, write_mp3
from lofi_assets.cli.main import main
from lofi_assets.dataset.build import BuiltDataset
from lofi_assets.dataset.trainer_format import export_dataset
from lofi_assets.dataset.versions import DatasetError
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import Store
from lofi_assets_tests.dataset.test_dataset import COLUMNS, built, candidate

SECONDS = 4


def public_trainer(dataset_path: Path) -> list[dict[str, Any]]:
    """Each item as the public training loop prepares it, started from the current working directory."""
    import datasets

    items = []
    for item in datasets.load_from_disk(str(dataset_path)):
        # `filename` is opened as given: relative to the working directory, or absolute.
        samples, rate = soundfile.read(item["filename"], dtype="float32", always_2d=True)
        assert (rate, samples.shape[1]) == (48_000, 2) and len(samples) >= 3 * rate and np.abs(samples).max() > 0
        tags = list(item["tags"])
        random.Random(0).shuffle(tags)
        captions = [text for text in item["recaption"].values() if isinstance(text, str) and text]
        prompt = random.Random(0).choice([*captions, ", ".join(tags) or "music"])[:256]
        speaker = np.load(item["speaker_emb_path"]) if item["speaker_emb_path"] else np.zeros(512)
        items.append({"key": item["keys"], "prompt": prompt, "lyrics": item["norm_lyrics"], "speaker": speaker})
    return items


def public_converter(data_dir: Path) -> list[dict[str, Any]]:
    """The rows that convert2hf_dataset.py makes of a folder: MP3 only, not recursive, silent about missing texts."""
    rows = []
    for song in sorted(data_dir.glob("*.mp3")):
        prompt, lyrics = (song.with_name(f"{song.stem}_{kind}.txt") for kind in ("prompt", "lyrics"))
        if prompt.exists() and lyrics.exists():
            tags = prompt.read_text(encoding="utf-8").split(", ")
            rows.append({"keys": song.stem, "tags": tags, "norm_lyrics": lyrics.read_text(encoding="utf-8")})
    return rows


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("song") / "song.mp3"
    tone = np.sin(np.arange(SECONDS * SAMPLE_RATE) * 0.05).astype(np.float32) * 0.5
    write_mp3(np.stack([tone, tone]), path)
    return path.read_bytes()


@pytest.fixture
def version(tmp_path: Path, song: bytes) -> BuiltDataset:
    store = Store(tmp_path / "data")
    tracks = [
        candidate(store, "a", audio=song, lyrics="[Verse]\nrain on the window\n"),
        candidate(store, "b", audio=song, prompt="lofi hip hop, mellow, 82 bpm"),
        candidate(store, "c", audio=song, split="validation"),
    ]
    return built(store, tracks)


def test_the_public_trainer_reads_a_version_from_its_folder(
    version: BuiltDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(version.folder)
    train = public_trainer(Path("train"))
    assert [item["key"] for item in train] == ["a", "b"]
    assert train[0]["lyrics"] == "[Verse]\nrain on the window\n"
    assert sorted(train[1]["prompt"].split(", ")) == ["82 bpm", "lofi hip hop", "mellow"]
    assert [item["key"] for item in public_trainer(Path("validation"))] == ["c"]


def test_the_public_converter_finds_every_song_of_the_split_folder(version: BuiltDataset) -> None:
    rows = public_converter(version.folder.parent.parent / "final")
    assert [row["keys"] for row in rows] == ["a", "b"]
    assert rows[1]["tags"] == ["lofi hip hop", "mellow", "82 bpm"]


def test_the_rows_are_written_as_the_datasets_release_of_the_public_trainer_knows_them(version: BuiltDataset) -> None:
    """The trainer pins datasets 3.4.1, which refuses the feature type List that 4 and later write."""
    import pyarrow as pa

    info = json.loads((version.folder / "train" / "dataset_info.json").read_text())
    assert list(info["features"]) == COLUMNS
    assert info["features"]["tags"]["_type"] == "Sequence"
    with pa.ipc.open_stream(str(version.folder / "train" / "data-00000-of-00001.arrow")) as file:
        assert file.schema.metadata is None


def test_an_absolute_export_is_read_from_anywhere(
    version: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_dataset(version.folder, tmp_path / "out", absolute=True)
    monkeypatch.chdir("/")
    assert [item["key"] for item in public_trainer(tmp_path / "out" / "dataset")] == ["a", "b"]


def test_repeating_costs_a_line_each(version: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once, often = tmp_path / "once", tmp_path / "often"
    export_dataset(version.folder, once)
    export_dataset(version.folder, often, repeat_count=200)
    size_once, size_often = (sum(p.stat().st_size for p in (d / "dataset").iterdir()) for d in (once, often))
    assert size_often - size_once < 200 * 80
    assert not (often / "audio" / "a.mp3").samefile(version.folder / "audio" / "a.mp3"), "who opens it changes only it"
    assert (often / "audio" / "a.mp3").stat().st_mode & 0o200
    import datasets

    assert len(datasets.load_from_disk(str(often / "dataset"))) == 400
    monkeypatch.chdir(often)
    assert datasets.load_from_disk("dataset")[399]["filename"] == "audio/b.mp3"


def test_editing_an_exported_text_leaves_the_version_alone(version: BuiltDataset, tmp_path: Path) -> None:
    before = sha256_file(version.folder / "audio" / "a_prompt.txt")
    export_dataset(version.folder, tmp_path / "out")
    (tmp_path / "out" / "audio" / "a_prompt.txt").write_text("mine")
    assert sha256_file(version.folder / "audio" / "a_prompt.txt") == before


def test_an_export_never_writes_over_anything(version: BuiltDataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.md").write_text("mine")
    with pytest.raises(DatasetError, match="not an empty folder"):
        export_dataset(version.folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.md"]


def test_the_command_exports_and_says_how_to_start(
    version: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(version.folder.parent.parent))
    arguments = ["export", str(tmp_path / "out"), "--split", "validation", "--repeat-count", "3"]
    done = CliRunner().invoke(main, ["dataset", *arguments])
    assert done.exit_code == 0 and "1 tracks" in done.output and "3 rows" in done.output
    assert str(tmp_path / "out" / "dataset") in done.output
    again = CliRunner().invoke(main, ["dataset", *arguments])
    assert again.exit_code == 1 and "not an empty folder" in again.output
