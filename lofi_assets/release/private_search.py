"""Where files say folders of a machine, its users, or tracks: one search, which reads each file once.

Text is searched as it is, and what an envelope holds in base64 as the text that it is. Of other files the runs of
printable ASCII are searched in which something stands that could be one, which hold the headers of safetensors and the
strings of ONNX; text that is compressed or in 16-bit characters is not found. Which names are private is said in
`private_names.py`.
"""

import json
import re
import struct
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from lofi_assets.files.hashing import READ_BLOCK
from lofi_assets.release.needles import SHORTEST, Needles

VOCABULARIES: Final = frozenset({"tokenizer.json", "lyric_vocab.json"})
"""Files of a base that hold the words of a language, any of which may be somebody's name."""
TELLING: Final = 6
"""Fewest characters of a name that is looked for as a part of a longer word: `int8` may be a track, and is in every
release."""
Kind = Literal["text", "binary", "tensors"]
"""Written by somebody; a program's file; numbers alone, in which short words occur by chance."""
_TEXT: Final = (".json", ".md", ".txt", ".py", ".yaml", ".lrc")
_TENSORS: Final = (".data", ".safetensors")
_LONGEST_HEADER: Final = 100_000_000
"""Of safetensors (its own limit)."""
_LONGEST_RUN: Final = 4096
"""Characters of a path that a block of a binary file may cut in two."""
_RUNS: Final = {"binary": re.compile(rb"[\t\x20-\x7e]{4,}"), "tensors": re.compile(rb"[\t\x20-\x7e]{6,}")}
_HOMES: Final = re.compile(r"(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\+)[\w.-]+")
_ROOTS: Final = (
    *("home", "Users", "Volumes", "root", "tmp", "usr", "var", "mnt", "srv", "opt", "data", "work", "private"),
    *("workspace", "scratch", "content"),
)
_STARTS: Final = (*(f"/{root}/" for root in _ROOTS), "Users\\")
"""How what `_HOMES` and `_MACHINE_PATH` find begins."""
_MACHINE_PATH: Final = re.compile(rf"/(?:{'|'.join(_ROOTS)})/[\w.@+-]{{3,}}", re.ASCII)
"""An absolute path as machines have them. It starts with a plain sign: a look at what is before it costs 28 times as
much."""
_ADDRESS: Final = re.compile(r"https?://[\w.-][^\s\"'<>\\]*\Z")
"""An address on the web that goes on."""
_LONGEST_ADDRESS: Final = 300
_INSIDE: Final = re.compile(r"[\w.~-]$")
"""How what stands before a path ends if it is no absolute one: part of an address, or of a relative path."""
_PATH: Final = re.compile(r"(?<![\w:/.~-])/(?!path/to/)(?:[\w.@=+-]+/){2,}[\w.@=+-]+")
"""An absolute path, on whichever machine. Names of nodes in ONNX graphs and chance in weights look like one."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9]+(?:[_-]+[A-Za-z0-9]+)*")
_ESCAPED: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\[bfnrt]")
"""A line break or tab of JSON, whose letter would else be taken for the first of the word behind it."""
_CODED: Final = re.compile(rb'"(?:[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==|(e[wy][A-Za-z0-9+/]+={0,2}))"')
"""A public key or a signature of Ed25519 in base64; or, as its group, what may be a JSON object: `{` becomes `e`."""
_SEPARATOR: Final = re.compile(r"[_-]+")
WORD: Final = re.compile(r"[A-Za-z0-9][\w-]{2,119}", re.ASCII)


@dataclass(frozen=True)
class PrivateNames:
    """The names of one deployment."""

    folders: tuple[str, ...]
    """Absolute paths, the longest first."""
    people: frozenset[str]
    """User and machine."""
    tracks: frozenset[str]
    """Ids."""
    words: frozenset[str] = frozenset()
    """Looked for as whole words, however little they tell; not among tensors. None of fewer than four characters."""

    @property
    def telling_tracks(self) -> frozenset[str]:
        """Ids that can be no word of a language: of six characters or more, a letter and a digit or separator in it."""
        return frozenset(
            name
            for name in self.tracks
            if len(name) >= TELLING and re.search("[A-Za-z]", name) and re.search("[0-9_-]", name)
        )


@dataclass(frozen=True)
class Private:
    """What a file says, each in words."""

    said: tuple[str, ...]
    words: frozenset[str]
    """Those of `PrivateNames.words` that stand in it."""

    @property
    def all(self) -> list[str]:
        """Both, each name once."""
        told = {said.rpartition(" ")[2] for said in self.said}
        return [*self.said, *(f"the name {word}" for word in sorted(self.words - told))]


def private_in(path: Path, names: PrivateNames, *, name: str | None = None) -> list[str]:
    """What a file says of this machine, its people and its tracks, each in words.

    Args:
        name: of the file where it is published; its own by default.
    """
    return search(path, names, name=name).all


def search(path: Path, names: PrivateNames, *, name: str | None = None, strict: bool = False) -> Private:
    """The same, with the whole words apart.

    Args:
        strict: a text for people may not name a file in /tmp as an example, nor what begins as one of the folders does.
    """
    name = name or path.name
    searched = replace(names, tracks=frozenset(), people=frozenset()) if name in VOCABULARIES else names
    found: dict[str, None] = {}
    words: set[str] = set()
    listed: tuple[str, ...] = ()
    if path.suffix == ".json" or name.endswith(".json"):
        documents = list(_documents(path.read_bytes()))
        texts: Iterator[tuple[str, Kind]] = (
            (_ESCAPED.sub(r"\1 ", document.decode("utf-8", errors="replace")), "text") for document in documents
        )
        listed = tuple(said for document in documents for said in _listed_tracks(document, names.tracks))
    else:
        texts = texts_of(path, needles_of(searched))
    for text, kind in texts:
        found |= dict.fromkeys(_said(text, searched, kind, strict=strict or kind != "text"))
        if kind != "tensors":
            words |= searched.words.intersection(WORD.findall(text))
    return Private(tuple(found | dict.fromkeys(listed)), frozenset(words))


def names_in(text: str, names: PrivateNames) -> list[str]:
    """What a text says of this machine, its people and its tracks, each in words."""
    if not text:
        return []
    return [*_folders_in(text, names.folders), *_words_in(text, names.telling_tracks, names.people)]


def masked(text: str) -> str:
    """A text with dots in the place of what looks like a path of a machine."""
    for found in {*_HOMES.findall(text), *_machine_paths(text)}:
        text = text.replace(found, "...")
    return text


def needles_of(names: PrivateNames) -> Needles:
    """What stands wherever something may be found: each name, and how paths of machines begin.

    A folder or name of fewer than four characters is found by its surroundings alone, or not at all.
    """
    texts = [*names.folders, *names.telling_tracks, *names.people, *names.words, *_STARTS]
    texts += [text.replace("/", "\\/") for text in texts if "/" in text]
    return Needles(text.encode() for text in texts if len(text.encode()) >= SHORTEST)


def texts_of(path: Path, needles: Needles) -> Iterator[tuple[str, Kind]]:
    """What can be read in a file, and what it is: all of a text, the header of safetensors; otherwise the runs of
    printable characters in which a needle stands."""
    kind: Kind = "tensors" if path.suffix in _TENSORS else "binary"
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            yield file.read(min(length, _LONGEST_HEADER)).decode("utf-8", errors="replace"), "text"
        kept = b""
        while block := file.read(READ_BLOCK):
            data = kept + block
            if path.suffix in _TEXT or (not kept and len(block) < READ_BLOCK and b"\0" not in block):
                yield data.decode("utf-8", errors="replace"), "text"
            else:
                yield "\n".join(_runs(data, needles, _RUNS[kind])), kind
            kept = data[-_LONGEST_RUN:]


def _runs(data: bytes, needles: Needles, printable: re.Pattern[bytes]) -> Iterator[str]:
    """The printable runs around what was found, each once, cut to what a path may be long."""
    end = -1
    for place in needles.places(data):
        if place < end:
            continue
        start, limit = max(0, place - _LONGEST_RUN), place + 2 * _LONGEST_RUN
        for run in printable.finditer(data, start, limit):
            if run.start() <= place < run.end():
                end = run.end() if run.end() < limit else limit - _LONGEST_RUN  # what is cut is looked at again
                yield run[0].decode("ascii")
                break


def _said(text: str, names: PrivateNames, kind: Kind, *, strict: bool) -> Iterator[str]:
    found = names_in(text, names)
    if strict:  # in a program's file, what is before a path may be the length of its text, which looks like a letter
        plain = text.replace("\\/", "/")
        found += [f"the folder {folder}" for folder in names.folders if folder in plain]
    yield from found
    paths = _PATH.findall(text) if kind == "text" else []
    paths += [path for path in _machine_paths(text, examples=not strict) if not _told(path, paths)]
    known = [said.removeprefix("the folder ") for said in found]
    whole = [path for path in paths if kind == "text" and path.count("/") > 2]
    yield from (f"the path {path}" for path in paths if path in whole or not _told(path, known))


def _told(path: str, known: list[str]) -> bool:
    """Whether an address says what a path does, or begins as it does."""
    return any(address.startswith(path) or path.startswith(address) for address in known)


def _machine_paths(text: str, *, examples: bool = False) -> Iterator[str]:
    """Absolute paths, as far as their second part.

    Args:
        examples: leave out files directly in /tmp, which a text for people names as an example.
    """
    for found in _MACHINE_PATH.finditer(text):
        if _INSIDE.match(text[max(0, found.start() - 1) : found.start()]):
            continue
        if examples and found[0].startswith("/tmp/") and text[found.end() : found.end() + 1] != "/":
            continue
        yield found[0]


def _folders_in(text: str, folders: tuple[str, ...]) -> Iterator[str]:
    plain = text.replace("\\/", "/")
    for folder in folders:
        if re.search(rf"(?<![\w.-]){re.escape(folder)}(?![\w-])", plain):
            yield f"the folder {folder}"
    for home in _HOMES.finditer(plain):
        if not _ADDRESS.search(plain, max(0, home.start() - _LONGEST_ADDRESS), home.start()):
            yield f"the folder {home[0]}"


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


def _documents(data: bytes) -> Iterator[bytes]:
    """A JSON document without its keys and signatures, one in 180 of which has a path in it by chance; and each
    document that it holds in base64, as an envelope does."""
    held: list[bytes] = []

    def left(coded: re.Match[bytes]) -> bytes:
        if coded[1]:
            try:
                document = b64decode(coded[1], validate=True)
                json.loads(document)
            except (ValueError, RecursionError):
                return coded[0]  # a word
            held.append(document)
        return b'""'

    yield _CODED.sub(left, data)
    for document in held:
        yield from _documents(document)


def _listed_tracks(content: bytes, tracks: frozenset[str]) -> Iterator[str]:
    """Ids of any form, under a key that speaks of tracks."""
    try:
        data = json.loads(content)
    except (ValueError, UnicodeDecodeError, RecursionError):
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
