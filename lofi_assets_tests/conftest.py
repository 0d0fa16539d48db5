"""Fixtures that several test files share; what only one file needs is made in that file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import lofi_assets.workers
from lofi_assets.audio.process import ProcessJob
from lofi_assets.constitution import Gate
from lofi_assets.library import process_library
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.store import Store
from lofi_assets_tests.stand_in_audio import GATES, SETTINGS, Answer, Run, accepted

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Tensors computed by the public ACE-Step code and MusiCNN golden outputs; kept outside the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference tensors absent: {REFERENCE} (comparisons against upstream are NOT run here)")
    return REFERENCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty data root."""
    return Store(tmp_path / "data")


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Processes the library with answers in place of the audio chain; says which tracks were worked on."""

    def processed(
        answer: Answer = accepted,
        styles: Mapping[str, str] | None = None,
        settings: AudioSettings = SETTINGS,
        gates: Sequence[Gate] = GATES,
    ) -> tuple[Outcome, list[str]]:
        worked: list[str] = []

        def answered(_: object, jobs: Sequence[ProcessJob], **__: object) -> Iterator[tuple[ProcessJob, Any]]:
            for job in jobs:
                worked.append(job.track_id)
                yield job, answer(job)

        monkeypatch.setattr(lofi_assets.workers, "map_tracks", answered)
        outcome = process_library(
            store,
            gates=gates,
            settings=settings,
            tempo_ranges={},
            style_of=lambda rows: {row["track_id"]: (styles or {}).get(row["track_id"], "core") for row in rows},
        )
        return outcome, worked

    return processed
