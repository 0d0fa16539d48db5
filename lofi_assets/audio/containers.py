"""What the first bytes of a file say that it is, before anything decodes it.

Formats by their own marks, and whether a RIFF or AIFF file holds the samples that it claims. MPEG frames are in `mp3`.
Sources: RIFF/WAVE (Microsoft, 1991), RF64 (EBU Tech 3306), BW64 (ITU-R BS.2088), AIFF-C (Apple, 1991).
"""

from __future__ import annotations

import struct

_FOREIGN: tuple[tuple[int, bytes, str, bool], ...] = (
    # (offset, mark, name, lossless)
    (0, b"BW64", "BW64", True),
    (0, b"MAC ", "Monkey's Audio", True),
    (0, b"wvpk", "WavPack", True),
    (0, b"TTA1", "True Audio", True),
    (0, b"DSD ", "DSF", True),
    (0, b"FRM8", "DSDIFF", True),
    (4, b"ftyp", "MP4 (AAC or ALAC)", False),
    (0, b"\x30\x26\xb2\x75", "Windows Media", False),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM", False),
    (0, b"#!AMR", "AMR", False),
    (0, b"ADIF", "AAC", False),
)
_WAV_CODECS = {0x50: "MPEG layer II", 0x55: "MP3", 0x92: "AC-3", 0xFF: "AAC", 0x161: "Windows Media", 0x2000: "AC-3"}
"""Format tags of a WAV file whose samples need a decoder of their own."""
_KNOWN = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"caff", b"riff")

_STREAMED = 0x7FFFF000
"""What sox writes for a length that it does not know yet, rounded down to whole frames of up to 64 bytes."""


def known(data: bytes) -> bool:
    """Whether the file has a mark of its own that libsndfile reads; an MP3 has none."""
    return data[:4] in _KNOWN


def foreign(data: bytes) -> str:
    """What a file is that is not read, and what to deliver instead; "" if its mark is none of those."""
    for offset, mark, name, lossless in _FOREIGN:
        if data[offset : offset + len(mark)] == mark:
            advice = "convert it to WAV or FLAC" if lossless else "deliver WAV or FLAC made from the original"
            return f"is {name}, which is not read; {advice}"
    if _is_adts(data):
        return "is AAC, which is not read; deliver WAV or FLAC made from the original"
    codec = _WAV_CODECS.get(_format_tag(data))
    return (
        f"is a WAV that holds {codec}, which is not read; deliver WAV or FLAC made from the original" if codec else ""
    )


def _is_adts(data: bytes) -> bool:
    """Two frames of AAC, the second where the first ends."""
    if len(data) < 7 or not _adts_sync(data[:2]):
        return False
    size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    return size >= 7 and _adts_sync(data[size : size + 2])


def _adts_sync(data: bytes) -> bool:
    return len(data) == 2 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0


def _format_tag(data: bytes) -> int:
    """Of the `fmt ` chunk where it stands first, as writers put it; 0 elsewhere."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:16] != b"WAVEfmt " or len(data) < 22:
        return 0
    return int(struct.unpack_from("<H", data, 20)[0])


def samples_fault(data: bytes) -> str:
    """Why a RIFF or AIFF file does not hold what it claims; "" if it does. The decoder would return less, silently."""
    byte_order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(data[:4])
    if byte_order is None or data[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return ""
    found = _sample_bytes(data, byte_order)
    if found is None:
        return "has no samples where its chunks lead: cut before them, or a chunk with a wrong length; export it again"
    claimed, held = found
    if claimed == 0 and held > 0 and byte_order == "<":
        return (
            f"says that it holds no samples, but {held} bytes follow (written to a pipe?); convert it to FLAC with a "
            "tool that reads to the end, such as ffmpeg"
        )
    if claimed <= held or claimed == 0xFFFFFFFF or _STREAMED - 64 < claimed <= _STREAMED:
        return ""
    return f"is truncated: its header claims {claimed} bytes of samples, {held} are there; copy it again"


def _sample_bytes(data: bytes, byte_order: str) -> tuple[int, int] | None:
    """(bytes of samples that the chunks claim, bytes that are there); None if no chunk holds samples."""
    offset, long_size = 12, 0
    while offset + 8 <= len(data):
        name, size = data[offset : offset + 4], struct.unpack_from(f"{byte_order}I", data, offset + 4)[0]
        if name == b"ds64" and offset + 24 <= len(data):
            long_size = struct.unpack_from("<Q", data, offset + 16)[0]
        if name in (b"data", b"SSND"):
            return (long_size if long_size and size == 0xFFFFFFFF else size), len(data) - offset - 8
        offset += 8 + size + (size & 1)
    return None


def flac_length_unknown(data: bytes) -> bool:
    """Whether a FLAC file's STREAMINFO leaves the number of samples at 0, as writers to a pipe do."""
    return data[:4] == b"fLaC" and len(data) >= 26 and not (data[21] & 0x0F or any(data[22:26]))
