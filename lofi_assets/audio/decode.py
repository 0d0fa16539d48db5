"""Opening a file that nobody vouches for, and getting samples out of it or a reason why not.

Every check that must hold before and while a decoder runs is here. The content decides, never the name.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from lofi_assets.audio import containers, mp3
from lofi_assets.audio.arrays import FloatArray
from lofi_assets.errors import LofiError

Codec = Literal["wav", "flac", "aiff", "mp3"]

MP3_BIT_RATE = 320
"""kbit/s; the only lossy source that the constitution admits (Audio Specifications, Format)."""
BLOCK_FRAMES = 1 << 16
"""Frames decoded at a time: the header's frame count is never trusted with memory."""
TRUSTED_SECONDS = 240
"""The buffer starts no longer than this and grows with what is decoded: a header may claim years."""
UNRECOGNISED = 1
"""libsndfile's SF_ERR_UNRECOGNISED_FORMAT."""
SAMPLE_CEILING = 16.0
"""+24 dBFS. Decoded lossy audio peaks below 2.0; 32768 means integers stored as floats."""
_CONTAINERS: dict[str, Codec] = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "FLAC": "flac", "AIFF": "aiff"}
_BIT_DEPTHS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}


class AudioError(LofiError):
    """A file breaks a rule before it can be measured.

    Attributes:
        rule: id of the gate that it breaks, e.g. "audio.readable".
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(rule, message)
        self.rule = rule
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Limits:
    """What a decoder may be asked to do; wider than the gates, which judge afterwards."""

    max_bytes: int = 512 << 20
    """The largest legitimate source, 240 s of 192 kHz 32-bit stereo, is 369 MB."""
    min_rate: int = 8_000
    """A header that says 1 Hz makes a 5 s file resample to days."""
    max_rate: int = 192_000
    """Above this no recording exists, only a damaged header."""
    max_channels: int = 8
    """7.1; more is a damaged header."""
    max_seconds: float = 600.0
    """Decoding stops here: a few kB of FLAC can hold hours of silence."""


@dataclass(frozen=True)
class Decoded:
    """Samples of one file and what its container says.

    Attributes:
        samples: (channels, frames) float32, nominally in [-1, 1] at `sample_rate`; lossy sources may exceed it.
        bit_rate_kbps: of an MP3, from its frames; None for lossless.
        bit_depth: of lossless audio; None for MP3.
        sha256: of the file's bytes.
    """

    samples: FloatArray
    sample_rate: int
    codec: Codec
    bit_rate_kbps: int | None
    bit_depth: int | None
    sha256: str

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    @property
    def frames(self) -> int:
        """Samples per channel."""
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        """Duration from the decoded samples, not from the container."""
        return self.frames / self.sample_rate


def read_audio(path: Path, *, root: Path, limits: Limits | None = None) -> Decoded:
    """Decode a WAV, FLAC, AIFF or 320 kbit/s MP3 file.

    Args:
        root: folder that the file must lie in once every link is resolved.
    Raises:
        AudioError: with the rule that is broken: `audio.readable` (not a regular file, outside `root`, damaged,
            truncated, empty, not finite), `audio.format` (another codec or bit rate), `audio.sample_rate_source`,
            `audio.channels`, `audio.duration_max` (longer than the decoder may read).
    """
    limits = limits or Limits()
    with io.FileIO(_open_regular(path, root=root, limits=limits)) as file:
        data = file.readall()
        frames = _identified(path, data)
        digest = hashlib.sha256(data).hexdigest()
        del data
        file.seek(0)
        return _decode(path, file.fileno(), frames, digest, limits)


def _open_regular(path: Path, *, root: Path, limits: Limits) -> int:
    """A descriptor of a regular file inside `root`; a FIFO would block, a link could lead anywhere."""
    try:
        inside = path.parent.resolve(strict=True).is_relative_to(root.resolve(strict=True))
        status = path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, f"cannot be looked up ({error})") from error
    if not inside:
        raise _unreadable(path, f"lies outside {root}; copy it into the raw folder")
    if stat.S_ISLNK(status.st_mode):
        raise _unreadable(path, "is a symbolic link; copy the audio itself into the raw folder")
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(path, "is not a regular file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, f"cannot be opened ({error.strerror})") from error
    # The name may have been given to another file since lstat; what counts is what was opened.
    opened = os.fstat(descriptor)
    if stat.S_ISREG(opened.st_mode) and 0 < opened.st_size <= limits.max_bytes:
        return descriptor
    os.close(descriptor)
    if opened.st_size == 0:
        raise _unreadable(path, "is empty (0 bytes)")
    raise _unreadable(path, f"has {opened.st_size} bytes, more than the {limits.max_bytes} that are read")


def _unreadable(path: Path, why: str) -> AudioError:
    return AudioError("audio.readable", f"{path.name!r} {why}")


def _identified(path: Path, data: bytes) -> mp3.Mp3Scan | None:
    """The frames of an MP3, None for anything else that a decoder may be given."""
    if foreign := containers.foreign(data):
        raise AudioError("audio.format", f"{path.name!r} {foreign}")
    # MP3 has no mark of its own and is tried when there is no other.
    found = None if containers.known(data) else mp3.scan(data)
    if found is not None:
        _check_mp3(path, found)
    elif fault := containers.samples_fault(data):
        raise _unreadable(path, fault)
    elif containers.flac_length_unknown(data):
        raise _unreadable(path, "is a FLAC that does not say its length (written to a pipe?); convert it once more")
    return found


def _check_mp3(path: Path, found: mp3.Mp3Scan) -> None:
    if found.damage:
        raise _unreadable(path, f"is an MP3 that is {found.damage}; export it again")
    if not found.frames:
        raise _unreadable(path, "is an MP3 header without music")
    if found.bit_rates != (MP3_BIT_RATE,):
        rates = ", ".join(map(str, found.bit_rates))
        raise AudioError(
            "audio.format",
            f"{path.name!r} is an MP3 at {rates} kbit/s; only a constant {MP3_BIT_RATE} kbit/s or a lossless file is "
            "accepted, and re-encoding does not bring back what is lost",
        )


def _decode(path: Path, descriptor: int, found: mp3.Mp3Scan | None, digest: str, limits: Limits) -> Decoded:
    try:
        with soundfile.SoundFile(descriptor, closefd=False) as source:
            codec = _accepted_codec(path, source, found)
            _check_header(path, source, limits)
            samples = _read_blocks(path, source, limits)
            claimed, sample_rate, subtype = source.frames, source.samplerate, source.subtype
    except MemoryError as error:
        raise _unreadable(path, "needs more memory than a worker may use") from error
    except soundfile.LibsndfileError as error:
        if error.code == UNRECOGNISED and not _has_mark(descriptor):
            raise _unreadable(path, "is no audio that is known: neither WAV, FLAC, AIFF nor MP3") from error
        raise _unreadable(
            path, f"cannot be decoded ({error.error_string.strip()}); it is corrupt or truncated"
        ) from error
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise _unreadable(path, f"cannot be decoded ({str(error).strip()}); it is corrupt or truncated") from error
    least = (found.frames - 4) * found.frame_samples if found else claimed
    if samples.shape[1] < least:
        raise _unreadable(path, _stopped_short(samples.shape[1], least, found))
    _check_samples(path, samples)
    return Decoded(
        samples=samples,
        sample_rate=sample_rate,
        codec=codec,
        bit_rate_kbps=found.bit_rates[0] if found else None,
        bit_depth=None if found else _BIT_DEPTHS[subtype],
        sha256=digest,
    )


def _stopped_short(decoded: int, least: int, found: mp3.Mp3Scan | None) -> str:
    if found and found.claimed_frames is not None and found.claimed_frames < found.frames:
        claim = f"the Info frame claims {found.claimed_frames} frames, {found.frames} are there"
        return f"is an MP3 whose header lies: {claim}; was it joined from several? Export it again"
    return f"is truncated: decoding stopped after {decoded} of {least} samples"


def _has_mark(descriptor: int) -> bool:
    return containers.known(os.pread(descriptor, 4, 0))


def _accepted_codec(path: Path, source: soundfile.SoundFile, found: mp3.Mp3Scan | None) -> Codec:
    if source.format in ("MP3", "MPEG") and found is not None:
        return "mp3"
    codec = _CONTAINERS.get(source.format)
    if codec is None or source.subtype not in _BIT_DEPTHS:
        raise AudioError(
            "audio.format",
            f"{path.name!r} holds {source.format}/{source.subtype}; deliver WAV, FLAC or AIFF, or MP3 at "
            f"{MP3_BIT_RATE} kbit/s",
        )
    return codec


def _check_header(path: Path, source: soundfile.SoundFile, limits: Limits) -> None:
    if not limits.min_rate <= source.samplerate <= limits.max_rate:
        raise AudioError(
            "audio.sample_rate_source",
            f"{path.name!r} says {source.samplerate} Hz; {limits.min_rate} to {limits.max_rate} Hz are accepted",
        )
    if not 1 <= source.channels <= limits.max_channels:
        raise AudioError("audio.channels", f"{path.name!r} says {source.channels} channels; deliver a stereo mix")


def _read_blocks(path: Path, source: soundfile.SoundFile, limits: Limits) -> FloatArray:
    """All samples, (channels, frames); stops at the limit whatever the header claims."""
    most = int(limits.max_seconds * source.samplerate)
    trusted = max(BLOCK_FRAMES, min(source.frames, TRUSTED_SECONDS * source.samplerate))
    samples = np.empty((source.channels, trusted), dtype=np.float32)
    block = np.empty((BLOCK_FRAMES, source.channels), dtype=np.float32)
    position = 0
    while len(got := source.read(out=block)):
        if position + len(got) > most:
            longest = f"{limits.max_seconds:g} s that are read at most"
            raise AudioError(
                "audio.duration_max", f"{path.name!r} is longer than the {longest}; cut it into shorter files"
            )
        if position + len(got) > samples.shape[1]:
            samples = np.concatenate([samples[:, :position], np.empty_like(samples), got.T], axis=1)
        samples[:, position : position + len(got)] = got.T
        position += len(got)
    return samples[:, :position]


def _check_samples(path: Path, samples: FloatArray) -> None:
    if samples.shape[1] == 0:
        raise _unreadable(path, "holds no samples")
    low, high = float(samples.min()), float(samples.max())
    # min and max of an array with a NaN are NaN, so two numbers tell of all.
    if not (np.isfinite(low) and np.isfinite(high)):
        raise _unreadable(path, "holds NaN or infinite samples; export it again from the mix")
    if max(-low, high) > SAMPLE_CEILING:
        raise _unreadable(path, f"peaks at {max(-low, high):.4g} where full scale is 1.0: integers stored as floats?")
