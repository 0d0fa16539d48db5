"""Stands in for the audio chain: what it answers for a good file, in milliseconds."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import Store
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult
from lofi_assets.tracks.track_table import read_tracks
from lofi_assets.workers.mapping import WorkerFailure
from lofi_assets_tests.stage_rows import source_row, write_sources

GATES = load_gates()
TRACK_GATES = gates_of(GATES, asset="processed_tracks", scope="track")
SETTINGS = AudioSettings(workers=1, timeout_s=10, memory_gb=1)
Answer = Callable[[ProcessJob], ProcessResult | WorkerFailure]
GOOD_MEASURES: dict[str, Any] = {
    "readable": True,
    "codec_accepted": True,
    "source_sample_rate": 44100,
    "source_channels": 2,
    "duration_s": 60.0,
    "clipped_share": 0.0,
    "silent_share": 0.0,
    "sample_rate": 48000,
    "channels": 2,
    "bit_rate_kbps": 320,
    "peak_dbfs": -1.0,
    "frames_drift": 0,
    "quality_score": 80,
}


def sound(seed: int) -> np.ndarray:
    """A fingerprint of a minute: random words, so that two seeds share nothing."""
    return np.random.default_rng(seed).integers(1, 2**32, size=640, dtype=np.uint32)


def inventory(store: Store, **sha256: str) -> None:
    """Verified raw files: track id -> content hash."""
    write_sources(store, [source_row(track_id, sha256=digest) for track_id, digest in sha256.items()])


def accepted(job: ProcessJob, *, seed: int | None = None, score: int = 80, silent_share: float = 0.0) -> ProcessResult:
    """What the audio chain gives for a good file; the MP3 is where the job wants it."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    (row,) = [row for row in read_inventory(Store(job.root.parent)) if row.track_id == job.track_id]
    job.target.write_bytes(f"ID3 {job.track_id} of {row.sha256}".encode())
    return ProcessResult(
        track_id=job.track_id,
        measures={**GOOD_MEASURES, "quality_score": score, "silent_share": silent_share},
        fingerprint=sound(seed if seed is not None else sum(job.track_id.encode())).tobytes(),
        source_sha256=row.sha256,
        sha256=sha256_file(job.target),
        envelope=np.zeros((4, 2), dtype=np.float32),
    )


Run = Callable[..., tuple[Outcome, list[str]]]


def statuses(store: Store) -> dict[str, tuple[str, str]]:
    return {row.track_id: (row.status, row.rule) for row in read_tracks(store)}
