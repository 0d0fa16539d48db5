"""Many names in one pass: nothing is missed that a search for each of them finds."""

import random
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.release import private_search as private_module
from lofi_assets.release.needles import Needles
from lofi_assets.release.private_search import PrivateNames, names_in, private_in

NAMES = [f"track_{number:04d}" for number in range(300)] + ["mkeller", "/srv/lofi/data", "gpu-box-3"]


def every_place(block: bytes, needles: list[bytes]) -> list[int]:
    found = set()
    for needle in needles:
        place = block.find(needle)
        while place >= 0:
            found.add(place)
            place = block.find(needle, place + 1)
    return sorted(found)


@pytest.mark.parametrize("seed", range(4))
def test_every_occurrence_is_found_as_a_search_for_each_finds_it(seed: int) -> None:
    chance = random.Random(seed)
    needles = [name.encode() for name in NAMES] + [b"abab", b"ababab", b"\0\0\0\0"]
    block = bytearray(np.random.default_rng(seed).bytes(200_000))
    for _ in range(50):
        needle = chance.choice(needles)
        place = chance.randrange(len(block) - 20)
        block[place : place + len(needle)] = needle
    block[:4], block[-6:] = b"abab", b"ababab"
    assert list(Needles(needles).places(bytes(block))) == every_place(bytes(block), needles)


def test_a_block_that_is_too_short_and_no_needle_at_all_hold_nothing() -> None:
    assert list(Needles([b"abcd"]).places(b"abc")) == [] == list(Needles([]).places(b"abcd" * 9))
    with pytest.raises(ValueError, match="at least 4 bytes"):
        Needles([b"abc"])


@pytest.mark.parametrize("seed", range(3))
def test_a_binary_file_says_what_all_of_its_printable_runs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    names = PrivateNames(("/srv/lofi/data",), frozenset({"mkeller", "gpu-box-3"}), frozenset(NAMES[:300]))
    chance = random.Random(seed)
    said = [
        "in /srv/lofi/data/x",
        "C:\\Users\\Mk",
        "\\/home\\/some",
        "a\\/srv\\/lofi\\/data",
        "/root/.cache",
        "mkeller@x",
    ]
    said += ["002_track_0007_b", "track_00071", "unmkellered", "/home/", "x track_0299"]
    block = bytearray(np.random.default_rng(seed).bytes(300_000))
    for text in said:
        place = chance.randrange(len(block) - 64)
        block[place : place + len(text) + 2] = b"\0" + text.encode() + b"\0"
    long = bytearray(b"," * 30_000)  # one run, longer than what is cut out around a place
    for number in range(60):
        name = f" track_{number + 100:04d} ".encode()
        long[number * 500 - seed : number * 500 - seed + len(name)] = name
    block += b"\0" + long
    (tmp_path / "w.data").write_bytes(block)
    monkeypatch.setattr(private_module, "READ_BLOCK", 1 << 16)
    runs = "\n".join(run.decode("ascii") for run in private_module._RUNS["tensors"].findall(bytes(block)))
    assert sorted(private_in(tmp_path / "w.data", names)) == sorted(set(names_in(runs, names)))
    told = private_in(tmp_path / "w.data", names)
    assert "the track track_0007" in told and all(f"the track track_{n:04d}" in told for n in range(101, 160))
