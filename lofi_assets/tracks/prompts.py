"""Tracks -> prompts: what is known about each track, tagged, and the files that training reads (constitution V).

What belongs here: the prompt and lyrics files, `prompts.parquet`, what waits for a person. What does not: gathering the
evidence (`tagged_tracks.py`), weighing it (`tagging.py`), `style_mapping.json` (`curation.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lofi_assets.constitution.gates import Gate, gates_of, judge_track, load_gates
from lofi_assets.constitution.verdicts import track_rules
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hashing import fingerprint
from lofi_assets.lyrics.text import LyricsError, lyrics_text
from lofi_assets.outcome import Outcome
from lofi_assets.records import TrackState
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import Row, Store, plan, rows_of, write_rows
from lofi_assets.styles.prompt_text import parse_prompt, prompt_text
from lofi_assets.styles.taxonomy import Taxonomy
from lofi_assets.tracks.curation import take_over, write_mapping
from lofi_assets.tracks.quarantine import write_quarantine
from lofi_assets.tracks.review import QueueItem, Review, queue_of, read_reviews
from lofi_assets.tracks.states import advance
from lofi_assets.tracks.tagged_tracks import TaggedTrack, _file_tags_key, tag_tracks
from lofi_assets.tracks.track_table import DUPLICATES, PROMPTS, SCORES, accepted_tracks
from lofi_assets.wording import counted, named

PROMPTS_VERSION = "3"
"""Raised when tagging changes: every prompt is then written again."""


def write_prompts(store: Store) -> Outcome:
    """Write prompt and lyrics beside each processed track, `style_mapping.json` and `prompts.parquet`."""
    taxonomy, _ = vocabulary()
    taken_over = take_over(store)
    recorded = {row["track_id"]: row["fingerprint"] for row in rows_of(store, PROMPTS)}
    tracks = {row["track_id"]: row for row in accepted_tracks(store)}
    gates = gates_of(load_gates(), asset="prompts", scope="track")
    rows = [
        _prompt_row(store, tracks[item.evidence.track_id], item, taxonomy, gates)
        for item in tag_tracks(store, list(tracks.values()))
    ]
    increment = plan(wanted={row["track_id"]: row["fingerprint"] for row in rows}, recorded=recorded)
    write_rows(store, PROMPTS, rows)
    # Once more: what a person wrote into the result meanwhile is not in these rows, and would be written over.
    taken_over = "; ".join(filter(None, (taken_over, take_over(store))))
    write_mapping(store, {row["track_id"]: json.loads(row["style_ids"]) for row in rows})
    write_json(store.metadata(SCORES), {row["track_id"]: _score(tracks[row["track_id"]], row) for row in rows})
    write_quarantine(store, "prompts", [row for row in rows if row["status"] != "tagged"])
    outcome = _outcome(store, rows, taxonomy, gates, increment.counts() | {"recomputed": len(increment.todo)})
    return replace(outcome, details={**outcome.details, "taken_over": taken_over or None})


def _prompt_row(
    store: Store, track: Row, item: TaggedTrack, taxonomy: Taxonomy, gates: Sequence[Gate]
) -> dict[str, Any]:
    tags, review = item.tags, item.review
    unreadable, lyrics_fault = item.sidecars.fault, _lyrics_fault(item.sidecars.lyrics)
    fault = unreadable or lyrics_fault
    measures = {"texts_readable": not unreadable, "lyrics_valid": not lyrics_fault}
    verdict = judge_track(gates, measures)
    prompt = prompt_text(tags.tags)
    words = lyrics_text(item.evidence.lyrics)
    for path, text in zip(prompt_paths(track), (prompt, words), strict=True):
        write_text(store.root / path, text)
    _, unknown = parse_prompt(prompt, taxonomy)
    status = "rejected" if verdict else "review_rejected" if _said(review, "rejected") else "tagged"
    state = _state(bool(verdict), review)
    return {
        "track_id": track["track_id"],
        "status": status,
        "state": state,
        "rule": verdict.gate.id if verdict else "",
        "raw_path": track["raw_path"],
        "reason": fault or (f"rejected by {review.by}: {review.note}" if review and status != "tagged" else ""),
        "prompt": prompt,
        "lyrics": words,
        "style_ids": json.dumps(tags.style_ids),
        "style_confidence": tags.style_confidence,
        "style_origin": tags.style_origin,
        "curated_styles": json.dumps(item.evidence.curated_styles),
        "needs_review": tags.needs_review and review is None,
        "tags": json.dumps([asdict(tag) for tag in tags.tags]),
        "unknown_curated": json.dumps(tags.unknown_tags),
        "unknown_in_prompt": len(unknown),
        "notes": "; ".join(tags.notes),
        "measures": json.dumps(measures),
        "audio_sha256": track["audio_sha256"],
        "proposal": item.proposal,
        "reviewed_by": review.by if review else "",
        "reviewed_on": review.at.date().isoformat() if review else "",
        "reviewed_styles": bool(review and review.styles),
        "file_tags": json.dumps(item.file_tags),
        "file_tags_of": _file_tags_key(track),
        "fingerprint": fingerprint(PROMPTS_VERSION, prompt, words, tags.style_ids, status, state),
    }


def _said(review: Review | None, decision: str) -> bool:
    return review is not None and review.decision == decision


def _state(broken: bool, review: Review | None) -> TrackState:
    """PROCESSED if a text is broken, VERIFIED if a person accepted this very content, else TAGGED."""
    if broken:
        return advance("RAW", "PROCESSED")
    tagged = advance("PROCESSED", "TAGGED")
    return advance(tagged, "VERIFIED") if _said(review, "accepted") else tagged


def _score(track: Row, row: Row) -> dict[str, Any]:
    """A track's entry of `quality_scores.json`: how fit it is, and when a person accepted what it is now."""
    verified = row["state"] == "VERIFIED"
    return {
        "score": int(track["quality_score"]),
        "verified": verified,
        "date": row["reviewed_on"] if verified else None,
        "parts": json.loads(track["score_parts"]),
    }


