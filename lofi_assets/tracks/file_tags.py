"""What a raw file says of itself, read once and kept in its track's row.

What belongs here: when the file has to be read. What does not: reading its tags (`audio/metadata.py`), what they mean
(`tagging.py`).
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.audio.metadata import METADATA_VERSION, read_tags
from lofi_assets.files.typed import STORED


@dataclass(frozen=True, config=STORED)
class FileTags:
    """The tags of a raw file."""

    read_from: str
    """Version of the reader, and sha256 of the file that it read (`tags_key`)."""
    texts: Mapping[str, tuple[str, ...]]
    """Field (`audio.metadata.FIELDS`) -> texts."""


def tags_key(source_sha256: str) -> str:
    """What tags depend on: they are read anew when it moves."""
    return f"{METADATA_VERSION}:{source_sha256}"


def current_tags(raw: Path, *, source_sha256: str, recorded: FileTags | None) -> FileTags:
    """The recorded tags if they are of this content, else what the file says; never raises for anything in it.

    Args:
        recorded: None for a row of a version that kept them with the prompts.
    """
    key = tags_key(source_sha256)
    if recorded and recorded.read_from == key:
        return recorded
    return FileTags(key, {field: tuple(texts) for field, texts in read_tags(raw).items()})
