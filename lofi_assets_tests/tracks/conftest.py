"""The library processed with answers in place of the audio chain."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

import pytest

from lofi_assets.constitution.gates import Gate
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.store import Store
from lofi_assets.tracks.process_track import ProcessJob
from lofi_assets.tracks.processed_tracks import process_library
from lofi_assets.workers.mapping import MapTracks
from lofi_assets_tests.tracks.stand_in_audio import GATES, SETTINGS, Answer, Run, accepted


@pytest.fixture
def run(store: Store) -> Run:
    """Processes the library with answers in place of the audio chain; says which tracks were worked on."""

    def processed(
        answer: Answer = accepted,
        styles: Mapping[str, str] | None = None,
        settings: AudioSettings = SETTINGS,
        gates: Sequence[Gate] = GATES,
    ) -> tuple[Outcome, list[str]]:
        worked: list[str] = []

        def answered(_: object, jobs: Sequence[ProcessJob], *, label: str) -> Generator[tuple[ProcessJob, Any]]:
            for job in jobs:
                worked.append(job.track_id)
                yield job, answer(job)

        outcome = process_library(
            store,
            gates=gates,
            settings=settings,
            tempo_ranges={},
            style_of=lambda rows: {row.track_id: (styles or {}).get(row.track_id, "core") for row in rows},
            map_tracks=cast(MapTracks, answered),
        )
        return outcome, worked

    return processed
