"""A dataset version as the public ACE-Step trainer reads it (Hugging Face datasets)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lofi_assets.dataset.versions import SUFFIXES, DatasetError, audio_path, read_texts, version_tracks
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.lyrics.text import without_language
from lofi_assets.records import Track

DATA_FILE = "data-00000-of-00001.arrow"


def write_hugging_face(
    folder: Path, rows: Sequence[tuple[str, str, str]], *, audio: str = "audio", repeat_count: int = 1
) -> None:
    """Write (track id, prompt, lyrics) in the columns that the public ACE-Step v1 trainer reads, for `load_from_disk`.

    Written with pyarrow rather than `datasets`: that trainer pins datasets 3.4.1, which refuses what 4 and 5 write (a
    feature of type List), while all of them read this. The same rows give the same bytes.

    Args:
        audio: what `filename` starts with; the trainer opens it as given, from its working directory.
        repeat_count: the one data file is listed so many times, which costs a line each.
    """
    import pyarrow as pa

    text = pa.string()
    columns = {"keys": text, "filename": text, "tags": pa.list_(text), "speaker_emb_path": text, "norm_lyrics": text}
    schema = pa.schema([*columns.items(), ("recaption", pa.struct([]))])
    items = [
        {"keys": key, "filename": f"{audio}/{key}.mp3", "tags": prompt.split(", ")}
        | {"norm_lyrics": without_language(lyrics), "speaker_emb_path": "", "recaption": {}}
        for key, prompt, lyrics in rows
    ]
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / DATA_FILE), schema) as file:
        file.write_table(pa.Table.from_pylist(items, schema=schema), max_chunksize=1000)
    value = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = dict.fromkeys(columns, value) | {"tags": {"feature": value, "_type": "Sequence"}}
    write_json(folder / "dataset_info.json", {"features": features | {"recaption": {}}})
    state: dict[str, Any] = {
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
    }
    files = [{"filename": DATA_FILE}] * repeat_count
    identity = hash_of(audio, repeat_count, rows)[:16]
    write_json(folder / "state.json", {"_data_files": files, "_fingerprint": identity, **state, "_split": None})


def export_dataset(
    version: Path, target: Path, *, split: str = "train", repeat_count: int = 1, absolute: bool = False
) -> int:
    """Write a trainer-ready copy of one split, which shares nothing with the version; returns the number of tracks.

    `target/dataset` is what the public trainer loads, `target/audio` what its converter reads.

    Args:
        absolute: write `filename` as an absolute path, for a trainer that is started from anywhere; else it is relative
            to `target`.

    Raises:
        DatasetError: the target is not empty, the split is, or the version lacks a file.
    """
    tracks = tracks_to_export(version, target, split=split)
    if repeat_count < 1:
        raise DatasetError(f"{version}: {len(tracks)} tracks in {split}, {repeat_count} times: nothing to export")
    target = target.resolve()
    with atomic_folder(target) as folder:
        rows = []
        for key in (track.track_id for track in tracks):
            try:
                copy_file(audio_path(version, key), audio_path(folder, key))
                prompt, lyrics = read_texts(version, key)
            except OSError as error:
                raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {version.name}") from error
            for suffix, text in zip(SUFFIXES[1:], (prompt, without_language(lyrics)), strict=True):
                (folder / "audio" / f"{key}{suffix}").write_bytes(text.encode())
            rows.append((key, prompt, lyrics))
        audio = (target / "audio").as_posix() if absolute else "audio"
        write_hugging_face(folder / "dataset", rows, audio=audio, repeat_count=repeat_count)
    return len(tracks)


def tracks_to_export(version: Path, target: Path, *, split: str) -> list[Track]:
    """The tracks of a split, by id.

    Raises:
        DatasetError: there are none, or the target is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target}: is not an empty folder; name another")
    tracks = [track for track in version_tracks(version) or () if track.split == split]
    if not tracks:
        raise DatasetError(f"{version}: 0 tracks in {split}: nothing to export")
    return tracks


def trainer_rows(folder: Path) -> dict[str, tuple[str, str, list[str], str]]:
    """Track id -> file name, split, tags and lyrics in the rows of a split's folder; pyarrow's error where broken."""
    import pyarrow as pa

    if not (folder / DATA_FILE).is_file():
        return {}
    with pa.ipc.open_stream(str(folder / DATA_FILE)) as file:
        items = file.read_all().to_pylist()
    return {
        item["keys"]: (Path(item["filename"]).name, folder.name, item["tags"], item["norm_lyrics"]) for item in items
    }
