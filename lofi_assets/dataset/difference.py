"""What differs between two dataset versions, track by track."""

from collections import Counter
from pathlib import Path
from typing import Any

from lofi_assets.dataset.versions import DatasetError, read_texts
from lofi_assets.files.documents import read_json


def difference(before: Path, after: Path) -> dict[str, Any]:
    """What changed from one version to another: tracks by id, each changed field as [before, after]."""
    sides = [_contents(folder) for folder in (before, after)]
    first, second = sides
    common = sorted(first.keys() & second.keys())
    changed = {
        field: {
            key: [first[key][field], second[key][field]] for key in common if first[key][field] != second[key][field]
        }
        for field in ("split", "prompt", "lyrics", "audio", "style_ids", "source_id")
    }
    styles = [Counter(track["style_ids"][0] for track in side.values()) for side in sides]
    return {
        "versions": [before.name, after.name],
        "tracks": [len(side) for side in sides],
        "hours": [round(sum(track["duration"] for track in side.values()) / 3600, 4) for side in sides],
        "splits": {
            split: [sum(track["split"] == split for track in side.values()) for side in sides]
            for split in ("train", "validation")
        },
        "styles": {name: [n[name] for n in styles] for name in sorted(styles[0] | styles[1])},
        "added": sorted(second.keys() - first.keys()),
        "removed": sorted(first.keys() - second.keys()),
        "changed": changed,
    }


def _contents(folder: Path) -> dict[str, dict[str, Any]]:
    contents = {}
    for item in read_json(folder / "tracks.json", default=[]):
        try:
            texts = dict(zip(("prompt", "lyrics"), read_texts(folder, item["track_id"]), strict=True))
        except OSError as error:
            raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {folder.name}") from error
        contents[item["track_id"]] = item | texts | {"audio": item.get("audio_sha256")}
    return contents
