"""Tracks -> prompts: what is known about each track, tagged, and the files that training reads (constitution V).

What belongs here: the prompt and lyrics files, the rows of `prompts.parquet`, `quality_scores.json`, what waits for a
person. What does not: what a row means (`prompt_table.py`), gathering the evidence (`tagged_tracks.py`), weighing it
(`tagging.py`), `style_mapping.json` (`curation.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.constitution.gates import Gate, gates_of, judge_track, load_gates
from lofi_assets.constitution.verdicts import track_rules
from lofi_assets.files.documents import write_json, write_text
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, plain
from lofi_assets.lyrics.text import LyricsError, lyrics_text
from lofi_assets.outcome import Outcome, Written
from lofi_assets.records import TrackState
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import STYLE_MAPPING, Increment, Store
from lofi_assets.styles.prompt_text import parse_prompt, prompt_text
from lofi_assets.styles.taxonomy import Taxonomy
from lofi_assets.tracks.curation import take_over, write_mapping
from lofi_assets.tracks.duplicates import read_pairs
from lofi_assets.tracks.prompt_table import (
    PromptRow,
    PromptStatus,
    prompts_path,
    write_prompt_rows,
    written_fingerprints,
)
from lofi_assets.tracks.quarantine import Quarantined, write_quarantine
from lofi_assets.tracks.review import QueueItem, Review, queue_of, read_reviews
from lofi_assets.tracks.states import advance
from lofi_assets.tracks.tagged_tracks import TaggedTrack, tag_tracks
from lofi_assets.tracks.track_table import TrackRow, accepted_tracks
from lofi_assets.wording import counted, named

PROMPTS_VERSION = "3"
"""Raised when tagging changes: every prompt is then written again."""


@dataclass(frozen=True, config=STORED)
class QualityScore:
    """A track's entry of `quality_scores.json` (data model, File Storage Layout)."""

    score: int
    """How fit it is to learn from, 0 to 100."""
    verified: bool
    """Whether a person accepted what it is now."""
    date: str | None
    """When, as YYYY-MM-DD."""
    parts: Mapping[str, float]
    """What the score is made of."""


def write_prompts(store: Store) -> Outcome:
    """Write prompt and lyrics beside each processed track, `style_mapping.json` and `prompts.parquet`."""
    taxonomy, _ = vocabulary()
    taken_over = take_over(store)
    recorded = written_fingerprints(store)
    tracks = {row.track_id: row for row in accepted_tracks(store)}
    gates = gates_of(load_gates(), asset="prompts", scope="track")
    rows = [
        _prompt_row(store, tracks[item.evidence.track_id], item, taxonomy, gates)
        for item in tag_tracks(store, list(tracks.values()))
    ]
    increment = Increment.between(wanted={row.track_id: row.fingerprint for row in rows}, recorded=recorded)
    write_prompt_rows(store, rows)
    # Once more: what a person wrote into the result meanwhile is not in these rows, and would be written over.
    taken_over = "; ".join(filter(None, (taken_over, take_over(store))))
    write_mapping(store, {row.track_id: row.style_ids for row in rows})
    _write_scores(store, {row.track_id: _score(tracks[row.track_id], row) for row in rows})
    write_quarantine(store, "prompts", [_quarantined(row) for row in rows if not row.tagged])
    outcome = _outcome(store, rows, tracks, gates, increment.counts() | {"recomputed": len(increment.todo)})
    return replace(outcome, details={**outcome.details, "taken_over": taken_over or None})


def _prompt_row(
    store: Store, track: TrackRow, item: TaggedTrack, taxonomy: Taxonomy, gates: Sequence[Gate]
) -> PromptRow:
    tags, review = item.tags, item.review
    unreadable, lyrics_fault = item.sidecars.fault, _lyrics_fault(item.sidecars.lyrics)
    fault = unreadable or lyrics_fault
    measures = {"texts_readable": not unreadable, "lyrics_valid": not lyrics_fault}
    verdict = judge_track(gates, measures)
    prompt = prompt_text(tags.tags)
    words = lyrics_text(item.evidence.lyrics)
    for path, text in zip(prompt_paths(track.audio_path), (prompt, words), strict=True):
        write_text(store.root / path, text)
    _, unknown = parse_prompt(prompt, taxonomy)
    status: PromptStatus = "rejected" if verdict else "review_rejected" if _said(review, "rejected") else "tagged"
    state = _state(bool(verdict), review)
    return PromptRow(
        track_id=track.track_id,
        status=status,
        state=state,
        rule=verdict.gate.id if verdict else "",
        reason=fault or (f"rejected by {review.by}: {review.note}" if review and status != "tagged" else ""),
        raw_path=track.raw_path,
        prompt=prompt,
        lyrics=words,
        style_ids=tags.style_ids,
        style_confidence=tags.style_confidence,
        style_origin=tags.style_origin,
        curated_styles=item.evidence.curated_styles,
        needs_review=tags.needs_review and review is None,
        tags=tags.tags,
        unknown_curated=tags.unknown_tags,
        unknown_in_prompt=len(unknown),
        notes="; ".join(tags.notes),
        measures=measures,
        audio_sha256=track.audio_sha256,
        proposal=item.proposal,
        reviewed_by=review.by if review else "",
        reviewed_on=review.at.date().isoformat() if review else "",
        reviewed_styles=bool(review and review.styles),
        file_tags=item.file_tags.texts,
        file_tags_of=item.file_tags.read_from,
        fingerprint=hash_of(PROMPTS_VERSION, prompt, words, tags.style_ids, status, state),
    )


