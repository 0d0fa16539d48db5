"""`processed_tracks.parquet`: every verified raw file as a track, or as the parts that it was cut into.

What belongs here: the rows and their meaning, reading and writing them. What does not: which tracks are worked on
(`processed_tracks.py`), the files of single tracks that the table is made from (`work_files.py`).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_rows, write_rows
from lofi_assets.sources.inventory import SourceRow, verified_files
from lofi_assets.sources.report import RejectedFile
from lofi_assets.store import Store
from lofi_assets.tracks.file_tags import FileTags
from lofi_assets.wording import rounded

if TYPE_CHECKING:
    import numpy as np

    from lofi_assets.tracks.process_track import ProcessResult
    from lofi_assets.workers.mapping import WorkerFailure

CHAIN_VERSION = "2"
"""Raised when the audio chain accepts what it turned away before: files without audio are then worked on again, once.
Unlike `processed_tracks.TRACKS_VERSION` it leaves the accepted ones as they are."""
SHOWN_MEASURES = {
    **{"duration_s": 2, "tempo_bpm": 1, "loudness_lufs": 1, "peak_dbfs": 2},
    **{"clipped_share": 5, "silent_share": 3},
}
"""Measures that the UI shows, and the digits that people read."""

Status = Literal["accepted", "rejected"]
Measures = Mapping[str, bool | int | float | str | None]
"""Name of a measure -> plain value; None where it could not be told. Gates name them."""

_REMEDY = "materialise processed_tracks again"


@dataclass(frozen=True, kw_only=True, config=STORED)
class WorkedTrack:
    """What the audio chain made of a raw file, or of one part of it."""

    track_id: str
    part_of: str = ""
    """Id of the raw file that was cut; empty for a track that is a whole file."""
    fingerprint: str
    """Of the work; empty if it was not done (a full disk, no memory), so that the next run tries it again."""
    status: Status
    rule: str
    """The first gate missed; empty for an accepted track, as is the next."""
    reason: str
    measures: Measures
    heard: Mapping[str, Mapping[str, float]]
    """"msd" and "mtt" -> label -> mean probability over the windows heard."""
    score_parts: Mapping[str, float]
    """What `quality_score` is made of."""
    envelope: str
    """JSON of `outline`, which is carried along far more often than it is drawn."""
    source_sha256: str
    """Of the raw file; empty if it could not be read."""
    audio_sha256: str
    """Of the MP3; empty without one."""
    lossless_sha256: str = ""
    """Of the FLAC of the same master; empty without one, and in a row from before there were any."""
    quality_score: int
    """0 to 100."""
    duration: float
    """Seconds."""
    words: str
    """Base64 of the little-endian uint32 words by which copies are found; empty without audio."""
    judged_by: str = ""
    """The gates that it was judged by (`rejudge.rules_hash`); empty in a row from before they could be amended."""
    chain: str = ""
    """`CHAIN_VERSION` of the audio chain that judged it; empty in a row from before it had one."""

    @property
    def accepted(self) -> bool:
        """Whether it passed every gate."""
        return self.status == "accepted"

    @property
    def whole(self) -> str:
        """Id of the raw file that it comes from."""
        return self.part_of or self.track_id

    @property
    def codec(self) -> str | None:
        """As the decoder read it (`audio.decode.Codec`); None for a file from before it was recorded."""
        codec = self.measures.get("codec")
        return codec if isinstance(codec, str) else None

    @property
    def tempo_bpm(self) -> float | None:
        """None if it cannot be told."""
        return _number(self.measures.get("tempo_bpm"))

    @property
    def tempo_confidence(self) -> float:
        """0 to 1."""
        return _number(self.measures.get("tempo_confidence")) or 0.0

    @property
    def fingerprint_words(self) -> "np.ndarray[Any, np.dtype[np.uint32]]":
        """By which copies are found (`audio.fingerprint`)."""
        import numpy as np

        return np.frombuffer(base64.b64decode(self.words), dtype="<u4")

    @property
    def outline(self) -> list[list[float]]:
        """Lowest and highest sample of 400 stretches, for a picture; empty if turned away before mastering."""
        drawn: list[list[float]] = json.loads(self.envelope)
        return drawn


@dataclass(frozen=True, kw_only=True, config=STORED)
class TrackRow(WorkedTrack):
    """A track of the library: what the audio chain made of it, where it comes from and where its files are."""

    source_id: str
    """Of the licence record."""
    raw_path: str
    """Of the raw file, relative to the data root, as are the next two."""
    audio_path: str = ""
    """Of the MP3 that people open; empty for a rejected track."""
    lossless_path: str = ""
    """Of the FLAC; empty without one."""
    file_tags: FileTags | None = None
    """What the raw file says of itself; None for a rejected track, and in a row of a version that did not keep it."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TrackVerdict:
    """The part of a row that says what became of a raw file; the other columns hold megabytes."""

    track_id: str
    status: Status
    rule: str
    reason: str
    raw_path: str


@dataclass(frozen=True, kw_only=True, config=STORED)
class TrackSound:
    """The part of a row that a dataset is made of."""

    track_id: str
    status: Status
    source_id: str
    source_sha256: str
    audio_sha256: str
    audio_path: str
    raw_path: str
    duration: float
    quality_score: int
    measures: Measures

    @property
    def tempo_bpm(self) -> float | None:
        """None if it cannot be told."""
        return _number(self.measures.get("tempo_bpm"))

    @property
    def loudness_lufs(self) -> float | None:
        """None if it was not measured."""
        return _number(self.measures.get("loudness_lufs"))


