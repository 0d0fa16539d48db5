"""Tracks -> prompts: what is known about each track, tagged, and the files that training reads (constitution V).

What belongs here: gathering the evidence, the prompt and lyrics files, `style_mapping.json`, `prompts.parquet`.
What does not: the weighing of evidence (`tagging.py`), the vocabulary (`styles.py`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from lofi_assets.constitution import CONFIG_DIR, Gate, gates_of, judge_track, load_gates
from lofi_assets.evidence import Evidence
from lofi_assets.library import PROMPTS, Row, accepted_tracks, curated, rows_of, write_quarantine, write_rows
from lofi_assets.lyrics import LyricsError, lyrics_text
from lofi_assets.outcome import Outcome
from lofi_assets.records import STYLE_PREFIXES, StylePreset
from lofi_assets.sources import curator_sidecars
from lofi_assets.store import Store, fingerprint, plan, write_json, write_text
from lofi_assets.styles import Taxonomy, load_presets, load_taxonomy, preset_tags, taxonomy_fingerprint
from lofi_assets.tagging import (
    TrackTags,
    parse_prompt,
    prompt_text,
    split_tags,
    tag_track,
)
from lofi_assets.verdicts import track_rule_counts

PROMPTS_VERSION = "2"
"""Raised when tagging changes: every prompt is then written again."""


@cache
def vocabulary() -> tuple[Taxonomy, Mapping[str, StylePreset]]:
    """Taxonomy and presets of this checkout."""
    taxonomy = load_taxonomy(CONFIG_DIR)
    return taxonomy, load_presets(CONFIG_DIR, taxonomy)


def describe_taxonomy() -> Outcome:
    """The vocabulary as the UI shows it; loading it has already refused what contradicts itself."""
    taxonomy, presets = vocabulary()
    used = {tag for preset in presets.values() for tags in preset_tags(preset).values() for tag in tags}
    return Outcome(
        data_version=taxonomy_fingerprint(taxonomy, presets),
        counts={
            "categories": len(taxonomy.categories),
            "tags": sum(len(category.tags) for category in taxonomy.categories),
            "presets": len(presets),
        },
        values={
            "presets": len(presets),
            "undocumented_tags": sum(taxonomy.canonical(tag) is None for tag in used),
        },
        rows=[
            {
                "style": preset.style_id,
                "name": preset.name,
                "category": preset.category,
                "extends": preset.extends or "",
                "tempo": f"{preset.tempo_range[0]}-{preset.tempo_range[1]} bpm",
                "tags": ", ".join((*preset.base_tags, *preset.instruments, *preset.production)),
            }
            for preset in presets.values()
        ],
    )


def curated_tempo_ranges(store: Store) -> dict[str, tuple[int, int]]:
    """Track id -> tempo range of the first style that a curator named for it."""
    _, presets = vocabulary()
    return {
        track_id: presets[styles[0]].tempo_range
        for track_id, styles in curated(store).items()
        if styles and styles[0] in presets
    }


def categories(store: Store) -> Callable[[Sequence[Row]], dict[str, str]]:
    """A function from processed rows to the style category that decides each track's folder."""

    def decide(rows: Sequence[Row]) -> dict[str, str]:
        return {tags.track_id: category_of(tags.style_ids) for tags in _tag(store, rows)}

    return decide


def category_of(style_ids: Sequence[str]) -> str:
    """Style category of a track: that of its first style."""
    return STYLE_PREFIXES[style_ids[0].partition("-")[0]]


def _tag(store: Store, rows: Sequence[Row]) -> list[TrackTags]:
    taxonomy, presets = vocabulary()
    named = curated(store)
    return [tag_track(evidence(store, row, named.get(row["track_id"], ())), taxonomy, presets) for row in rows]


def evidence(store: Store, row: Row, styles: tuple[str, ...]) -> Evidence:
    """What is known about a processed track: the curator's files, and what the audio chain measured and heard."""
    prompt, lyrics = curator_sidecars(store, row["raw_path"])
    measures = json.loads(row["measures"])
    heard = json.loads(row["heard"])
    return Evidence(
        track_id=row["track_id"],
        curated_tags=split_tags(prompt),
        curated_styles=styles,
        bpm=measures.get("tempo_bpm"),
        bpm_confidence=measures.get("tempo_confidence") or 0.0,
        signals=measures,
        msd=heard.get("msd", {}),
        mtt=heard.get("mtt", {}),
        lyrics=lyrics if _valid_lyrics(lyrics) else None,
    )


