"""The checkpoints as they were measured, and what they are read against.

metadata/quality_metrics.json    every checkpoint (`Measured`)
metadata/quality_marks.json      the base and noise (`Marks`)
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.typed import STORED, parsed, plain, read_typed, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics.results import Evaluation, NoiseDistances
from lofi_assets.records import QualityMetrics, dump
from lofi_assets.store import Store

_AGAIN = "remove it and materialise quality_metrics again, which measures every checkpoint anew"


@dataclass(frozen=True, config=STORED)
class Measured:
    """A checkpoint as it was measured."""

    key: str
    """Fingerprint of whatever the numbers depend on."""
    record: QualityMetrics
    evaluation: Evaluation


@dataclass(frozen=True, config=STORED)
class Marks:
    """The base and noise, measured as the checkpoints are."""

    key: str
    base: Evaluation
    noise: NoiseDistances

    @classmethod
    def read(cls, store: Store) -> "Marks | None":
        """Those on record; None before.

        Raises:
            StoreError: they are broken, or of another version.
        """
        return read_typed(cls._path(store), cls, remedy=_AGAIN)

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self._path(store), self)

    @staticmethod
    def _path(store: Store) -> Path:
        return store.metadata("quality_marks.json")


def read_measured(store: Store) -> dict[str, Measured]:
    """Checkpoint id -> how it was measured, pruned ones too.

    Raises:
        StoreError: the record is broken, or of another version.
    """
    path = _metrics_path(store)
    known = read_json(path, default={}, remedy=_AGAIN)
    if not isinstance(known, dict):
        raise StoreError(f"{path}: not an object of checkpoints; {_AGAIN}")
    return {name: parsed(Measured, entry, where=f"{path}, {name}", remedy=_AGAIN) for name, entry in known.items()}


def write_measured(store: Store, known: Mapping[str, Measured]) -> None:
    """Put on record."""
    written = {
        name: {"key": found.key, "record": dump(found.record), "evaluation": plain(found.evaluation)}
        for name, found in known.items()
    }
    write_json(_metrics_path(store), written)


def _metrics_path(store: Store) -> Path:
    return store.metadata("quality_metrics.json")
