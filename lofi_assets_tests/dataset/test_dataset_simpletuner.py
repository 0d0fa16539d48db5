"""What SimpleTuner would read of our dataset: texts beside the audio, or columns of Hugging Face datasets."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.dataset.build import BuiltDataset
from lofi_assets.dataset.simpletuner_format import export_for_simpletuner
from lofi_assets.dataset.versions import DatasetError
from lofi_assets.store import Store
from lofi_assets_tests.dataset.test_dataset import built, candidate

LYRICS = "[Verse]\nrain on the window\n"


@pytest.fixture
def version(tmp_path: Path) -> BuiltDataset:
    store = Store(tmp_path / "data")
    tracks = [
        candidate(store, "a", audio=b"first", lyrics=f"[language: en]\n{LYRICS}"),
        candidate(store, "b", audio=b"second", prompt="lofi hip hop, mellow, 82 bpm"),
        candidate(store, "c", audio=b"third", split="validation"),
    ]
    return built(store, tracks)


def test_the_texts_lie_beside_the_audio(version: BuiltDataset, tmp_path: Path) -> None:
    assert export_for_simpletuner(version.folder, tmp_path / "out") == 2
    folder = tmp_path / "out" / "train"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("a.lyrics", "a.mp3", "a.txt", "b.lyrics", "b.mp3", "b.txt", "metadata.jsonl")
    ]
    assert (folder / "a.mp3").read_bytes() == b"first"
    assert (folder / "b.txt").read_text("utf-8") == "lofi hip hop, mellow, 82 bpm"
    assert (folder / "a.lyrics").read_text("utf-8") == LYRICS


@pytest.mark.parametrize("split", ["train", "validation"])
def test_load_dataset_gives_the_audio_with_its_texts(
    split: str, version: BuiltDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    if importlib.util.find_spec("torchcodec") is None:  # datasets 5 imports it before it passes a path on as it is
        for name in ("torchcodec", "torchcodec.encoders"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules["torchcodec.encoders"], "AudioEncoder", None, raising=False)

    export_for_simpletuner(version.folder, tmp_path / "out", split=split)  # type: ignore[arg-type]
    loaded = datasets.load_dataset(str(tmp_path / "out"), split=split, cache_dir=str(tmp_path / "cache"))
    assert set(loaded.column_names) == {"audio", "prompt", "tags", "lyrics"}
    assert isinstance(loaded.features["audio"], datasets.Audio)
    rows = {Path(row["audio"]["path"]).stem: row for row in loaded.cast_column("audio", datasets.Audio(decode=False))}
    if split == "validation":
        assert rows.keys() == {"c"}
        return
    assert rows.keys() == {"a", "b"}
    assert rows["b"]["tags"] == ["lofi hip hop", "mellow", "82 bpm"]
    assert rows["b"]["prompt"] == "lofi hip hop, mellow, 82 bpm"
    assert rows["a"]["lyrics"] == LYRICS
    assert Path(rows["a"]["audio"]["path"]).read_bytes() == b"first"


def test_the_command_says_how_simpletuner_is_pointed_at_it(version: BuiltDataset, tmp_path: Path) -> None:
    environment = {"LOFI_DATA_DIR": str(tmp_path / "data")}
    done = CliRunner().invoke(
        main, ["dataset", "export", str(tmp_path / "out"), "--for", "simpletuner"], env=environment
    )
    assert done.exit_code == 0, done.output
    assert f"instance_data_dir {tmp_path / 'out' / 'train'}" in done.output.replace("\n", " ")
    with pytest.raises(DatasetError, match="not an empty folder"):
        export_for_simpletuner(version.folder, tmp_path / "out")
    asked = ["dataset", "export", str(tmp_path / "more"), "--for", "simpletuner", "--repeat-count", "3"]
    assert CliRunner().invoke(main, asked, env=environment).exit_code == 2
