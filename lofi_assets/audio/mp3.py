"""MPEG-1/2 layer III frames and the Info frame in front of them, read and written without decoding.

Decoding is in `decode`, encoding in `encode`.
Sources: ISO/IEC 11172-3 section 2.4 (frame header), 13818-3 (half rates), the Xing and VBRI headers and the "Mp3 Info
Tag revision 1" specification of the LAME project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES = 1152
ENCODER_DELAY = 576
"""Samples LAME prepends (its ENCDELAY)."""
DECODER_DELAY = 529
"""Samples every layer III decoder adds; readers of the Info frame drop ENCODER_DELAY + 529 in front."""
VBRI = 36
"""Where Fraunhofer's header stands in its frame, whatever the channels."""

_BIT_RATES = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, None),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, None),
}
_SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
# Metadata that may follow the last frame: ID3v1, APE and Lyrics3 tags.
_TRAILERS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


@dataclass(frozen=True)
class FrameHeader:
    """The four bytes in front of a frame. `bit_rate_kbps` 0 means free format; `size` is 0 then."""

    mpeg1: bool
    bit_rate_kbps: int
    sample_rate: int
    channels: int
    size: int

    @property
    def samples(self) -> int:
        """Samples per channel that the frame decodes to."""
        return FRAME_SAMPLES if self.mpeg1 else FRAME_SAMPLES // 2

    @property
    def side_info(self) -> int:
        """Bytes between the header and the main data (no CRC)."""
        return (32 if self.channels == 2 else 17) if self.mpeg1 else (17 if self.channels == 2 else 9)


@dataclass(frozen=True)
class Mp3Scan:
    """What the frames of a file say.

    Attributes:
        frames: audio frames found, the header frame not counted.
        bit_rates: kbit/s values that occur, ascending; one value means constant bit rate.
        claimed_frames, claimed_bytes: from the Info, Xing or VBRI frame; None without one or if it does not say.
        delay, padding: encoder delay and padding in samples; None if no LAME field carries them.
        damage: why the file is not whole, in words; empty if nothing is wrong.
    """

    frames: int
    bit_rates: tuple[int, ...]
    sample_rate: int
    channels: int
    frame_samples: int
    claimed_frames: int | None
    claimed_bytes: int | None
    delay: int | None
    padding: int | None
    damage: str


