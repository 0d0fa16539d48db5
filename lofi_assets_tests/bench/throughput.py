"""How many tracks of 120 s an hour: worker processes over a library of songs, one worker and then two.

Not among the budgets that `make bench` measures by default, since it takes minutes: `--only throughput`, with
`LOFI_BENCH_TRACKS` tracks (default 48). A song takes two to three seconds to play, so twelve are played and every track
is one of them turned to another level: another file, and the same work.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.tracks.process_track import ProcessJob, process_track
from lofi_assets.workers.mapping import WorkerFailure
from lofi_assets.workers.process_pool import LocalProcesses
from lofi_assets_tests.bench.report import Row

TRACKS = int(os.environ.get("LOFI_BENCH_TRACKS", "48"))
SONGS = 12
SECONDS = 120.0
SAMPLE_RATE = 44_100
NEARLY_TWICE = 1.8


def rows() -> list[Row]:
    """The same tracks by one worker and by two; the audio is written once, before the clock runs."""
    with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name:
        jobs = _library(Path(name))
        one, two = (_run(jobs, workers=workers) for workers in (1, 2))
    note = f"{TRACKS} tracks of {SECONDS:.0f} s, {one.cpu_s / TRACKS:.2f} CPU-s each with start-up; {two.seconds:.0f} s"
    return [
        Row("tracks per hour and core", 3600 * TRACKS / one.seconds, "", note=f"one worker, {one.seconds:.0f} s"),
        Row("tracks per hour, two workers", 3600 * TRACKS / two.seconds, "", note=note),
        Row("two workers against one", one.seconds / two.seconds, "x", NEARLY_TWICE, "least", "start-up included"),
        Row("peak memory of a worker", two.worker_mb, "MB", note="resident, the largest of any moment"),
    ]


@dataclass(frozen=True)
class Run:
    """One pass over all tracks."""

    seconds: float
    cpu_s: float
    worker_mb: float


def _library(root: Path) -> list[ProcessJob]:
    songs = [
        render(Song(seed=seed, bpm=62.0 + 5 * seed, key=seed, mode="minor", seconds=SECONDS, sample_rate=SAMPLE_RATE))
        for seed in range(min(SONGS, TRACKS))
    ]
    gates = gates_of(load_gates(), asset="processed_tracks", scope="track")
    jobs = []
    for index in range(TRACKS):
        path = root / "raw" / f"track_{index:04}.wav"
        path.parent.mkdir(exist_ok=True)
        samples = songs[index % SONGS] * np.float32(0.5 + 0.4 * index / TRACKS)
        soundfile.write(path, samples.T, SAMPLE_RATE, subtype="PCM_16")
        jobs.append(ProcessJob(path.stem, path, root / "raw", root / "out" / f"{path.stem}.mp3", gates))
    return jobs


def _run(jobs: list[ProcessJob], *, workers: int) -> Run:
    started, before = time.perf_counter(), os.times()
    with _watched() as memory:
        for job, result in LocalProcesses(workers, 300.0, 4.0)(process_track, jobs, label=f"{workers} workers"):
            if isinstance(result, WorkerFailure) or not result.accepted:
                raise RuntimeError(f"{job.track_id}: {result.reason}; the bench needs accepted tracks")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(time.perf_counter() - started, cpu, max(memory) / 2**20)


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Resident bytes of the largest child process, twice a second."""
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.append(child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
