"""Quarantine: one file per rejected track of a stage, with the rule and the numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import write_json
from lofi_assets.files.typed import STORED, plain, read_typed
from lofi_assets.store import Store

Stage = Literal["sources", "tracks", "prompts"]


@dataclass(frozen=True, kw_only=True, config=STORED)
class Quarantined:
    """Why a track is out; the file leaves out what is empty."""

    track_id: str
    rule: str = ""
    """The gate's id; empty where a person rejected the track."""
    reason: str = ""
    raw_path: str = ""
    """Of the raw file, relative to the data root; `path` where the inventory rejected it."""
    path: str = ""
    source_id: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, as far as the work went: of a raw file, a claim or texts."""

    @property
    def raw(self) -> str:
        """Path of the raw file, whichever stage rejected it."""
        return self.raw_path or self.path


def write_quarantine(store: Store, stage: Stage, rejected: Iterable[Quarantined]) -> None:
    """`quarantine/<track_id>.json` for every rejected track of a stage; files of tracks that were mended go."""
    folder = store.quarantine / stage
    wanted = {f"{one.track_id}.json": one for one in rejected}
    for path in folder.glob("*.json") if folder.is_dir() else []:
        if path.name not in wanted:
            path.unlink()
    for name, one in wanted.items():
        said = {key: value for key, value in plain(one).items() if value}
        write_json(folder / name, said | {"measures": dict(sorted(one.measures.items()))})


def quarantined(store: Store) -> list[Path]:
    """The files of all stages, by track id."""
    return sorted(store.quarantine.glob("*/*.json"), key=lambda path: path.name)


def read_quarantined(path: Path) -> Quarantined | None:
    """One of the files; None if it went meanwhile.

    Raises:
        StoreError: it cannot be read, or is of another version.
    """
    return read_typed(path, Quarantined, remedy="materialise the asset that rejected the track again")
