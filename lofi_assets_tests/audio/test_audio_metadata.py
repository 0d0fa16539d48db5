"""What a file says of itself is read from every container, within limits, and never breaks anything."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lofi_assets.audio.metadata import TEXT_CHARACTERS, TEXTS_PER_FIELD, read_tags, stated_bpm

WANTED = {"title": ["Rain"], "genre": ["Lo-Fi"], "comment": ["chill, piano"]}


def id3_frame(name: bytes, body: bytes, *, version: int = 3) -> bytes:
    size = len(body)
    safe = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    return name + (safe if version == 4 else struct.pack(">I", size)) + b"\0\0" + body


def id3(*frames: bytes, version: int = 3, flags: int = 0) -> bytes:
    body = b"".join(frames)
    size = len(body)
    head = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    return b"ID3" + bytes([version, 0, flags]) + head + body


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_tags_that_libsndfile_wrote_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"song.{suffix}"
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        file.title, file.comment = "Rain", "chill, piano"
        if suffix != "aiff":
            file.genre = "Lo-Fi"
        file.write(np.zeros((100, 2)))
    assert read_tags(path) == {key: WANTED[key] for key in WANTED if suffix != "aiff" or key != "genre"}


@pytest.mark.parametrize("version", [3, 4])
def test_id3_text_frames_are_read_in_every_encoding(tmp_path: Path, version: int) -> None:
    frames = [
        id3_frame(b"TIT2", b"\x01" + "Regen \u2614".encode("utf-16"), version=version),
        id3_frame(b"TCON", b"\x03" + b"Lo-Fi\0Chillhop", version=version),
        id3_frame(b"APIC", b"\0" * 300, version=version),
        id3_frame(b"COMM", b"\0eng" + b"about\0soft piano", version=version),
        id3_frame(b"TBPM", b"\x0082", version=version),
        id3_frame(b"TMOO", b"\x02" + "calm".encode("utf-16-be"), version=version),
    ]
    tags = read_tags(written(tmp_path / "a.mp3", id3(*frames, version=version) + b"\xff\xfb\x90\x64"))
    assert tags == {
        "title": ["Regen \u2614"],
        "genre": ["Lo-Fi", "Chillhop"],
        "mood": ["calm"],
        "comment": ["soft piano"],
        "bpm": ["82"],
    }
    assert stated_bpm(tags) == 82.0


def test_id3_22_and_genre_numbers_are_read(tmp_path: Path) -> None:
    body = b"\0(8)Lounge"
    frame = b"TCO" + len(body).to_bytes(3, "big") + body
    assert read_tags(written(tmp_path / "a.mp3", id3(frame, version=2)))["genre"] == ["jazz", "Lounge"]


@pytest.mark.parametrize("text", ["82", "82.5", "1e9", "-4", "", "82 or so", "99999"])
def test_only_a_plain_number_is_a_tempo(text: str) -> None:
    assert stated_bpm({"bpm": [text]}) == {"82": 82.0, "82.5": 82.5}.get(text)


def test_two_tempi_are_none() -> None:
    assert stated_bpm({"bpm": ["82", "164"]}) is None and stated_bpm({}) is None


def test_what_is_read_is_bounded_and_printable(tmp_path: Path) -> None:
    frames = [id3_frame(b"TIT2", b"\0" + f"\x1b[2J{n} ".encode() + b"x" * 9_000) for n in range(50)]
    titles = read_tags(written(tmp_path / "a.mp3", id3(*frames)))["title"]
    assert len(titles) == TEXTS_PER_FIELD
    assert all(len(title) <= TEXT_CHARACTERS and title.isprintable() for title in titles)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID3",
        b"ID3\x03\0\0\x7f\x7f\x7f\x7fTIT2\xff\xff\xff\xff\0\0\0x",
        id3(id3_frame(b"TIT2", b"\0x"), flags=0x80),
        b"fLaC\x04\xff\xff\xff" + b"\xff" * 40,
        b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\xffINFO",
        b"FORM\0\0\0\0AIFFNAME\xff\xff\xff\xffx",
    ],
)
def test_lengths_that_lie_say_nothing(tmp_path: Path, data: bytes) -> None:
    assert read_tags(written(tmp_path / "a.mp3", data)) == {}


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    good = written(tmp_path / "a.mp3", id3(id3_frame(b"TIT2", b"\0x")))
    (tmp_path / "link.mp3").symlink_to(good)
    os.mkfifo(tmp_path / "pipe.mp3")
    assert [read_tags(tmp_path / name) for name in ("link.mp3", "pipe.mp3", "absent.mp3")] == [{}, {}, {}]


STARTS = (b"ID3\x03\0\0", b"ID3\x04\0\0", b"ID3\x02\0\0", b"fLaC\x84", b"RIFF....WAVE", b"FORM....AIFF")
PIECES = (b"TIT2", b"COMM", b"LIST", b"INFO", b"NAME", b"\0\0\0\x05")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(STARTS), rest=st.lists(st.sampled_from(PIECES) | st.binary(max_size=9)))
def test_no_bytes_break_it(tmp_path: Path, start: bytes, rest: list[bytes]) -> None:
    tags = read_tags(written(tmp_path / "a.bin", start + b"".join(rest)))
    assert all(text and text.isprintable() for texts in tags.values() for text in texts)
