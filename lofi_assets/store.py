"""Where everything lives, and how it is written.

What belongs here: paths of the storage layout (data model, File Storage Layout; design.md section 2), JSON and Parquet
tables, content hashes, and increments (new, stale, unchanged, orphaned). What does not: how a file is replaced
(`files.py`, whose names are also here), and what the files mean.
"""

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.errors import explanation
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_json
from lofi_assets.files.writing import StoreError as StoreError
from lofi_assets.files.writing import atomic_folder as atomic_folder
from lofi_assets.files.writing import atomic_path as atomic_path
from lofi_assets.files.writing import copy_file, linked_to
from lofi_assets.files.writing import locked as locked

if TYPE_CHECKING:
    import pandas as pd

READ_BLOCK = 1 << 20
"""Bytes read at a time when hashing."""


@dataclass(frozen=True)
class Store:
    """Paths under one data root. The root may be moved: everything recorded is relative to it."""

    root: Path

    @property
    def raw(self) -> Path:
        """Audio as acquired: commissioned/, royalty-free/, creative-commons/, partnerships/."""
        return self.root / "raw"

    @property
    def processed(self) -> Path:
        """`<style category>/<track_id>.mp3`."""
        return self.root / "processed"

    @property
    def quarantine(self) -> Path:
        """`<stage>/<track_id>.json` for every rejected track: rule, reason, measures."""
        return self.root / "quarantine"

    @property
    def final(self) -> Path:
        """Training split: MP3, prompt and lyrics side by side."""
        return self.root / "final"

    @property
    def validation(self) -> Path:
        """Validation split, laid out as `final`."""
        return self.root / "validation"

    @property
    def datasets(self) -> Path:
        """`<dataset_id>/`, one immutable folder per version."""
        return self.root / "dataset"

    @property
    def cache(self) -> Path:
        """Derived data that can be deleted at any time."""
        return self.root / "cache"

    @property
    def features(self) -> Path:
        """Latents and text states, content-addressed."""
        return self.cache / "features"

    @property
    def checkpoints(self) -> Path:
        """`epoch=0-step={N}_lora/` and manifest.json."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """Training logs, one JSON object per line."""
        return self.root / "logs"

    @property
    def samples(self) -> Path:
        """`<checkpoint_id>/*.mp3`."""
        return self.root / "samples"

    @property
    def listening(self) -> Path:
        """The blind listening test: page, clips, results.jsonl."""
        return self.root / "listening"

    @property
    def merged(self) -> Path:
        """`<checkpoint_id>/`: base with the LoRA merged in, in the Hub's layout."""
        return self.root / "models" / "merged"

    @property
    def base_models(self) -> Path:
        """Bases that the project writes itself."""
        return self.root / "models" / "base"

    @property
    def quantized(self) -> Path:
        """`fp32|fp16|int8|int4/`: ONNX components per tier (fp32 is the baseline of the tolerances)."""
        return self.root / "quantized"

    @property
    def export(self) -> Path:
        """The deployable bundle."""
        return self.root / "export"

    @property
    def release(self) -> Path:
        """The folder that is published, with the model card."""
        return self.root / "release"

    @property
    def alerts(self) -> Path:
        """What people were told, and what waits for a receiver that is down."""
        return self.root / "alerts"

    def metadata(self, name: str) -> Path:
        """A file of `metadata/`."""
        return self.root / "metadata" / name

    def measures(self, asset: str) -> Path:
        """The numbers an asset wrote for its gates."""
        return self.root / "metadata" / "measures" / f"{asset}.json"

    def relative(self, path: Path) -> str:
        """`path` as stored in records: POSIX, relative to the data root."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Increment:
    """What a stage has to do, by identifier: recorded fingerprints against the wanted ones."""

    new: tuple[str, ...]
    stale: tuple[str, ...]
    unchanged: tuple[str, ...]
    orphaned: tuple[str, ...]

    @property
    def todo(self) -> tuple[str, ...]:
        """Identifiers to compute, sorted."""
        return tuple(sorted((*self.new, *self.stale)))

    def counts(self) -> dict[str, int]:
        """Number of identifiers in each state."""
        return {name: len(getattr(self, name)) for name in ("new", "stale", "unchanged", "orphaned")}


def plan(*, wanted: Mapping[str, str], recorded: Mapping[str, str]) -> Increment:
    """Compare wanted with recorded fingerprints (identifier -> fingerprint)."""
    return Increment(
        new=tuple(sorted(wanted.keys() - recorded.keys())),
        stale=tuple(sorted(key for key in wanted.keys() & recorded.keys() if wanted[key] != recorded[key])),
        unchanged=tuple(sorted(key for key in wanted.keys() & recorded.keys() if wanted[key] == recorded[key])),
        orphaned=tuple(sorted(recorded.keys() - wanted.keys())),
    )


def fingerprint(*parts: object) -> str:
    """sha256 (hex) of the canonical JSON of `parts`: the same for the same values on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_canonical)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> str:
    if isinstance(value, Path | date):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical form to fingerprint; pass JSON data")


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_folder(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `folder`, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def write_text(path: Path, text: str) -> bool:
    """Write UTF-8 text atomically; an identical file is left untouched. Returns whether it was written."""
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return True


def write_json(path: Path, data: object) -> bool:
    """Write indented JSON atomically (non-finite numbers are refused); returns whether the file changed."""
    return write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, default: Any = None, remedy: str = "mend or remove the file and run again") -> Any:
    """Parsed JSON, or `default` if the file is absent.

    Args:
        remedy: what a person does about a broken file.
    Raises:
        StoreError: the file is not JSON, cannot be opened, or is a link that leads nowhere; a key stands twice or a
            number is none (`hand_written`).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path}: is no file; move away what stands there and run again")
        return parse_json(decoded(path.read_bytes(), where=str(path)), where=str(path))
    except FileNotFoundError:
        linked_to(path)
        return default
    except OSError as error:
        raise StoreError(explanation(error) or f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except HandWrittenError as error:
        raise StoreError(f"{error}; {remedy}") from error


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet, atomically. Same rows, same bytes: no index, no time stamps."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def read_table(path: Path) -> "pd.DataFrame":
    """A Parquet table, empty if the file is absent.

    Raises:
        StoreError: the file is not Parquet, or a link that leads nowhere.
    """
    import pandas as pd

    if not linked_to(path).is_file():
        return pd.DataFrame()
    try:
        return pd.read_parquet(path)
    except Exception as error:
        raise _not_parquet(path, error) from error


def _not_parquet(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: not a Parquet table ({error}); remove it, the next run writes it anew")


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a Parquet table; none if the file is absent.

    Raises:
        StoreError: as `read_table`.
    """
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names)
    except FileNotFoundError:
        linked_to(path)
        return []
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