def _valid_lyrics(lyrics: str | None) -> bool:
    try:
        lyrics_text(lyrics)
    except LyricsError:
        return False
    return True


def write_prompts(store: Store) -> Outcome:
    """Write prompt and lyrics beside each processed track, `style_mapping.json` and `prompts.parquet`."""
    taxonomy, _ = vocabulary()
    recorded = {row["track_id"]: row["fingerprint"] for row in rows_of(store, PROMPTS)}
    tracks = {row["track_id"]: row for row in accepted_tracks(store)}
    gates = gates_of(load_gates(), asset="prompts", scope="track")
    rows = [
        _prompt_row(store, tracks[tags.track_id], tags, taxonomy, gates) for tags in _tag(store, list(tracks.values()))
    ]
    increment = plan(wanted={row["track_id"]: row["fingerprint"] for row in rows}, recorded=recorded)
    named = curated(store)
    write_rows(store, PROMPTS, rows)
    styles = {row["track_id"]: json.loads(row["style_ids"]) for row in rows}
    write_json(store.metadata("style_mapping.json"), {key: list(value) for key, value in named.items()} | styles)
    write_quarantine(store, "prompts", [row for row in rows if row["status"] == "rejected"])
    return _outcome(store, rows, taxonomy, gates, increment.counts() | {"recomputed": len(increment.todo)})


def _prompt_row(store: Store, track: Row, tags: TrackTags, taxonomy: Taxonomy, gates: Sequence[Gate]) -> dict[str, Any]:
    _, lyrics = curator_sidecars(store, track["raw_path"])
    reason = _lyrics_fault(lyrics)
    measures = {"lyrics_valid": not reason}
    verdict = judge_track(gates, measures)
    prompt = prompt_text(tags.tags)
    words = lyrics_text(None if reason else lyrics)
    for path, text in zip(prompt_paths(track), (prompt, words), strict=True):
        write_text(store.root / path, text)
    _, unknown = parse_prompt(prompt, taxonomy)
    return {
        "track_id": track["track_id"],
        "status": "rejected" if verdict else "tagged",
        "rule": verdict.gate.id if verdict else "",
        "reason": reason,
        "prompt": prompt,
        "lyrics": words,
        "style_ids": json.dumps(tags.style_ids),
        "style_confidence": tags.style_confidence,
        "style_origin": tags.style_origin,
        "needs_review": tags.needs_review,
        "tags": json.dumps([asdict(tag) for tag in tags.tags]),
        "unknown_curated": json.dumps(tags.unknown_tags),
        "unknown_in_prompt": len(unknown),
        "notes": "; ".join(tags.notes),
        "measures": json.dumps(measures),
        "fingerprint": fingerprint(PROMPTS_VERSION, prompt, words, tags.style_ids, bool(verdict)),
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
    rejected = len(rows) - len(tagged)
    return Outcome(
        data_version=fingerprint([(row["track_id"], row["fingerprint"]) for row in rows]),
        counts={
            "tracks": len(tagged),
            "rejected": rejected,
            "to_review": sum(bool(row["needs_review"]) for row in tagged),
            **counts,
        },
        values={
            "missing_sidecars": len(missing),
            "undocumented_tags": sum(row["unknown_in_prompt"] for row in tagged),
            "tracks_without_style": sum(not json.loads(row["style_ids"]) for row in tagged),
            "unused_curated_tags": sum(len(json.loads(row["unknown_curated"])) for row in tagged),
        },
        tracks=track_rule_counts(
            gates,
            accepted=[json.loads(row["measures"]) for row in tagged],
            rejected_by={"prompts.lyrics": rejected},
        ),
        rows=[_shown(row) for row in rows],
    )


def _shown(row: Row) -> dict[str, Any]:
    return {
        "track_id": row["track_id"],
        "prompt": row["prompt"],
        "styles": ", ".join(json.loads(row["style_ids"])),
        "style_origin": row["style_origin"],
        "style_confidence": row["style_confidence"],
        "review": bool(row["needs_review"]),
        "notes": row["reason"] or row["notes"],
    }