@dataclass(frozen=True, kw_only=True, config=STORED)
class _Part:
    track_id: str
    part_of: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class _Master:
    audio_sha256: str
    lossless_path: str = ""
    lossless_sha256: str = ""


def tracks_path(store: Store) -> Path:
    """Where the table lies."""
    return store.metadata("processed_tracks.parquet")


def read_tracks(store: Store) -> list[TrackRow]:
    """Every track, accepted or rejected; none before the first materialisation.

    Raises:
        StoreError: the table cannot be read, or is of another version.
    """
    return read_rows(tracks_path(store), TrackRow, remedy=_REMEDY)


def write_tracks(store: Store, rows: Sequence[TrackRow]) -> None:
    """Write the table."""
    write_rows(tracks_path(store), TrackRow, rows)


def track_verdicts(store: Store) -> list[TrackVerdict]:
    """What became of every track.

    Raises:
        StoreError: as `read_tracks`.
    """
    return read_rows(tracks_path(store), TrackVerdict, remedy=_REMEDY, whole=False)


def track_sounds(store: Store) -> list[TrackSound]:
    """What a dataset needs to know of every track.

    Raises:
        StoreError: as `read_tracks`.
    """
    return read_rows(tracks_path(store), TrackSound, remedy=_REMEDY, whole=False)


def accepted_tracks(store: Store) -> list[TrackRow]:
    """The tracks that passed every gate, by track id."""
    return [row for row in read_tracks(store) if row.accepted]


def part_ids(store: Store) -> dict[str, str]:
    """Id of every part of a file that was cut -> id of that file."""
    rows = read_rows(tracks_path(store), _Part, remedy=_REMEDY, whole=False)
    return {row.track_id: row.part_of for row in rows if row.part_of}


def lossless_masters(store: Store) -> dict[str, tuple[Path, str]]:
    """sha256 of a track's MP3 -> the FLAC of the same master and its sha256, where the profile keeps them."""
    rows = read_rows(tracks_path(store), _Master, remedy=_REMEDY, whole=False)
    found = [(row, store.root / row.lossless_path) for row in rows if row.lossless_sha256]
    return {row.audio_sha256: (path, row.lossless_sha256) for row, path in found if path.is_file()}


def verified_sources(store: Store) -> list[SourceRow]:
    """Inventory rows of what may be processed and used; a file that was cut also has one per part, under its id."""
    files = verified_files(store)
    return [
        *files.values(),
        *(replace(files[whole], track_id=part) for part, whole in part_ids(store).items() if whole in files),
    ]


def worked_tracks(
    result: "ProcessResult | WorkerFailure", track_id: str, wanted: str, *, judged_by: str
) -> list[WorkedTrack]:
    """What came of one raw file: one track, or one per part; from a worker's result or from its death.

    Args:
        wanted: fingerprint of the work. A job that raised (a full disk, no memory) keeps none, so that the next run
            tries it again.
        judged_by: the gates of the day (`rejudge.rules_hash`).
    """
    from lofi_assets.workers.mapping import WorkerFailure

    if isinstance(result, WorkerFailure):
        return [_died(result, track_id, wanted if result.retried else "", judged_by)]
    return [
        _heard(one, wanted, part_of=track_id if result.parts else "", judged_by=judged_by)
        for one in result.parts or (result,)
    ]


def _heard(result: "ProcessResult", wanted: str, *, part_of: str, judged_by: str) -> WorkedTrack:
    envelope = [] if result.envelope is None else result.envelope.round(3).tolist()
    return WorkedTrack(
        track_id=result.track_id,
        part_of=part_of,
        fingerprint=wanted,
        status="rejected" if result.rule else "accepted",
        rule=result.rule,
        reason=result.reason,
        measures={**result.measures, "worker_survived": True},
        heard=result.tags,
        score_parts=result.score_parts,
        envelope=json.dumps(envelope),
        source_sha256=result.source_sha256,
        audio_sha256=result.sha256,
        lossless_sha256=result.lossless_sha256,
        quality_score=int(result.measures.get("quality_score") or 0),
        duration=float(result.measures.get("duration_s") or 0.0),
        words=base64.b64encode(result.fingerprint).decode("ascii"),
        judged_by=judged_by,
        chain=CHAIN_VERSION,
    )


def _died(failure: "WorkerFailure", track_id: str, work: str, judged_by: str) -> WorkedTrack:
    return WorkedTrack(
        track_id=track_id,
        fingerprint=work,
        status="rejected",
        rule=failure.rule,
        reason=failure.reason,
        measures={"worker_survived": False},
        heard={},
        score_parts={},
        envelope="[]",
        source_sha256="",
        audio_sha256="",
        quality_score=0,
        duration=0.0,
        words="",
        judged_by=judged_by,
        chain=CHAIN_VERSION,
    )


def shown_track(row: TrackRow) -> dict[str, Any]:
    """A row as the UI shows it."""
    return {
        "track_id": row.track_id,
        "status": row.status,
        "rule": row.rule,
        "reason": row.reason,
        "score": row.quality_score,
        **{name: rounded(_number(row.measures.get(name)), digits) for name, digits in SHOWN_MEASURES.items()},
        "audio": row.audio_path,
    }


def rejected_track(row: TrackRow) -> RejectedFile:
    """What a person is told of a track that was turned away."""
    return RejectedFile(row.track_id, row.raw_path, row.rule, row.reason)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
