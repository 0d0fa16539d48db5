"""Raw files: what lies under `raw/`, what it is called, and the track id that its name gives (decision 005).

Names that people's tools leave behind are known here. One bad name or file does not stop the others.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from lofi_assets.files.hashing import hash_of, remembered, sha256_file
from lofi_assets.store import Store

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".aif", ".aiff", ".aifc", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".wma"}
    | {".caf", ".w64", ".rf64", ".au", ".snd", ".ape", ".wv", ".alac"}
)
"""Raw files with these suffixes are expected to be audio; their content decides what they are."""

SOURCE_FOLDERS = ("commissioned", "royalty-free", "creative-commons", "partnerships")
"""Folders of `raw/` (data model, File Storage Layout)."""

NOT_REGULAR = "not a regular file (links and devices are never followed)"

_LEFT_BEHIND = re.compile(
    r"\..*|~\$.*|.*~|.*\.(part|partial|filepart|crdownload|download|opdownload|tmp|temp|!ut|aria2)"
    r"|(eh)?thumbs\.db|desktop\.ini|icon\r|__macosx|@eadir|\$recycle\.bin|system volume information|lost\+found",
    re.IGNORECASE | re.DOTALL,
)
PART = re.compile(r"_s\d{2,}$")
"""How the id of a part ends (`tracks.process_track.part_id`)."""


def left_behind(name: str) -> bool:
    """Whether a file or folder of this name is none that a person put there: hidden, half-copied, or an index."""
    return _LEFT_BEHIND.fullmatch(name) is not None


@dataclass(frozen=True)
class Content:
    """What was in a raw file when it was read."""

    sha256: str
    bytes: int
    stat: str
    """Size and times, by which an unchanged file is not read again (`files.hashing.stat_key`)."""


@dataclass(frozen=True)
class RawFile:
    """An audio file under `raw/`."""

    track_id: str
    path: str
    """Relative to the data root, POSIX; for a name that is no text, as it can be shown."""
    content: Content | None = None
    """None for a file that was not read: it cannot be used, or the question is who claims it and not what is in it."""
    fault: str = ""
    """Why it cannot be used, whoever claims it; empty if it can."""


@dataclass(frozen=True)
class RawTree:
    """Everything in a folder but what tools leave behind; each list sorted by path. Links are never followed."""

    audio: tuple[Path, ...]
    """By suffix; what is in them is not known yet."""
    others: tuple[Path, ...]
    linked_folders: tuple[Path, ...]
    closed: tuple[tuple[Path, str], ...]
    """Folders that cannot be listed, and why."""

    @property
    def files(self) -> list[Path]:
        """Every file, sorted by path."""
        return sorted((*self.audio, *self.others))


def tree_of(folder: Path) -> RawTree:
    """Look through a folder, `raw/` or another that people fill; what vanishes meanwhile is not there."""
    files: list[Path] = []
    links: list[Path] = []
    closed: list[tuple[Path, str]] = []

    def refused(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            closed.append((Path(str(error.filename)), error.strerror or "no reason given"))

    for here, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not left_behind(name)]
        links += [path for name in folders if (path := Path(here, name)).is_symlink()]
        files += [Path(here, name) for name in names if not left_behind(name)]
    files.sort()
    return RawTree(
        audio=tuple(path for path in files if path.suffix.lower() in AUDIO_SUFFIXES),
        others=tuple(path for path in files if path.suffix.lower() not in AUDIO_SUFFIXES),
        linked_folders=tuple(sorted(links)),
        closed=tuple(sorted(closed)),
    )


def list_raw(store: Store, tree: RawTree) -> list[RawFile]:
    """Every audio file under `raw/`, unread: who claims it is a question of names alone."""
    found = [_looked_at(store, path) for path in tree.audio]
    return [file for file in found if file is not None]


def scan_raw(store: Store, tree: RawTree, *, memory: Mapping[str, tuple[str, str]]) -> list[RawFile]:
    """Every audio file under `raw/` with its hash, sorted by path.

    Args:
        memory: relative path -> (stat key, sha256) of the last inventory; a file whose size and times are unchanged
            is not read again.
    """
    by_path = {str(store.root / path): known for path, known in memory.items()}
    files = []
    for path in tree.audio:
        file = _looked_at(store, path)
        if file is not None and not file.fault:
            file = _read(file, path, by_path)
        if file is not None:
            files.append(file)
    return files


def _looked_at(store: Store, path: Path) -> RawFile | None:
    """A file as its name and kind tell; None if it is gone by now."""
    fault = _name_fault(store.relative(path))
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            fault = fault or NOT_REGULAR
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = fault or f"cannot be read ({error.strerror})"
    return RawFile(track_id_of(path), shown_path(store, path), fault=fault)


def _read(file: RawFile, path: Path, memory: Mapping[str, tuple[str, str]]) -> RawFile | None:
    try:
        key, digest = remembered(path, sha256_file, memory)
    except FileNotFoundError:
        return None
    except OSError as error:
        return replace(file, fault=f"cannot be read ({error.strerror})")
    return replace(file, content=Content(digest, int(key.partition(":")[0]), key))


def _name_fault(name: str) -> str:
    """Why nothing can be called so: a name stands in tables, on pages and on command lines."""
    if any(unicodedata.category(character) == "Cs" for character in name):
        return f"its name is not UTF-8 ({os.fsencode(Path(name).name)!r}); rename it"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return f"its name holds a control character ({Path(name).name!r}); rename it"
    return ""


def shown_path(store: Store, path: Path) -> str:
    """`path` relative to the data root, with bytes that are no text and control characters as escapes."""
    text = os.fsencode(store.relative(path)).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), text)


def track_id_of(path: PurePath) -> str:
    """Track id of a raw file: its stem in plain letters, and a hash of the whole stem where letters were dropped.

    A stem in ASCII gives the same id as ever; accents go, as in `Cafe` for `Café`; two names that differ in letters of
    another script have two ids.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    slug, digest = plain_id(path), hash_of(stem)[:8]
    if not slug:
        return f"track_{digest}"
    dropped = (unicodedata.category(letter) for letter in unicodedata.normalize("NFKD", stem) if not letter.isascii())
    if not any(category[0] in "LNS" or category == "Cs" for category in dropped):
        return slug
    return f"{slug[: 120 - len(digest) - 1].rstrip('_-')}_{digest}"


def with_file_name(track_id: str, raw_path: str) -> str:
    """A track as people are told of it: its id, and its file's name where the id does not say it."""
    file = PurePath(raw_path or track_id)
    return track_id if file.stem == track_id else f"{track_id} ({file.name})"


def plain_id(path: PurePath) -> str:
    """The stem in ASCII, everything else than letters, digits and `-` as `_`; empty where nothing is left of it."""
    ascii_stem = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", ascii_stem).strip("_-")[:120]


def raw_track_id(track_id: str, *, inventory: Collection[str]) -> str:
    """Id of the raw file that a track comes from: its own, or, for a part that no raw file is named like, the whole's.

    Args:
        inventory: ids of all raw files.
    """
    whole = PART.sub("", track_id)
    if track_id in inventory or whole == track_id:
        return track_id
    # Ids of parts are cut to the length that a record allows.
    return next((known for known in sorted(inventory) if known[:116] == whole), whole)
