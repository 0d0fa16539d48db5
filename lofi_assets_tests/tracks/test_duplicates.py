"""Near-duplicates among generated pairs: precision and recall, incremental search, many copies of one upload."""

import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import lameenc
import numpy as np
import pytest
import soundfile

from lofi_assets.audio import fingerprint as fingerprints
from lofi_assets.audio.fingerprint import (
    Fingerprint,
    compare,
    find_duplicates,
    fingerprint,
    update_duplicates,
)
from lofi_assets.audio.synth.song import Song, render

RATE = 44_100


def mp3_128(samples: np.ndarray) -> np.ndarray:
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(128)
    encoder.set_in_sample_rate(RATE)
    encoder.set_channels(2)
    encoder.set_quality(5)
    encoder.silence()
    pcm = (np.clip(samples.T, -1, 1) * 32_767).astype("<i2").tobytes()
    data = bytes(encoder.encode(pcm)) + bytes(encoder.flush())
    return soundfile.read(io.BytesIO(data), dtype="float32")[0].T


def quieter(samples: np.ndarray) -> np.ndarray:
    return samples * np.float32(10 ** (-6 / 20))


def low_pass(samples: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(samples, axis=1)
    hertz = np.fft.rfftfreq(samples.shape[1], 1 / RATE)
    return np.fft.irfft(spectrum / (1 + (hertz / 4_000) ** 4), samples.shape[1], axis=1).astype(np.float32)


def trimmed(samples: np.ndarray) -> np.ndarray:
    return samples[:, round(7.031 * RATE) :]


def delayed(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, ((0, 0), (round(3.417 * RATE), 0)))


def cut_at_both_ends(samples: np.ndarray) -> np.ndarray:
    return samples[:, round(5.519 * RATE) : -round(6.043 * RATE)]


DISGUISES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "re-encoded": (mp3_128,),
    "quieter": (quieter,),
    "low-passed": (low_pass,),
    "trimmed": (trimmed,),
    "delayed": (delayed,),
    "cut": (cut_at_both_ends,),
    "quieter, re-encoded": (quieter, mp3_128),
    "trimmed, low-passed": (trimmed, low_pass),
    "everything": (quieter, low_pass, trimmed, mp3_128),
    "twice": (mp3_128, trimmed, low_pass, delayed, mp3_128),
}


def song(number: int) -> Song:
    """Songs that are hard to tell apart: eight of one band, tempo and key, then eight of the next."""
    band = number // 8
    chords, lead = (("rhodes", "vibes"), ("piano", "flute"), ("pad", "kalimba"), ("guitar", "vibes"))[band % 4]
    mode = ("minor", "dorian", "major")[band % 3]
    tempo = 72 + 4 * band + number % 2
    return Song(number, tempo, 2 + band, mode, 40, RATE, chords=chords, lead=lead)  # type: ignore[arg-type]


def generated(
    songs: int, disguises: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], ...]]
) -> dict[str, Fingerprint]:
    """`<song>` and, for each disguise, `<song>/<disguise>`."""
    prints = {}
    for number in range(songs):
        plain = render(song(number))
        prints[f"{number:02}"] = fingerprint(plain, sample_rate=RATE)
        for name, chain in disguises.items():
            samples = plain
            for step in chain:
                samples = step(samples)
            prints[f"{number:02}/{name}"] = fingerprint(samples, sample_rate=RATE)
    return prints


def precision_and_recall(prints: Mapping[str, Fingerprint]) -> tuple[float, float, int, int]:
    """(precision, recall, true pairs, unrelated pairs) over all pairs: two tracks are one recording if of one song."""
    found = {(pair.a, pair.b) for pair in find_duplicates(prints) if pair.verdict == "duplicate"}
    pairs = set(itertools.combinations(sorted(prints), 2))
    true = {(a, b) for a, b in pairs if a[:2] == b[:2]}
    return len(found & true) / max(len(found), 1), len(found & true) / len(true), len(true), len(pairs - true)


def test_copies_are_found_and_songs_of_one_band_are_not() -> None:
    precision, recall, true, unrelated = precision_and_recall(generated(4, {"everything": DISGUISES["everything"]}))
    assert (true, unrelated) == (4, 24)
    assert precision == 1.0 and recall == 1.0


@pytest.mark.slow
def test_precision_and_recall_on_generated_pairs_are_at_least_099() -> None:
    prints = generated(24, DISGUISES)
    precision, recall, true, unrelated = precision_and_recall(prints)
    print(f"precision {precision:.4f}, recall {recall:.4f}: {true} true pairs, {unrelated} unrelated pairs")
    for name in DISGUISES:
        similar = [compare(prints[f"{n:02}"], prints[f"{n:02}/{name}"])[0] for n in range(24)]
        print(f"  {name}: similarity {min(similar):.3f} to {max(similar):.3f}")
    others = [compare(prints[f"{a:02}"], prints[f"{b:02}"])[0] for a, b in itertools.combinations(range(24), 2)]
    print(f"  other songs: similarity up to {max(others):.3f}")
    assert true >= 1_000 and precision >= 0.99 and recall >= 0.99


# --- many tracks -----------------------------------------------------------------------------------------------------


