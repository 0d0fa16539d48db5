"""Budget: all data assets over 2,000 tracks with nothing changed in 10 s, and in 10 s more than its own work with one
track added.

Audio work is stood in for: a worker's answer for one real song, varied per track, with files of a few kB. Everything
else is the product's: the job `refresh_data` in this process, on SQLite, with its checks.
"""

import cProfile
import json
import os
import pstats
import statistics
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, cast
from unittest import mock

import dagster as dg
import numpy as np
from scipy.signal import lfilter

from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.definitions import build_defs
from lofi_assets.defs.resources import Platform, Workers
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.profiles import AudioSettings
from lofi_assets.store import Store
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult, process_track
from lofi_assets.tracks.track_table import accepted_tracks
from lofi_assets.workers.mapping import MapTracks
from lofi_assets_tests.bench.material import write_song
from lofi_assets_tests.bench.report import Row

TRACKS = 2_000
LIMIT_S = 10.0
REPEATS = 3
SECONDS = 120.0
RAW_BYTES, MP3_BYTES = 4_096, 2_048
REAL_MP3_BYTES = int(SECONDS * 320_000 / 8)
PROFILE = Path(tempfile.gettempdir()) / "lofi-bench-profile.txt"
PROFILE_LINES = 5


def rows() -> list[Row]:
    """Build the library, refresh it again and again, add a track."""
    with _library() as library:
        unchanged = [library.refresh() for _ in range(REPEATS)]
        read_again = library.audio_files_read()
        library.add_track("one_more")
        added = library.refresh()
    seconds = statistics.median(run.seconds for run in unchanged)
    note = f"{TRACKS} tracks; audio work stood in for, files of {MP3_BYTES // 1024} kB; {unchanged[-1].told}"
    again = [_with_real_files(seconds, read_again)] if read_again else []
    return [
        Row("data assets, nothing changed", seconds, "s", LIMIT_S, note=note),
        *again,
        Row("data assets, one track added", added.seconds, "s", LIMIT_S, note=f"without its audio work; {added.told}"),
    ]


def _with_real_files(seconds: float, files: int) -> Row:
    """What hashing MP3s of 120 s would add, if an unchanged refresh reads any."""
    size = files * REAL_MP3_BYTES
    note = f"computed: {files} audio files are read again, {size / 1e9:.1f} GB at real size, from memory"
    return Row("the same with MP3s of 120 s", seconds + size / _hashing_speed(), "s", LIMIT_S, note=note)


def write_profile() -> Path:
    """Where an unchanged refresh spends its time: the first five functions by own and by cumulative time, as a file."""
    with _library() as library:
        library.refresh()
        profile = cProfile.Profile()
        profile.runcall(library.refresh)
    text = StringIO()
    stats = pstats.Stats(profile, stream=text)
    stats.sort_stats("tottime").print_stats(PROFILE_LINES)
    stats.sort_stats("cumulative").print_stats(r"lofi_assets", 4 * PROFILE_LINES)
    PROFILE.write_text(text.getvalue(), encoding="utf-8")
    return PROFILE


@dataclass(frozen=True)
class Refresh:
    """One run of the job."""

    seconds: float
    cpu_seconds: float
    steps: dict[str, float]

    @property
    def told(self) -> str:
        """CPU time of the whole, and each step that takes a tenth of a second or more."""
        steps = ", ".join(f"{name} {taken:.1f} s" for name, taken in self.steps.items() if taken >= 0.1)
        return f"{self.cpu_seconds:.1f} CPU-s; {steps}"


