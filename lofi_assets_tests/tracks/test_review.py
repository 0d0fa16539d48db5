"""A person's word on tags: it is appended, the last one holds, and only for exactly what was reviewed."""

import multiprocessing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lofi_assets.cli.main import main
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.tables import write_table
from lofi_assets.sources.style_taxonomy import vocabulary
from lofi_assets.store import REVIEWS, Store
from lofi_assets.tracks.curation import curated_tempo_ranges
from lofi_assets.tracks.duplicates import LikelyCopies, PartsOfOneFile, write_pairs
from lofi_assets.tracks.prompt_table import PromptRow, prompts_path, read_prompts
from lofi_assets.tracks.prompts import write_prompts
from lofi_assets.tracks.review import (
    Review,
    ReviewError,
    append_reviews,
    decide,
    decisions,
    queue,
    queue_of,
    read_reviews,
)
from lofi_assets.tracks.tagged_tracks import categories
from lofi_assets.tracks.track_table import TrackRow, accepted_tracks, write_tracks
from lofi_assets_tests.stage_rows import prompt_row, track_row

WHEN = datetime(2025, 5, 4, 12, tzinfo=UTC)
TOO_LONG = ", ".join(["lofi", *vocabulary()[0].categories[2].tags])
SURE = "lofi hip hop, focused, rhodes, vibraphone, study session, 76 bpm"


