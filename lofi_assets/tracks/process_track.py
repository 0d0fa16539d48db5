"""One raw file, judged and turned into a verified MP3 with everything that is known about its sound.

A file that is too long for one track may be cut into several (`audio.segment`), each judged as a track of its own.

What belongs here: the order of the work. Cheap measures come first, encoding last, and the gates are asked after every
stage, so that a bad file costs little. What does not: which files are worked on (`processed_tracks.py`), how anything
is measured (`audio/`), and any limit.

Everything that goes in and comes out can be pickled: `process_track` runs in worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from lofi_assets.audio import encode, measure, score, segment, tempo
from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.decode import AudioError, Decoded, read_audio
from lofi_assets.audio.fingerprint import Fingerprint, fingerprint
from lofi_assets.constitution.gates import Gate, judge_track, too_long
from lofi_assets.files.writing import StoreError, atomic_path

if TYPE_CHECKING:
    from lofi_assets.audio.musicnn import ModelName, MusicNN
Measures = dict[str, bool | int | float | str | None]
Tags = dict[str, dict[str, float]]

TAG_WINDOWS = 20
"""Windows of 3 s that are heard per track, spread evenly: a minute of music, after which the means hardly move."""


@dataclass(frozen=True)
class ProcessJob:
    """What to do with one file.

    Attributes:
        source: the raw file; must lie under `root`.
        target: where the MP3 goes, `<track_id>.mp3`; its folder is made.
        gates: track-scope gates of `processed_tracks`, in the order of the table.
        tempo_range: BPM that a tempo is folded into.
        lossless: also write the master as FLAC beside the MP3 (`flac_beside`).
        segment: cut a file that is too long for one track into parts.
    """

    track_id: str
    source: Path
    root: Path
    target: Path
    gates: tuple[Gate, ...]
    tempo_range: tuple[float, float] = tempo.LOFI_RANGE
    lossless: bool = False
    segment: bool = False


@dataclass(frozen=True)
class ProcessResult:
    """What came of it: an MP3 at the job's target, or the rule that was broken.

    Attributes:
        rule, reason: empty when accepted; else the gate's id and a sentence with the numbers.
        measures: name -> plain value, as far as the work went. Besides the gates' measures: levels, spectrum, stereo
            image, `quality_score`, `tempo_bpm` (None if it cannot be told), `tempo_bpm_raw`, `tempo_confidence`.
        tags: "msd" and "mtt" -> label -> mean probability over the windows heard.
        score_parts: what `quality_score` is made of.
        fingerprint: little-endian uint32 words (`fingerprint_words`), for `find_duplicates`.
        source_sha256, sha256: of the raw file's and of the MP3's bytes; "" if there are none.
        lossless_sha256: of the FLAC's bytes; "" if none was asked for.
        envelope: (400, 2) lowest and highest sample of the master, for a picture; None if rejected before mastering.
        parts: of a file that was cut: one result per part, with its own id, verdict and MP3. The file itself then has
            neither; what is known of it is its hash and duration.
    """

    track_id: str
    rule: str = ""
    reason: str = ""
    measures: Measures = field(default_factory=dict)
    tags: Tags = field(default_factory=dict)
    score_parts: dict[str, float] = field(default_factory=dict)
    fingerprint: bytes = b""
    source_sha256: str = ""
    sha256: str = ""
    lossless_sha256: str = ""
    envelope: FloatArray | None = None
    parts: tuple[ProcessResult, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the MP3 was written."""
        return not self.rule

    @property
    def fingerprint_words(self) -> Fingerprint:
        """The fingerprint as uint32 words."""
        return np.frombuffer(self.fingerprint, dtype="<u4")


Work = Callable[[Measures, dict[str, Any]], None]
"""Fills in measures and other fields of a `ProcessResult` as it goes; raises at the first rule that is broken."""


def flac_beside(mp3: Path) -> Path:
    """Where the lossless master of a work file lies."""
    return mp3.with_suffix(".flac")


def part_id(track_id: str, number: int) -> str:
    """Id of the n-th part, from 1, of a file that was cut; the ids of files longer than 116 characters are cut too."""
    return f"{track_id[:116]}_s{number:02d}"


