"""The hash that names a dataset version: of its tracks and what they say, whatever order or machine they come from."""

from collections.abc import Iterable
from typing import Any

from lofi_assets.files.hashing import hash_of
from lofi_assets.records import Track


def hash_row(track: Track, audio_sha256: str, prompt: str, lyrics: str) -> tuple[Any, ...]:
    """What one track adds to the hash: its record's split, styles and source, and the content of its three files."""
    stated = (track.split, track.style_ids, track.source_id)
    return (track.track_id, audio_sha256, prompt, lyrics, *stated)


def hash_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    """The hash of a version from its rows, in whatever order."""
    return hash_of("dataset-1", sorted(rows))