def _said(review: Review | None, decision: str) -> bool:
    return review is not None and review.decision == decision


def _state(broken: bool, review: Review | None) -> TrackState:
    """PROCESSED if a text is broken, VERIFIED if a person accepted this very content, else TAGGED."""
    if broken:
        return advance("RAW", "PROCESSED")
    tagged = advance("PROCESSED", "TAGGED")
    return advance(tagged, "VERIFIED") if _said(review, "accepted") else tagged


def _score(track: TrackRow, row: PromptRow) -> QualityScore:
    verified = row.state == "VERIFIED"
    date = row.reviewed_on if verified else None
    return QualityScore(track.quality_score, verified, date, dict(sorted(track.score_parts.items())))


def _write_scores(store: Store, scores: Mapping[str, QualityScore]) -> None:
    write_json(store.metadata("quality_scores.json"), {track_id: plain(score) for track_id, score in scores.items()})


def _quarantined(row: PromptRow) -> Quarantined:
    return Quarantined(
        track_id=row.track_id, rule=row.rule, reason=row.reason, raw_path=row.raw_path, measures=row.measures
    )


def _lyrics_fault(lyrics: str | None) -> str:
    try:
        lyrics_text(lyrics)
    except LyricsError as error:
        return str(error)
    return ""


def prompt_paths(audio_path: str) -> tuple[str, str]:
    """Prompt and lyrics file of a processed track, beside its audio; all relative to the data root."""
    stem = audio_path.removesuffix(".mp3")
    return f"{stem}_prompt.txt", f"{stem}_lyrics.txt"


def _outcome(
    store: Store,
    rows: Sequence[PromptRow],
    tracks: Mapping[str, TrackRow],
    gates: Sequence[Gate],
    counts: Mapping[str, int],
) -> Outcome:
    tagged = [row for row in rows if row.tagged]
    texts = [path for row in tagged for path in prompt_paths(tracks[row.track_id].audio_path)]
    missing = [path for path in texts if not (store.root / path).is_file()]
    broken = [row for row in rows if row.status == "rejected"]
    rejected, refused = len(broken), len(rows) - len(tagged) - len(broken)
    sound = [row for row in rows if row.status != "rejected"]
    waiting = [item for item in queue_of(sound, pairs=read_pairs(store), reviews=read_reviews(store)) if item.reasons]
    unused = [f"{tag!r} of {row.track_id}" for row in tagged for tag in row.unknown_curated]
    return Outcome(
        data_version=hash_of([(row.track_id, row.fingerprint) for row in rows]),
        written=Written(
            files=[
                prompts_path(store),
                store.metadata("quality_scores.json"),
                *(store.root / path for path in texts),
            ],
            given=[store.metadata(STYLE_MAPPING)],  # its result, in which people write too
        ),
        summary=_summary(len(tagged), broken=rejected, refused=refused, waiting=len(waiting)),
        needs=[*map(_broken, broken), *map(_waiting, waiting)],
        counts={
            "tracks": len(tagged),
            "rejected": rejected,
            "rejected_in_review": refused,
            "verified": sum(row.state == "VERIFIED" for row in rows),
            "to_review": len(waiting),
            **counts,
        },
        values={
            "missing_sidecars": len(missing),
            "undocumented_tags": sum(row.unknown_in_prompt for row in tagged),
            "tracks_without_style": sum(not row.style_ids for row in tagged),
            "unused_curated_tags": {"value": len(unused), "note": named(unused)},
        },
        **track_rules(
            gates,
            accepted=[(row.track_id, row.measures) for row in tagged],
            rejected=[(row.track_id, row.rule) for row in broken],
        ),
        rows=[_shown(row) for row in sorted(rows, key=lambda row: (row.tagged, not row.needs_review))],
    )


def _summary(tagged: int, *, broken: int, refused: int, waiting: int) -> str:
    parts = [f"{counted(tagged, 'track')} tagged"]
    if broken:
        parts.append(f"{broken} out, since their words cannot be read or used")
    if refused:
        parts.append(f"{refused} rejected in review")
    waits = f"{waiting} {'waits' if waiting == 1 else 'wait'} for a person: lofi review list"
    return f"{', '.join(parts)}. " + (waits if waiting else "Nothing waits in the review queue") + "."


def _broken(row: PromptRow) -> dict[str, str]:
    return {"track": row.track_id, "why": f"{row.rule}: {row.reason}"}


def _waiting(item: QueueItem) -> dict[str, str]:
    return {"track": item.row.track_id, "why": "; ".join(item.reasons)}


def _shown(row: PromptRow) -> dict[str, Any]:
    return {
        "track_id": row.track_id,
        "prompt": row.prompt,
        "styles": ", ".join(row.style_ids),
        "style_origin": row.style_origin,
        "style_confidence": row.style_confidence,
        "state": row.state,
        "review": row.needs_review,
        "notes": row.reason or row.notes,
    }
