"""What a curator puts beside a raw file: `<stem>_prompt.txt` and `<stem>_lyrics.txt`, found and read.

A name that differs in case or in how accents are stored is taken if nothing else could be meant; what cannot be read is
a fault of the track, since half a text, or none in its place, would be learnt.
"""

import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lofi_assets.files.hand_written import HandWrittenError, decoded
from lofi_assets.sources.raw_files import AUDIO_SUFFIXES, left_behind
from lofi_assets.store import Store

SIDECAR_BYTES = 1 << 16
"""Largest prompt or lyrics file that is read."""

Kind = Literal["prompt", "lyrics"]
_SIDECAR = re.compile(r"(?s)(.*)_(prompt|lyrics)\.txt")


class Sidecars(NamedTuple):
    """The texts beside a raw file."""

    prompt: str
    """Empty without one."""
    lyrics: str | None
    fault: str
    """Why a file that is there cannot be read: its name, and what to do; empty if all can."""


@dataclass(frozen=True)
class _Folder:
    """The names of one folder of `raw/`."""

    sidecars: dict[tuple[str, str], list[str]]
    """(kind, stem as it is compared) -> file names."""
    stems: dict[str, set[str]]
    """Stem as it is compared -> stems of audio files."""


class CuratorFiles:
    """Prompt and lyrics files of one look at `raw/`: each folder is listed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders: dict[Path, _Folder] = {}

    def beside(self, raw_path: str) -> Sidecars:
        """The texts of a raw file, given relative to the data root."""
        path = self._store.root / raw_path
        prompt, prompt_fault = self._text(path, "prompt")
        lyrics, lyrics_fault = self._text(path, "lyrics")
        return Sidecars(prompt or "", lyrics, "; ".join(filter(None, (prompt_fault, lyrics_fault))))

    def belongs(self, path: Path) -> bool:
        """Whether a file is the text of a raw file beside it, read or at fault."""
        found = _SIDECAR.fullmatch(_compared(path.name))
        if found is None:
            return False
        stems = self._folder(path.parent).stems.get(found[1], set())
        return any(path.name in self._candidates(path.parent, stem, found[2]) for stem in stems)

    def _text(self, audio: Path, kind: Kind) -> tuple[str | None, str]:
        names = self._candidates(audio.parent, audio.stem, kind)
        if not names:
            return None, ""
        exact = f"{audio.stem}_{kind}.txt"
        stems = self._folder(audio.parent).stems.get(_compared(audio.stem), set())
        if names != [exact] and (len(names) > 1 or stems - {audio.stem}):
            return None, f"{' and '.join(map(repr, names))} could be meant; keep one and call it {exact!r}"
        return _read(audio.with_name(names[0]))

    def _candidates(self, folder: Path, stem: str, kind: str) -> Sequence[str]:
        """Names that could be meant for an audio file: the exact one alone, where it is there."""
        names = self._folder(folder).sidecars.get((kind, _compared(stem)), [])
        exact = f"{stem}_{kind}.txt"
        return [exact] if exact in names else names

    def _folder(self, folder: Path) -> _Folder:
        if folder not in self._folders:
            self._folders[folder] = _listed(folder)
        return self._folders[folder]


def _listed(folder: Path) -> _Folder:
    try:
        names = sorted(path.name for path in folder.iterdir() if not left_behind(path.name))
    except OSError:
        names = []
    sidecars: dict[tuple[str, str], list[str]] = {}
    stems: dict[str, set[str]] = {}
    for name in names:
        if found := _SIDECAR.fullmatch(_compared(name)):
            sidecars.setdefault((found[2], found[1]), []).append(name)
        elif Path(name).suffix.lower() in AUDIO_SUFFIXES:
            stems.setdefault(_compared(Path(name).stem), set()).add(Path(name).stem)
    return _Folder(sidecars, stems)


def _compared(name: str) -> str:
    """A name without case, and with accents in one form: macOS stores them apart from their letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _read(path: Path) -> tuple[str | None, str]:
    """(text, fault) of a sidecar; (None, "") if it is gone by now."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return None, f"{path.name!r} is a link or no file, which is never followed; put the text itself there"
        if status.st_size > SIDECAR_BYTES:
            return None, f"{path.name!r} has {status.st_size} bytes, more than the {SIDECAR_BYTES} that words can have"
        return decoded(path.read_bytes(), where=repr(path.name)), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path.name!r} cannot be read ({error.strerror})"
    except HandWrittenError as error:
        return None, str(error)
