"""Quarantine: one file per rejected track of a stage, with the rule and the numbers.

What belongs here: writing them. What does not: why a track is rejected (`processed_tracks.py`, `prompts.py`).
"""

import json
from collections.abc import Iterable

from lofi_assets.files.documents import write_json
from lofi_assets.store import Row, Store


def write_quarantine(store: Store, stage: str, rows: Iterable[Row]) -> None:
    """`quarantine/<track_id>.json` for every rejected track of a stage; files of tracks that were mended go."""
    folder = store.quarantine / stage
    wanted = {f"{row['track_id']}.json": row for row in rows}
    for path in folder.glob("*.json") if folder.is_dir() else []:
        if path.name not in wanted:
            path.unlink()
    for name, row in wanted.items():
        about = {key: row.get(key) for key in ("track_id", "rule", "reason", "raw_path", "path", "source_id")}
        measures = json.loads(row.get("measures") or "{}")
        write_json(folder / name, {key: value for key, value in about.items() if value} | {"measures": measures})
