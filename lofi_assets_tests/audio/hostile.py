"""Files that try to break the audio chain, made by code: every nasty input that a library has met or will meet.

`write_hostile_files(folder, seconds=...)` writes them and says which rule each must be rejected by. With 5 s most stop
at the gate on duration; with 65 s the same faults reach the deep stages.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import lameenc
import numpy as np
import soundfile
from numpy.typing import NDArray

from lofi_assets.audio import encode

RATE = 44_100
FloatArray = NDArray[np.float32]
Writer = Callable[[Path, int], object]
"""Writes one file, its music lasting so many seconds."""

READABLE, FORMAT, SHORT = "audio.readable", "audio.format", "audio.duration_min"
ACCEPTED = ""
LATER_RULES = (ACCEPTED, "audio.duration_max", "audio.clipping", "audio.silence")
"""Rules that are judged after the gate on the least duration, which a file of 5 s breaks first."""
RANDOM = np.random.default_rng(0).bytes(1 << 16)


@cache
def music(seconds: int, *, rate: int = RATE, channels: int = 2) -> FloatArray:
    """Chords with a pulse and some hiss, (channels, frames): passes every gate if it is long enough."""
    time = np.arange(seconds * rate, dtype=np.float32) / rate
    rng = np.random.default_rng(seconds)
    rows = []
    for channel in range(channels):
        hertz = (196.0, 246.9, 293.7 + channel, 392.0)
        chord = sum(np.sin(2 * np.pi * tone * time + index) for index, tone in enumerate(hertz))
        pulse = 0.6 + 0.4 * np.cos(2 * np.pi * 1.4 * time)
        rows.append(0.12 * chord * pulse + 0.004 * rng.standard_normal(len(time)))
    return np.stack(rows).astype(np.float32)


def _sound(path: Path, samples: FloatArray, *, kind: str = "WAV/PCM_16", rate: int = RATE) -> bytes:
    container, subtype = kind.split("/")
    with soundfile.SoundFile(path, "w", rate, len(samples), subtype, format=container) as file:
        # libsndfile's Vorbis writer keeps what it is given on the stack, and overflows it.
        for start in range(0, samples.shape[1], rate):
            file.write(samples[:, start : start + rate].T)
    return path.read_bytes()


def _written(kind: str, path: Path, seconds: int, *, rate: int = RATE, channels: int = 2) -> bytes:
    return _sound(path, music(seconds, rate=rate, channels=channels), kind=kind, rate=rate)


def _shaped(shape: Callable[[FloatArray], FloatArray], path: Path, seconds: int) -> None:
    _sound(path, shape(music(seconds).copy()), kind="WAV/FLOAT")


def _cut(kind: str, keep: float, path: Path, seconds: int) -> None:
    data = _written(kind, path, seconds)
    path.write_bytes(data[: int(len(data) * keep)])


def _flipped(kind: str, path: Path, seconds: int) -> None:
    data = bytearray(_written(kind, path, seconds))
    middle = len(data) // 2
    data[middle : middle + 4000] = RANDOM[:4000]
    path.write_bytes(data)


def _patched(at: int, value: bytes, path: Path, seconds: int) -> None:
    """A WAV with some bytes of its 44-byte header replaced."""
    data = bytearray(_written("WAV/PCM_16", path, seconds))
    data[at : at + len(value)] = value
    path.write_bytes(data)


def _header_only(path: Path, _: int) -> None:
    path.write_bytes(_written("WAV/PCM_16", path, 1)[:44])


def _chunk_bomb(path: Path, seconds: int) -> None:
    data = _written("WAV/PCM_16", path, seconds)
    path.write_bytes(data[:36] + b"LIST" + struct.pack("<I", 0xFFFFFFF0) + data[36:])


def _trailing(path: Path, seconds: int) -> None:
    path.write_bytes(_written("WAV/PCM_16", path, seconds) + RANDOM[:999])


def _spike(value: float) -> Callable[[FloatArray], FloatArray]:
    def shape(samples: FloatArray) -> FloatArray:
        samples[0, samples.shape[1] // 2] = value
        return samples

    return shape


def _mostly_silent(samples: FloatArray) -> FloatArray:
    samples[:, samples.shape[1] // 3 :] = 0.0
    return samples


@cache
def _lame(seconds: int, *, bit_rate: int = 320, rate: int = RATE, channels: int = 2) -> bytes:
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(bit_rate)
    encoder.set_in_sample_rate(rate)
    encoder.set_channels(channels)
    encoder.set_quality(7)
    encoder.silence()
    samples = np.rint(music(seconds, rate=rate, channels=channels).T * 32767).astype("<i2")
    return bytes(encoder.encode(samples.tobytes())) + bytes(encoder.flush())


@cache
def _gapless(seconds: int) -> bytes:
    return encode.encode_mp3(music(seconds, rate=encode.SAMPLE_RATE))


def _mp3(change: Callable[[bytes], bytes], path: Path, seconds: int) -> None:
    path.write_bytes(change(_gapless(seconds)))


def _lame_file(path: Path, seconds: int, *, bit_rate: int = 320, rate: int = RATE, channels: int = 2) -> None:
    path.write_bytes(_lame(seconds, bit_rate=bit_rate, rate=rate, channels=channels))


def _variable(path: Path, seconds: int) -> None:
    soundfile.write(path, music(seconds).T, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.2)


def _reencoded(path: Path, seconds: int) -> None:
    """128 kbit/s in the clothes of 320: no gate forbids it, the spectral edge tells of it."""
    path.write_bytes(_lame(seconds, bit_rate=128))
    decoded, _ = soundfile.read(path, dtype="float32")
    _sound(path, decoded.T, kind="FLAC/PCM_16")


def _spliced(path: Path, seconds: int) -> None:
    path.write_bytes(_lame(seconds) + _lame(seconds, rate=48_000, channels=1))


def id3(frames: bytes, *, claim: int | None = None) -> bytes:
    """An ID3v2.4 tag, its size told truly or not."""
    size = len(frames) if claim is None else claim
    return b"ID3\x04\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + frames


def _title(text: str) -> bytes:
    body = b"\x03" + text.encode()
    return b"TIT2" + struct.pack(">I", len(body)) + b"\x00\x00" + body


def _adts(path: Path, seconds: int) -> None:
    """Frames with AAC's sync word and nonsense inside."""
    path.write_bytes(b"".join(b"\xff\xf1\x50\x80\x2e\x7f\xfc" + RANDOM[i : i + 364] for i in range(seconds * 43)))


