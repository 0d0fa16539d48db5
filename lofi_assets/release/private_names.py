"""What no published file may say: folders of this machine, its users, and ids of tracks.

What belongs here: which names are private, and how they are found in files of any kind. What does not: who writes files
without them. Text is searched as it is. Of other files the runs of printable ASCII are searched, which hold the
headers of safetensors and the strings of ONNX; text that is compressed or in 16-bit characters is not found.
"""

import contextlib
import getpass
import json
import re
import socket
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lofi_assets.files.hashing import READ_BLOCK
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.needles import SHORTEST, Needles
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import PACKAGE, Store
from lofi_assets.training.trained_on import TrainedOn

SHARED_ACCOUNTS = frozenset(
    {
        *("root", "admin", "administrator", "user", "users", "ubuntu", "debian", "nobody", "ec2-user", "vagrant"),
        *("runner", "build", "builder", "docker", "service", "jenkins", "gitlab", "github", "dagster", "lofi"),
        *("default", "python", "model", "music", "localhost"),
    }
)
"""Accounts that say nothing of a person, and words that are found in every release."""
VOCABULARIES = frozenset({"tokenizer.json", "lyric_vocab.json"})
"""Files of a base that hold words, any of which may be somebody's name."""
TELLING = 6
"""Fewest characters of a name that is looked for as a word: `int8` may be a track, and is in every release."""
_EVERYWHERE = frozenset({"/", "/tmp", "/var/tmp", "/usr", "/opt", "/srv", "/app", "/data", "/mnt"})
"""Folders that every machine may have, and that a text may name as an example."""
_TEXT = (".json", ".md", ".txt", ".py", ".yaml", ".lrc")
_LONGEST_HEADER = 100_000_000
"""Of safetensors (its own limit)."""
_LONGEST_RUN = 4096
"""Characters of a path that a block of a binary file may cut in two."""
_RUN = re.compile(rb"[\t\x20-\x7e]{6,}")
_HOME_SIGNS = ("/home/", "/Users/", "/root/", "Users\\")
"""What `_HOMES` begins with."""
_HOMES = re.compile(r"(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\+)[\w.-]+")
_PATH = re.compile(r"(?<![\w:/.~-])/(?!path/to/)(?:[\w.@=+-]+/){2,}[\w.@=+-]+")
"""An absolute path, on whichever machine. Names of nodes in ONNX graphs and chance in weights look like one."""
_TOKEN = re.compile(r"[A-Za-z0-9]+(?:[_-]+[A-Za-z0-9]+)*")
_SEPARATOR = re.compile(r"[_-]+")


@dataclass(frozen=True)
class PrivateNames:
    """The names of one deployment."""

    folders: tuple[str, ...]
    """Absolute paths, the longest first."""
    people: frozenset[str]
    """User and machine."""
    tracks: frozenset[str]
    """Ids."""

    @property
    def telling_tracks(self) -> frozenset[str]:
        """Ids that can be no word of a language: of six characters or more, a letter and a digit or separator in it."""
        return frozenset(
            name
            for name in self.tracks
            if len(name) >= TELLING and re.search("[A-Za-z]", name) and re.search("[0-9_-]", name)
        )


def private_names(store: Store, tracks: Iterable[str]) -> PrivateNames:
    """Those of this process, this machine and this data root."""
    folders = {store.root, PACKAGE.parent, Path.cwd(), Path.home(), Path(tempfile.gettempdir())}
    paths = {str(path) for folder in folders for path in (folder.absolute(), folder.resolve())} - _EVERYWHERE
    paths |= {json.dumps(path)[1:-1] for path in paths}
    return PrivateNames(
        folders=tuple(sorted(paths, key=lambda path: (-len(path), path))),
        people=frozenset(name for name in _people() if len(name) > 3 and name.casefold() not in SHARED_ACCOUNTS),
        tracks=frozenset(tracks),
    )


def known_tracks(store: Store, checkpoint: str) -> set[str]:
    """Ids of what a checkpoint was trained on and validated with, and of every raw file."""
    trained = TrainedOn.read(store.checkpoints / checkpoint) if checkpoint else TrainedOn(())
    own = {track.track_id for track in trained.tracks} | trained.train
    return own | {row.track_id for row in read_inventory(store)}


def _people() -> Iterator[str]:
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        yield getpass.getuser()
    yield Path.home().name
    host = socket.gethostname()
    yield host
    yield host.partition(".")[0]


def refuse_private(files: Iterable[tuple[str, Path]], names: PrivateNames) -> None:
    """Search files that are to be published.

    Args:
        files: name in the release, and where it lies.
    Raises:
        ReleaseError: one says a private name; each file with what was found in it.
    """
    found = {name: faults for name, path in files if (faults := private_in(path, names, name=Path(name).name))}
    if found:
        said = "; ".join(f"{name} names {', '.join(faults[:3])}" for name, faults in list(found.items())[:10])
        raise ReleaseError(
            f"not released: {said}. A published file says no folder of this machine, no user and no track; mend what "
            "writes it, or the text that a person wrote"
        )


