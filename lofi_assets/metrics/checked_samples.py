"""The checks of a model's samples, from their files to `SampleChecks`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lofi_assets.audio.excerpts import Match
from lofi_assets.audio.fingerprint import at_fingerprint_rate
from lofi_assets.metrics.adherence import adherence, bpm_asked, key_asked
from lofi_assets.metrics.clip_measures import SAMPLE_RATE, ClipMeasures, clip_audio, measured_clips
from lofi_assets.metrics.copies import copies_of, diversity_of, nearest_tracks
from lofi_assets.metrics.embedding import Embedder
from lofi_assets.metrics.errors import attempt
from lofi_assets.metrics.known_music import KnownMusic, clip_means
from lofi_assets.metrics.sample_checks import CheckedClip, CopyFound, SampleChecks, Signal
from lofi_assets.metrics.signal_range import LEAST_REAL_CLIPS, artefacts, outside


@dataclass(frozen=True, kw_only=True)
class PromptedClip:
    """A sample, what it was asked for, and what is known to be wrong with it."""

    path: Path
    prompt: str
    style_id: str
    problems: tuple[str, ...] = ()
    tag_auc: float | None = None


def check_samples(
    clips: Sequence[PromptedClip], known: KnownMusic, *, embedder: Embedder, cache_dir: Path, progress: bool = True
) -> SampleChecks:
    """Check the samples of one model; deterministic. A clip that cannot be measured has an artefact."""
    paths = [clip.path for clip in clips]
    measured = measured_clips(paths, seconds=None, cache_dir=cache_dir, label="checking samples", progress=progress)
    sound = [clip for clip in clips if measured[clip.path].panel]
    audio = {clip.path.name: _mono(clip.path) for clip in sound}
    words = {clip.path.name: measured[clip.path].fingerprint for clip in sound}
    lost = {clip.path.name: None for clip in clips if not measured[clip.path].panel}
    matches: dict[str, Match | None] = {**nearest_tracks(audio, known), **lost}
    means, note = attempt(lambda: clip_means(paths, embedder, cache_dir, progress=False))
    checked = tuple(_checked(clip, measured[clip.path], matches[clip.path.name], known) for clip in clips)
    return SampleChecks(
        clips=checked,
        copies=copies_of(matches, means, known, note=note),
        diversity=diversity_of(audio, words, means, known, note=note, lost=tuple(lost)),
        signal=_signal(checked, known),
        adherence=adherence(
            [measured[path] for path in paths],
            [clip.prompt for clip in clips],
            known.validation,
            known.validation_prompts,
        ),
    )


def _mono(path: Path) -> npt.NDArray[np.float32]:
    return at_fingerprint_rate(clip_audio(path), sample_rate=SAMPLE_RATE)


def _checked(clip: PromptedClip, found: ClipMeasures, match: Match | None, known: KnownMusic) -> CheckedClip:
    asked = key_asked(clip.prompt)
    faults = (found.fault,) if found.panel is None else artefacts(found.panel, known.ranges)
    return CheckedClip(
        file=clip.path.name,
        style_id=clip.style_id,
        bpm_asked=bpm_asked(clip.prompt),
        bpm_found=found.tempo_bpm,
        key_asked=str(asked) if asked else None,
        key_found=str(found.key) if found.key else None,
        artefacts=tuple(dict.fromkeys((*clip.problems, *faults))),
        outside=outside(found.panel, known.ranges) if found.panel and known.ranges else (),
        nearest=_copy(match) if match else None,
        tag_auc=clip.tag_auc,
        bpm_confidence=found.tempo_confidence,
        loudness_lufs=found.panel.loudness_lufs if found.panel else None,
    )


def _copy(match: Match) -> CopyFound:
    return CopyFound(
        similarity=match.similarity,
        recording=match.name,
        at_s=match.at_s,
        of_s=match.of_s,
        pitch=match.change.pitch,
        tempo=match.change.tempo,
    )


def _signal(clips: Sequence[CheckedClip], known: KnownMusic) -> Signal:
    if not clips:
        return _no_signal("no samples were generated", None, known)
    faulty = sum(bool(clip.artefacts) for clip in clips)
    if not known.ranges:
        few = f"{known.n_real} real clips; a range needs {LEAST_REAL_CLIPS}"
        return _no_signal(few, faulty, known)
    share = sum(bool(clip.outside or clip.artefacts) for clip in clips) / len(clips)
    return Signal(clips_with_artefacts=faulty, share_outside=share, ranges=known.ranges, n_real=known.n_real)


def _no_signal(note: str, faulty: int | None, known: KnownMusic) -> Signal:
    return Signal(clips_with_artefacts=faulty, share_outside=None, ranges={}, n_real=known.n_real, note=note)
