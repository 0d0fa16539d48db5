"""A delivery of tracks: one message when it went as far as it will, with every reject, and none when nothing came."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from lofi_assets.alerts.arrivals import Track, delivery_news
from lofi_assets.alerts.state import AlertState, read_told_tracks, write_told_tracks
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store
from lofi_assets.tracks.prompt_table import write_prompt_rows
from lofi_assets.tracks.track_table import tracks_path, write_tracks
from lofi_assets_tests.alerts.alert_receiver import Receiver
from lofi_assets_tests.alerts.alert_watch import NOTHING, Watch
from lofi_assets_tests.defs.test_gate_checks import StandIns
from lofi_assets_tests.recorded_evidence import record, report_build
from lofi_assets_tests.stage_rows import TEMPO, prompt_row, source_row, track_row, write_sources

DATA = ("licensed_sources", "processed_tracks", "prompts", "dataset_manifest")


@dataclass
class Library:
    """The tables that the data assets write."""

    watch: Watch
    unlicensed: dict[str, str] = field(default_factory=dict)
    """Track id -> rule."""
    processed: dict[str, str] = field(default_factory=dict)
    """Track id -> the rule that rejected it, or ""."""
    doubtful: set[str] = field(default_factory=set)
    """Tracks whose tempo nobody knows: a person should look."""
    content: dict[str, str] = field(default_factory=dict)
    """Track id -> sha256 of its raw file, else the same for ever."""

    def materialize(self, *assets: str) -> None:
        """The tables, then the materialisations in the order of `assets`."""
        self.write()
        store = self.watch.stand_ins.store
        for asset in assets or DATA:
            upstream = dict.fromkeys(DATA[: DATA.index(asset)], "")
            version = hash_of(asset, self.unlicensed, self.processed, self.content)
            sha256 = record(store, Measures(asset, version, upstream))
            report_build(self.watch.instance, asset, version, evidence=sha256)

    def write(self) -> None:
        store = self.watch.stand_ins.store
        everything = {**self.processed, **self.unlicensed}
        sources = [
            source_row(
                track_id,
                path=f"raw/label-7/{track_id}.wav",
                sha256=self.content.get(track_id, track_id * 8),
                **self._verdict(self.unlicensed.get(track_id, ""), accepted="verified"),
            )
            for track_id in everything
        ]
        tracks = [
            track_row(track_id, raw_path=f"raw/label-7/{track_id}.wav", **self._verdict(rule, accepted="accepted"))
            for track_id, rule in self.processed.items()
        ]
        prompts = [
            prompt_row(track_id, tags=() if track_id in self.doubtful else (TEMPO,))
            for track_id, rule in self.processed.items()
            if not rule
        ]
        write_sources(store, sources)
        write_tracks(store, tracks)
        write_prompt_rows(store, prompts)

    @staticmethod
    def _verdict(rule: str, *, accepted: str) -> dict[str, str]:
        return {
            "status": "rejected" if rule else accepted,
            "rule": rule,
            "reason": "clipped_share = 0.0421, must be < 0.001" if rule else "",
        }


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> Iterator[Library]:
    """Two tracks that people know of."""
    stand_ins = StandIns(tmp_path / "data").install(monkeypatch)
    with dg.DagsterInstance.ephemeral() as instance:
        watch = Watch(stand_ins, instance, monkeypatch)
        watch.receivers(receiver.url)
        library = Library(watch, processed={"rain": "", "snow": ""})
        library.materialize()
        watch.tick()
        yield library


def test_what_was_there_before_alerts_is_no_delivery(library: Library, receiver: Receiver) -> None:
    assert library.watch.tick() == NOTHING
    assert receiver.received == []


def test_a_delivery_is_one_message_with_every_reject_and_the_review_queue(library: Library, receiver: Receiver) -> None:
    library.processed |= {"dawn_01": "", "dusk_01": "", "noon_01": "", "late_01": "audio.clipping"}
    library.doubtful = {"dawn_01", "dusk_01"}
    library.materialize()
    library.watch.tick()
    assert library.watch.tick() == NOTHING
    (message,) = receiver.received
    assert message["title"] == "WARNING tracks: 3 accepted, 1 rejected: late_01 audio.clipping, 2 to review"
    assert message["type"] == "warning"
    for part in (
        "Rejected raw/label-7/late_01.wav\n  audio.clipping: clipped_share = 0.0421, must be < 0.001",
        "Review dawn_01: tempo unknown",
        "The review queue: lofi review list",
    ):
        assert part in message["message"]
    assert message["message"].endswith("/assets/processed_tracks")


def test_a_track_whose_id_says_nothing_is_told_with_its_files_name() -> None:
    rain = Track("1_5d9ff404", "raw/Дождь 1.flac", "a" * 64)
    snow = Track("1_552e1bad", "raw/Снег 1.flac", "b" * 64, "rule")
    (news,) = delivery_news({"1_5d9ff404": rain, "1_552e1bad": snow}, told={}, waiting={"1_5d9ff404": "tempo unknown"})
    assert "1_552e1bad (Снег 1.flac) rule" in news.title
    assert "Review 1_5d9ff404 (Дождь 1.flac): tempo unknown" in news.body
    assert "Accepted: 1_5d9ff404 (Дождь 1.flac)" in news.body


def test_a_delivery_that_is_accepted_whole_is_no_warning(library: Library, receiver: Receiver) -> None:
    library.processed |= {"dawn_01": ""}
    library.materialize()
    library.watch.tick()
    assert [(found["title"], found["type"]) for found in receiver.received] == [
        ("INFO tracks: 1 accepted, 0 rejected", "info")
    ]


def test_assets_that_materialise_one_after_the_other_are_one_delivery(library: Library, receiver: Receiver) -> None:
    """A licence is refused first, the audio later; people hear of both when the dataset is there."""
    library.unlicensed = {"theft": "licence.record"}
    library.materialize("licensed_sources")
    assert library.watch.tick() == NOTHING
    library.processed |= {"dawn_01": ""}
    for asset in DATA[1:]:
        assert library.watch.tick() == NOTHING
        library.materialize(asset)
    library.watch.tick()
    assert receiver.titles == ["WARNING tracks: 1 accepted, 1 rejected: theft licence.record"]


def test_an_inventory_that_is_taken_again_delays_nothing(library: Library, receiver: Receiver) -> None:
    """What counts is which builds the dataset was made from, not when each asset ran last."""
    library.processed |= {"dawn_01": ""}
    library.materialize()
    library.materialize("licensed_sources")
    library.watch.tick()
    assert len(receiver.received) == 1


def test_rejects_alone_are_told_though_no_dataset_follows(library: Library, receiver: Receiver) -> None:
    """What is accepted did not change, so automation stops after processed_tracks."""
    library.processed |= {"late_01": "audio.clipping"}
    library.materialize("licensed_sources", "processed_tracks")
    assert library.watch.tick() == NOTHING
    library.watch.ahead = 91
    library.watch.tick()
    assert receiver.titles == ["WARNING tracks: 0 accepted, 1 rejected: late_01 audio.clipping"]


def test_a_delivery_waits_for_the_run_that_works_on_it_and_is_told_though_that_fails(
    library: Library, receiver: Receiver
) -> None:
    watch = library.watch
    job = watch.stand_ins.defs.resolve_job_def("refresh_data")
    run = watch.instance.create_run_for_job(job_def=job)
    watch.instance.report_run_canceling(run)
    library.processed |= {"late_01": "audio.clipping"}
    library.materialize("licensed_sources", "processed_tracks")
    watch.ahead = 91
    assert watch.tick() == NOTHING
    watch.instance.report_run_failed(run, message="killed")
    watch.tick()
    assert receiver.titles == [
        "ERROR job refresh_data failed",
        "WARNING tracks: 0 accepted, 1 rejected: late_01 audio.clipping",
    ]


def test_a_run_that_never_ends_does_not_silence_deliveries(library: Library, receiver: Receiver) -> None:
    watch = library.watch
    watch.instance.create_run_for_job(job_def=watch.stand_ins.defs.resolve_job_def("refresh_data"))
    library.processed |= {"late_01": "audio.clipping"}
    library.materialize()
    watch.ahead = 3600
    assert watch.tick() == NOTHING
    watch.ahead = 7 * 3600
    watch.tick()
    assert len(receiver.received) == 1


def test_training_does_not_hold_a_delivery_up(library: Library, receiver: Receiver) -> None:
    watch = library.watch
    job = watch.stand_ins.defs.resolve_implicit_global_asset_job_def()
    watch.instance.create_run_for_job(job_def=job.get_subset(asset_selection={dg.AssetKey("lora_checkpoints")}))
    library.processed |= {"late_01": "audio.clipping"}
    library.materialize("licensed_sources", "processed_tracks")
    watch.ahead = 91
    watch.tick()
    assert len(receiver.received) == 1


def test_the_same_tracks_processed_again_are_no_delivery(library: Library, receiver: Receiver) -> None:
    library.processed["late_01"] = "audio.clipping"
    library.materialize()
    library.watch.tick()
    library.materialize()
    assert library.watch.tick() == NOTHING


def test_a_track_that_leaves_is_no_delivery_and_one_that_comes_back_is(library: Library, receiver: Receiver) -> None:
    del library.processed["snow"]
    library.materialize()
    assert library.watch.tick() == NOTHING
    library.processed["snow"] = ""
    library.materialize()
    library.watch.tick()
    assert receiver.titles == ["INFO tracks: 1 accepted, 0 rejected"]


def test_a_file_that_was_replaced_or_whose_licence_was_withdrawn_is_news(library: Library, receiver: Receiver) -> None:
    library.content["rain"] = "another recording"
    library.unlicensed["snow"] = "licence.revoked"
    del library.processed["snow"]
    library.materialize()
    library.watch.tick()
    assert receiver.titles == ["WARNING tracks: 1 accepted, 1 rejected: snow licence.revoked"]


def test_a_renamed_file_is_no_delivery(library: Library, receiver: Receiver) -> None:
    library.content |= {"rain": "one recording", "drizzle": "one recording"}
    library.materialize()
    library.watch.tick()
    receiver.received.clear()
    del library.processed["rain"]
    library.processed["drizzle"] = ""
    library.materialize()
    assert library.watch.tick() == NOTHING
    assert receiver.received == []


def test_many_rejects_are_counted_and_the_first_are_named(library: Library, receiver: Receiver) -> None:
    library.processed |= {f"late_{number:02d}": "audio.clipping" for number in range(9)}
    library.materialize()
    library.watch.tick()
    (message,) = receiver.received
    assert message["title"].endswith("9 rejected: late_00 audio.clipping, late_01 audio.clipping and 7 more")
    assert message["message"].count("Rejected raw/") == 5
    assert "and 4 more" in message["message"]


def test_a_delivery_reaches_a_receiver_that_was_down(library: Library, receiver: Receiver) -> None:
    receiver.stop()
    library.processed["late_01"] = "audio.clipping"
    library.materialize()
    assert "1 alert waits for it" in library.watch.tick()
    receiver.start()
    library.watch.tick()
    assert len(receiver.received) == 1


def test_a_table_that_cannot_be_read_stops_no_other_alert(library: Library, receiver: Receiver) -> None:
    store = library.watch.stand_ins.store
    tracks_path(store).write_bytes(b"no table")
    library.watch.judge_by_hand("human.equivalence", passed=False)
    library.watch.tick()
    assert [title.split()[1] for title in receiver.titles] == ["human.equivalence"]
    library.processed["late_01"] = "audio.clipping"
    library.materialize()
    library.watch.tick()
    assert len(receiver.received) == 2


@pytest.mark.parametrize("content", ["[]", '{"rain_01": 1}', "{"])
def test_a_set_of_told_tracks_that_is_none_is_refused_by_name(store: Store, content: str) -> None:
    state = AlertState(begun=0.0, runs_until=0.0)
    assert read_told_tracks(store, state) == {}
    state.tracks = write_told_tracks(store, {"rain_01": "accepted 0123"})
    assert read_told_tracks(store, state) == {"rain_01": "accepted 0123"}
    (store.alerts / state.tracks).write_text(content)
    with pytest.raises(StoreError, match=f"{state.tracks}.*every track is then told anew"):
        read_told_tracks(store, state)
