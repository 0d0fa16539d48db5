"""What a materialisation leaves as evidence: a document that binds its numbers to bytes and to what they came from.

An in-toto Statement (https://github.com/in-toto/attestation, spec v1): the subject is every file that the asset wrote,
by sha256; the predicate has what it measured, the files it read, links to the evidence of the assets it was built from,
and what it was made with. A document never changes: it lies under its own sha256, which the event of the run that made
it carries (`defs/reporting.py`). Whether all that still holds is asked in `chain.py`.

Files that are named after tracks, the tracks that a gate names, and notes, which may name some, stand in a list beside
the document, which has the list's hash: a document can be published without saying which tracks there are.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.constitution.made_here import Attempt, require_made_here
from lofi_assets.constitution.made_with import (
    Code,
    ConstitutionInForce,
    Environment,
    ProfileUsed,
    code,
    constitution_in_force,
    environment,
)
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_json
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.outcome import Outcome
from lofi_assets.store import Store

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:lofi-assets:evidence:1"
TRACKS = "tracks"
"""Name of the subject that stands for the list of what is named after tracks."""
NAMED_AFTER_TRACKS = ("raw", "processed", "dataset", "final", "validation", "samples")
"""Folders of the data root whose files say by their names which tracks there are."""


@dataclass(frozen=True, config=STORED)
class Link:
    """The evidence of an asset that another was built from."""

    sha256: str
    """Of the document; "" if the asset had none then."""
    data_version: str


@dataclass(frozen=True, kw_only=True, config=STORED)
class Evidence:
    """One document, without the form that in-toto gives it."""

    asset: str
    data_version: str
    files: Mapping[str, str] = field(default_factory=dict)
    """File that the asset wrote -> sha256; relative to the data root, here and below."""
    given: Mapping[str, str] = field(default_factory=dict)
    """File that it took in from people or from a program of its own -> sha256."""
    materials: Mapping[str, str] = field(default_factory=dict)
    """File of an asset before it, whose content its numbers are about -> sha256."""
    prunable: tuple[str, ...] = ()
    """Folders that retention may remove as a whole."""
    track_list: str = ""
    """sha256 of the list of what is named after tracks; "" if there is nothing."""
    values: Mapping[str, Any] = field(default_factory=dict)
    tracks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    upstream: Mapping[str, Link] = field(default_factory=dict)
    """Every asset that it depends on, whether it had evidence or not."""
    constitution: ConstitutionInForce
    code: Code
    environment: Environment
    profile: ProfileUsed | None = None


@dataclass(frozen=True, kw_only=True, config=STORED)
class TrackList:
    """What a document says of single tracks, kept beside it."""

    files: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    materials: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Gate -> the tracks behind its count."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Measure -> what its value says beside the number."""


def folder(store: Store) -> Path:
    """Where documents lie, `<asset>/<sha256>.json`, with `<asset>.json` naming the current one."""
    return store.root / "metadata" / "evidence"


def document_path(store: Store, asset: str, sha256: str) -> Path:
    """A document by its hash."""
    return folder(store) / asset / f"{sha256}.json"


def list_path(store: Store, asset: str, sha256: str) -> Path:
    """The list of a document's tracks by its hash."""
    return folder(store) / asset / f"{sha256}.tracks.json"


def pointer_path(store: Store, asset: str) -> Path:
    """Which document is current."""
    return folder(store) / f"{asset}.json"


_DOCUMENT = re.compile(r"[0-9a-f]{64}(\.tracks)?\.json")


def is_document(store: Store, path: Path) -> bool:
    """Whether a path below `folder` is a document, a list of tracks, or what names the current one of an asset.

    People put evidence of rights into the same folder (`sources.rights`), which is theirs.
    """
    parts = path.relative_to(folder(store)).parts
    if len(parts) == 2:
        return _DOCUMENT.fullmatch(parts[1]) is not None
    return len(parts) == 1 and path.suffix == ".json" and any(map(_is_named, path.with_suffix("").glob("*.json")))


def _is_named(path: Path) -> bool:
    return _DOCUMENT.fullmatch(path.name) is not None