def _m4a(path: Path, seconds: int) -> None:
    path.write_bytes(struct.pack(">I", 24) + b"ftypM4A \0\0\0\0M4A isom" + (RANDOM * seconds))


def _free_format(path: Path, seconds: int) -> None:
    path.write_bytes((b"\xff\xfb\x00\x00" + bytes(413)) * (38 * seconds))


def _bomb(path: Path, _: int, *, hours: float = 3.0, rate: int = 8_000) -> None:
    """Hours of silence in a small FLAC."""
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16", format="FLAC") as file:
        for _ in range(int(hours * 60)):
            file.write(np.zeros(60 * rate, dtype=np.int16))


def _vinyl(samples: FloatArray) -> FloatArray:
    """Music gated on and off under single loud clicks, whose peak no encoder keeps."""
    rng = np.random.default_rng(8)
    samples[:, np.arange(samples.shape[1]) * 2 // RATE % 2 == 0] *= 0.0
    at = rng.integers(0, samples.shape[1], 12)
    samples[:, at] += rng.uniform(0.5, 0.9, 12).astype(np.float32)
    return samples


def _bw64(path: Path, seconds: int) -> None:
    path.write_bytes(b"BW64" + _written("RF64/PCM_16", path, seconds)[4:])


def _counts_itself(data: bytes) -> bytes:
    frames = int.from_bytes(data[44:48], "big") + 1
    return data[:44] + frames.to_bytes(4, "big") + data[48:]


AUDIO: tuple[tuple[str, Writer, str], ...] = (
    # What looks odd and is sound must not be rejected either.
    ("good.wav", partial(_written, "WAV/PCM_16"), ACCEPTED),
    ("good24.wav", partial(_written, "WAVEX/PCM_24"), ACCEPTED),
    ("good_f64.wav", partial(_written, "WAV/DOUBLE"), ACCEPTED),
    ("good_rf64.wav", partial(_written, "RF64/PCM_16"), ACCEPTED),
    ("good.aiff", partial(_written, "AIFF/PCM_16"), ACCEPTED),
    ("good.flac", partial(_written, "FLAC/PCM_24"), ACCEPTED),
    ("good_8k_mono.wav", partial(_written, "WAV/PCM_16", rate=8_000, channels=1), ACCEPTED),
    ("good.mp3", partial(_mp3, lambda data: data), ACCEPTED),
    ("no_info_frame.mp3", _lame_file, ACCEPTED),
    ("mono_320.mp3", partial(_lame_file, channels=1), ACCEPTED),
    ("wav_named.mp3", partial(_written, "WAV/PCM_16"), ACCEPTED),
    ("mp3_named.wav", partial(_mp3, lambda data: data), ACCEPTED),
    ("no_suffix", partial(_written, "FLAC/PCM_16"), ACCEPTED),
    ("title_traversal.mp3", partial(_mp3, lambda data: id3(_title("../../../../etc/passwd")) + data), ACCEPTED),
    ("many_tags.mp3", partial(_mp3, lambda data: id3(_title("x")) * 5_000 + data), ACCEPTED),
    ("trailing_garbage.wav", _trailing, ACCEPTED),
    ("data_size_ffffffff.wav", partial(_patched, 40, b"\xff" * 4), ACCEPTED),
    ("data_size_of_sox.wav", partial(_patched, 40, struct.pack("<I", 0x7FFFF000)), ACCEPTED),
    ("info_counts_itself.mp3", partial(_mp3, _counts_itself), ACCEPTED),
    ("vinyl.wav", partial(_shaped, _vinyl), ACCEPTED),
    ("dc.wav", partial(_shaped, lambda samples: samples + np.float32(0.3)), ACCEPTED),
    ("fake_320.flac", _reencoded, ACCEPTED),
    # Containers that lie or are cut.
    ("truncated.wav", partial(_cut, "WAV/PCM_16", 0.8), READABLE),
    ("truncated_f32.wav", partial(_cut, "WAV/FLOAT", 0.999), READABLE),
    ("truncated_rf64.wav", partial(_cut, "RF64/PCM_16", 0.7), READABLE),
    ("truncated.aiff", partial(_cut, "AIFF/PCM_16", 0.8), READABLE),
    ("truncated.flac", partial(_cut, "FLAC/PCM_16", 0.8), READABLE),
    ("corrupt.flac", partial(_flipped, "FLAC/PCM_16"), READABLE),
    ("flac_header_only.flac", partial(_cut, "FLAC/PCM_16", 0.0005), READABLE),
    ("data_size_0.wav", partial(_patched, 40, bytes(4)), READABLE),
    ("header_only.wav", _header_only, READABLE),
    ("no_fmt_chunk.wav", partial(_patched, 12, b"junk"), READABLE),
    ("chunk_bomb.wav", _chunk_bomb, READABLE),
    ("channels_0.wav", partial(_patched, 22, bytes(2)), READABLE),
    ("channels_9999.wav", partial(_patched, 22, struct.pack("<H", 9999)), READABLE),
    ("rate_0.wav", partial(_patched, 24, bytes(4)), READABLE),
    ("rate_1.wav", partial(_patched, 24, struct.pack("<I", 1)), "audio.sample_rate_source"),
    ("rate_2_ghz.wav", partial(_patched, 24, struct.pack("<I", 2_000_000_000)), "audio.sample_rate_source"),
    ("bits_0.wav", partial(_patched, 34, bytes(2)), READABLE),
    ("riff_lies.wav", partial(_patched, 40, struct.pack("<I", 0x7FFFFFFF)), READABLE),
    # Codecs.
    ("u_law.wav", partial(_written, "WAV/ULAW", rate=8_000, channels=1), FORMAT),
    ("a_law.wav", partial(_written, "WAV/ALAW"), FORMAT),
    ("adpcm.wav", partial(_written, "WAV/IMA_ADPCM"), FORMAT),
    ("vorbis.ogg", partial(_written, "OGG/VORBIS"), FORMAT),
    ("truncated.ogg", partial(_cut, "OGG/VORBIS", 0.6), FORMAT),
    ("opus.ogg", partial(_written, "OGG/OPUS", rate=48_000), FORMAT),
    ("bw64.wav", _bw64, FORMAT),
    ("sony.w64", partial(_written, "W64/PCM_16"), FORMAT),
    ("128k.mp3", partial(_lame_file, bit_rate=128), FORMAT),
    ("vbr.mp3", _variable, FORMAT),
    ("aac_like.aac", _adts, FORMAT),
    ("m4a_like.m4a", _m4a, FORMAT),
    # MP3 streams.
    ("truncated.mp3", partial(_mp3, lambda data: data[: len(data) * 3 // 5]), READABLE),
    ("truncated_no_info.mp3", partial(_mp3, lambda data: data[960:-500]), READABLE),
    ("garbage_inside.mp3", partial(_mp3, lambda data: data[:96_000] + RANDOM[:5_000] + data[96_000:]), READABLE),
    ("zeros_inside.mp3", partial(_mp3, lambda data: data[:96_000] + bytes(5_000) + data[96_000:]), READABLE),
    ("info_lies.mp3", partial(_mp3, lambda data: data[:44] + b"\x80\0\0\0" + data[48:]), READABLE),
    ("spliced.mp3", _spliced, READABLE),
    ("id3_size_lies.mp3", partial(_mp3, lambda data: id3(b"", claim=200_000_000) + data), READABLE),
    ("info_frame_only.mp3", partial(_mp3, lambda data: data[:960]), READABLE),
    ("free_format.mp3", _free_format, FORMAT),
    # Samples.
    ("nan.wav", partial(_shaped, _spike(np.nan)), READABLE),
    ("infinite.wav", partial(_shaped, _spike(np.inf)), READABLE),
    ("billion.wav", partial(_shaped, _spike(1e9)), READABLE),
    ("surround_7_1.wav", partial(_written, "WAVEX/PCM_16", channels=8), "audio.channels"),
    ("surround_5_1.flac", partial(_written, "FLAC/PCM_16", channels=6), "audio.channels"),
    ("plus_9_db.wav", partial(_shaped, lambda samples: samples * np.float32(4.5)), "audio.clipping"),
    ("clipped.wav", partial(_shaped, lambda samples: np.clip(samples * 4, -1, 1)), "audio.clipping"),
    (
        "clipped_low.wav",
        partial(_shaped, lambda samples: np.clip(samples * 4, -1, 1) * np.float32(0.5)),
        "audio.clipping",
    ),
    ("only_dc.wav", partial(_shaped, lambda samples: np.full_like(samples, 0.5)), "audio.clipping"),
    ("silence.wav", partial(_shaped, np.zeros_like), "audio.silence"),
    ("mostly_silent.wav", partial(_shaped, _mostly_silent), "audio.silence"),
)


def _special(folder: Path) -> Iterator[tuple[str, str]]:
    """What is no audio, or no file, or has no proper name: (name, rule)."""
    contents = {
        "empty.mp3": b"",
        "empty.wav": b"",
        "text.wav": b"I am not music.\n" * 400,
        "random.mp3": RANDOM.replace(b"\xff", b"\xfe"),
        "random.flac": b"fLaC" + RANDOM,
        "riff_only.wav": b"RIFF",
        "picture.mp3": b"\xff\xd8\xff\xe0\x00\x10JFIF" + RANDOM.replace(b"\xff", b""),
        "cover_only.mp3": id3(b"APIC" + struct.pack(">I", 4096) + bytes(4098)),
        "archive.zip": b"PK\x03\x04" + RANDOM.replace(b"\xff", b""),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield name, READABLE
    for name, frames in (("one_sample.wav", 1), ("no_samples.wav", 0)):
        _sound(folder / name, np.full((2, frames), 0.1, dtype=np.float32))
        yield name, SHORT if frames else READABLE
    _bomb(folder / "bomb.flac", 0)
    yield "bomb.flac", "audio.duration_max"
    _sound(folder / "long.flac", music(200, rate=8_000, channels=1), kind="FLAC/PCM_16", rate=8_000)
    yield "long.flac", "audio.duration_max"
    _sound(folder / "just_short.wav", music(30, rate=8_000)[:, :-1], rate=8_000)
    yield "just_short.wav", SHORT
    for name, size in (("sparse_1_gb.wav", 1 << 30), ("sparse_100_mb.wav", 100 << 20)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
        yield name, READABLE
    yield from _odd_entries(folder)


def _odd_entries(folder: Path) -> Iterator[tuple[str, str]]:
    (folder / "link.wav").symlink_to(folder / "good.wav")
    (folder / "link_outside.wav").symlink_to("/etc/passwd")
    (folder / "link_broken.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "link_folder").symlink_to("/etc")
    os.mkfifo(folder / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.wav"))
    yield from ((name, READABLE) for name in ("link.wav", "link_outside.wav", "link_broken.wav", "loop.wav"))
    yield from ((name, READABLE) for name in ("link_folder", "fifo.wav", "socket.wav"))
    for name in (
        "caf\u00e9 \u96e8\u306e\u65e5.wav",
        "new\nline\tand \x1b[31mcolour.wav",
        "-rf $(reboot) ';\"`.wav",
        "--full.wav",
        os.fsdecode(b"\xff\xfe\x80.wav"),
        "n" * 250 + ".wav",
        " .wav",
    ):
        (folder / name).write_bytes(b"RIFF no")
        yield name, READABLE


def write_hostile_files(folder: Path, *, seconds: int) -> dict[str, str]:
    """Write every hostile file; returns name -> rule it must be rejected by, "" if it must be accepted."""
    folder.mkdir(parents=True, exist_ok=True)
    rules: dict[str, str] = {}
    for name, write, rule in AUDIO:
        write(folder / name, seconds)
        rules[name] = SHORT if seconds < 30 and rule in LATER_RULES else rule
    return rules | dict(_special(folder))
