"""Whether the evidence of an asset still holds: all the way from the event of its run to the raw audio.

What belongs here: the questions that the guard asks of documents, files and the event log. What does not: the documents
(`evidence.py`), Dagster's log (`defs/event_log.py`), what the gates say of the numbers (`verdicts.py`).
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lofi_assets.constitution import evidence
from lofi_assets.constitution.evidence import Evidence, Link, TrackList
from lofi_assets.constitution.made_with import constitution_in_force
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store
from lofi_assets.wording import shortened

NAMED = 3
"""Files that a reason names."""


@dataclass(frozen=True)
class Materialized:
    """A materialisation as the event log knows it."""

    evidence: str
    """sha256 of the document; "" if it carries none."""
    data_version: str
    run_id: str
    """"" if no run of this instance made it: somebody reported it."""
    timestamp: float = 0.0
    """Of the event, in seconds since 1970."""

    @property
    def run(self) -> str:
        """The run as people see it in the UI."""
        return self.run_id[:8]


class EventLog(Protocol):
    """What was materialised, by which run."""

    def latest(self, asset: str) -> Materialized | None:
        """The latest materialisation; None before the first."""

    def with_evidence(self, asset: str, sha256: str) -> Materialized | None:
        """The one that a document is of; None if no run left it."""


Hasher = Callable[[str, Path], str]
"""Asset and file -> sha256; "" if the file is absent."""


def read_again(_asset: str, path: Path) -> str:
    """Hash a file's bytes as they are now, whatever is remembered: what a release is judged by."""
    try:
        return sha256_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""


