"""A person's word on a tagged track: what to look at and why, decisions, and what a decision changes.

What belongs here: `metadata/reviews.jsonl`, the queue, applying a decision to the tags. What does not: tagging itself
(`tagging.py`), styles that a person chose outside a review (`curation.py`), the terminal (`cli/review.py`).

A decision holds for exactly what was reviewed: the audio's hash and the proposal, which is the fingerprint of what
tagging says without any review. When either changes, the track waits for a person again.
"""

import fcntl
import os
from codecs import BOM_UTF8 as BOM
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import linked_to, make_folder
from lofi_assets.near_names import says_nothing
from lofi_assets.records import Record, Sha256, StyleId, TrackId
from lofi_assets.store import REVIEWS, Store
from lofi_assets.styles.prompt_text import PROMPT_CHARACTERS, parse_prompt, prompt_text, split_tags
from lofi_assets.styles.taxonomy import Taxonomy
from lofi_assets.tracks.duplicates import LikelyCopies, Pair, read_pairs
from lofi_assets.tracks.evidence import Evidence
from lofi_assets.tracks.prompt_table import PromptRow, read_prompts
from lofi_assets.tracks.tagging import STYLE_CONFIDENCE, Presets, TrackTags, tag_track

Content = tuple[str, str, str]
"""Track id, audio sha256 and proposal: what a decision is about."""


class ReviewError(LofiError, ValueError):
    """A decision that cannot be recorded or read; the message names the track or line and what to do."""


class Review(Record):
    """One decision."""

    track_id: TrackId
    """The track."""
    decision: Literal["accepted", "rejected"]
    """Accepted: TAGGED -> VERIFIED. Rejected: the track stays out of the dataset."""
    by: Annotated[str, Field(min_length=1)]
    """Who decided."""
    at: datetime
    """When (UTC)."""
    audio_sha256: Sha256
    """The MP3 that was heard."""
    proposal: Sha256
    """What tagging proposed (see `proposal_of`)."""
    styles: list[StyleId] | None = None
    """Styles that take the place of the proposed ones."""
    tags: list[str] | None = None
    """Tags that take the place of the whole proposed prompt."""
    note: str = ""
    """Reason of a rejection; anything worth knowing of an acceptance."""

    @property
    def content(self) -> Content:
        """What the decision is about."""
        return self.track_id, self.audio_sha256, self.proposal


@dataclass(frozen=True)
class QueueItem:
    """A track of the queue: why a person should look, empty for one that needs nobody."""

    row: PromptRow
    reasons: tuple[str, ...]
    decision: str
    """ "", "accepted" or "rejected": what holds for the track as it is now."""


def proposal_of(tags: TrackTags, lyrics: str) -> str:
    """Fingerprint of what tagging says of a track: prompt, lyrics, styles."""
    return hash_of("proposal-1", prompt_text(tags.tags), lyrics, tags.style_ids)


def read_reviews(store: Store) -> list[Review]:
    """Every decision, oldest first; a last line that a killed process left half written is no decision.

    Raises:
        ReviewError: another line is not a decision.
    """
    path = linked_to(store.metadata(REVIEWS))
    data = path.read_bytes().removeprefix(BOM) if path.is_file() else b""
    *lines, tail = data.split(b"\n")
    reviews = [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    return reviews + ([_parse(tail, str(path))] if _whole(tail) else [])


def _parse(line: bytes, where: str) -> Review:
    try:
        parse_json(decoded(line, where=where), where=where)
        return Review.model_validate_json(line)
    except HandWrittenError as error:
        raise ReviewError(f"{error}; mend that line") from error
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "line"
        raise ReviewError(f"{where}: not a decision ({field}: {fault['msg']}); mend that line") from error


def _whole(line: bytes) -> bool:
    try:
        Review.model_validate_json(line)
    except ValidationError:
        return False
    return True


def append_reviews(store: Store, reviews: Sequence[Review]) -> None:
    """Add decisions at the end, all or none as far as a reader can tell, on the disk before this returns."""
    path = linked_to(store.metadata(REVIEWS))
    make_folder(path.parent)
    text = "".join(review.model_dump_json(exclude_none=True) + "\n" for review in reviews)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_mended_end(file.fileno()) + text.encode())
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _mended_end(file: int) -> bytes:
    """What must precede a new line: a newline after a whole decision without one; half of a decision is cut off."""
    size = os.fstat(file).st_size
    data = os.pread(file, size, 0)
    tail = data[data.rfind(b"\n") + 1 :]
    if tail and _whole(tail):
        return b"\n"
    if tail:
        os.ftruncate(file, size - len(tail))
    return b""


def decisions(reviews: Iterable[Review]) -> dict[Content, Review]:
    """What holds for each content: the last decision about it."""
    return {review.content: review for review in reviews}


def apply_review(
    proposed: TrackTags, review: Review | None, evidence: Evidence, taxonomy: Taxonomy, presets: Presets
) -> TrackTags:
    """The tags as the reviewer left them; styles that no preset has any more are left to the proposal."""
    tags = proposed
    styles = tuple(style for style in (review.styles or ()) if style in presets) if review else ()
    if styles:
        tags = tag_track(replace(evidence, curated_styles=styles), taxonomy, presets)
    if review and review.tags:
        tags = replace(tags, tags=parse_prompt(", ".join(review.tags), taxonomy)[0])
    return tags


