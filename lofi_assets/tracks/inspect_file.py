"""One file judged by the gates of a track, without anything being kept: what `lofi inspect` runs in its workers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.audio.decode import read_audio
from lofi_assets.constitution.gates import Gate
from lofi_assets.tracks.process_track import ProcessResult, attempt, master_of, write_and_judge

Record = dict[str, Any]


@dataclass(frozen=True)
class InspectJob:
    """What to look at.

    Attributes:
        path: as given; may hold bytes that are no UTF-8 (surrogate escapes).
        gates: track-scope gates of `processed_tracks`.
        scratch: folder to encode into; None judges only what can be judged without writing.
    """

    path: str
    gates: tuple[Gate, ...]
    scratch: Path | None = None

    @property
    def track_id(self) -> str:
        """Name beside the progress bar."""
        return os.path.basename(self.path)  # noqa: PTH119 (a Path would drop a trailing slash that means something)


def inspect_file(job: InspectJob) -> Record:
    """The record of one file (see `record`); what it breaks is in the record, never raised."""
    path = Path(job.path)

    def work(measures: dict[str, Any], known: dict[str, Any]) -> None:
        decoded = read_audio(path, root=path.parent)
        mastered = master_of(path.name, decoded, job.gates, measures, known)
        del decoded
        if job.scratch is not None:
            target = job.scratch / f"{os.getpid()}.mp3"
            try:
                write_and_judge(path.name, mastered, target, job.gates, measures)
            finally:
                target.unlink(missing_ok=True)

    return _of_result(job.path, attempt(job.path, path.name, work))


def _of_result(path: str, result: ProcessResult) -> Record:
    return record(path, rule=result.rule, reason=result.reason, measures=result.measures)


def record(path: str, *, rule: str = "", reason: str = "", measures: Mapping[str, Any] | None = None) -> Record:
    """`path`, `verdict`, `rule`, `reason`, `measures`: JSON data, numbers finite or null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in (measures or {}).items()
    }
    verdict = "rejected" if rule else "accepted"
    return {"path": path, "verdict": verdict, "rule": rule, "reason": reason, "measures": finite}
