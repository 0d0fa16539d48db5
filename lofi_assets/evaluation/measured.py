"""The checkpoints as they were measured, and what they are read against.

metadata/quality_metrics.json    every checkpoint (`Measured`)
metadata/quality_marks.json      the base and noise (`Marks`)
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.typed import STORED, parsed, plain, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics.results import Evaluation, NoiseDistances
from lofi_assets.records import QualityMetrics, dump
from lofi_assets.store import Store

METRICS_VERSION = "2"
"""Raised when a measure changes: every checkpoint is then evaluated again, and what is on record of another version is
taken for not measured."""

_AGAIN = "remove it and materialise quality_metrics again, which measures every checkpoint anew"


@dataclass(frozen=True, config=STORED)
class Measured:
    """A checkpoint as it was measured."""

    key: str
    """Fingerprint of whatever the numbers depend on."""
    record: QualityMetrics
    evaluation: Evaluation
    version: str = METRICS_VERSION
    """Of the measures. A file without it is of version 1."""


@dataclass(frozen=True, config=STORED)
class Marks:
    """The base and noise, measured as the checkpoints are."""

    key: str
    base: Evaluation
    noise: NoiseDistances
    version: str = METRICS_VERSION
    """As of `Measured`."""

    @classmethod
    def read(cls, store: Store) -> "Marks | None":
        """Those on record; None before, and if other measures made them.

        Raises:
            StoreError: they are broken.
        """
        path = cls._path(store)
        known = read_json(path, remedy=_AGAIN)
        return parsed(cls, known, where=str(path), remedy=_AGAIN) if _of_these_measures(known) else None

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self._path(store), self)

    @staticmethod
    def _path(store: Store) -> Path:
        return store.metadata("quality_marks.json")


def measured_files(store: Store) -> list[Path]:
    """The files of all numbers."""
    return [_metrics_path(store), store.metadata("quality_marks.json")]


def read_measured(store: Store) -> dict[str, Measured]:
    """Checkpoint id -> how it was measured, pruned ones too; without those that other measures were made of.

    Raises:
        StoreError: the record is broken.
    """
    path = _metrics_path(store)
    known = read_json(path, default={}, remedy=_AGAIN)
    if not isinstance(known, dict):
        raise StoreError(f"{path}: not an object of checkpoints; {_AGAIN}")
    return {
        name: parsed(Measured, entry, where=f"{path}, {name}", remedy=_AGAIN)
        for name, entry in known.items()
        if _of_these_measures(entry)
    }


def write_measured(store: Store, known: Mapping[str, Measured]) -> None:
    """Put on record."""
    written = {
        name: {
            "key": found.key,
            "record": dump(found.record),
            "evaluation": plain(found.evaluation),
            "version": found.version,
        }
        for name, found in known.items()
    }
    write_json(_metrics_path(store), written)


def _of_these_measures(entry: object) -> bool:
    """False for what is absent, and for what other measures made; what is no record at all is left to the parser."""
    return entry is not None and (not isinstance(entry, dict) or entry.get("version") == METRICS_VERSION)


def _metrics_path(store: Store) -> Path:
    return store.metadata("quality_metrics.json")