def queue(store: Store) -> list[QueueItem]:
    """Every tagged track with the reasons for which a person should look at it now, by track id."""
    return queue_of(list(_tagged(store).values()), pairs=read_pairs(store), reviews=read_reviews(store))


def _tagged(store: Store) -> dict[str, PromptRow]:
    """Track id -> its prompt, without the tracks whose lyrics are broken."""
    return {row.track_id: row for row in read_prompts(store) if row.status != "rejected"}


def queue_of(rows: Sequence[PromptRow], *, pairs: Sequence[Pair], reviews: Sequence[Review]) -> list[QueueItem]:
    """`queue` of prompts, pairs that are kept together, and all decisions."""
    similar = _similar(pairs, among={row.track_id for row in rows})
    holding, latest = decisions(reviews), {review.track_id: review for review in reviews}
    items = []
    for row in sorted(rows, key=lambda row: row.track_id):
        held = holding.get((row.track_id, row.audio_sha256, row.proposal))
        doubts = (*_stale(latest.get(row.track_id)), *_doubts(row), *similar.get(row.track_id, ()))
        reasons = () if held else doubts
        items.append(QueueItem(row, reasons, held.decision if held else ""))
    return items


def _stale(review: Review | None) -> list[str]:
    return [f"changed since {review.by} {review.decision} it on {review.at.date()}"] if review else []


def _doubts(row: PromptRow) -> list[str]:
    """What tagging itself was not sure of."""
    doubts = []
    if row.style_origin == "suggested" and row.style_confidence < STYLE_CONFIDENCE:
        doubts.append(f"style {', '.join(row.style_ids)} leads by only {row.style_confidence:.2f}")
    doubts += [f"curated tag {tag!r} is not in the taxonomy" for tag in row.unknown_curated]
    if not any(tag.category == "tempo" for tag in row.tags):
        doubts.append("tempo unknown")
    return doubts + row.remarks


def _similar(pairs: Sequence[Pair], *, among: set[str]) -> dict[str, list[str]]:
    """Track id -> tracks still in the library that may be the same recording; sure copies are already out."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if isinstance(pair, LikelyCopies) and {pair.a, pair.b} <= among:
            for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
                found.setdefault(one, []).append(f"may be the same recording as {other} ({pair.similarity:.2f})")
    return found


def decide(
    store: Store,
    track_ids: Sequence[str],
    *,
    decision: Literal["accepted", "rejected"],
    by: str,
    at: datetime,
    vocabulary: tuple[Taxonomy, Presets],
    styles: Sequence[str] = (),
    tags: str = "",
    note: str = "",
) -> list[Review]:
    """Record one decision about each track as `prompts` last wrote it; none if any of them cannot be recorded.

    Raises:
        ReviewError: a track that was not tagged, an unknown style or tag, tags that exclude each other or do not fit a
            prompt, a rejection without a reason, or no name.
    """
    if says_nothing(by):
        raise ReviewError("a decision needs a name: --by NAME")
    if decision == "rejected" and says_nothing(note):
        raise ReviewError("a rejection needs a reason: --reason TEXT")
    rows = _tagged(store)
    missing = sorted(set(track_ids) - rows.keys())
    if missing:
        raise ReviewError(f"{', '.join(missing)}: not among the tagged tracks; see lofi review list --all")
    words = _checked_tags(tags, vocabulary[0]) if tags.strip() else None
    reviews = [
        Review(
            track_id=track_id,
            decision=decision,
            by=by.strip(),
            at=at,
            audio_sha256=rows[track_id].audio_sha256,
            proposal=rows[track_id].proposal,
            styles=_checked_styles(styles, vocabulary[1]) or None,
            tags=words,
            note=note.strip(),
        )
        for track_id in dict.fromkeys(track_ids)
    ]
    append_reviews(store, reviews)
    return reviews


def _checked_styles(styles: Sequence[str], presets: Presets) -> list[str]:
    unknown = [style for style in styles if style not in presets]
    if unknown:
        raise ReviewError(f"{', '.join(unknown)}: no such style; there are {', '.join(presets)}")
    return list(dict.fromkeys(styles))


def _checked_tags(text: str, taxonomy: Taxonomy) -> list[str]:
    """Canonical tags of a whole prompt, in its order."""
    tags, unknown = parse_prompt(", ".join(split_tags(text)), taxonomy)
    words = [tag.tag for tag in tags]
    if unknown:
        raise ReviewError(f"{', '.join(unknown)}: not in config/styles/taxonomy.yaml; document it there or reword it")
    if not any(tag.category == "genre" for tag in tags):
        raise ReviewError("these tags name no genre; they are the whole prompt, so begin with one such as lofi")
    for one, other in ((a, b) for index, a in enumerate(words) for b in words[index + 1 :]):
        if taxonomy.contradicts(one, other):
            raise ReviewError(f"{one!r} and {other!r} exclude each other; keep one")
    if len(", ".join(words)) > PROMPT_CHARACTERS:
        raise ReviewError(f"the prompt would have more than {PROMPT_CHARACTERS} characters; leave some tags out")
    return words
