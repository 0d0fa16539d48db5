"""One file judged by the gates of a track, without anything being kept: what `lofi inspect` runs in its workers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lofi_assets.audio.decode import read_audio
from lofi_assets.constitution.gates import Gate
from lofi_assets.tracks.process_track import attempt, master_of, write_and_judge


@dataclass(frozen=True)
class Inspection:
    """What `lofi inspect` says of a file, a line of JSON each."""

    path: str
    """As given."""
    rule: str = ""
    """Id of the gate that was broken; empty for an accepted file."""
    reason: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """`path`, `verdict` (accepted or rejected), `rule`, `reason`, `measures`: numbers finite or null."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.measures.items()
        }
        verdict = "rejected" if self.rule else "accepted"
        return {"path": self.path, "verdict": verdict, "rule": self.rule, "reason": self.reason, "measures": finite}


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


def inspect_file(job: InspectJob) -> Inspection:
    """Judge one file; what it breaks is in the result, never raised."""
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

    result = attempt(job.path, path.name, work)
    return Inspection(job.path, rule=result.rule, reason=result.reason, measures=result.measures)