def statement(evidence: Evidence) -> str:
    """The document as an in-toto Statement: canonical, so that the same facts have the same hash."""
    predicate = plain(evidence)
    files = {**predicate.pop("files"), **({TRACKS: evidence.track_list} if evidence.track_list else {})}
    predicate.pop("track_list")
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]
    data = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def parsed_statement(data: object, *, where: str, remedy: str) -> Evidence:
    """Inverse of `statement`.

    Raises:
        StoreError: it is another kind of document, or of another version.
    """
    kinds = (data.get("_type"), data.get("predicateType")) if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or kinds != (STATEMENT, PREDICATE):
        raise StoreError(f"{where}: no evidence of this version ({kinds}); {remedy}")
    try:
        files = {item["name"]: item["digest"]["sha256"] for item in data["subject"]}
        predicate = dict(data["predicate"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{where}: no in-toto Statement ({error!r}); {remedy}") from error
    listed = files.pop(TRACKS, "")
    return parsed(Evidence, {**predicate, "files": files, "track_list": listed}, where=where, remedy=remedy)


def write(
    store: Store,
    outcome: Outcome,
    *,
    asset: str,
    upstream: Iterable[str],
    profile: ProfileUsed | None = None,
    before: str = "",
    attempts: Callable[[], Iterable[Attempt]] = tuple,
) -> str:
    """Write the evidence of a materialisation and make it the asset's current one; returns its sha256.

    Args:
        upstream: every asset that this one depends on.
        before: sha256 of the evidence that the asset's latest run left, by the event log.
        attempts: when runs worked on the asset since then, this one included.
    Raises:
        NotMadeHereError: a file that the asset alone writes was changed since then, and not by a run of it; or that
            evidence is gone, and a run before it may have made the file.
    """
    hashes = FileHashes(store.root, store.cache / "evidence" / f"{asset}.json")
    found = {kind: _hashed(store, getattr(outcome.written, kind), hashes) for kind in ("files", "given", "materials")}
    if before:
        recorded, lost = _recorded(store, asset, before)
        require_made_here(store, asset, found["files"], recorded, attempts, lost=lost)
    values, notes = _without_notes(_finite(outcome.values))
    listed = {kind: _of_tracks(files, True) for kind, files in found.items()}
    tracked = TrackList(named=outcome.named, notes=notes, **listed)
    document = Evidence(
        asset=asset,
        data_version=outcome.data_version,
        **{kind: _of_tracks(files, False) for kind, files in found.items()},
        prunable=tuple(sorted(store.relative(path) for path in outcome.written.prunable)),
        track_list=_write_list(store, asset, tracked) if tracked != TrackList() else "",
        values=values,
        tracks=outcome.tracks,
        counts=outcome.counts,
        upstream={name: _link(store, name) for name in sorted(upstream)},
        constitution=constitution_in_force(),
        code=code(),
        environment=environment(),
        profile=profile,
    )
    hashes.save()
    text = statement(document)
    sha256 = _sha256(text)
    write_text(document_path(store, asset, sha256), text)
    write_json(pointer_path(store, asset), {"sha256": sha256})
    return sha256


def _recorded(store: Store, asset: str, before: str) -> tuple[dict[str, str], str]:
    """The files of a document and of its list; or why they cannot be read."""
    try:
        known = read(store, asset, before)
        return {**known.files, **read_list(store, known).files}, ""
    except StoreError as error:
        return {}, str(error).rpartition("; ")[0]


def current_sha256(store: Store, asset: str) -> str:
    """Hash of an asset's current document, "" before its first materialisation.

    Raises:
        StoreError: the file that names it is broken.
    """
    path = pointer_path(store, asset)
    data = read_json(path, remedy=_remedy(asset))
    if data is None:
        return ""
    sha256 = data.get("sha256") if isinstance(data, Mapping) else None
    if not isinstance(sha256, str) or len(sha256) != 64 or not sha256.isalnum():
        raise StoreError(f"{path}: names no evidence; {_remedy(asset)}")
    return sha256


def read(store: Store, asset: str, sha256: str) -> Evidence:
    """A document by its hash.

    Raises:
        StoreError: it is gone, or is not what has this hash.
    """
    path, remedy = document_path(store, asset, sha256), _remedy(asset)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: the evidence of {asset} is gone; {remedy}") from error
    if _sha256(text) != sha256:
        raise StoreError(f"{path}: was changed after {asset} was materialised; {remedy}")
    return parsed_statement(_json(text, path, remedy), where=str(path), remedy=remedy)


def read_list(store: Store, evidence: Evidence) -> TrackList:
    """What a document says of single tracks.

    Raises:
        StoreError: the list is gone, or is not the document's.
    """
    if not evidence.track_list:
        return TrackList()
    path, remedy = list_path(store, evidence.asset, evidence.track_list), _remedy(evidence.asset)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: the list of tracks is gone; {remedy}") from error
    if _sha256(text) != evidence.track_list:
        raise StoreError(f"{path}: was changed after {evidence.asset} was materialised; {remedy}")
    return parsed(TrackList, _json(text, path, remedy), where=str(path), remedy=remedy)


def _json(text: bytes, path: Path, remedy: str) -> object:
    try:
        return parse_json(decoded(text, where=str(path)), where=str(path))
    except HandWrittenError as error:
        raise StoreError(f"{error}; {remedy}") from error


def _write_list(store: Store, asset: str, tracked: TrackList) -> str:
    text = json.dumps(plain(tracked), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    sha256 = _sha256(text)
    write_text(list_path(store, asset, sha256), text)
    return sha256


def _link(store: Store, asset: str) -> Link:
    sha256 = current_sha256(store, asset)
    return Link(sha256, read(store, asset, sha256).data_version) if sha256 else Link("", "")


def _hashed(store: Store, paths: Iterable[Path], hashes: FileHashes) -> dict[str, str]:
    found = {store.relative(path): hashes(path) for path in paths}
    return {name: digest for name, digest in sorted(found.items()) if digest}


def _of_tracks(files: Mapping[str, str], wanted: bool) -> dict[str, str]:
    """Those named after tracks, or those that are not."""
    return {name: digest for name, digest in files.items() if (name.partition("/")[0] in NAMED_AFTER_TRACKS) is wanted}


def _without_notes(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values, and the note of each that has one."""
    notes = {
        name: str(value["note"]) for name, value in values.items() if isinstance(value, Mapping) and value.get("note")
    }
    bare = {
        name: {key: item for key, item in value.items() if key != "note"} if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    return bare, notes


def _finite(value: Any) -> Any:
    """JSON data; a number that is not finite becomes null, which judges as inconclusive."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def _remedy(asset: str) -> str:
    return f"materialise {asset} again"
