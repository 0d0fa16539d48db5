"""Writing the demo corpus under a data root: audio, licence records, curators' sidecars, and the truth about all.

`metadata/demo_corpus.json` is both the ground truth for tests and the ledger: a file is the corpus's own if its hash
stands there. Anything else with the same name is somebody's work and stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.synth.song import render
from lofi_assets.demo.corpus.catalogue import LEDGER, SOURCES, Entry, catalogue
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import atomic_path
from lofi_assets.workers.mapping import WorkerFailure
from lofi_assets.workers.process_pool import LocalProcesses

RECIPE = 2
"""Raised when the same seed makes other audio; files of an earlier recipe are then replaced."""
TIMEOUT_S = 180.0
MEMORY_GB = 4.0
_CLIPPING_GAIN = 4.0
_TRIM_S = 7.0


class CorpusError(LofiError, RuntimeError):
    """The corpus could not be written; the message names the file and the reason."""


@dataclass(frozen=True)
class CorpusSummary:
    """What `write_demo_corpus` did, by track id.

    Attributes:
        foreign: a file that is not the corpus's own has the name; it was left alone.
        records_added: source ids of records in `metadata/sources.json` that are new or have new tracks.
    """

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    foreign: tuple[str, ...]
    records_added: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    entry: Entry
    path: Path


def write_demo_corpus(data_root: Path, *, seed: int = 0, workers: int = 2) -> CorpusSummary:
    """Write what is missing of the corpus; a second call writes nothing.

    48 good songs and 8 planted faults go to `raw/<source type>/`, their licence records are added to
    `metadata/sources.json`, prompts and lyrics beside a sixth of the songs. Records that are there stay as they are;
    those that nobody has changed take what a later version of the corpus brings.

    Args:
        seed: other notes in the same keys and tempi. Changing it replaces the corpus's own files.
        workers: processes that synthesise; 0 for none.
    Raises:
        CorpusError: a song could not be made.
        StoreError: `sources.json` or the ledger is not JSON.
    """
    entries = catalogue(seed=seed)
    ledger = _Ledger.load(data_root, seed=seed)
    state = {entry.track_id: ledger.state(entry) for entry in entries}
    own = [entry for entry in entries if state[entry.track_id] != "foreign"]
    todo = [entry for entry in own if state[entry.track_id] == "missing"]
    # Before the ledger knows what is new: a run killed in between finds it new again.
    records_added = _add_records(data_root / "metadata" / "sources.json", own, known=ledger.tracks)
    ledger.claim(todo)
    _synthesise(todo, data_root, ledger, workers)
    for entry in own:
        _write_sidecars(data_root / entry.path, entry)
    return CorpusSummary(
        written=tuple(entry.track_id for entry in todo),
        unchanged=tuple(entry.track_id for entry in own if entry not in todo),
        foreign=tuple(entry.track_id for entry in entries if entry not in own),
        records_added=records_added,
    )


@dataclass
class _Ledger:
    """`metadata/demo_corpus.json`: ground truth per track, and the hash once its file is complete."""

    root: Path
    seed: int
    tracks: dict[str, dict[str, Any]]
    replaceable: bool

    @classmethod
    def load(cls, root: Path, *, seed: int) -> _Ledger:
        data = read_json(root / LEDGER, default={})
        same = data.get("seed") == seed and data.get("recipe") == RECIPE
        return cls(root, seed, data.get("tracks", {}), replaceable=not same)

    def state(self, entry: Entry) -> str:
        """ "unchanged", "missing" (to be written) or "foreign"."""
        path, known = self.root / entry.path, self.tracks.get(entry.track_id)
        if not path.exists() and not path.is_symlink():
            return "missing"
        if known is None:
            return "foreign"
        # Claimed without a hash: an earlier run was killed between writing the file and noting it.
        if not known["sha256"]:
            return "missing"
        if sha256_file(path) != known["sha256"]:
            return "foreign"
        return "missing" if self.replaceable else "unchanged"

    def claim(self, entries: Sequence[Entry]) -> None:
        """Note what is about to be written, before it is."""
        self.tracks |= {entry.track_id: _truth(entry) | {"sha256": ""} for entry in entries}
        self.save()

    def complete(self, entry: Entry, sha256: str) -> None:
        self.tracks[entry.track_id]["sha256"] = sha256
        self.save()

    def save(self) -> None:
        write_json(self.root / LEDGER, {"seed": self.seed, "recipe": RECIPE, "tracks": self.tracks})


def _truth(entry: Entry) -> dict[str, Any]:
    song = entry.song
    return {
        "path": entry.path,
        "bpm": song.bpm,
        "key": song.key_name,
        "mode": song.mode,
        "style_id": entry.style_id,
        "has_drums": song.drums != "none",
        "sample_rate": song.sample_rate,
        "channels": song.channels,
        "seconds": song.seconds,
        "expected_rule": entry.expected_rule,
        "copy_of": entry.copy_of,
    }


def _synthesise(entries: Sequence[Entry], root: Path, ledger: _Ledger, workers: int) -> None:
    jobs = [_Job(entry, root / entry.path) for entry in entries]
    processes = LocalProcesses(workers, TIMEOUT_S, MEMORY_GB)
    with contextlib.closing(processes(write_entry, jobs, label="demo corpus")) as results:
        for job, result in results:
            if isinstance(result, WorkerFailure):
                raise CorpusError(f"{job.path}: could not be synthesised: {result.reason}")
            ledger.complete(job.entry, result)


def write_entry(job: _Job) -> str:
    """Render one entry, spoil it if it is a reject, write it; returns the file's sha256."""
    entry = job.entry
    samples = _spoil(render(entry.song), entry)
    with atomic_path(job.path) as part:
        _write_audio(part, samples, entry)
    return sha256_file(job.path)


