"""What people put into the data root and nothing reads: said by name, since nothing leaves a dataset silently.

Files under `raw/` that no stage takes, files that went, names that link to no track. A raw file that is read and
rejected is told by `claims.py`, a text that is read and at fault by `curator_files.py`.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lofi_assets.files.documents import read_json
from lofi_assets.files.writing import StoreError
from lofi_assets.near_names import folded
from lofi_assets.records import SourceRecord
from lofi_assets.sources.curator_files import CuratorFiles
from lofi_assets.sources.inventory import KnownFile
from lofi_assets.sources.raw_files import SOURCE_FOLDERS, RawFile, RawTree, raw_track_id, shown_path, track_id_of
from lofi_assets.store import CHOSEN_STYLES, REVIEWS, SPEAKERS, STYLE_MAPPING, Store
from lofi_assets.wording import named

SHOWN = 10
"""Names after which the rest is only counted."""

NAMED_BY_HAND = (CHOSEN_STYLES, SPEAKERS)
"""Files of `metadata/`, objects by track id, of which every name should be a track's."""

NAMED_BY_TOOLS = (STYLE_MAPPING, REVIEWS)
"""The same, but written by commands too: they may hold tracks that went, and only a near miss is a person's."""

_ALMOST_SIDECAR = re.compile(r"(.+?)(lyric|prompt)s?")


def problems(
    store: Store,
    tree: RawTree,
    files: Sequence[RawFile],
    *,
    before: Sequence[KnownFile] = (),
    records: Sequence[SourceRecord] = (),
) -> list[str]:
    """One sentence per kind of thing that is not used, with names.

    Args:
        files: the raw files of `tree`.
        before: rows of the last inventory.
    """
    return [
        *_unread(store, tree),
        *_odd_folders(files),
        *_gone(before, files),
        *_listed_otherwise(records, files),
        *_unlinked(store, [file.track_id for file in files]),
    ]


def _unread(store: Store, tree: RawTree) -> list[str]:
    sidecars = CuratorFiles(store)
    stems = {(path.parent, folded(name)): path.stem for path in tree.audio for name in (track_id_of(path), path.stem)}
    kinds: dict[str, list[str]] = {}
    for path in tree.others:
        if not sidecars.belongs(path):
            kinds.setdefault(_why_unread(path, stems), []).append(shown_path(store, path))
    if links := [shown_path(store, path) for path in tree.linked_folders]:
        kinds["a link to a folder, which is never followed; put the folder itself there"] = links
    for path, why in tree.closed:
        kinds.setdefault(f"a folder that cannot be listed ({why})", []).append(shown_path(store, path))
    return [f"not read: {named(names, most=SHOWN)}: {why}" for why, names in kinds.items()]


def _why_unread(path: Path, stems: Mapping[tuple[Path, str], str]) -> str:
    """Why nothing reads a file that is no audio and no text of a raw file."""
    found = _ALMOST_SIDECAR.fullmatch(folded(path.stem)) if path.suffix.lower() == ".txt" else None
    if found is None:
        return "no audio format that is read, and no prompt or lyrics file"
    stem = stems.get((path.parent, found[1]))
    if stem is None:
        return "no audio file of that name beside it"
    kind = "lyrics" if found[2] == "lyric" else "prompt"
    right = f"{stem}_{kind}.txt"
    there = path.with_name(right).is_file()
    return f"{right!r} is read in its place; remove one" if there else f"call it {right!r}"


def _odd_folders(files: Iterable[RawFile]) -> list[str]:
    tops = {file.path.split("/")[1] if file.path.count("/") > 1 else "" for file in files}
    odd = sorted(f"raw/{top}" for top in tops if top not in SOURCE_FOLDERS)
    known = ", ".join(SOURCE_FOLDERS)
    return (
        [f"{named(odd, most=SHOWN)}: audio outside the folders of raw/ ({known}); it is read all the same"]
        if odd
        else []
    )


def _gone(before: Sequence[KnownFile], files: Sequence[RawFile]) -> list[str]:
    """Tracks of the last inventory that have no file any more, and files that were given another name."""
    tracks = {file.track_id for file in files}
    old = {row.path for row in before}
    arrived = {file.content.sha256: file for file in files if file.content and file.path not in old}
    gone, said = [], []
    for row in before:
        if row.track_id in tracks:
            continue
        if new := arrived.get(row.sha256):
            was, now = row.track_id, new.track_id
            said.append(f"{row.path} is now {new.path}: track {was} became {now}; list {now} where {was} was listed")
        else:
            gone.append(f"{row.path} ({row.status})")
    return said[:SHOWN] + (
        [f"gone since the last inventory: {named(gone, most=SHOWN)}: not in the dataset any more"] if gone else []
    )


def _listed_otherwise(records: Sequence[SourceRecord], files: Sequence[RawFile]) -> list[str]:
    """Track ids of records that no raw file has, but one has in other case or spacing."""
    there = {file.track_id for file in files}
    near = {folded(file.track_id): file for file in files}
    return [
        f"source {record.source_id} lists {track}, which no file has; is it {file.track_id} ({file.path})?"
        for record in records
        for track in record.track_ids
        if track not in there and (file := near.get(folded(track)))
    ]


def _unlinked(store: Store, tracks: Sequence[str]) -> list[str]:
    """Names in files of `metadata/` that are no track of the library."""
    there, near = set(tracks), {folded(track): track for track in tracks}
    said = []
    for name in (*NAMED_BY_HAND, *NAMED_BY_TOOLS):
        unknown = [key for key in _keys(store.metadata(name)) if raw_track_id(key, inventory=there) not in there]
        for key in [key for key in unknown if folded(key) in near]:
            said.append(f"{name} names {key}, which is no track; is it {near[folded(key)]}?")
        others = [key for key in unknown if folded(key) not in near and name in NAMED_BY_HAND]
        if others:
            said.append(f"{name} names {named(others, most=SHOWN)}: no track under raw/ is called so")
    return said


def _keys(path: Path) -> list[str]:
    """The track ids that a file names; none of one that cannot be read, which the stage that reads it says."""
    if path.suffix == ".jsonl":
        found = re.findall(rb'"track_id": ?"([^"\\]+)"', path.read_bytes() if path.is_file() else b"")
        return sorted({name.decode("utf-8", "replace") for name in found})
    with contextlib.suppress(StoreError):
        named = read_json(path, default={})
        return list(named) if isinstance(named, dict) else []
    return []
