"""Which of two copies stays: lossless, then the licence that allows more, then the score, then what was there first."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from lofi_assets.dataset.split import assign_splits, group_tracks
from lofi_assets.files.documents import read_json
from lofi_assets.records import Split
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import Store
from lofi_assets.tracks.duplicates import (
    DUPLICATE_RULE,
    LOSSLESS,
    LikelyCopies,
    mark_duplicates,
    read_pairs,
    splits_with_copies,
)
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult
from lofi_assets.tracks.track_table import TrackRow, read_tracks
from lofi_assets_tests.stage_rows import track_row, write_sources
from lofi_assets_tests.tracks.stand_in_audio import TRACK_GATES, Run, accepted, inventory, sound, statuses


def row(
    track_id: str,
    *,
    words: np.ndarray | None = None,
    codec: str | None = "wav",
    score: int = 80,
    status: str = "accepted",
    rule: str = "",
) -> TrackRow:
    return track_row(
        track_id,
        status=status,
        rule=rule,
        quality_score=score,
        words=base64.b64encode((sound(1) if words is None else words).tobytes()).decode(),
        measures={"codec": codec} if codec else {},
    )


def mark(
    rows: Sequence[TrackRow],
    *,
    recorded: Mapping[str, TrackRow] | None = None,
    licences: Mapping[str, str] | None = None,
) -> tuple[list[TrackRow], list[LikelyCopies]]:
    known = {row.track_id: "permitted" for row in rows} if licences is None else licences
    with TemporaryDirectory() as folder:
        memory = Path(folder) / "memory.json"
        return mark_duplicates(rows, recorded=recorded or {}, licences=known, gates=TRACK_GATES, memory=memory)


PERMITTED, AMBIGUOUS = "permitted", "ambiguous"
CHOICES = [
    # what, (codec, licence type, score, there before) of `a` and of `b`, which stays, why
    ("flac and mp3", ("mp3", PERMITTED, 99, True), ("flac", AMBIGUOUS, 40, False), "b", "which is lossless"),
    ("aiff and mp3", ("aiff", AMBIGUOUS, 40, False), ("mp3", PERMITTED, 99, True), "a", "which is lossless"),
    ("a codec not on record", (None, PERMITTED, 99, True), ("wav", PERMITTED, 40, False), "b", "which is lossless"),
    (
        "two licences",
        ("flac", AMBIGUOUS, 99, True),
        ("wav", PERMITTED, 40, False),
        "b",
        "whose licence type permits training by itself",
    ),
    ("no licence on record", ("flac", "", 99, True), ("wav", PERMITTED, 40, False), "b", "whose licence type permits"),
    (
        "two scores",
        ("mp3", PERMITTED, 70, True),
        ("mp3", PERMITTED, 90, False),
        "b",
        "whose quality score is 90, not 70",
    ),
    (
        "one came first",
        ("wav", AMBIGUOUS, 80, False),
        ("flac", AMBIGUOUS, 80, True),
        "b",
        "which is as good and came first",
    ),
    ("equals", ("wav", PERMITTED, 80, False), ("flac", PERMITTED, 80, False), "a", "which is as good and came first"),
]


@pytest.mark.parametrize(("a", "b", "stays", "why"), [case[1:] for case in CHOICES], ids=[case[0] for case in CHOICES])
@pytest.mark.parametrize("order", [1, -1])
def test_the_copy_that_stays_and_why(a: tuple, b: tuple, stays: str, why: str, order: int) -> None:
    rows = [row("a", codec=a[0], score=a[2]), row("b", codec=b[0], score=b[2])]
    before = {key: found for key, (*_, known), found in zip("ab", (a, b), rows, strict=True) if known}
    marked, pairs = mark(rows[::order], recorded=before, licences={"a": a[1], "b": b[1]})
    by_id = {found.track_id: found for found in marked}
    goes = "b" if stays == "a" else "a"
    assert (by_id[stays].status, by_id[goes].status) == ("accepted", "rejected")
    assert (by_id[goes].rule, by_id[stays].reason) == (DUPLICATE_RULE, "")
    said = f"duplicate_similarity = 1, must be < 0.85: the same recording as {stays}, {why}"
    assert by_id[goes].reason.startswith(said)
    assert [found.track_id for found in marked] == [found.track_id for found in rows[::order]]
    assert pairs == [LikelyCopies("a", "b", 1.0)]


def test_what_is_lossless_is_every_codec_that_is_read_but_mp3() -> None:
    from typing import get_args

    from lofi_assets.audio.decode import Codec

    assert set(LOSSLESS) == set(get_args(Codec)) - {"mp3"}


def test_tracks_of_their_own_are_kept_and_carry_the_measure() -> None:
    marked, pairs = mark([row("a"), row("b", words=sound(2))])
    assert [row.status for row in marked] == ["accepted", "accepted"] and pairs == []
    assert [row.measures["duplicate_similarity"] for row in marked] == [0.0, 0.0]


def test_a_copy_comes_back_when_the_track_it_copied_leaves() -> None:
    copy = row("b", status="rejected", rule=DUPLICATE_RULE)
    marked, _ = mark([copy], recorded={"b": copy})
    assert (marked[0].status, marked[0].rule, marked[0].reason) == ("accepted", "", "")


def test_a_track_rejected_for_another_reason_rejects_nobody() -> None:
    marked, pairs = mark([row("a", status="rejected", rule="audio.clipping"), row("b")])
    assert [found.rule for found in marked] == ["audio.clipping", ""] and pairs == []


def test_a_pair_that_only_might_be_one_recording_stays_and_is_kept_together() -> None:
    remix = np.concatenate([sound(1)[:384], sound(2)[384:]])
    marked, pairs = mark([row("a"), row("b", words=remix)])
    assert {found.rule for found in marked} == {""}
    assert [0.62 < pair.similarity < 0.85 for pair in pairs] == [True]


# --- through the library ---------------------------------------------------------------------------------------------


def heard(**codecs: str) -> Callable[[ProcessJob], ProcessResult]:
    """A worker that hears one recording in every file, read with the codec named."""

    def answer(job: ProcessJob) -> ProcessResult:
        result = accepted(job, seed=7)
        return replace(result, measures=result.measures | {"codec": codecs[job.track_id]})

    return answer


def test_a_lossless_copy_that_lands_takes_the_place_of_the_mp3_and_gives_it_back_without_work(
    store: Store, run: Run
) -> None:
    answer = heard(rain="mp3", rain_flac="flac")
    inventory(store, rain="1")
    run(answer)
    inventory(store, rain="1", rain_flac="2")
    _, worked = run(answer)
    assert worked == ["rain_flac"]
    assert statuses(store) == {"rain": ("rejected", DUPLICATE_RULE), "rain_flac": ("accepted", "")}
    assert (
        "the same recording as rain_flac, which is lossless"
        in (read_json(store.quarantine / "tracks" / "rain.json")["reason"])
    )
    assert [path.name for path in store.processed.rglob("*.mp3")] == ["rain_flac.mp3"]
    assert run(answer)[1] == [] and statuses(store)["rain_flac"] == ("accepted", "")
    inventory(store, rain="1")
    _, worked = run(answer)
    assert (worked, statuses(store)) == ([], {"rain": ("accepted", "")})
    assert [path.name for path in store.processed.rglob("*.mp3")] == ["rain.mp3"]
    assert not (store.quarantine / "tracks" / "rain.json").exists()


def test_the_suffix_of_a_file_says_nothing_of_how_it_is_coded(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    assert {row.path for row in read_inventory(store)} == {"raw/a.wav", "raw/b.wav"}
    run(heard(a="mp3", b="flac"))
    assert statuses(store) == {"a": ("rejected", DUPLICATE_RULE), "b": ("accepted", "")}


def test_the_licence_of_a_copy_is_the_one_that_was_verified(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    known = {"a": "ambiguous", "b": "permitted"}
    rows = read_inventory(store)
    write_sources(store, [replace(row, measures={"license_status": known[row.track_id]}) for row in rows])
    run(heard(a="flac", b="flac"))
    assert statuses(store) == {"a": ("rejected", DUPLICATE_RULE), "b": ("accepted", "")}


def test_an_equal_copy_landing_later_changes_nothing_for_the_first(store: Store, run: Run) -> None:
    answer = heard(a="wav", m="wav")
    inventory(store, m="1")
    first, _ = run(answer)
    inventory(store, a="2", m="1")
    again, worked = run(answer)
    assert worked == ["a"] and statuses(store) == {"a": ("rejected", DUPLICATE_RULE), "m": ("accepted", "")}
    assert again.data_version == first.data_version
    assert again.tracks[DUPLICATE_RULE] == {"accepted": 1, "violating": 0, "rejected": 1}


@pytest.mark.parametrize("side", ["train", "validation"])
def test_another_copy_of_a_recorded_track_is_on_its_side_of_the_split(store: Store, run: Run, side: Split) -> None:
    answer = heard(rain="mp3", a_rain_flac="flac")
    inventory(store, rain="1", a_rain_flac="2")
    run(answer)
    assert statuses(store)["rain"] == ("rejected", DUPLICATE_RULE)
    pairs = [(pair.a, pair.b) for pair in read_pairs(store)]
    groups = group_tracks((row.track_id for row in read_tracks(store)), linked=pairs)
    sides = splits_with_copies({"rain": side, "gone": "train"}, groups=groups)
    assert assign_splits({"a_rain_flac": groups["a_rain_flac"]}, recorded=sides) == {"a_rain_flac": side}


def test_a_group_of_copies_with_both_sides_on_record_is_validated_against() -> None:
    groups = {"a": "a", "b": "a", "c": "a", "d": "d"}
    sides = splits_with_copies({"a": "train", "b": "validation", "d": "train"}, groups=groups)
    assert sides == {"a": "validation", "b": "validation", "c": "validation", "d": "train"}
