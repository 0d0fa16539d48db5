"""`raw_inventory.parquet`: every raw file with its claim, verdict and hash, as `licensed_sources` last found it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_rows, write_rows
from lofi_assets.sources.claims import SourceVerdict
from lofi_assets.sources.rights import ClaimMeasure
from lofi_assets.store import Store


@dataclass(frozen=True, kw_only=True, config=STORED)
class KnownFile:
    """What an inventory has to say to the next one."""

    track_id: str
    path: str
    """Relative to the data root, POSIX."""
    sha256: str
    """Empty for a file that cannot be used."""
    stat: str
    """Size and times when it was read; empty for a file that cannot be used."""
    status: Literal["verified", "rejected"]


@dataclass(frozen=True, kw_only=True, config=STORED)
class SourceRow(KnownFile):
    """One raw file with what was decided about it."""

    bytes: int
    rule: str
    """The first gate missed; empty for a verified file."""
    reason: str
    source_id: str
    """Of the one record that claims it; empty without one, as are the next three."""
    license_type: str
    provider: str
    attribution: str
    measures: Mapping[str, ClaimMeasure]
    """What the licence gates judged."""

    @property
    def license_status(self) -> str:
        """What `config/licenses.yaml` says of the licence type; empty for a file that no record claims."""
        return str(self.measures.get("license_status", ""))


def inventory_path(store: Store) -> Path:
    """Where the inventory lies."""
    return store.metadata("raw_inventory.parquet")


def read_inventory(store: Store) -> list[SourceRow]:
    """Every raw file; none before the first materialisation.

    Raises:
        StoreError: the table cannot be read, or is of another version.
    """
    return read_rows(inventory_path(store), SourceRow, remedy="materialise licensed_sources again")


def known_files(store: Store) -> list[KnownFile]:
    """What the next inventory asks of the last one, of whichever version that is.

    Raises:
        StoreError: the table cannot be read.
    """
    remedy = "remove it, licensed_sources writes it anew"
    return read_rows(inventory_path(store), KnownFile, remedy=remedy, whole=False)


def verified_files(store: Store) -> dict[str, SourceRow]:
    """Track id -> the raw file, of those that may be trained on.

    Raises:
        StoreError: as `read_inventory`.
    """
    return {row.track_id: row for row in read_inventory(store) if row.status == "verified"}


def write_inventory(store: Store, verdicts: Sequence[SourceVerdict]) -> list[SourceRow]:
    """Write a row per verdict; returns them."""
    rows = [_row(verdict) for verdict in verdicts]
    write_rows(inventory_path(store), SourceRow, rows)
    return rows


def _row(verdict: SourceVerdict) -> SourceRow:
    file, record = verdict.file, verdict.record
    return SourceRow(
        track_id=file.track_id,
        path=file.path,
        sha256=file.content.sha256 if file.content else "",
        bytes=file.content.bytes if file.content else 0,
        stat=file.content.stat if file.content else "",
        status="verified" if verdict.verified else "rejected",
        rule=verdict.rule,
        reason=verdict.reason,
        source_id=verdict.source_id,
        license_type=record.license_type if record else "",
        provider=record.provider if record else "",
        attribution=(record.attribution or "") if record else "",
        measures=verdict.measures,
    )


def withdrawn_tracks(rows: Sequence[SourceRow]) -> dict[str, str]:
    """Track id -> why, of tracks whose rights do not hold today: what was trained on them cannot be released."""
    return {row.track_id: row.reason for row in rows if row.rule.startswith("licence.")}
