"""Headers as writers leave them: one input, one verdict, one message, whatever the file is called."""

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile

from lofi_assets.audio import encode, mp3
from lofi_assets.audio.decode import AudioError, read_audio

RATE = 48_000
FRAME = 960
"""Bytes of a frame at 320 kbit/s and 48 kHz."""


@cache
def written(container: str, subtype: str = "PCM_16", *, endian: str = "FILE") -> bytes:
    """One second of a tone, (2, 48000)."""
    tone = np.sin(np.arange(RATE) * 0.05) * 0.5
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        soundfile.write(path, np.stack([tone, tone], axis=1), RATE, format=container, subtype=subtype, endian=endian)
        return path.read_bytes()


@cache
def music() -> bytes:
    tone = (np.sin(np.arange(RATE) * 0.05) * 0.5).astype(np.float32)
    return encode.encode_mp3(np.stack([tone, tone]))


def verdict(folder: Path, data: bytes) -> str:
    """ "codec, bit depth, samples", or "rule | message"."""
    path = folder / "a.wav"
    path.write_bytes(data)
    try:
        decoded = read_audio(path, root=folder)
    except AudioError as error:
        assert str(error).startswith("'a.wav' ")
        return f"{error.rule} | {error.message.removeprefix(repr(path.name))[1:]}"
    return f"{decoded.codec}, {decoded.bit_depth}, {decoded.frames}"


def check(folder: Path, data: bytes, wanted: str) -> None:
    found = verdict(folder, data)
    assert found.startswith(wanted), found


# --- RIFF, AIFF, FLAC ------------------------------------------------------------------------------------------------


def size_of(mark: bytes, size: int, data: bytes, *, order: str = "<", outer: int | None = None) -> bytes:
    """The file with another size in a chunk's header, and in that of the whole."""
    changed, at = bytearray(data), data.index(mark)
    changed[at + 4 : at + 8] = struct.pack(f"{order}I", size)
    if outer is not None:
        changed[4:8] = struct.pack(f"{order}I", outer)
    return bytes(changed)


def wav(size: int, outer: int | None = None) -> bytes:
    return size_of(b"data", size, written("WAV"), outer=outer)


def with_chunk(padding: bytes) -> bytes:
    """A chunk of 15 bytes in front of the samples."""
    data = written("WAV")
    at = data.index(b"data")
    return data[:at] + b"LIST" + struct.pack("<I", 15) + b"INFOISFT\x03\0\0\0abc" + padding + data[at:]


def format_tag(tag: int) -> bytes:
    data = written("WAV")
    return data[:20] + struct.pack("<H", tag) + data[22:]


def marked(mark: bytes, *, at: int = 0) -> bytes:
    return bytes(at) + mark + bytes(range(256)) * 40