def processed(track_id: str, *, audio: str = "a", **measures: Any) -> TrackRow:
    known = {"tempo_bpm": 76.0, "tempo_confidence": 0.9, **measures}
    return track_row(track_id, audio_sha256=audio * 64, measures=known, quality_score=90, score_parts={"noise": 0.8})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`sure` needs nobody; `vague` has neither tags nor a tempo."""
    store = Store(tmp_path / "data")
    monkeypatch.setenv("LOFI_DATA_DIR", str(store.root))
    write_tracks(store, [processed("sure"), processed("vague", tempo_bpm=None, tempo_confidence=0.0)])
    tell(store, "sure", SURE)
    write_prompts(store)
    return store


def tell(store: Store, track_id: str, prompt: str) -> None:
    path = store.raw / "royalty-free" / f"{track_id}_prompt.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(prompt, encoding="utf-8")


def row(store: Store, track_id: str) -> PromptRow:
    return next(row for row in read_prompts(store) if row.track_id == track_id)


def waiting(store: Store) -> dict[str, tuple[str, ...]]:
    return {item.row.track_id: item.reasons for item in queue(store) if item.reasons}


def accept(store: Store, track_id: str = "vague", **more: Any) -> None:
    decide(store, [track_id], decision="accepted", by="Ada", at=WHEN, vocabulary=vocabulary(), **more)


def reject(store: Store, track_id: str = "vague") -> None:
    decide(store, [track_id], decision="rejected", by="Ada", at=WHEN, vocabulary=vocabulary(), note="out of tune")


# --- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_says_why_a_person_should_look(store: Store) -> None:
    assert list(waiting(store)) == ["vague"]
    assert [reason.split(" ")[0] for reason in waiting(store)["vague"]] == ["style", "tempo"]


def test_unknown_tags_contradictions_and_likely_copies_are_reasons(store: Store) -> None:
    tell(store, "sure", f"{SURE}, zzyzx, slow, uptempo")
    write_pairs(store, [LikelyCopies("sure", "vague", 0.7)])
    outcome = write_prompts(store)
    reasons = " | ".join(waiting(store)["sure"])
    assert "'zzyzx' is not in the taxonomy" in reasons and "uptempo (human) contradicts" in reasons
    assert "same recording as vague (0.70)" in reasons and "as sure" in " ".join(waiting(store)["vague"])
    assert outcome.counts["to_review"] == 2


def test_a_copy_that_is_already_out_is_no_reason(store: Store) -> None:
    write_pairs(store, [LikelyCopies("sure", "rejected_one", 0.99), PartsOfOneFile("sure", "vague", "long")])
    assert "sure" not in waiting(store)


# --- decisions --------------------------------------------------------------------------------------------------------


def test_acceptance_takes_a_track_from_tagged_to_verified(store: Store) -> None:
    assert row(store, "vague").state == "TAGGED"
    accept(store)
    before = write_prompts(store)
    assert (row(store, "vague").state, row(store, "vague").reviewed_by) == ("VERIFIED", "Ada")
    assert waiting(store) == {} and before.counts["verified"] == 1 and before.counts["to_review"] == 0
    assert read_json(store.metadata("quality_scores.json")) == {
        "sure": {"score": 90, "verified": False, "date": None, "parts": {"noise": 0.8}},
        "vague": {"score": 90, "verified": True, "date": "2025-05-04", "parts": {"noise": 0.8}},
    }
    assert write_prompts(store).data_version == before.data_version


def test_rejection_takes_a_track_out_and_a_later_word_brings_it_back(store: Store) -> None:
    reject(store)
    outcome = write_prompts(store)
    assert row(store, "vague").status == "review_rejected" and outcome.counts["rejected_in_review"] == 1
    assert "out of tune" in read_json(store.quarantine / "prompts" / "vague.json")["reason"]
    assert outcome.tracks["prompts.lyrics"] == {"accepted": 1, "violating": 0, "rejected": 0}
    accept(store)
    write_prompts(store)
    assert (row(store, "vague").status, row(store, "vague").state) == ("tagged", "VERIFIED")
    assert not (store.quarantine / "prompts" / "vague.json").exists()


@pytest.mark.parametrize("change", ["audio", "prompt"])
def test_a_decision_about_other_content_does_not_hold(store: Store, change: str) -> None:
    reject(store)
    if change == "audio":
        write_tracks(store, [processed("vague", audio="b", tempo_bpm=None)])
    else:
        tell(store, "vague", "lofi, sad, piano")
    write_prompts(store)
    assert row(store, "vague").status == "tagged"
    assert waiting(store)["vague"][0] == "changed since Ada rejected it on 2025-05-04"


def test_a_reviewers_tags_are_the_whole_prompt(store: Store) -> None:
    accept(store, tags="Lo-Fi, Rhodes piano, rainy day, 70 bpm")
    write_prompts(store)
    assert row(store, "vague").prompt == "lofi, rhodes, 70 bpm, rainy window"
    assert {tag.origin for tag in row(store, "vague").tags} == {"human"}


def test_a_reviewers_styles_last_and_are_no_evidence_for_tagging(store: Store) -> None:
    accept(store, styles=["SEASON-02", "CORE-01"])
    for _ in range(3):
        write_prompts(store)
        assert row(store, "vague").style_ids == ("SEASON-02", "CORE-01")
        assert read_json(store.metadata("style_mapping.json"))["vague"] == ["SEASON-02", "CORE-01"]
        assert row(store, "vague").state == "VERIFIED"
    assert categories(store)(accepted_tracks(store))["vague"] == "seasonal"
    assert curated_tempo_ranges(store) == {}


def test_a_reviewers_styles_stand_over_a_curators_and_a_later_curators_word_reopens(store: Store) -> None:
    path = store.metadata("style_mapping.json")
    write_json(path, {**read_json(path), "sure": ["THEME-02"]})
    write_prompts(store)
    accept(store, "sure", styles=["CORE-03"])
    for _ in range(2):
        write_prompts(store)
        assert (row(store, "sure").style_ids, row(store, "sure").state) == (("CORE-03",), "VERIFIED")
    write_json(path, {**read_json(path), "sure": ["CORE-04"]})
    write_prompts(store)
    assert (row(store, "sure").style_ids, row(store, "sure").state) == (("CORE-04",), "TAGGED")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"styles": ["CORE-99"]}, "CORE-99: no such style"),
        ({"tags": "lofi, zzyzx"}, "zzyzx: not in config"),
        ({"tags": "piano"}, "name no genre"),
        ({"tags": "lofi, happy, sad"}, "exclude each other"),
        ({"tags": TOO_LONG}, "characters"),
        ({"by": "  "}, "needs a name"),
        ({"decision": "rejected"}, "needs a reason"),
    ],
)
def test_a_decision_that_cannot_hold_is_refused_whole(store: Store, words: dict[str, Any], message: str) -> None:
    wanted = {"decision": "accepted", "by": "Ada"} | words
    with pytest.raises(ReviewError, match=message):
        decide(store, ["sure", "vague"], at=WHEN, vocabulary=vocabulary(), **wanted)
    assert read_reviews(store) == []


def test_a_decision_about_an_unknown_track_records_nothing(store: Store) -> None:
    with pytest.raises(ReviewError, match="nowhere: not among"):
        decide(store, ["sure", "nowhere"], decision="accepted", by="Ada", at=WHEN, vocabulary=vocabulary())
    assert read_reviews(store) == []


# --- the file ---------------------------------------------------------------------------------------------------------


def a_review(track_id: str = "a", decision: str = "accepted", content: str = "1", by: str = "Ada") -> Review:
    return Review(track_id=track_id, decision=decision, by=by, at=WHEN, audio_sha256=content * 64, proposal="0" * 64)  # type: ignore[arg-type]


REVIEW = st.builds(
    a_review,
    track_id=st.sampled_from(["a", "b"]),
    decision=st.sampled_from(["accepted", "rejected"]),
    content=st.sampled_from(["1", "2"]),
    by=st.text(min_size=1, max_size=5).filter(lambda text: text.isprintable()),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(REVIEW, min_size=1, max_size=3), max_size=4), torn=st.integers(0, 40))
def test_the_file_only_grows_and_a_torn_end_loses_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Review]], torn: int
) -> None:
    store = Store(tmp_path_factory.mktemp("reviews"))
    path, before = store.metadata(REVIEWS), b""
    for batch in batches:
        append_reviews(store, batch)
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()
        with path.open("ab") as file:
            file.write(b'{"track_id": "half a decision", "decision": "acc'[:torn])
    assert read_reviews(store) == [review for batch in batches for review in batch]


@given(reviews=st.lists(REVIEW, max_size=8))
def test_the_last_decision_holds_and_only_for_its_content(reviews: list[Review]) -> None:
    holding = decisions(reviews)
    for content in "123":
        about = [review for review in reviews if review.content == ("a", content * 64, "0" * 64)]
        (item,) = queue_of([prompt_row("a", audio_sha256=content * 64)], pairs=[], reviews=reviews)
        assert item.decision == (about[-1].decision if about else "")
        assert bool(item.reasons) == (not about and any(review.track_id == "a" for review in reviews))
        assert (("a", content * 64, "0" * 64) in holding) == bool(about)


def test_a_whole_decision_without_a_newline_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    append_reviews(store, [a_review()])
    path = store.metadata(REVIEWS)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(read_reviews(store)) == 1
    append_reviews(store, [a_review("b")])
    assert [review.track_id for review in read_reviews(store)] == ["a", "b"]


def test_a_line_that_is_no_decision_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    append_reviews(store, [a_review()])
    with store.metadata(REVIEWS).open("ab") as file:
        file.write(b'{"track_id": "b"}\n')
    with pytest.raises(ReviewError, match=r"reviews\.jsonl:2: not a decision \(decision"):
        read_reviews(store)


def _append_many(root: Path, name: str) -> None:
    for _ in range(25):
        append_reviews(Store(root), [a_review(name)])


def test_two_people_can_decide_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    people = [context.Process(target=_append_many, args=(tmp_path, name)) for name in ("a", "b")]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    assert sorted(review.track_id for review in read_reviews(Store(tmp_path))) == ["a"] * 25 + ["b"] * 25


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_commands_list_show_and_decide(store: Store) -> None:
    run = CliRunner().invoke
    listed = run(main, ["review", "list"])
    assert listed.exit_code == 0 and "tempo unknown" in listed.output and "1 of 2" in listed.output
    assert "sure" not in listed.output and "sure" in run(main, ["review", "list", "--all"]).output
    shown = run(main, ["review", "show", "sure"])
    assert "rhodes" in shown.output and "human" in shown.output and str(store.root / "processed") in shown.output
    done = run(main, ["review", "accept", "vague", "--by", "Ada", "--styles", "CORE-05, CORE-01", "--note", "lovely"])
    assert done.exit_code == 0 and "accepted 1: vague" in done.output
    write_prompts(store)
    assert "0 of 2" in run(main, ["review", "list"]).output
    assert "Ada: accepted lovely" in run(main, ["review", "show", "vague"]).output
    assert run(main, ["review", "reject", "sure", "--by", "Ada", "--reason", "noise"]).exit_code == 0
    assert read_reviews(store)[-1].at.date() >= date(2025, 1, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "nowhere"], "nowhere: not among"),
        (["accept", "vague", "--by", "Ada", "--tags", "zzyzx"], "zzyzx"),
        (["accept", "vague"], "--by"),
        (["reject", "vague", "--by", "Ada"], "--reason"),
        (["reject", "vague", "--by", "Ada", "--reason", " "], "needs a reason"),
    ],
)
def test_a_mistake_exits_non_zero_with_the_reason(store: Store, words: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["review", *words])
    assert done.exit_code != 0 and message in done.output and "Traceback" not in done.output


def test_prompts_of_an_earlier_version_are_named(store: Store) -> None:
    write_table(prompts_path(store), pd.DataFrame([{"track_id": "sure", "status": "tagged"}]))
    done = CliRunner().invoke(main, ["review", "list"])
    assert done.exit_code == 1 and "materialise prompts again" in done.output
