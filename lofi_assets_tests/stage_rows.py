"""Rows as the stages write them, for tests that begin in the middle of the lineage."""

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from lofi_assets.files.typed import write_rows
from lofi_assets.sources.inventory import SourceRow, inventory_path
from lofi_assets.store import Store
from lofi_assets.styles.prompt_text import Tag
from lofi_assets.tracks.prompt_table import PromptRow
from lofi_assets.tracks.track_table import TrackRow, TrackSound

TEMPO = Tag("tempo", "74 bpm", "signal", 0.9)


def source_row(track_id: str, **changes: Any) -> SourceRow:
    """A verified raw file."""
    about: dict[str, Any] = {
        "track_id": track_id,
        "path": f"raw/{track_id}.wav",
        "sha256": "5" * 64,
        "bytes": 4,
        "stat": "4:0",
        "status": "verified",
        "rule": "",
        "reason": "",
        "source_id": "s1",
        "license_type": "CC0",
        "provider": "Someone",
        "attribution": "",
        "measures": {},
    }
    return SourceRow(**(about | changes))


def write_sources(store: Store, rows: Iterable[SourceRow]) -> None:
    """The inventory, without a look at `raw/`."""
    write_rows(inventory_path(store), SourceRow, list(rows))


def track_row(track_id: str, **changes: Any) -> TrackRow:
    """An accepted track in the folder of core styles."""
    about: dict[str, Any] = {
        "track_id": track_id,
        "fingerprint": "f" * 64,
        "status": "accepted",
        "rule": "",
        "reason": "",
        "measures": {},
        "heard": {},
        "score_parts": {},
        "envelope": json.dumps([[0.0, 0.0]]),
        "source_sha256": "5" * 64,
        "audio_sha256": "a" * 64,
        "quality_score": 80,
        "duration": 60.0,
        "words": "",
        "source_id": "s1",
        "raw_path": f"raw/royalty-free/{track_id}.wav",
        "audio_path": f"processed/core/{track_id}.mp3",
    }
    return TrackRow(**(about | changes))


def track_sound(track_id: str, **changes: Any) -> TrackSound:
    """The part of `track_row` that a dataset is made of."""
    row = track_row(track_id, **changes)
    return TrackSound(**{field.name: getattr(row, field.name) for field in fields(TrackSound)})


def prompt_row(track_id: str, **changes: Any) -> PromptRow:
    """A tagged track about which nothing is in doubt."""
    about: dict[str, Any] = {
        "track_id": track_id,
        "status": "tagged",
        "state": "TAGGED",
        "rule": "",
        "reason": "",
        "raw_path": f"raw/royalty-free/{track_id}.wav",
        "prompt": "lofi",
        "lyrics": "[Instrumental]",
        "style_ids": ("CORE-01",),
        "style_confidence": 1.0,
        "style_origin": "human",
        "curated_styles": (),
        "needs_review": False,
        "tags": (TEMPO,),
        "unknown_curated": (),
        "unknown_in_prompt": 0,
        "notes": "",
        "measures": {},
        "audio_sha256": "a" * 64,
        "proposal": "0" * 64,
        "reviewed_by": "",
        "reviewed_on": "",
        "reviewed_styles": False,
        "file_tags": {},
        "file_tags_of": "",
        "fingerprint": "f" * 64,
    }
    return PromptRow(**(about | changes))