def without_length() -> bytes:
    flac = bytearray(written("FLAC"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    return bytes(flac)


WHOLE, PIPED = f"wav, 16, {RATE}", "audio.readable | says that it holds no samples, but 192000 bytes follow"
NOT_READ = "audio.format | is {}, which is not read; "
LOSSLESS, ORIGINAL = "convert it to WAV or FLAC", "deliver WAV or FLAC made from the original"
CONTAINERS: dict[str, tuple[Callable[[], bytes], str]] = {
    # what: (file, verdict and message)
    "a WAV": (lambda: written("WAV"), WHOLE),
    "a WAV from a pipe": (lambda: wav(0xFFFFFFFF), WHOLE),
    "a WAV from a pipe, both sizes": (lambda: wav(0xFFFFFFFF, 0xFFFFFFFF), WHOLE),
    "a WAV that sox wrote to a pipe": (lambda: wav(0x7FFFF000, 0x7FFFF024), WHOLE),
    "a WAV that sox wrote to a pipe, 24 bits": (lambda: wav(0x7FFFEFFC), WHOLE),
    "a WAV from a pipe, no sizes": (lambda: wav(0, 0), PIPED),
    "a WAV from a pipe, no size": (lambda: wav(0), PIPED),
    "a WAV that claims one byte too many": (lambda: wav(192_001), "audio.readable | is truncated: its header claims 1"),
    "a WAV that claims 2 GB": (lambda: wav(0x7FFFFFFF), "audio.readable | is truncated: its header claims 2147483647"),
    "an odd chunk and its padding": (lambda: with_chunk(b"\0"), WHOLE),
    "an odd chunk without padding": (
        lambda: with_chunk(b""),
        "audio.readable | has no samples where its chunks lead",
    ),
    "odd samples without padding": (lambda: size_of(b"data", 191_999, written("WAV"))[:-1], f"wav, 16, {RATE - 1}"),
    "big-endian": (lambda: written("WAV", endian="BIG"), WHOLE),
    "RF64": (lambda: written("RF64"), WHOLE),
    "RF64, cut": (lambda: written("RF64")[:-5000], "audio.readable | is truncated: its header claims 192000"),
    "BW64": (lambda: b"BW64" + written("RF64")[4:], NOT_READ.format("BW64") + LOSSLESS),
    "AIFF": (lambda: written("AIFF"), f"aiff, 16, {RATE}"),
    "AIFF-C, sowt": (lambda: written("AIFF", endian="LITTLE"), f"aiff, 16, {RATE}"),
    "AIFF-C, floats": (lambda: written("AIFF", "FLOAT"), f"aiff, 32, {RATE}"),
    "AIFF-C, u-law": (lambda: written("AIFF", "ULAW"), "audio.format | holds AIFF/ULAW; deliver WAV, FLAC"),
    "AIFF from a pipe": (lambda: size_of(b"SSND", 0, written("AIFF"), order=">"), f"aiff, 16, {RATE}"),
    "AIFF, cut": (lambda: written("AIFF")[:-5000], "audio.readable | is truncated: its header claims 192008"),
    "FLAC behind an ID3 tag": (
        lambda: b"ID3\x04\0\0" + bytes((0, 0, 8, 0)) + bytes(1024) + written("FLAC"),
        f"flac, 16, {RATE}",
    ),
    "FLAC from a pipe": (without_length, "audio.readable | is a FLAC that does not say its length"),
    "FLAC, nonsense inside": (
        lambda: b"fLaC" + np.random.default_rng(0).bytes(5000),
        "audio.readable | cannot be decoded (Error : unknown error in flac decoder.); it is corrupt",
    ),
    "MP3 in a WAV": (lambda: format_tag(0x55), NOT_READ.format("a WAV that holds MP3") + ORIGINAL),
    "AAC in a WAV": (lambda: format_tag(0xFF), NOT_READ.format("a WAV that holds AAC") + ORIGINAL),
    "CAF": (lambda: written("CAF"), "audio.format | holds CAF/PCM_16; deliver WAV, FLAC"),
    "MP4": (lambda: marked(b"ftypM4A ", at=4), NOT_READ.format("MP4 (AAC or ALAC)") + ORIGINAL),
    "WavPack": (lambda: marked(b"wvpk"), NOT_READ.format("WavPack") + LOSSLESS),
    "Windows Media": (lambda: marked(b"\x30\x26\xb2\x75"), NOT_READ.format("Windows Media") + ORIGINAL),
    "a text": (lambda: b"I am no music.\n" * 99, "audio.readable | is no audio that is known: neither WAV, FLAC, AIFF"),
    "a ZIP": (lambda: marked(b"PK\x03\x04"), "audio.readable | is no audio that is known"),
}


@pytest.mark.parametrize("what", CONTAINERS)
def test_a_container_is_read_or_called_what_it_is(tmp_path: Path, what: str) -> None:
    make, wanted = CONTAINERS[what]
    check(tmp_path, make(), wanted)


# --- MP3 -------------------------------------------------------------------------------------------------------------


def claiming(*, frames: int = 0, size: int | None = 0, behind: bytes = b"", lost: int = 0) -> bytes:
    """An MP3 whose Info frame claims so much more than is there; size None: it does not say its bytes."""
    data = music()
    found = mp3.scan(data)
    assert found is not None and found.claimed_frames == found.frames
    fields = struct.pack(">II", found.frames + frames, len(data) + (size or 0))
    if size is None:
        fields = fields[:4]
    head = data[:40] + struct.pack(">I", 0b1111 if size is not None else 0b1101) + fields
    rest = data[52:FRAME] + bytes(52 - len(head))
    return head + rest + data[FRAME : len(data) - lost * FRAME] + behind


def vbri(*, frames: int = 0, size: int = 0, lost: int = 0) -> bytes:
    """The same music behind Fraunhofer's header."""
    frames_of = music()[FRAME:]
    count = len(frames_of) // FRAME + frames
    header = struct.pack(">4sHHHII", b"VBRI", 1, 1105, 75, len(frames_of) + FRAME + size, count)
    return (frames_of[:4] + bytes(32) + header).ljust(FRAME, b"\0") + frames_of[: len(frames_of) - lost * FRAME]


def protected() -> bytes:
    """An Info frame with a CRC: everything in it stands two bytes later."""
    data = music()
    head = bytes((data[0], data[1] & ~1, data[2], data[3]))
    return head + bytes(2) + data[4 : FRAME - 2] + data[FRAME:]


LIES, COUNT = "audio.readable | is an MP3 that is truncated or its header lies: the Info frame claims {}", 43
MP3S: dict[str, tuple[Callable[[], bytes], str]] = {
    "as LAME counts": (music, f"mp3, None, {RATE}"),
    "the Info frame counts itself": (lambda: claiming(frames=1), "mp3, None, "),
    "counts itself, and not its bytes": (lambda: claiming(frames=1, size=-FRAME), "mp3, None, "),
    "counts itself and does not say its bytes": (lambda: claiming(frames=1, size=None), "mp3, None, "),
    "does not say its bytes": (lambda: claiming(size=None), f"mp3, None, {RATE}"),
    "two frames too many": (lambda: claiming(frames=2), LIES.format("45 frames, 43 are there")),
    "lost its last frame": (lambda: claiming(lost=1), LIES.format("43 frames, 42 are there")),
    "counts itself and lost its last frame": (lambda: claiming(frames=1, lost=1), LIES.format("44 frames, 42 are")),
    "lost its last frame, with a tag behind": (
        lambda: claiming(lost=1, behind=b"TAG" + bytes(125)),
        LIES.format("43 frames, 42 are there"),
    ),
    "lost its last frame, with a big tag behind": (
        lambda: claiming(lost=1, behind=b"APETAGEX" + bytes(5000)),
        LIES.format("43 frames, 42 are there"),
    ),
    "claims ten frames less": (
        lambda: claiming(frames=-10),
        "audio.readable | is an MP3 whose header lies: the Info frame claims 33 frames, 43 are there; was it joined",
    ),
    "Fraunhofer's header": (vbri, "mp3, None, "),
    "Fraunhofer's header counts itself": (lambda: vbri(frames=1), "mp3, None, "),
    "Fraunhofer's header, cut": (lambda: vbri(lost=5), LIES.format("43 frames, 38 are there")),
    "a CRC in the Info frame": (protected, "mp3, None, "),
    "a CRC in the Info frame, cut": (lambda: protected()[: -3 * FRAME], LIES.format("43 frames, 40 are there")),
}


@pytest.mark.parametrize("what", MP3S)
def test_an_mp3_is_whole_however_its_writer_counts_and_cut_where_frames_are_missing(tmp_path: Path, what: str) -> None:
    make, wanted = MP3S[what]
    check(tmp_path, make(), wanted)


def test_a_vbri_header_is_read_as_what_it_claims() -> None:
    found = mp3.scan(vbri())
    assert found is not None
    assert (found.frames, found.claimed_frames, found.claimed_bytes, found.damage) == (COUNT, COUNT, 44 * FRAME, "")
