"""What an audio file says of itself: title, genre, mood, comment, keywords and tempo, from the containers' own tags.

What belongs here: finding and decoding those texts in WAV, AIFF, FLAC and MP3. What does not: when a file is read
(`tracks/file_tags.py`), what the texts mean (`tracks/tagging.py`). The file is hostile until shown otherwise: at most
`READ_BYTES` are read, every length is checked against what was read, nothing is decompressed or executed, and whatever
cannot be read says nothing.
Sources: RIFF INFO list, AIFF-1.3, ID3v2.2-2.4 (id3.org), Vorbis comments and the FLAC format (RFC 9639).
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

FileTags = dict[str, list[str]]

METADATA_VERSION = "1"
"""Raised when the same file gives other tags."""
READ_BYTES = 1 << 20
"""Tags stand within this many bytes of the start; what is behind (pictures, tags at the end) is not looked for."""
TEXT_CHARACTERS, TEXTS_PER_FIELD, CHUNKS = 500, 8, 200
FIELDS = ("title", "genre", "mood", "comment", "keywords", "bpm")

_ID3 = {
    **{"TIT2": "title", "TCON": "genre", "TMOO": "mood", "COMM": "comment", "TBPM": "bpm"},
    **{"TT2": "title", "TCO": "genre", "COM": "comment", "TBP": "bpm"},
}
_RIFF = {b"INAM": "title", b"IGNR": "genre", b"ICMT": "comment", b"IKEY": "keywords"}
_AIFF = {b"NAME": "title", b"ANNO": "comment"}
_VORBIS = {
    **{"title": "title", "genre": "genre", "mood": "mood", "comment": "comment", "description": "comment"},
    **{"keywords": "keywords", "bpm": "bpm", "tempo": "bpm"},
}
_GENRE_NUMBERS = {
    **{0: "blues", 5: "funk", 7: "hip hop", 8: "jazz", 10: "new age", 14: "r&b", 16: "reggae", 26: "ambient"},
    **{27: "trip hop", 32: "classical", 35: "house", 42: "soul", 52: "electronic", 80: "folk"},
}
"""The ID3v1 genres that lofi has a use for; the other numbers say nothing."""


def read_tags(path: Path) -> FileTags:
    """Field of `FIELDS` -> texts, each of at most 500 printable characters; empty if the file has or shows none.

    Never raises for anything in the file; links, devices and unreadable files say nothing.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return {}
        with path.open("rb") as file:
            data = file.read(READ_BYTES)
    except OSError:
        return {}
    tags: FileTags = {}
    with suppress(struct.error, IndexError, UnicodeError, ValueError):
        for field, text in _texts(data):
            known = tags.setdefault(field, [])
            clean = _clean(text)
            if clean and clean not in known and len(known) < TEXTS_PER_FIELD:
                known.append(clean)
    return {field: tags[field] for field in FIELDS if tags.get(field)}


def stated_bpm(tags: Mapping[str, Sequence[str]]) -> float | None:
    """The tempo that the file states, if it states one number."""
    numbers = {float(text) for text in tags.get("bpm", ()) if re.fullmatch(r"[0-9]{2,3}(\.[0-9]{1,3})?", text)}
    return numbers.pop() if len(numbers) == 1 else None


def _clean(text: str) -> str:
    """One line of printable text without surrounding space."""
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * TEXT_CHARACTERS])
    return " ".join(line.split())[:TEXT_CHARACTERS]


def _texts(data: bytes) -> Iterator[tuple[str, str]]:
    """(field, text) of whichever container this is."""
    if data[:3] == b"ID3":
        yield from _id3(data)
        data = data[10 + _synchsafe(data[6:10]) :]
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        yield from _wave(data)
    elif data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        for name, body in _chunks(data, 12, len(data), ">"):
            if name in _AIFF:
                yield _AIFF[name], body.decode("latin-1")
            elif name == b"ID3 ":
                yield from _id3(body)
    elif data[:4] == b"fLaC":
        yield from _flac(data)