class _Rejected(Exception):
    """A gate was missed; ends the work on this file."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason


def measure_file(path: Path, *, root: Path) -> Measures:
    """Measures of a raw file as it is, without mastering it.

    Raises:
        AudioError: the file cannot be read; the error names the rule.
    """
    return _source_measures(read_audio(path, root=root))


def process_track(job: ProcessJob) -> ProcessResult:
    """Read, measure, judge, master, listen to, encode and verify one track, or each part of a file that is cut.

    Never raises for anything that a file can do: a broken rule is a rejection, and so is whatever a decoder throws.
    """
    parts: list[ProcessResult] = []

    def work(measures: Measures, known: dict[str, Any]) -> None:
        decoded = read_audio(job.source, root=job.root)
        known["source_sha256"] = decoded.sha256
        if cuts := cuts_of(decoded, job.gates) if job.segment else []:
            measures["duration_s"] = round(decoded.seconds, 6)
            parts.extend(_process_parts(job, decoded, cuts))
            return
        mastered = master_of(job.source.name, decoded, job.gates, measures, known)
        del decoded
        _publish(job, mastered, measures, known)

    result = attempt(job.track_id, job.source.name, work)
    return replace(result, parts=tuple(parts)) if result.accepted else result


def attempt(track_id: str, name: str, work: Work) -> ProcessResult:
    """Do the work on one file; a rule that it breaks, or whatever the audio code throws, becomes a rejection.

    Raises:
        OSError, MemoryError, StoreError: a full disk or a small machine is not the file's fault.
    """
    known: dict[str, Any] = {}
    measures: Measures = {}
    try:
        work(measures, known)
    except (_Rejected, AudioError) as broken:
        rule, reason = broken.rule, broken.reason if isinstance(broken, _Rejected) else broken.message
        measures |= _failed_measure(rule)
        return ProcessResult(track_id, rule=rule, reason=reason, measures=measures, **known)
    except (OSError, MemoryError, StoreError):
        raise
    except Exception as error:
        reason = f"{name!r} broke the audio code: {type(error).__name__}: {error}"
        return ProcessResult(track_id, "audio.readable", reason, measures | {"readable": False}, **known)
    return ProcessResult(track_id, measures=measures, **known)


def _failed_measure(rule: str) -> Measures:
    """What an error before the measuring says of the measure that its gate judges."""
    failed: dict[str, Measures] = {"audio.readable": {"readable": False}, "audio.format": {"codec_accepted": False}}
    return failed.get(rule, {})


def cuts_of(decoded: Decoded, gates: Sequence[Gate]) -> list[int]:
    """Frames at which a file must be cut to pass the gates on duration; none if it passes or cannot be cut."""
    if not too_long(decoded.seconds, gates):
        return []
    return segment.cut_points(decoded.samples, sample_rate=decoded.sample_rate)


def _process_parts(job: ProcessJob, decoded: Decoded, cuts: list[int]) -> list[ProcessResult]:
    results = []
    for number, samples in enumerate(segment.cut(decoded.samples, at=cuts, sample_rate=decoded.sample_rate), start=1):
        track_id = part_id(job.track_id, number)
        target = job.target.with_name(track_id + job.target.name.removeprefix(job.track_id))
        part, piece = replace(job, track_id=track_id, target=target), replace(decoded, samples=samples)
        results.append(_process_part(part, piece))
    return results


def _process_part(job: ProcessJob, decoded: Decoded) -> ProcessResult:
    def work(measures: Measures, known: dict[str, Any]) -> None:
        known["source_sha256"] = decoded.sha256
        _publish(job, master_of(job.source.name, decoded, job.gates, measures, known), measures, known)

    return attempt(job.track_id, job.source.name, work)


def master_of(
    name: str, decoded: Decoded, gates: Sequence[Gate], measures: Measures, known: dict[str, Any]
) -> FloatArray:
    """Measure and judge the source, master it, measure and judge the master; raises at the first gate missed."""
    measures |= _source_measures(decoded)
    _judge(name, gates, measures)
    mastered = encode.master(decoded.samples, sample_rate=decoded.sample_rate)
    known["envelope"] = measure.envelope(mastered)
    measures |= _master_measures(mastered)
    _judge(name, gates, measures)
    known["score_parts"] = score.score_parts(measures)
    measures["quality_score"] = score.total_score(known["score_parts"])
    return mastered


def _publish(job: ProcessJob, mastered: FloatArray, measures: Measures, known: dict[str, Any]) -> None:
    """Listen to the master and write it; nothing is left at the target unless every gate is passed."""
    measures |= _tempo_measures(mastered, job.tempo_range)
    known["fingerprint"] = fingerprint(mastered, sample_rate=encode.SAMPLE_RATE).astype("<u4").tobytes()
    known["tags"] = _tags(mastered)
    with atomic_path(job.target) as part:
        digest = write_and_judge(job.source.name, mastered, part, job.gates, measures)
        if job.lossless:
            with atomic_path(flac_beside(job.target)) as flac:
                known["lossless_sha256"] = encode.write_flac(mastered, flac)
    known["sha256"] = digest


def write_and_judge(name: str, mastered: FloatArray, path: Path, gates: Sequence[Gate], measures: Measures) -> str:
    """Encode a master to `path`, decode it again, judge that; returns the file's sha256."""
    encoded = encode.write_mp3(mastered, path)
    measures |= {
        "sample_rate": encoded.sample_rate,
        "channels": encoded.channels,
        "bit_rate_kbps": encoded.bit_rate_kbps,
        "peak_dbfs": round(encoded.peak_dbfs, 3),
        "frames": encoded.frames,
        "frames_drift": encoded.frames_drift,
        "encode_attempts": encoded.attempts,
    }
    _judge(name, gates, measures)
    return encoded.sha256


