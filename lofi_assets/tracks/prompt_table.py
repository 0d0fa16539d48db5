"""`prompts.parquet`: every accepted track with its tags, and what a person and the texts beside it made of them.

What belongs here: the rows and their meaning, reading and writing them. What does not: making them (`prompts.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_rows, write_rows
from lofi_assets.records import TrackState
from lofi_assets.store import Store
from lofi_assets.styles.prompt_text import Tag
from lofi_assets.tracks.tagging import StyleOrigin

PromptStatus = Literal["tagged", "rejected", "review_rejected"]
"""Rejected: a text beside the track breaks a gate. Review_rejected: a person keeps it out."""

_REMEDY = "materialise prompts again"
_ANEW = "remove it, prompts writes it anew"


@dataclass(frozen=True, kw_only=True, config=STORED)
class PromptRow:
    """A track with its prompt."""

    track_id: str
    status: PromptStatus
    state: TrackState
    rule: str
    """The gate that a text missed; empty for one that is tagged, and where a person rejected the track."""
    reason: str
    raw_path: str
    """Of the raw file, relative to the data root."""
    prompt: str
    lyrics: str
    style_ids: tuple[str, ...]
    """The first decides the folder."""
    style_confidence: float
    """By how much a suggested style leads, 0 to 1; 1 for one that a person chose."""
    style_origin: StyleOrigin
    curated_styles: tuple[str, ...]
    """What people chose for the track, apart from a review."""
    needs_review: bool
    tags: tuple[Tag, ...]
    unknown_curated: tuple[str, ...]
    """Curated tags that the taxonomy lacks."""
    unknown_in_prompt: int
    """Words of the prompt that the taxonomy lacks."""
    notes: str
    """What a person should know, with semicolons between."""
    measures: Mapping[str, bool]
    """What the gates on texts judged."""
    audio_sha256: str
    """Of the MP3 that was tagged."""
    proposal: str
    """Fingerprint of the tags without any review (`review.proposal_of`)."""
    reviewed_by: str
    """Whose decision holds; empty without one, as is the next."""
    reviewed_on: str
    """Day of that decision, YYYY-MM-DD."""
    reviewed_styles: bool
    """Whether that decision names styles."""
    file_tags: Mapping[str, tuple[str, ...]]
    """What the raw file says of itself (`file_tags.FileTags.texts`)."""
    file_tags_of: str
    """What they were read from (`file_tags.FileTags.read_from`)."""
    fingerprint: str
    """Of what is written for the track."""

    @property
    def tagged(self) -> bool:
        """Whether it may enter a dataset."""
        return self.status == "tagged"

    @property
    def remarks(self) -> list[str]:
        """The notes one by one."""
        return [note for note in self.notes.split("; ") if note]


@dataclass(frozen=True, kw_only=True, config=STORED)
class TrackPrompt:
    """The part of a row that a dataset is made of."""

    track_id: str
    status: PromptStatus
    state: TrackState
    prompt: str
    lyrics: str
    style_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=STORED)
class PromptVerdict:
    """The part of a row that says whether the track's texts can be used."""

    track_id: str
    status: PromptStatus
    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True, config=STORED)
class GivenStyles:
    """The part of a row that says whose word its styles are."""

    track_id: str
    style_ids: tuple[str, ...]
    style_origin: StyleOrigin
    curated_styles: tuple[str, ...]
    reviewed_styles: bool = False
    """A row from before there were reviews has none."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class _Written:
    track_id: str
    fingerprint: str


def prompts_path(store: Store) -> Path:
    """Where the table lies."""
    return store.metadata("prompts.parquet")


def read_prompts(store: Store) -> list[PromptRow]:
    """Every track that was tagged, whatever became of it; none before the first materialisation.

    Raises:
        StoreError: the table cannot be read, or is of another version.
    """
    return read_rows(prompts_path(store), PromptRow, remedy=_REMEDY)


def write_prompt_rows(store: Store, rows: Sequence[PromptRow]) -> None:
    """Write the table."""
    write_rows(prompts_path(store), PromptRow, rows)


def track_prompts(store: Store) -> list[TrackPrompt]:
    """What a dataset needs to know of every track.

    Raises:
        StoreError: as `read_prompts`.
    """
    return read_rows(prompts_path(store), TrackPrompt, remedy=_REMEDY, whole=False)


def prompt_verdicts(store: Store) -> list[PromptVerdict]:
    """Whether the texts of every track can be used.

    Raises:
        StoreError: as `read_prompts`.
    """
    return read_rows(prompts_path(store), PromptVerdict, remedy=_REMEDY, whole=False)


def given_styles(store: Store) -> dict[str, GivenStyles]:
    """Track id -> its styles and whose word they are.

    Raises:
        StoreError: as `read_prompts`.
    """
    return {row.track_id: row for row in read_rows(prompts_path(store), GivenStyles, remedy=_ANEW, whole=False)}


def written_fingerprints(store: Store) -> dict[str, str]:
    """Track id -> fingerprint of what is written for it, by whichever version.

    Raises:
        StoreError: the table cannot be read.
    """
    rows = read_rows(prompts_path(store), _Written, remedy=_ANEW, whole=False)
    return {row.track_id: row.fingerprint for row in rows}