def _chunks(data: bytes, start: int, end: int, order: str) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk that lies within what was read."""
    for _ in range(CHUNKS):
        if start + 8 > end:
            return
        name, size = data[start : start + 4], struct.unpack(f"{order}I", data[start + 4 : start + 8])[0]
        if start + 8 + size <= end:
            yield name, data[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def _wave(data: bytes) -> Iterator[tuple[str, str]]:
    for name, body in _chunks(data, 12, len(data), "<"):
        if name == b"LIST" and body[:4] == b"INFO":
            for key, text in _chunks(body, 4, len(body), "<"):
                if key in _RIFF:
                    yield _RIFF[key], _text(text.split(b"\0")[0])
        elif name in (b"id3 ", b"ID3 "):
            yield from _id3(body)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _flac(data: bytes) -> Iterator[tuple[str, str]]:
    start = 4
    for _ in range(CHUNKS):
        head, size = data[start], int.from_bytes(data[start + 1 : start + 4], "big")
        if head & 0x7F == 4:
            yield from _vorbis(data[start + 4 : start + 4 + size])
        if head & 0x80:
            return
        start += 4 + size


def _vorbis(block: bytes) -> Iterator[tuple[str, str]]:
    """`KEY=value` texts; a length beyond the block ends it."""
    start = 4 + struct.unpack("<I", block[:4])[0]
    count = struct.unpack("<I", block[start : start + 4])[0]
    start += 4
    for _ in range(min(count, CHUNKS)):
        size = struct.unpack("<I", block[start : start + 4])[0]
        raw = block[start + 4 : start + 4 + size]
        if len(raw) < size:
            return
        key, _, text = raw.decode("utf-8", errors="replace").partition("=")
        if key.lower() in _VORBIS:
            yield _VORBIS[key.lower()], text
        start += 4 + size


def _synchsafe(raw: bytes) -> int:
    return (raw[0] & 0x7F) << 21 | (raw[1] & 0x7F) << 14 | (raw[2] & 0x7F) << 7 | raw[3] & 0x7F


def _id3(data: bytes) -> Iterator[tuple[str, str]]:
    """Text frames of an ID3v2 tag; one that is unsynchronised as a whole, or has an extended header, says nothing."""
    version, flags = data[3], data[5]
    if data[:3] != b"ID3" or version not in (2, 3, 4) or flags & 0xC0:
        return
    end = min(len(data), 10 + _synchsafe(data[6:10]))
    name_bytes, header = (3, 6) if version == 2 else (4, 10)
    start = 10
    for _ in range(CHUNKS):
        name = data[start : start + name_bytes].decode("latin-1")
        if start + header > end or not name.strip("\0"):
            return
        raw = data[start + name_bytes : start + 2 * name_bytes]
        size = _synchsafe(raw) if version == 4 else int.from_bytes(raw, "big")
        plain = version == 2 or data[start + 9] == 0
        body = data[start + header : start + header + size]
        if name in _ID3 and plain and body and len(body) == size and start + header + size <= end:
            yield from ((_ID3[name], text) for text in _frame_texts(name, body))
        start += header + size


def _frame_texts(name: str, body: bytes) -> Iterator[str]:
    """The texts of a frame; of a comment the part behind language and description."""
    encoding = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}.get(body[0])
    if encoding is None:
        return
    comment = name in ("COMM", "COM")
    parts = body[4 if comment else 1 :].decode(encoding, errors="replace").replace("\ufeff", "").split("\0")
    for part in parts[1:] if comment else parts:
        yield from _genres(part) if name in ("TCON", "TCO") else (part,)


def _genres(text: str) -> Iterator[str]:
    """Words of a genre text; ID3 also writes numbers, as `8` or `(8)`, before or instead of words."""
    for number in re.findall(r"\(([0-9]{1,3})\)", text) + re.findall(r"^[0-9]{1,3}$", text):
        if int(number) in _GENRE_NUMBERS:
            yield _GENRE_NUMBERS[int(number)]
    yield re.sub(r"\([0-9]{1,3}\)|^[0-9]{1,3}$", "", text)