def _judge(name: str, gates: Sequence[Gate], measures: Measures) -> None:
    verdict = judge_track(gates, measures)
    if verdict is not None:
        raise _Rejected(verdict.gate.id, f"{name!r}: {verdict.text}")


def _source_measures(decoded: Decoded) -> Measures:
    return {
        "readable": True,
        "codec_accepted": True,
        "codec": decoded.codec,
        "source_bit_rate_kbps": decoded.bit_rate_kbps,
        "source_bit_depth": decoded.bit_depth,
        "source_sample_rate": decoded.sample_rate,
        "source_channels": decoded.channels,
        "duration_s": round(decoded.seconds, 6),
        "clipped_share": measure.clipped_share(decoded.samples),
        "dc_offset": round(measure.dc_offset(decoded.samples), 6),
        "source_peak_dbfs": round(measure.peak_dbfs(decoded.samples), 3),
    }


def _master_measures(mastered: FloatArray) -> Measures:
    rate = encode.SAMPLE_RATE
    stereo, shape = measure.stereo_image(mastered), measure.spectrum(mastered, sample_rate=rate)
    return {
        "silent_share": round(measure.silent_share(mastered, sample_rate=rate), 4),
        "longest_gap_s": round(measure.longest_gap_s(mastered, sample_rate=rate), 3),
        "noise_floor_db": round(measure.noise_floor_db(mastered, sample_rate=rate), 2),
        "loudness_lufs": round(measure.loudness_lufs(mastered), 2),
        "true_peak_dbtp": round(measure.true_peak_dbtp(mastered), 3),
        "rms_left_dbfs": round(stereo.channel_rms_dbfs[0], 2),
        "rms_right_dbfs": round(stereo.channel_rms_dbfs[-1], 2),
        "correlation": round(stereo.correlation, 4),
        "dual_mono": stereo.dual_mono,
        "dead_channel": stereo.dead_channel,
        "edge_hz": round(shape.edge_hz, 1),
        "edge_drop_db": round(shape.edge_drop_db, 1),
        "flatness": round(shape.flatness, 5),
        "centroid_hz": round(shape.centroid_hz, 1),
    }


def _tempo_measures(mastered: FloatArray, tempo_range: tuple[float, float]) -> Measures:
    estimate = tempo.estimate_tempo(mastered, sample_rate=encode.SAMPLE_RATE, tempo_range=tempo_range)
    return {
        "tempo_bpm": estimate.bpm if estimate else None,
        "tempo_bpm_raw": estimate.bpm_raw if estimate else None,
        "tempo_confidence": estimate.confidence if estimate else 0.0,
    }


def _tags(mastered: FloatArray) -> Tags:
    """Mean tag probabilities over at most 20 windows of 3 s; none for audio shorter than one."""
    from lofi_assets.audio import musicnn

    mono = soxr.resample(mastered.mean(axis=0), encode.SAMPLE_RATE, musicnn.SAMPLE_RATE, quality="HQ")
    if len(mono) < musicnn.PATCH_S * musicnn.SAMPLE_RATE:
        return {}
    heard = _spread(mono, length=musicnn.PATCH_FRAMES * musicnn.HOP, most=TAG_WINDOWS)
    models: Sequence[ModelName] = ("msd", "mtt")
    tags: Tags = {}
    for model in models:
        network = _ear(model)
        means = np.mean([network.tags(piece).mean(axis=0) for piece in heard], axis=0)
        tags[model] = {label: round(float(mean), 5) for label, mean in zip(network.labels, means, strict=True)}
    return tags


def _spread(mono: FloatArray, *, length: int, most: int) -> list[FloatArray]:
    """Up to `most` pieces of `length`, evenly spread and not overlapping."""
    count = min(most, len(mono) // length)
    starts = np.linspace(0, len(mono) - length, count).astype(int)
    return [mono[start : start + length] for start in starts]


@cache
def _ear(model: ModelName) -> MusicNN:
    """One network per process and model."""
    from lofi_assets.audio.musicnn import MusicNN

    return MusicNN(model)