def _lyrics_fault(lyrics: str | None) -> str:
    try:
        lyrics_text(lyrics)
    except LyricsError as error:
        return str(error)
    return ""


def prompt_paths(track: Row) -> tuple[str, str]:
    """Prompt and lyrics file of a processed track, beside its audio, relative to the data root."""
    stem = track["audio_path"].removesuffix(".mp3")
    return f"{stem}_prompt.txt", f"{stem}_lyrics.txt"


def _outcome(
    store: Store, rows: Sequence[Row], taxonomy: Taxonomy, gates: Sequence[Gate], counts: Mapping[str, int]
) -> Outcome:
    tagged = [row for row in rows if row["status"] == "tagged"]
    tracks = {row["track_id"]: row for row in accepted_tracks(store)}
    missing = [
        path for row in tagged for path in prompt_paths(tracks[row["track_id"]]) if not (store.root / path).is_file()
    ]
    broken = [row for row in rows if row["status"] == "rejected"]
    rejected, refused = len(broken), len(rows) - len(tagged) - len(broken)
    pairs, reviews = read_json(store.metadata(DUPLICATES), default=[]), read_reviews(store)
    queue = queue_of([row for row in rows if row["status"] != "rejected"], pairs=pairs, reviews=reviews)
    waiting = [item for item in queue if item.reasons]
    unused = [f"{tag!r} of {row['track_id']}" for row in tagged for tag in json.loads(row["unknown_curated"])]
    return Outcome(
        data_version=fingerprint([(row["track_id"], row["fingerprint"]) for row in rows]),
        summary=_summary(len(tagged), broken=rejected, refused=refused, waiting=len(waiting)),
        needs=[*map(_broken, broken), *map(_waiting, waiting)],
        counts={
            "tracks": len(tagged),
            "rejected": rejected,
            "rejected_in_review": refused,
            "verified": sum(row["state"] == "VERIFIED" for row in rows),
            "to_review": len(waiting),
            **counts,
        },
        values={
            "missing_sidecars": len(missing),
            "undocumented_tags": sum(row["unknown_in_prompt"] for row in tagged),
            "tracks_without_style": sum(not json.loads(row["style_ids"]) for row in tagged),
            "unused_curated_tags": {"value": len(unused), "note": named(unused)},
        },
        **track_rules(
            gates,
            accepted=[(row["track_id"], json.loads(row["measures"])) for row in tagged],
            rejected=[(row["track_id"], row["rule"]) for row in broken],
        ),
        rows=[_shown(row) for row in sorted(rows, key=lambda row: (row["status"] == "tagged", -row["needs_review"]))],
    )


def _summary(tagged: int, *, broken: int, refused: int, waiting: int) -> str:
    parts = [f"{counted(tagged, 'track')} tagged"]
    if broken:
        parts.append(f"{broken} out, since their words cannot be read or used")
    if refused:
        parts.append(f"{refused} rejected in review")
    waits = f"{waiting} {'waits' if waiting == 1 else 'wait'} for a person: lofi review list"
    return f"{', '.join(parts)}. " + (waits if waiting else "Nothing waits in the review queue") + "."


def _broken(row: Row) -> dict[str, str]:
    return {"track": row["track_id"], "why": f"{row['rule']}: {row['reason']}"}


def _waiting(item: QueueItem) -> dict[str, str]:
    return {"track": item.row["track_id"], "why": "; ".join(item.reasons)}


def _styles(row: Row) -> str:
    return ", ".join(json.loads(row["style_ids"]))


def _shown(row: Row) -> dict[str, Any]:
    return {
        "track_id": row["track_id"],
        "prompt": row["prompt"],
        "styles": _styles(row),
        "style_origin": row["style_origin"],
        "style_confidence": row["style_confidence"],
        "state": row["state"],
        "review": bool(row["needs_review"]),
        "notes": row["reason"] or row["notes"],
    }