class Library:
    """A data root of 2,000 processed tracks with its Dagster instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.store, self.instance = Store(root / "data"), instance
        platform = Platform(data_dir=str(self.store.root), profile_name="demo")
        answer = StandIn(root)

        class Answers(Workers):
            """The stand-in's answers."""

            def map_tracks(self, settings: AudioSettings) -> MapTracks:
                return cast(MapTracks, answer.map_tracks)

        definitions = build_defs(resources_overrides={"platform": platform, "workers": Answers()})
        self.job = definitions.resolve_job_def("refresh_data")
        self.tracks = [f"track_{index:04}" for index in range(TRACKS)]

    def build(self) -> None:
        """Everything for the first time; without waiting for the disk after every file."""
        for track_id in self.tracks:
            self._write_raw(track_id)
        self._write_records()
        with mock.patch("os.fsync"):
            self.refresh()
        os.sync()
        accepted = len(accepted_tracks(self.store))
        if accepted != TRACKS:
            raise RuntimeError(f"{accepted} of {TRACKS} tracks were accepted: the stand-in no longer passes the gates")

    def refresh(self) -> Refresh:
        """Run the job."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        started, cpu = time.perf_counter(), time.process_time()
        result = self.job.execute_in_process(instance=self.instance, run_config=quiet)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        steps = {
            str(event.step_key): event.step_success_data.duration_ms / 1e3
            for event in result.all_events
            if event.is_step_success
        }
        return Refresh(seconds, cpu_seconds, steps)

    def add_track(self, track_id: str) -> None:
        """One more raw file with its record."""
        self.tracks.append(track_id)
        self._write_raw(track_id)
        self._write_records()

    def audio_files_read(self) -> int:
        """How many audio files an unchanged refresh opens."""
        opened: Counter[Path] = Counter()
        open_path = Path.open

        def counting(path: Path, *args: Any, **options: Any) -> Any:
            opened[path] += path.suffix in (".mp3", ".wav")
            return open_path(path, *args, **options)

        with mock.patch.object(Path, "open", counting):
            self.refresh()
        return opened.total()

    def _write_raw(self, track_id: str) -> None:
        path = self.store.raw / "creative-commons" / f"{track_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_random(track_id).bytes(RAW_BYTES))

    def _write_records(self) -> None:
        """Twenty tracks to a record."""
        records = [
            {
                "source_id": f"source-{start:04}",
                "track_ids": self.tracks[start : start + 20],
                "source_type": "creative_commons",
                "provider": f"Artist {start}",
                "license_type": "CC-BY-4.0",
                "date_acquired": "2025-01-31",
                "verified_by": "bench",
                "ai_training_rights": True,
                "evidence": "https://example.org/licence",
            }
            for start in range(0, len(self.tracks), 20)
        ]
        write_json(self.store.metadata("sources.json"), records)


class StandIn:
    """Answers for the worker processes: what one real song gave, varied per track."""

    def __init__(self, root: Path) -> None:
        song = write_song(root / "song" / "song.wav", seconds=60.0)
        gates = gates_of(load_gates(), asset="processed_tracks", scope="track")
        self.heard = process_track(ProcessJob("song", song, song.parent, root / "song" / "song.mp3", gates))
        if not self.heard.accepted:
            raise RuntimeError(f"{self.heard.rule}: {self.heard.reason}; the bench needs an accepted song")
        self.stickiness = _stickiness(self.heard.fingerprint_words)

    def map_tracks(
        self, function: object, jobs: Sequence[ProcessJob], *, label: str
    ) -> Generator[tuple[ProcessJob, ProcessResult]]:
        """`MapTracks` without worker processes."""
        for job in jobs:
            yield job, self.answer(job)

    def answer(self, job: ProcessJob) -> ProcessResult:
        """An accepted track of 120 s that is like no other."""
        random = _random(job.track_id)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_bytes(random.bytes(MP3_BYTES))
        measures = {
            "duration_s": SECONDS,
            "tempo_bpm": round(float(random.uniform(62, 98)), 1),
            "tempo_confidence": 0.8,
        }
        return replace(
            self.heard,
            track_id=job.track_id,
            measures={**self.heard.measures, **measures},
            tags={
                model: {label: round(float(share * random.uniform(0.5, 1.5)), 5) for label, share in tags.items()}
                for model, tags in self.heard.tags.items()
            },
            fingerprint=self._words(random).astype("<u4").tobytes(),
            source_sha256=sha256_file(job.source),
            sha256=sha256_file(job.target),
        )

    def _words(self, random: np.random.Generator) -> np.ndarray:
        """Words whose bits last as long as the real song's: chance alone makes far too few of them meet."""
        count = round(SECONDS * len(self.heard.fingerprint_words) / 60.0)
        noise = random.standard_normal((count, 32), dtype=np.float32)
        bits = lfilter([1.0], [1.0, -self.stickiness], noise, axis=0) > 0
        return np.packbits(bits, axis=1).view(">u4")[:, 0]


def _stickiness(words: np.ndarray) -> float:
    """Correlation from hop to hop of the Gaussian process whose signs change as often as the bits do."""
    changed = np.bitwise_count(words[1:] ^ words[:-1]).mean() / 32
    return float(np.cos(np.pi * changed))


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _hashing_speed() -> float:
    """Bytes per second of `sha256_file` on a file in memory."""
    with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name:
        path = Path(name) / "block"
        path.write_bytes(bytes(1 << 28))
        sha256_file(path)
        started = time.perf_counter()
        sha256_file(path)
        return path.stat().st_size / (time.perf_counter() - started)


@contextmanager
def _library() -> Iterator[Library]:
    with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name:
        folder = Path(name)
        (folder / "dagster").mkdir()
        (folder / "dagster" / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}}))
        with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
            library = Library(folder, instance)
            library.build()
            yield library