def private_in(path: Path, names: PrivateNames, *, name: str | None = None) -> list[str]:
    """What a file says of this machine, its people and its tracks, each in words.

    Args:
        name: of the file where it is published; its own by default.
    """
    name = name or path.name
    found: dict[str, None] = {}
    searched = replace(names, tracks=frozenset(), people=frozenset()) if name in VOCABULARIES else names
    needles = needles_of(searched)
    for text, written in texts_of(path, needles):
        found |= dict.fromkeys(names_in(text, searched))
        if written:
            found |= dict.fromkeys(f"the path {address}" for address in _PATH.findall(text))
    if path.suffix == ".json" or name.endswith(".json"):
        found |= dict.fromkeys(_listed_tracks(path, names.tracks))
    return list(found)


def names_in(text: str, names: PrivateNames) -> list[str]:
    """What a text says of this machine, its people and its tracks, each in words."""
    if not text:
        return []
    return [*_folders_in(text, names.folders), *_words_in(text, names.telling_tracks, names.people)]


def needles_of(names: PrivateNames) -> Needles:
    """What stands wherever `names_in` finds something: each name, and how a path of somebody's home begins.

    A folder or name of fewer than four characters is found by its surroundings alone, or not at all.
    """
    texts = [*names.folders, *names.telling_tracks, *names.people, *_HOME_SIGNS]
    texts += [text.replace("/", "\\/") for text in texts if "/" in text]
    return Needles(text.encode() for text in texts if len(text.encode()) >= SHORTEST)


def texts_of(path: Path, needles: Needles) -> Iterator[tuple[str, bool]]:
    """What can be read in a file, and whether somebody wrote it as text: a text file, or the header of safetensors.

    Otherwise it is the runs of at least six printable characters in which a needle stands.
    """
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            yield file.read(min(length, _LONGEST_HEADER)).decode("utf-8", errors="replace"), True
        kept = b""
        while block := file.read(READ_BLOCK):
            data = kept + block
            if path.suffix in _TEXT or (not kept and len(block) < READ_BLOCK and b"\0" not in block):
                yield data.decode("utf-8", errors="replace"), True
            else:
                yield "\n".join(_runs(data, needles)), False
            kept = data[-_LONGEST_RUN:]


def _runs(data: bytes, needles: Needles) -> Iterator[str]:
    """The printable runs around what was found, each once, cut to what a path may be long."""
    end = -1
    for place in needles.places(data):
        if place < end:
            continue
        start, limit = max(0, place - _LONGEST_RUN), place + 2 * _LONGEST_RUN
        for run in _RUN.finditer(data, start, limit):
            if run.start() <= place < run.end():
                end = run.end() if run.end() < limit else limit - _LONGEST_RUN  # what is cut is looked at again
                yield run[0].decode("ascii")
                break


def _folders_in(text: str, folders: tuple[str, ...]) -> Iterator[str]:
    plain = text.replace("\\/", "/")
    for folder in folders:
        if re.search(rf"(?<![\w.-]){re.escape(folder)}(?![\w-])", plain):
            yield f"the folder {folder}"
    for home in _HOMES.findall(plain):
        yield f"the folder {home}"


def _words_in(text: str, tracks: frozenset[str], people: frozenset[str]) -> Iterator[str]:
    shortest = min(map(len, tracks | people), default=None)
    if shortest is None:
        return
    for token in set(_TOKEN.findall(text)):
        if len(token) < shortest:
            continue
        for part in _parts(token):
            if part in tracks:
                yield f"the track {part}"
            if part in people:
                yield f"the user or machine {part}"


def _parts(token: str) -> Iterator[str]:
    """A token, and every piece of it between separators: `002_rain_walk_01` holds `rain_walk_01`."""
    cuts = list(_SEPARATOR.finditer(token))[:24]
    starts = [0, *(cut.end() for cut in cuts)]
    ends = [*(cut.start() for cut in cuts), len(token)]
    for start in starts:
        yield from (token[start:end] for end in ends if end > start)


def _listed_tracks(path: Path, tracks: frozenset[str]) -> Iterator[str]:
    """Ids of any form, under a key that speaks of tracks."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError):
        return
    yield from (f"the track {found}" for found in _below(data, tracks, about_tracks=False))


def _below(data: Any, tracks: frozenset[str], *, about_tracks: bool) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if about_tracks and key in tracks:
                yield key
            yield from _below(value, tracks, about_tracks=about_tracks or "track" in key.casefold())
    elif isinstance(data, list):
        for value in data:
            yield from _below(value, tracks, about_tracks=about_tracks)
    elif about_tracks and isinstance(data, str) and data in tracks:
        yield data