def parse_header(data: bytes | memoryview) -> FrameHeader | None:
    """The frame header in the first four bytes of `data`; None if they are none of layer III."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = (data[1] >> 3) & 3, (data[1] >> 1) & 3
    rate_index, sample_index = data[2] >> 4, (data[2] >> 2) & 3
    if version == 1 or layer != 1 or sample_index == 3 or rate_index == 15:
        return None
    mpeg1 = version == 3
    bit_rate = _BIT_RATES[1 if mpeg1 else 2][rate_index] or 0
    sample_rate = _SAMPLE_RATES[version][sample_index]
    padding = (data[2] >> 1) & 1
    size = (144_000 if mpeg1 else 72_000) * bit_rate // sample_rate + padding if bit_rate else 0
    return FrameHeader(mpeg1, bit_rate, sample_rate, 1 if data[3] >> 6 == 3 else 2, size)


def first_frame(data: bytes) -> int | None:
    """Offset of the first of two consecutive frames, behind any ID3v2 tag; None if there are none within 64 kB."""
    start = _after_id3(data)
    for offset in range(start, min(len(data) - 4, start + (1 << 16))):
        if data[offset] != 0xFF:
            continue
        header = parse_header(data[offset : offset + 4])
        if header and header.size and _continues(data, offset + header.size, header):
            return offset
    return None


def _after_id3(data: bytes) -> int:
    offset = 0
    while data[offset : offset + 3] == b"ID3" and len(data) >= offset + 10:
        high, second, third, low = data[offset + 6 : offset + 10]
        has_footer = bool(data[offset + 5] & 0x10)
        offset += 10 + (high << 21 | second << 14 | third << 7 | low) + 10 * has_footer
    return offset


def _continues(data: bytes, offset: int, header: FrameHeader) -> bool:
    """Whether a frame of the same stream, a trailing tag or the end of the file is at `offset`."""
    if offset >= len(data) or data[offset : offset + 16].startswith(_TRAILERS):
        return True
    following = parse_header(data[offset : offset + 4])
    return following is not None and _same_stream(following, header)


def _same_stream(a: FrameHeader, b: FrameHeader) -> bool:
    return (a.mpeg1, a.sample_rate, a.channels) == (b.mpeg1, b.sample_rate, b.channels)


def scan(data: bytes) -> Mp3Scan | None:
    """Walk every frame header of an MP3; None if the file holds no layer III frames.

    A stream that stops, changes or is interrupted is reported in `damage`, not raised: the caller names the file.
    """
    start = first_frame(data)
    if start is None:
        return None
    first = parse_header(data[start : start + 4])
    assert first is not None
    info = _read_info(data[start : start + first.size], first)
    offset = start + first.size if info else start
    frames, bit_rates, damage = 0, set(), ""
    while offset < len(data):
        header = parse_header(data[offset : offset + 4])
        if header is None or not header.size or not _same_stream(header, first):
            damage = _interruption(data, offset, first, frames)
            break
        if offset + header.size > len(data):
            damage = f"truncated: frame {frames + 1} needs {header.size} bytes, {len(data) - offset} are left"
            break
        frames += 1
        bit_rates.add(header.bit_rate_kbps)
        offset += header.size
    claimed_frames, claimed_bytes, delay, padding = info or (None, None, None, None)
    damage = _lie(frames, claimed_frames, claimed_bytes, held=offset - start) or damage
    return Mp3Scan(
        frames=frames,
        bit_rates=tuple(sorted(bit_rates)),
        sample_rate=first.sample_rate,
        channels=first.channels,
        frame_samples=first.samples,
        claimed_frames=claimed_frames,
        claimed_bytes=claimed_bytes,
        delay=delay,
        padding=padding,
        damage=damage,
    )


def _lie(frames: int, claimed_frames: int | None, claimed_bytes: int | None, *, held: int) -> str:
    """What the header frame claims beyond what is there; "" if nothing.

    Some writers count the header frame itself as one of the frames. That is told from a file that lost its last frame
    by the bytes: `held` are there from the header frame to the end of the music.
    """
    counts_itself = claimed_frames == frames + 1 and (claimed_bytes is None or claimed_bytes <= held)
    if claimed_frames is not None and claimed_frames > frames and not counts_itself:
        return f"truncated or its header lies: the Info frame claims {claimed_frames} frames, {frames} are there"
    if claimed_frames is None and claimed_bytes is not None and claimed_bytes > held:
        return f"truncated or its header lies: the Info frame claims {claimed_bytes} bytes, {held} are there"
    return ""


def _interruption(data: bytes, offset: int, first: FrameHeader, frames: int) -> str:
    """What stands where a frame should: a tag or padding (harmless: ""), another stream, or garbage in the music."""
    rest = data[offset:]
    if rest.startswith(_TRAILERS) or not rest.strip(b"\0"):
        return ""
    header = parse_header(rest[:4])
    if header is not None and header.size and not _same_stream(header, first):
        return (
            f"its format changes after frame {frames}: {first.sample_rate} Hz with {first.channels} channels, then "
            f"{header.sample_rate} Hz with {header.channels}"
        )
    if first_frame(rest) is not None:
        return f"corrupt: garbage inside the music after frame {frames}"
    if rest[0] == 0xFF and len(rest) < 4:
        return f"truncated: cut inside the header of frame {frames + 1}"
    return ""


def _read_info(frame: bytes, header: FrameHeader) -> tuple[int | None, int | None, int | None, int | None] | None:
    """(frames, bytes, delay, padding) of an Info, Xing or VBRI frame; None if the frame is ordinary audio."""
    # Fraunhofer's header: version, delay and quality of 2 bytes each, then bytes and frames.
    if frame[VBRI : VBRI + 4] == b"VBRI" and len(frame) >= VBRI + 18:
        size, count = struct.unpack_from(">II", frame, VBRI + 10)
        return count, size, None, None
    protected = not frame[1] & 1
    position = 4 + 2 * protected + header.side_info
    if frame[position : position + 4] not in (b"Info", b"Xing") or len(frame) < position + 8:
        return None
    flags = int.from_bytes(frame[position + 4 : position + 8], "big")
    position += 8
    fields: list[int | None] = []
    for bit in (1, 2):
        present = bool(flags & bit) and len(frame) >= position + 4
        fields.append(int.from_bytes(frame[position : position + 4], "big") if present else None)
        position += 4 * bool(flags & bit)
    position += 100 * bool(flags & 4) + 4 * bool(flags & 8)
    delay = padding = None
    if frame[position : position + 4] in (b"LAME", b"Lavf", b"Lavc") and len(frame) >= position + 24:
        packed = int.from_bytes(frame[position + 21 : position + 24], "big")
        delay, padding = packed >> 12, packed & 0xFFF
    return fields[0], fields[1], delay, padding


def info_frame(music: bytes, *, samples: int) -> bytes:
    """The Info frame that makes players drop the encoder's padding, to be written in front of `music`.

    Args:
        music: constant-bit-rate MPEG-1 stereo frames as LAME returns them, nothing before or after.
        samples: per channel, what went into the encoder.
    Raises:
        ValueError: the frames are too few for `samples`, or not MPEG-1 stereo.
    """
    header = parse_header(music[:4])
    if header is None or not header.mpeg1 or header.channels != 2 or not header.size:
        raise ValueError("an Info frame is written for MPEG-1 layer III stereo at a constant bit rate only")
    frames = _count(music)
    padding = frames * FRAME_SAMPLES - ENCODER_DELAY - samples
    if not DECODER_DELAY <= padding < 4096:
        raise ValueError(f"{frames} frames cannot hold {samples} samples gaplessly (padding {padding})")
    # The Info frame has no padding byte and no CRC, whatever the first audio frame has.
    head = bytes((0xFF, music[1] | 1, music[2] & ~0x02, music[3]))
    size = 144_000 * header.bit_rate_kbps // header.sample_rate
    total = size + len(music)
    xing = struct.pack(">4sIII", b"Info", 0b1111, frames, total) + _seek_table() + struct.pack(">I", 0)
    # Revision 0 with method 1 (constant bit rate); low-pass in units of 100 Hz; no replay gain; ATH type 0.
    lame = struct.pack(">9sBB8sBB", b"LAME4.0  ", 0x01, 205, bytes(8), 0, min(255, header.bit_rate_kbps))
    lame += (ENCODER_DELAY << 12 | padding).to_bytes(3, "big")
    # Source at 48 kHz, stereo mode left to the header; no MP3 gain, no preset.
    lame += struct.pack(">BBHIH", 0x80 if header.sample_rate == 48_000 else 0x40, 0, 0, total, crc16(music))
    frame = head + bytes(header.side_info) + xing + lame
    frame += struct.pack(">H", crc16(frame))
    return frame + bytes(size - len(frame))


def _seek_table() -> bytes:
    """Where in the file, of 256, each percent of the time is: a straight line at a constant bit rate."""
    return bytes(percent * 256 // 100 for percent in range(100))


def _count(music: bytes) -> int:
    offset = frames = 0
    while offset < len(music):
        header = parse_header(music[offset : offset + 4])
        if header is None or not header.size:
            raise ValueError(f"byte {offset} of the encoder's output is not a frame header")
        offset += header.size
        frames += 1
    return frames


def crc16(data: bytes) -> int:
    """CRC-16/ARC (polynomial 0x8005 reflected, start 0), as the Info frame wants it over megabytes of music.

    A byte loop takes seconds. The CRC is linear and zeros in front do not change it, so neighbouring blocks are
    merged pairwise: shift the left one past the right one by table, exclusive-or, halve, repeat.
    """
    length = 2
    while length < len(data):
        length *= 2
    words = np.frombuffer(data.rjust(length, b"\0"), dtype="<u2")
    shift = _word_table()
    crc = shift[words]
    while len(crc) > 1:
        crc = np.bitwise_xor(shift[crc[0::2]], crc[1::2])
        shift = shift[shift]
    return int(crc[0])


@cache
def _word_table() -> NDArray[np.uint16]:
    """CRC register after 16 more bits, for each of its 65,536 states."""
    state = np.arange(1 << 16, dtype=np.uint16)
    for _ in range(16):
        state = np.bitwise_xor(state >> 1, (state & 1) * np.uint16(0xA001))
    return state
