"""Work files of the audio chain, in `cache/tracks/`: what they are called, whether they are there, which may go.

What belongs here: names and removal. What does not: what is in them (`audio/process.py`, `track_rows.py`).

A work file carries the fingerprint of the work in its name, and the track's row is written beside it last. So a killed
run leaves nothing that a later one could mistake for another version's, and what it had finished is adopted.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lofi_assets.store import Store
from lofi_assets.track_rows import PART, Row

AUDIO = (("audio_sha256", ".mp3"), ("lossless_sha256", ".flac"))
"""Column of a row, and suffix of the file whose hash it holds."""


def work_file(store: Store, track_id: str, work: str, suffix: str = ".mp3") -> Path:
    """Where the chain writes a track; `processed/<category>/` links to it, so that a new style only moves a link.

    Args:
        work: fingerprint of the work that makes it.
    """
    return store.cache / "tracks" / f"{track_id}.{work[:12]}{suffix}"


def have_audio(store: Store, rows: Iterable[Row]) -> bool:
    """Whether every audio file that the rows tell of is there."""
    return all(
        not row.get(digest) or work_file(store, row["track_id"], row["fingerprint"], suffix).is_file()
        for row in rows
        for digest, suffix in AUDIO
    )


def clear_unfinished(store: Store, *, tables: Sequence[str]) -> None:
    """Remove the temporary files of a run that was killed; two runs on one data root at once are not supported."""
    for folder, patterns in (
        (store.cache / "tracks", (".*.part",)),
        (store.cache, tuple(f".{name}.*.part" for name in tables)),
        (store.processed, ("*/.*.part",)),
        (store.quarantine, ("sources/.*.part", "tracks/.*.part")),
        (store.metadata(""), tuple(f".{name}.*.part" for name in tables)),
    ):
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def clear_stale(store: Store, rows: Sequence[Row], wanted: Mapping[str, str]) -> None:
    """Remove work files of the present tracks that no row uses: of an earlier version, or of a track now rejected.

    Files of tracks that are not verified today stay: their rights may come back.
    """
    used = {work_file(store, track_id, work, ".json").name for track_id, work in wanted.items()}
    for row in rows:
        for digest, suffix in AUDIO:
            if row.get(digest):
                used.add(work_file(store, row["track_id"], row["fingerprint"], suffix).name)
    present = {track_id[:116] for track_id in wanted} | wanted.keys()
    for path in (store.cache / "tracks").glob("*"):
        track_id = path.name.partition(".")[0]
        if path.name not in used and (track_id in present or PART.sub("", track_id) in present):
            path.unlink()
