"""Whether a dataset version is still what its manifest says."""

from collections.abc import Callable
from pathlib import Path

from lofi_assets.dataset.trainer_format import trainer_rows
from lofi_assets.dataset.versions import read_track, version_record, version_tracks
from lofi_assets.files.hashing import sha256_file
from lofi_assets.lyrics.text import without_language


def dataset_faults(folder: Path, *, sha256: Callable[[Path], str] = sha256_file) -> list[str]:
    """Files of a version that are missing or are not what its records say; `sha256` as in `read_track`."""
    record, tracks = version_record(folder), version_tracks(folder)
    if record is None or tracks is None or folder.name != f"lofi-{record.hash[:12]}":
        return [f"{folder}: dataset.json or tracks.json is missing, or the folder was renamed"]
    rows = {key: row for split in ("train", "validation") for key, row in trainer_rows(folder / split).items()}
    faults = []
    for track in tracks:
        stem = folder / "audio" / track.track_id
        row = rows.pop(stem.name, None)
        try:
            digest, prompt, lyrics = read_track(folder, track.track_id, sha256=sha256)
        except OSError as error:
            faults.append(f"{error.filename}: is missing")
            continue
        if track.audio_sha256 not in (None, digest):
            faults.append(f"{stem}.mp3: is not the audio that tracks.json records")
        told = (f"{stem.name}.mp3", track.split, prompt.split(", "), without_language(lyrics))
        if row != told:
            faults.append(f"{stem}_prompt.txt, _lyrics.txt: differ from the row in {track.split}/")
    return [*faults, *(f"{folder}: the trainer's rows have {key}, tracks.json has not" for key in sorted(rows))]