def read_columns(path: Path, *columns: str) -> list[dict[str, Any]]:
    """Rows of a Parquet table with a few of its columns, since others may hold megabytes; empty if the file is absent.

    Raises:
        StoreError: as `read_table`; a table with rows lacks one of the columns.
    """
    present = table_columns(path)
    if not present:
        return []
    if missing := sorted(set(columns) - set(present)):
        raise StoreError(f"{path}: lacks {', '.join(missing)}; materialise its asset again")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(columns)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


def link_or_copy(source: Path, target: Path) -> bool:
    """Make `target` the same bytes as `source`, by a hard link where possible; returns whether it acted.

    For what nobody opens: a program that writes into one of the two changes both. Else `files.copy_file`.
    """
    if target.is_file() and (target.samefile(source) or sha256_file(target) == sha256_file(source)):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        copy_file(source, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def stat_key(path: Path) -> str:
    """Size and times of writing and of change: cheap evidence that a file's recorded hash still holds.

    A tagger may keep the size and set the time of writing back, but nothing sets the time of change.
    """
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def remembered(path: Path, compute: Callable[[Path], str], memory: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """`(stat_key, value)` of a file, taken from `memory` if size and times are as remembered, else computed."""
    key = stat_key(path)
    known = memory.get(str(path))
    return known if known and known[0] == key else (key, compute(path))