class Remembered:
    """Hashes that are taken again only where size or times changed: for pages, and guards that run often."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_asset: dict[str, FileHashes] = {}

    def __call__(self, asset: str, path: Path) -> str:
        """Hash of a file of an asset."""
        if asset not in self._by_asset:
            remembered = self._store.cache / "evidence" / f"{asset}.json"
            self._by_asset[asset] = FileHashes(self._store.root, remembered)
        return self._by_asset[asset](path)


class Chain:
    """The evidence of all assets under one data root, each looked at once."""

    def __init__(self, store: Store, log: EventLog, *, hasher: Hasher | None = None) -> None:
        self._store, self.log = store, log
        self._hasher = hasher or Remembered(store)
        self._reasons: dict[str, str] = {}
        self._wrote: dict[str, dict[str, str]] = {}
        self.held: dict[str, Evidence] = {}
        """Asset -> its evidence, for every asset that holds so far."""
        self.lists: dict[str, TrackList] = {}
        """Asset -> what that evidence says of single tracks."""
        self.digests: dict[str, str] = {}
        """Asset -> sha256 of that evidence."""
        self.files: dict[str, str] = {}
        """File -> sha256, of everything that was hashed and found right."""

    def reason(self, asset: str) -> str:
        """Why the numbers of an asset cannot be believed, with what to do; "" if they can. Follows the lineage up."""
        if asset not in self._reasons:
            self._reasons[asset] = f"{asset} depends on itself"  # until it is known
            self._reasons[asset] = self._look(asset)
        return self._reasons[asset]

    def _look(self, asset: str) -> str:
        latest = self.log.latest(asset)
        if latest is None:
            return f"{asset} is not materialised"
        if not latest.run_id:
            return f"the latest materialisation of {asset} was reported, not made by a run; materialise {asset}"
        if not latest.evidence:
            return f"run {latest.run} left no evidence of {asset} (an earlier version made it); materialise {asset}"
        try:
            if evidence.current_sha256(self._store, asset) != latest.evidence:
                return f"the numbers of {asset} are about another build than its latest materialisation"
            found = evidence.read(self._store, asset, latest.evidence)
            tracked = evidence.read_list(self._store, found)
        except StoreError as error:
            return str(error)
        if (found.asset, found.data_version) != (asset, latest.data_version):
            return f"the evidence of {asset} is of {found.asset}, build {found.data_version[:12]}; materialise {asset}"
        return (
            self._judged_by_another_constitution(found)
            or self._files_changed(found, _all_files(found, tracked), latest)
            or self._built_from_another(found, tracked)
            or self._keep(found, tracked, latest)
        )

    def _keep(self, found: Evidence, tracked: TrackList, latest: Materialized) -> str:
        self.held[found.asset], self.digests[found.asset] = found, latest.evidence
        self.lists[found.asset] = tracked
        self._wrote[found.asset] = {**found.files, **found.given, **tracked.files, **tracked.given}
        return ""

    def _judged_by_another_constitution(self, found: Evidence) -> str:
        """Tracks are let in one by one when an asset is made; by other rules, others are in."""
        now = constitution_in_force()
        if not found.tracks or found.constitution == now:
            return ""
        return (
            f"the tracks of {found.asset} were judged by constitution {found.constitution.version}, in force is "
            f"{now.version}; materialise {found.asset}"
        )

    def _files_changed(self, found: Evidence, files: Mapping[str, str], latest: Materialized) -> str:
        wrong = [fault for name, digest in files.items() if (fault := self._fault(found, name, digest))]
        if not wrong:
            return ""
        told = "; ".join(shortened(wrong, most=NAMED))
        return f"{told} after run {latest.run} made {found.asset}; materialise {found.asset}"

    def _fault(self, found: Evidence, name: str, digest: str) -> str:
        path = self._store.root / name
        if _is_link(path):
            return f"{name} was replaced by a link or something else that is no file"
        now = self._hasher(found.asset, path)
        if now == digest:
            self.files[name] = digest
            return ""
        if now:
            return f"{name} was changed"
        pruned = any(name.startswith(f"{kept}/") and not (self._store.root / kept).exists() for kept in found.prunable)
        return "" if pruned else f"{name} was removed"

    def _built_from_another(self, found: Evidence, tracked: TrackList) -> str:
        for name, link in found.upstream.items():
            if reason := (
                self._older(found.asset, name, link) or self.reason(name) or self._invented(found.asset, name, link)
            ):
                return reason
        return self._foreign_materials(found, {**found.materials, **tracked.materials})

    def _older(self, asset: str, name: str, link: Link) -> str:
        latest = self.log.latest(name)
        if not link.sha256:
            return f"{asset} was made without evidence of {name}; materialise both"
        if latest is None or link.data_version != latest.data_version:
            return f"{asset} was built from an earlier {name}"
        return ""

    def _invented(self, asset: str, name: str, link: Link) -> str:
        """A run of the same build may have left another document, made by other code; but a run has to have left it."""
        if link.sha256 == self.digests[name]:
            return ""
        earlier = self.log.with_evidence(name, link.sha256)
        if earlier and earlier.run_id and earlier.data_version == link.data_version:
            return ""
        return f"{asset} names evidence of {name} that no run left; materialise {asset}"

    def _foreign_materials(self, found: Evidence, materials: Mapping[str, str]) -> str:
        """What an asset read has to be what an asset before it wrote or took in."""
        made: dict[str, str] = {}
        for name in self._before(found.upstream):
            made |= self._wrote[name]
        wrong = [
            f"{name}, which {found.asset} is about, is not what was made before it"
            for name, digest in materials.items()
            if made.get(name) != digest
        ]
        return f"{'; '.join(shortened(wrong, most=NAMED))}; materialise {found.asset}" if wrong else ""

    def _before(self, names: Iterable[str]) -> set[str]:
        """Assets at and before these ones."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.held[name].upstream
        return found


def _all_files(found: Evidence, tracked: TrackList) -> dict[str, str]:
    of_tracks = {**tracked.files, **tracked.given, **tracked.materials}
    return {**found.files, **found.given, **found.materials, **of_tracks}


def _is_link(path: Path) -> bool:
    """Whether something else than a regular file stands where a file is on record."""
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False  # absent: said as that
