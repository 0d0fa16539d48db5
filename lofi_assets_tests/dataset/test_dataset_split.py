"""Which side of the split a track is on: both sides hold something, nothing straddles, nothing on record moves."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lofi_assets.dataset.split import (
    assign_splits,
    group_tracks,
    linked_tracks,
    split_note,
    split_of,
    straddling_groups,
)
from lofi_assets.records import Split
from lofi_assets.tracks.duplicates import LikelyCopies
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.stage_rows import track_sound

settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")
IDS = st.text("abcdef0123", min_size=1, max_size=3)
LIBRARY = st.sets(IDS, min_size=1, max_size=30)
PAIRS = st.lists(st.tuples(IDS, IDS), max_size=20)
SPLITS: st.SearchStrategy[Split] = st.sampled_from(["train", "validation"])


# --- both sides ------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(2, 40), st.randoms(use_true_random=False))
def test_both_sides_hold_something_as_soon_as_there_are_two_groups_however_a_library_grows(
    data: st.DataObject, count: int, shuffle: random.Random
) -> None:
    """Groups of one to three tracks, delivered in any order and in batches of any size."""
    names = data.draw(st.lists(IDS, min_size=count, max_size=count, unique=True))
    members = {f"{name}_{n}": name for name in names for n in range(data.draw(st.integers(1, 3)))}
    linked = [(a, b) for a in members for b in members if members[a] == members[b]]
    arriving = shuffle.sample(sorted(members), len(members))
    splits: dict[str, Split] = {}
    known: set[str] = set()
    while arriving:
        size = data.draw(st.integers(1, len(arriving)))
        known, arriving = known | set(arriving[:size]), arriving[size:]
        groups = group_tracks(known, linked=linked)
        grown = assign_splits(groups, recorded=splits)
        assert straddling_groups(grown, groups) == []
        assert {track_id: grown[track_id] for track_id in splits} == splits, "nothing on record moves"
        assert len(set(groups.values())) < 2 or set(grown.values()) == {"train", "validation"}
        splits = grown


TRAINING, VALIDATING = ["track_000", "track_001", "track_002", "track_004"], ["track_003", "track_011", "track_034"]
"""By their hash alone."""


def test_where_the_hash_leaves_validation_empty_the_lowest_hash_goes_there_and_stays() -> None:
    splits = assign_splits({key: key for key in TRAINING}, recorded={})
    (chosen,) = [key for key, split in splits.items() if split == "validation"]
    assert assign_splits({key: key for key in reversed(TRAINING)}, recorded={}) == splits
    grown = assign_splits({key: key for key in [*TRAINING, *VALIDATING]}, recorded=splits)
    assert grown[chosen] == "validation" and {grown[key] for key in VALIDATING} == {"validation"}
    assert [grown[key] for key in TRAINING] == [splits[key] for key in TRAINING]


def test_where_the_hash_leaves_training_empty_the_highest_hash_goes_there() -> None:
    splits = assign_splits({key: key for key in VALIDATING}, recorded={})
    assert sorted(splits.values()) == ["train", "validation", "validation"]


def test_what_is_new_goes_to_validation_before_anything_that_was_trained_on() -> None:
    first = assign_splits({"track_000": "track_000"}, recorded={})
    assert first == {"track_000": "train"}
    second = assign_splits({key: key for key in TRAINING}, recorded=first)
    assert second["track_000"] == "train" and sorted(second.values())[-1] == "validation"


def test_when_the_last_validation_track_is_withdrawn_the_next_lowest_hash_validates_the_new_version() -> None:
    splits = assign_splits({key: key for key in TRAINING}, recorded={})
    (gone,) = [key for key, split in splits.items() if split == "validation"]
    left = {key: key for key in TRAINING if key != gone}
    after = assign_splits(left, recorded=splits)
    (chosen,) = [key for key, split in after.items() if split == "validation"]
    assert splits[chosen] == "train"
    back = assign_splits({key: key for key in TRAINING}, recorded=splits | after)
    assert back[gone] == back[chosen] == "validation", "a track that comes back is where it was"


def test_what_was_validated_against_never_goes_to_training_even_if_nothing_else_is_left() -> None:
    recorded: dict[str, Split] = {"track_000": "validation", "track_001": "validation"}
    groups = {key: key for key in recorded}
    splits = assign_splits(groups, recorded=recorded)
    assert splits == recorded
    assert "0 of 2 tracks: every group has been validated against" in split_note("train", splits, groups)
    assert assign_splits(groups | {"new": "new"}, recorded=recorded)["new"] == "train"


def test_the_gates_are_told_how_many_and_why_where_the_hash_alone_did_not_decide() -> None:
    groups = {key: key for key in TRAINING}
    splits = assign_splits(groups, recorded={})
    assert split_note("validation", splits, groups) == (
        "1 of 4 tracks; the group with the lowest hash, since the hash alone left validation empty"
    )
    assert split_note("train", splits, groups) == "3 of 4 tracks"
    many = {key: key for key in [*TRAINING, *VALIDATING]}
    assert split_note("validation", assign_splits(many, recorded={}), many) == "3 of 7 tracks"
    parts = dict.fromkeys(TRAINING, "track_000")
    one_group = split_note("validation", assign_splits(parts, recorded={}), parts)
    assert "0 of 4 tracks: they are one group" in one_group and "add another" in one_group


# --- groups and records ----------------------------------------------------------------------------------------------


@given(LIBRARY, LIBRARY, PAIRS)
def test_new_tracks_never_move_an_old_one(old: set[str], added: set[str], linked: list[tuple[str, str]]) -> None:
    before = assign_splits(group_tracks(old, linked=linked), recorded={})
    groups = group_tracks(old | added, linked=linked)
    after = assign_splits(groups, recorded=before)
    for track_id in old:
        # A new track that turns out to duplicate two old ones merges their groups: only then may one move.
        sides = {before[other] for other in old if groups[other] == groups[track_id]}
        assert after[track_id] == (before[track_id] if len(sides) == 1 else "validation")


@given(LIBRARY, LIBRARY)
def test_unrelated_new_tracks_change_nothing_even_without_a_record(old: set[str], added: set[str]) -> None:
    before = assign_splits(group_tracks(old, linked=[]), recorded={})
    after = assign_splits(group_tracks(old | added, linked=[]), recorded={})
    by_hash = [before, after, {track_id: split_of(track_id) for track_id in old}]
    for track_id in old:
        # Where the hash alone leaves a side empty one group stands in, and which that is follows from who is there.
        assert len({splits[track_id] for splits in by_hash}) == 1 or {before[track_id], after[track_id]} != {
            split_of(track_id)
        }


@given(LIBRARY, PAIRS, st.dictionaries(IDS, SPLITS, max_size=20))
def test_a_group_of_duplicates_never_straddles_the_split(
    tracks: set[str], linked: list[tuple[str, str]], recorded: dict[str, Split]
) -> None:
    groups = group_tracks(tracks, linked=linked)
    splits = assign_splits(groups, recorded=recorded)
    assert splits.keys() == tracks
    assert straddling_groups(splits, groups) == []
    assert all(groups[a] == groups[b] for a, b in linked if a in tracks and b in tracks)


@given(LIBRARY, PAIRS)
def test_groups_do_not_depend_on_the_order_in_which_they_are_found(
    tracks: set[str], linked: list[tuple[str, str]]
) -> None:
    groups = group_tracks(sorted(tracks), linked=linked)
    flipped = [(b, a) for a, b in reversed(linked)]
    assert group_tracks(sorted(tracks, reverse=True), linked=flipped) == groups
    assert all(groups[group] == group == min(t for t in tracks if groups[t] == group) for group in groups.values())


@given(LIBRARY, st.data())
def test_recorded_splits_are_kept(tracks: set[str], data: st.DataObject) -> None:
    known = data.draw(st.sets(st.sampled_from(sorted(tracks))))
    recorded: dict[str, Split] = {track_id: data.draw(SPLITS) for track_id in sorted(known)}
    splits = assign_splits(group_tracks(tracks, linked=[]), recorded=recorded)
    moved = {track_id for track_id in recorded if splits[track_id] != recorded[track_id]}
    if known == tracks and len(tracks) > 1 and "validation" not in recorded.values():
        assert len(moved) == 1, "nothing is new, and something must be validated against"
    else:
        assert moved == set()


def test_a_track_that_was_validated_against_is_never_trained_on() -> None:
    orders: list[dict[str, Split]] = [{"a": "train", "b": "validation"}, {"b": "validation", "a": "train"}]
    for recorded in orders:
        assert set(assign_splits({"a": "a", "b": "a"}, recorded=recorded).values()) == {"validation"}


def test_a_straddling_group_is_found() -> None:
    splits: dict[str, Split] = {"a": "train", "b": "validation", "c": "train"}
    assert straddling_groups(splits, {"a": "g", "b": "g", "c": "c"}) == ["g"]


def test_a_tenth_of_the_groups_validates() -> None:
    share = sum(split_of(f"track_{number:05}") == "validation" for number in range(20_000)) / 20_000
    assert share == pytest.approx(0.10, abs=0.01)


def test_the_split_of_a_track_is_the_same_on_every_machine_and_in_every_version() -> None:
    validating = [number for number in range(60) if split_of(f"track_{number:03}") == "validation"]
    assert validating == [3, 11, 34, 38, 39, 58]


@given(LIBRARY, st.lists(LIBRARY, min_size=1, max_size=4), PAIRS)
def test_however_a_library_grows_only_a_bridge_to_validation_moves_a_track(
    old: set[str], arrivals: list[set[str]], linked: list[tuple[str, str]]
) -> None:
    splits = assign_splits(group_tracks(old, linked=linked), recorded={})
    known = set(old)
    for added in arrivals:
        known |= added
        groups = group_tracks(known, linked=linked)
        grown = assign_splits(groups, recorded=splits)
        moved = {track_id for track_id in splits if grown[track_id] != splits[track_id]}
        assert all(grown[track_id] == "validation" for track_id in moved), "nothing ever moves into training"
        for track_id in moved:
            mates = {other for other in splits if groups[other] == groups[track_id]}
            assert "validation" in {splits[other] for other in mates}, "a move needs a mate that validated"
        assert straddling_groups(grown, groups) == []
        splits = grown


@given(LIBRARY, PAIRS, st.dictionaries(IDS, SPLITS, max_size=20), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_anything(
    tracks: set[str], linked: list[tuple[str, str]], recorded: dict[str, Split], shuffle: random.Random
) -> None:
    def shuffled(items: Any) -> list[Any]:
        return shuffle.sample(list(items), len(items))

    expected = assign_splits(group_tracks(sorted(tracks), linked=linked), recorded=recorded)
    groups = group_tracks(shuffled(tracks), linked=[shuffle.choice([(a, b), (b, a)]) for a, b in shuffled(linked)])
    again = assign_splits(dict(shuffled(groups.items())), recorded=dict(shuffled(recorded.items())))
    assert again == expected


@given(LIBRARY, PAIRS)
def test_a_bridge_that_leaves_again_moves_nothing_back(tracks: set[str], linked: list[tuple[str, str]]) -> None:
    bridged = assign_splits(group_tracks(tracks, linked=linked), recorded={})
    if "validation" in bridged.values():
        assert assign_splits(group_tracks(tracks, linked=[]), recorded=bridged) == bridged


def test_the_split_is_the_same_under_another_hash_seed(tmp_path: Path) -> None:
    """PYTHONHASHSEED orders sets and is what differs between two runs on two machines."""
    code = (
        "from lofi_assets.dataset.split import assign_splits, group_tracks\n"
        "tracks = {f'track_{n:03}' for n in range(200)}\n"
        "linked = {(f'track_{n:03}', f'track_{n * 7 % 200:03}') for n in range(0, 200, 5)}\n"
        "splits = assign_splits(group_tracks(tracks, linked=linked), recorded={})\n"
        "print(sorted(splits.items()))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": "", "TZ": zone},
            capture_output=True,
            check=True,
            cwd=REPOSITORY,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert runs[0] == runs[1] and b"validation" in runs[0]


def test_pieces_of_one_file_and_tracks_to_review_share_a_group() -> None:
    files = [("long_1", "long", "aa"), ("long_2", "long", "aa"), ("again", "again", "aa"), ("alike", "alike", "bb")]
    files += [("broken", "broken", ""), ("torn", "torn", "")]
    rows = [track_sound(track_id, raw_path=f"raw/{name}.wav", source_sha256=digest) for track_id, name, digest in files]
    linked = linked_tracks(rows, [LikelyCopies("alike", "long_2", 0.62)])
    groups = group_tracks((row.track_id for row in rows), linked=linked)
    assert {track for track, group in groups.items() if group == "again"} == {"again", "alike", "long_1", "long_2"}
    assert groups["broken"] == "broken" and groups["torn"] == "torn"