def _spoil(samples: FloatArray, entry: Entry) -> FloatArray:
    rate = entry.song.sample_rate
    if entry.fault == "clipped":
        clipped: FloatArray = np.clip(samples * np.float32(_CLIPPING_GAIN), -1.0, 1.0)
        return clipped
    if entry.fault == "mostly_silent":
        silenced = samples.copy()
        silenced[:, 10 * rate :] = 0.0
        return silenced
    if entry.fault == "near_duplicate":
        return samples[:, round(_TRIM_S * rate) :] * np.float32(0.5)
    return samples


def _write_audio(path: Path, samples: FloatArray, entry: Entry) -> None:
    import soundfile

    suffix, subtype = entry.format
    if suffix == "mp3":
        path.write_bytes(_mp3(samples, entry))
        return
    container = {"wav": "WAV", "flac": "FLAC", "aiff": "AIFF"}[suffix]
    soundfile.write(path, samples.T, entry.song.sample_rate, subtype=subtype, format=container)
    if subtype == "FLOAT":
        _forget_time(path)


def _mp3(samples: FloatArray, entry: Entry) -> bytes:
    import soxr

    from lofi_assets.audio import encode

    stereo = np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples
    if entry.song.sample_rate != encode.SAMPLE_RATE:
        stereo = soxr.resample(stereo.T, entry.song.sample_rate, encode.SAMPLE_RATE, quality="VHQ").T
    data = encode.encode_mp3(stereo)
    return data[: len(data) * 55 // 100] if entry.fault == "truncated" else data


def _forget_time(path: Path) -> None:
    """libsndfile stamps float WAVs with the time of writing (PEAK chunk); the same song must give the same bytes."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PEAK", 0, 256)
    if at >= 0:
        data[at + 12 : at + 16] = bytes(4)
        path.write_bytes(data)


def _write_sidecars(audio: Path, entry: Entry) -> None:
    """Only where there is none: a curator may have edited it since."""
    for kind, text in (("prompt", entry.prompt), ("lyrics", entry.lyrics)):
        sidecar = audio.with_name(f"{entry.track_id}_{kind}.txt")
        if text is not None and not sidecar.exists():
            write_text(sidecar, text + "\n")


def _add_records(path: Path, entries: Sequence[Entry], *, known: Container[str]) -> tuple[str, ...]:
    """Append the licence records that are missing, and tracks that are not yet known to those that say what ours say.

    A track that another record claims is left to it.
    """
    present: list[Any] = read_json(path, default=[])
    if not isinstance(present, list):
        raise CorpusError(f"{path}: must be an array of SourceRecord; mend it, then run again")
    records = {record.get("source_id"): record for record in present if isinstance(record, dict)}
    claimed = {track for record in present if isinstance(record, dict) for track in record.get("track_ids") or ()}
    changed = []
    for source_id, source in SOURCES.items():
        tracks = [entry.track_id for entry in entries if entry.source_id == source_id and entry.track_id not in claimed]
        record = records.get(source_id)
        if record is None and tracks:
            present.append({**source.record, "track_ids": tracks})
            changed.append(source_id)
        new = [track for track in tracks if track not in known]
        if record is not None and new and record == {**source.record, "track_ids": record.get("track_ids")}:
            record["track_ids"] = [*(record["track_ids"] or ()), *new]
            changed.append(source_id)
    if changed:
        write_json(path, present)
    return tuple(changed)
