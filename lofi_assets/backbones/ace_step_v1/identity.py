"""Which base model a folder holds, without loading it: features, runs and merges record this fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import Any


def base_fingerprint(directory: Path) -> str:
    """Hash of a base model: SHA-256 over the sorted names and SHA-256 sums of its JSON and safetensors files.

    Sums are kept beside the model in `.fingerprint.json` with size and time, since the real model is 8 GB.
    """
    note = directory / ".fingerprint.json"
    known: dict[str, dict[str, Any]] = json.loads(note.read_text()) if note.is_file() else {}
    files = sorted(path for path in directory.rglob("*") if path.suffix in {".json", ".safetensors"} and path != note)
    fresh = {str(path.relative_to(directory)): _file_sum(path, known, directory) for path in files}
    if fresh != known:
        _write_note(note, fresh)
    total = hashlib.sha256()
    for name, entry in fresh.items():
        total.update(f"{name}\0{entry['sha256']}\n".encode())
    return total.hexdigest()


def _file_sum(path: Path, known: dict[str, dict[str, Any]], directory: Path) -> dict[str, Any]:
    stat = path.stat()
    entry = known.get(str(path.relative_to(directory)), {})
    if (entry.get("size"), entry.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
        return entry
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}


def _write_note(note: Path, sums: dict[str, dict[str, Any]]) -> None:
    try:
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps(sums, indent=1, sort_keys=True))
        partial.replace(note)
    except OSError:
        # a read-only model folder (a shared snapshot) costs a hash on each call, nothing else
        return
