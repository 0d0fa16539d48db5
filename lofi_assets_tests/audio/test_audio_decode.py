"""Opening files that nobody vouches for: every hostile one gives a rule, none a crash, a hang or a wrong length."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.audio import encode, mp3
from lofi_assets.audio.decode import AudioError, Limits, read_audio

RATE = 48_000
SECOND = np.sin(np.arange(RATE) * 0.05).astype(np.float32) * 0.5
STEREO = np.stack([SECOND, SECOND])
RANDOM = np.random.default_rng(0).bytes(8192)


def _wav(path: Path, samples: np.ndarray = STEREO, *, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples.T, rate, subtype=subtype, format="WAV")
    return path


def _mp3(path: Path, *, cut: float = 1.0) -> Path:
    data = encode.encode_mp3(STEREO)
    path.write_bytes(data[: int(len(data) * cut)])
    return path


def _rule(path: Path, *, root: Path | None = None) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, root=root or path.parent)
    assert repr(path.name) in str(caught.value)
    return caught.value.rule


@pytest.mark.parametrize(
    ("suffix", "container", "subtype", "depth"),
    [
        ("wav", "WAV", "PCM_16", 16),
        ("wav", "WAVEX", "PCM_24", 24),
        ("wav", "RF64", "PCM_16", 16),
        ("wav", "WAV", "FLOAT", 32),
        ("flac", "FLAC", "PCM_24", 24),
        ("aiff", "AIFF", "PCM_16", 16),
    ],
)
def test_lossless_files_are_read_whole(tmp_path: Path, suffix: str, container: str, subtype: str, depth: int) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, STEREO.T, RATE, subtype=subtype, format=container)
    decoded = read_audio(path, root=tmp_path)
    assert decoded.samples.shape == (2, RATE)
    assert (decoded.bit_depth, decoded.bit_rate_kbps, decoded.seconds) == (depth, None, 1.0)
    np.testing.assert_allclose(decoded.samples, STEREO, atol=1e-4)


def test_a_320_kbit_mp3_is_read_and_says_its_bit_rate(tmp_path: Path) -> None:
    decoded = read_audio(_mp3(tmp_path / "a.mp3"), root=tmp_path)
    assert (decoded.codec, decoded.bit_rate_kbps, decoded.bit_depth) == ("mp3", 320, None)
    assert decoded.samples.shape == (2, RATE)


def test_the_content_decides_what_a_file_is_and_not_its_name(tmp_path: Path) -> None:
    assert read_audio(_wav(tmp_path / "really_wav.mp3"), root=tmp_path).codec == "wav"
    assert read_audio(_mp3(tmp_path / "really_mp3.wav"), root=tmp_path).codec == "mp3"


@pytest.mark.parametrize("content", [b"", b"just some text, no audio\n" * 50, bytes(4096), RANDOM])
def test_what_is_no_audio_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert _rule(path) == "audio.readable"


def test_only_regular_files_inside_the_root_are_opened(tmp_path: Path) -> None:
    root, outside = tmp_path / "raw", tmp_path / "elsewhere"
    root.mkdir()
    outside.mkdir()
    target = _wav(outside / "a.wav")
    os.mkfifo(root / "fifo.wav")
    (root / "link.wav").symlink_to(target)
    (root / "folder").symlink_to(outside)
    (root / "directory.wav").mkdir()
    for path in (root / "fifo.wav", root / "link.wav", root / "folder" / "a.wav", root / "directory.wav", target):
        assert _rule(path, root=root) == "audio.readable"
    assert _rule(root / "missing.wav", root=root) == "audio.readable"


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_truncated_wav_is_not_a_shorter_track(tmp_path: Path, subtype: str) -> None:
    path = _wav(tmp_path / "a.wav", subtype=subtype)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(AudioError, match="truncated") as caught:
        read_audio(path, root=tmp_path)
    assert caught.value.rule == "audio.readable"
    path.write_bytes(path.read_bytes()[:20])
    assert _rule(path) == "audio.readable"


@pytest.mark.parametrize("container", ["FLAC", "AIFF"])
def test_other_truncated_lossless_files_are_caught_too(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a"
    noisy = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))
    soundfile.write(path, noisy, RATE, format=container)
    path.write_bytes(path.read_bytes()[:-5000])
    assert _rule(path) == "audio.readable"


def test_a_wav_of_unknown_length_from_a_stream_writer_is_accepted(tmp_path: Path) -> None:
    path = _wav(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read_audio(path, root=tmp_path).frames == RATE


@pytest.mark.parametrize("cut", [0.5, 0.97, 0.9999])
def test_a_truncated_mp3_is_named_as_such(tmp_path: Path, cut: float) -> None:
    with pytest.raises(AudioError, match="truncated") as caught:
        read_audio(_mp3(tmp_path / "a.mp3", cut=cut), root=tmp_path)
    assert caught.value.rule == "audio.readable"


def test_a_truncated_mp3_without_a_header_is_caught_by_its_last_frame(tmp_path: Path) -> None:
    path = _mp3(tmp_path / "a.mp3")
    # Without the Info frame nothing tells the length but the frames themselves.
    path.write_bytes(path.read_bytes()[960:-100])
    assert _rule(path) == "audio.readable"


def test_an_mp3_header_that_claims_two_billion_frames_costs_no_memory(tmp_path: Path) -> None:
    path = _mp3(tmp_path / "a.mp3")
    data = bytearray(path.read_bytes())
    data[44:48] = struct.pack(">I", 1 << 31)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="claims 2147483648 frames"):
        read_audio(path, root=tmp_path)


def test_garbage_and_splices_inside_an_mp3_are_found(tmp_path: Path) -> None:
    music = encode.encode_mp3(STEREO)
    path = tmp_path / "a.mp3"
    path.write_bytes(music[: 960 * 20] + RANDOM[:3000].replace(b"\xff", b"") + music[960 * 20 :])
    assert _rule(path) == "audio.readable"
    other = music[960:].replace(b"\xff\xfb\xe4", b"\xff\xfb\xe0")
    path.write_bytes(music[960 : 960 * 20] + other)
    assert _rule(path) == "audio.readable"


def test_tags_around_the_music_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    id3v2 = b"ID3\x04\x00\x00\x00\x00\x10\x00" + bytes(2048)
    id3v1 = b"TAG" + b"../../../../etc/passwd".ljust(125, b"\0")
    path.write_bytes(id3v2 + encode.encode_mp3(STEREO) + id3v1)
    assert read_audio(path, root=tmp_path).frames == RATE


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_an_mp3_below_320_kbit_is_refused_by_the_format_rule(tmp_path: Path, level: float) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, STEREO.T, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=level)
    with pytest.raises(AudioError, match=r"kbit/s; only a constant 320") as caught:
        read_audio(path, root=tmp_path)
    assert caught.value.rule == "audio.format"


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM")])
def test_other_lossy_codecs_are_refused_by_the_format_rule(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, STEREO.T, RATE, format=container, subtype=subtype)
    assert _rule(path) == "audio.format"


def test_samples_that_are_not_finite_or_not_scaled_are_unreadable(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, 32768.0):
        samples = STEREO.copy()
        samples[0, 100] = value
        assert _rule(_wav(tmp_path / "a.wav", samples, subtype="FLOAT")) == "audio.readable"


def test_headers_beyond_what_exists_are_refused_before_decoding(tmp_path: Path) -> None:
    assert _rule(_wav(tmp_path / "slow.wav", rate=1)) == "audio.sample_rate_source"
    assert _rule(_wav(tmp_path / "fast.wav", rate=2_000_000)) == "audio.sample_rate_source"
    assert _rule(_wav(tmp_path / "many.wav", np.zeros((12, 4800), np.float32))) == "audio.channels"
    assert read_audio(_wav(tmp_path / "surround.wav", np.tile(SECOND, (8, 1))), root=tmp_path).channels == 8
    assert _rule(_wav(tmp_path / "none.wav", np.zeros((2, 0), np.float32))) == "audio.readable"


def test_limits_hold_whatever_the_header_says(tmp_path: Path) -> None:
    path = _wav(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="longer than"):
        read_audio(path, root=tmp_path, limits=Limits(max_seconds=0.5))
    with pytest.raises(AudioError, match="bytes"):
        read_audio(path, root=tmp_path, limits=Limits(max_bytes=1000))


def test_crc16_is_the_published_one() -> None:
    assert mp3.crc16(b"123456789") == 0xBB3D
    assert mp3.crc16(b"") == 0


def test_names_with_odd_characters_are_just_names(tmp_path: Path) -> None:
    assert read_audio(_wav(tmp_path / "caf\u00e9\n\u96e8 '$(x).wav"), root=tmp_path).frames == RATE