def noise(count: int, *, seed: int = 0) -> dict[str, Fingerprint]:
    rng = np.random.default_rng(seed)
    return {f"t{n:05}": rng.integers(1, 1 << 32, 400, dtype=np.uint32) for n in range(count)}


def copy_of(words: Fingerprint, *, share: float = 0.08, seed: int = 0) -> Fingerprint:
    flips = np.random.default_rng(seed).random((len(words), 32)) < share
    return words ^ np.packbits(flips, axis=1).view(">u4")[:, 0].astype(np.uint32)


def names(pairs: list[fingerprints.DuplicatePair]) -> set[tuple[str, str]]:
    return {(pair.a, pair.b) for pair in pairs}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every comparison."""
    count: list[int] = []
    monkeypatch.setattr(fingerprints, "compare", lambda a, b: count.append(1) or compare(a, b))
    return count


def test_more_copies_of_one_upload_than_may_share_a_word_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "MOST_TRACKS_PER_WORD", 8)
    prints = noise(50)
    copies = {f"copy{n:03}": copy_of(prints["t00007"], share=0.02, seed=n) for n in range(30)}
    found = names(find_duplicates(prints | copies))
    assert found == set(itertools.combinations(sorted([*copies, "t00007"]), 2))


def test_one_more_track_is_compared_with_its_like_only(tmp_path: Path, compared: list[int]) -> None:
    prints = noise(300) | {"copy": copy_of(noise(300)["t00003"])}
    memory = tmp_path / "memory.json"
    first = update_duplicates(prints, memory=memory)
    assert names(first) == {("copy", "t00003")}
    compared.clear()
    assert update_duplicates(prints, memory=memory) == first and not compared
    more = prints | {"more": copy_of(prints["t00200"], seed=1)}
    assert names(update_duplicates(more, memory=memory)) == {("copy", "t00003"), ("more", "t00200")}
    assert len(compared) == 1


def test_adding_track_by_track_finds_what_all_at_once_finds(tmp_path: Path) -> None:
    prints = noise(40)
    prints |= {f"x{n}": copy_of(prints[f"t{n % 3:05}"], share=0.03, seed=n) for n in range(9)}
    memory = tmp_path / "memory.json"
    known: dict[str, Fingerprint] = {}
    for name in np.random.default_rng(5).permutation(sorted(prints)).tolist():
        known[name] = prints[name]
        found = update_duplicates(known, memory=memory)
    assert found == find_duplicates(prints)


def test_a_track_that_changed_or_left_takes_its_pairs_along(tmp_path: Path) -> None:
    prints = noise(30)
    prints |= {"a": copy_of(prints["t00001"]), "b": copy_of(prints["t00002"])}
    memory = tmp_path / "memory.json"
    assert names(update_duplicates(prints, memory=memory)) == {("a", "t00001"), ("b", "t00002")}
    changed = prints | {"a": copy_of(prints["t00009"])}
    assert names(update_duplicates(changed, memory=memory)) == {("a", "t00009"), ("b", "t00002")}
    left = {name: words for name, words in changed.items() if name != "t00002"}
    assert names(update_duplicates(left, memory=memory)) == {("a", "t00009")}
    assert names(update_duplicates(prints, memory=memory)) == {("a", "t00001"), ("b", "t00002")}


def test_a_lost_or_outdated_memory_costs_time_and_no_pair(tmp_path: Path) -> None:
    prints = noise(30) | {"copy": copy_of(noise(30)["t00004"])}
    memory = tmp_path / "memory.json"
    first = update_duplicates(prints, memory=memory)
    memory.unlink()
    assert update_duplicates(prints, memory=memory) == first
    memory.write_text('{"version": 0, "compared": {}, "pairs": [["t00000", "t00001", 1.0, 0.0]]}')
    assert update_duplicates(prints, memory=memory) == first


def test_pairs_among_known_tracks_are_not_looked_at(compared: list[int]) -> None:
    prints = noise(20)
    known = prints | {"known": copy_of(prints["t00001"])}
    assert names(find_duplicates({"new": copy_of(prints["t00002"])}, known)) == {("new", "t00002")}
    assert len(compared) == 1
    assert find_duplicates({}, known) == [] and find_duplicates({}) == []


def test_a_new_copy_meets_every_copy_of_what_it_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "MOST_TRACKS_PER_WORD", 8)
    prints = noise(20)
    known = prints | {f"k{n}": copy_of(prints["t00001"], share=0.02, seed=n) for n in range(20)}
    new = {"new": copy_of(prints["t00001"], share=0.02, seed=99)}
    found = names(find_duplicates(new, known, found=find_duplicates(known)))
    assert len(found) == 21 and all("new" in pair for pair in found)


def test_blocks_of_hits_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vocabulary = rng.integers(1, 1 << 32, 3_000, dtype=np.uint32)
    prints = {f"t{n:03}": rng.choice(vocabulary, 400) for n in range(25)}
    prints |= {f"c{n}": copy_of(prints[f"t{n:03}"], seed=n) for n in range(5)}
    whole = find_duplicates(prints)
    monkeypatch.setattr(fingerprints, "HITS_AT_ONCE", 500)
    assert find_duplicates(prints) == whole
