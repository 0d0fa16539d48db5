"""What no published file may hold: paths of this machine, its user's name, ids of tracks.

Every file is read as bytes, so what a tool wrote into the metadata or a doc string of an ONNX file, or into the header
of another, is found too.
"""

import contextlib
import getpass
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from lofi_assets.dataset.versions import DatasetError
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import PACKAGE, Store
from lofi_assets.training.trained_on import trained_dataset

UNIX_PATH: Final = re.compile(
    rb"/(?:home|Users|Volumes|root|tmp|usr|var|mnt|srv|opt|data|work|private|workspace|scratch|content)/[\w.@+-]{3,}"
)
"""Absolute paths as machines have them, with what follows: a few bytes alone occur in weights by chance. It starts with
a plain sign, without a look at what is before it, which reads 770 MB a second in place of 27."""
WINDOWS_PATH: Final = re.compile(rb":\\\\?Users\\\\?[\w.@+-]+")
INSIDE: Final = re.compile(rb"[\w.~-]$")
"""How what stands before a path ends if it is no absolute one: part of an address, or of a relative path."""
WORD: Final = re.compile(rb"[A-Za-z0-9][\w-]{2,119}")
BLOCK: Final = 16 * 2**20
OVERLAP: Final = 1024
SHORTEST: Final = 4
"""Letters from which on a name is looked for: three letters occur in weights by chance."""
WORDLESS: Final = (".data",)
"""Tensors alone: no words are looked for, paths are."""


def private_strings(
    folder: Path, *, names: Collection[str], paths: Collection[str], public: str, vocabularies: Iterable[Path] = ()
) -> list[str]:
    """`FILE: what it holds`, a line per find, sorted.

    Args:
        names: user names and ids of tracks, found as whole words.
        paths: of this machine, found anywhere, beside what looks like one (`UNIX_PATH`, `WINDOWS_PATH`).
        public: text that is published on purpose; a name that is a word of it, such as `lofi`, tells nothing.
        vocabularies: files that hold the words of a language. A name of letters alone that is one tells nothing
            either; one with digits or signs is looked for in all files, these among them.
    """
    known = set(WORD.findall(public.encode()))
    for file in vocabularies:
        known |= {word for block in _blocks(file) for word in WORD.findall(block) if word.isalpha()}
    words = {name.encode() for name in names if len(name) >= SHORTEST} - known
    exact = [path.encode() for path in paths if len(path) > SHORTEST]
    found = set()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        for hit in _hits(file, words=words, exact=exact):
            found.add(f"{name}: {hit.decode(errors='replace')}")
    return sorted(found)


def of_this_machine() -> tuple[set[str], set[str]]:
    """Names of the user, and paths, that tell where a bundle was built."""
    paths = {PACKAGE.parent, Path.home(), Path(sys.prefix)}
    try:
        names = {getpass.getuser()}
    except (KeyError, OSError):  # a container's user without an entry
        names = set()
    return names, {str(path) for path in paths if len(path.parts) > 2}


def track_ids(store: Store) -> set[str]:
    """Every id of a track that is known here."""
    found = {row.track_id for row in read_inventory(store)}
    with contextlib.suppress(DatasetError):
        found |= {track.track_id for track in trained_dataset(store).tracks}
    return found


def _hits(file: Path, *, words: set[bytes], exact: Iterable[bytes]) -> Iterator[bytes]:
    for block in _blocks(file):
        yield from (found[0] for found in _paths(block))
        yield from (path for path in exact if path in block)
        if file.suffix not in WORDLESS:
            yield from words.intersection(WORD.findall(block))


def _paths(block: bytes) -> Iterator[re.Match[bytes]]:
    yield from (
        found
        for found in UNIX_PATH.finditer(block)
        if not INSIDE.match(block[max(0, found.start() - 1) : found.start()])
    )
    yield from WINDOWS_PATH.finditer(block)


def masked(text: str) -> str:
    """A text with dots in the place of what looks like a path of a machine."""
    for found in {found[0].decode() for found in _paths(text.encode())}:
        text = text.replace(found, "...")
    return text


def _blocks(file: Path) -> Iterator[bytes]:
    """A file in parts that overlap, so that nothing is cut in two."""
    before = b""
    with file.open("rb") as handle:
        while block := handle.read(BLOCK):
            yield before + block
            before = block[-OVERLAP:]
