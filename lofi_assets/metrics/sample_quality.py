"""One checkpoint's samples against the reference set: the numbers that gates judge.

A number that cannot be trusted is None with a note. What is judged by which limit is
`lofi_assets.constitution.gates`'s.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.adherence import tag_aucs
from lofi_assets.metrics.aesthetics import AestheticsScorer, score_clips
from lofi_assets.metrics.alignment import Pairs, relative_alignment, tag_alignment
from lofi_assets.metrics.checked_samples import PromptedClip, check_samples
from lofi_assets.metrics.clap import ClapEmbedder
from lofi_assets.metrics.coverage import SampleCheck, StyleSample, check_sample, style_coverage
from lofi_assets.metrics.distances import measure_distances, unmeasured
from lofi_assets.metrics.embedding import Embedder, Samples, embed_files, file_sha256, read_samples
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.known_music import KnownMusic
from lofi_assets.metrics.musicnn import MusicnnTagger
from lofi_assets.metrics.proof import proof_of, why_untrained
from lofi_assets.metrics.results import Evaluation, FrechetResult, RelativeAlignment, StyleCoverage, TagAlignment
from lofi_assets.workers.side_by_side import side_by_side


@dataclass(frozen=True, kw_only=True)
class GeneratedSample:
    """Audio that a checkpoint made."""

    path: Path
    prompt: str
    style_id: str
    seed: int
    seconds: float | None = None
    """Length asked for; None when any is right."""


@dataclass(frozen=True, kw_only=True)
class ReferenceTrack:
    """A track of the validation split."""

    path: Path
    prompt: str
    style_ids: Sequence[str]


def evaluate_checkpoint(
    *,
    checkpoint_id: str,
    samples: Sequence[GeneratedSample],
    reference: Sequence[ReferenceTrack],
    embedder: Embedder,
    cache_dir: Path,
    seed: int,
    clap: ClapEmbedder | None = None,
    n_resamples: int = 1000,
    asked: Sequence[str] | None = None,
    known: KnownMusic | None = None,
    aesthetics: AestheticsScorer | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a checkpoint's samples against the reference; deterministic, and independent of the order of either list.

    Audio that is silent or clipped still counts towards every distance: leaving it out would flatter the model. Audio
    that cannot be embedded makes the measure None.

    Args:
        asked: style of every sample that was asked for, made or not; None: what is there was asked for.
        known: the real tracks that samples are checked against; None leaves `checks` out.
        aesthetics: advisory scores of each clip.
    Raises:
        MetricError: the reference is empty or cannot be read, or the shipped tagger is not what it was. That is no
            property of the checkpoint.
    """
    if not reference:
        raise MetricError("the reference holds no tracks; the validation split is empty, so add tracks to the dataset")
    samples = sorted(samples, key=lambda s: str(s.path))
    reference = sorted(reference, key=lambda t: str(t.path))

    def windows(encoder: Embedder, items: Sequence[GeneratedSample] | Sequence[ReferenceTrack]) -> list[Samples]:
        found = embed_files([item.path for item in items], encoder, cache_dir, progress=progress)
        return [found[item.path] for item in items]

    checks = _checked(samples)
    tagger = MusicnnTagger()
    if tagger.trained is not True:
        raise MetricError(why_untrained(tagger))
    tags = _clip_means(windows(tagger, reference))
    asked_for = [sample.prompt for sample in samples]
    sample_tags, tag_note = attempt(lambda: _clip_means(windows(tagger, samples)))
    clap_result, clap_note = _clap(clap, samples, reference, windows, seed=seed)
    return Evaluation(
        checkpoint_id=checkpoint_id,
        encoder=embedder.name,
        encoder_version=embedder.version,
        encoder_weights_sha256=embedder.weights_sha256,
        trained=embedder.trained is True,
        reference_sha256=reference_sha256([track.path for track in reference]),
        fad=_frechet(
            embedder,
            samples,
            windows(embedder, reference),
            attempt(lambda: windows(embedder, samples)),
            seed=seed,
            n_resamples=n_resamples,
        ),
        clap=clap_result,
        clap_note=clap_note,
        tag_alignment=_tags_aligned(samples, sample_tags, tag_note, reference, tags, tagger.labels),
        style_coverage=_coverage(samples, checks, sample_tags, reference, tags, asked),
        problems={s.path.name: c.problems for s, c in zip(samples, checks, strict=True) if c.problems},
        checks=None
        if known is None
        else check_samples(
            [
                _prompted(*clip)
                for clip in zip(samples, checks, tag_aucs(sample_tags, tags, asked_for, tagger.labels), strict=True)
            ],
            known,
            embedder=embedder,
            cache_dir=cache_dir,
            progress=progress,
        ),
        aesthetics=score_clips([sample.path for sample in samples], aesthetics, cache_dir) if aesthetics else None,
        proof=proof_of(embedder),
        clap_proof=proof_of(clap),
    )


def reference_sha256(paths: Sequence[Path]) -> str:
    """Hash of a reference set: SHA-256 over its files' sorted hashes."""
    return hashlib.sha256("".join(sorted(map(file_sha256, paths))).encode()).hexdigest()


def _frechet(
    embedder: Embedder,
    samples: Sequence[GeneratedSample],
    reference: list[Samples],
    generated: tuple[list[Samples] | None, str],
    *,
    seed: int,
    n_resamples: int,
) -> FrechetResult:
    windows, note = generated
    theirs = {f"{index:06d}": clip for index, clip in enumerate(reference)}
    ours = dict(zip(_names(samples), windows or [], strict=False))
    if embedder.trained is not True:
        note = why_untrained(embedder)
    if note:
        return unmeasured(
            note,
            n_clips=len(ours),
            n_windows=sum(map(len, ours.values())),
            n_reference_clips=len(theirs),
            n_reference_windows=sum(map(len, reference)),
        )
    return measure_distances(ours, theirs, seed=seed, n_splits=n_resamples)


def _names(samples: Sequence[GeneratedSample]) -> list[str]:
    """File names, or whole paths where two are called alike."""
    names = [sample.path.name for sample in samples]
    return names if len(set(names)) == len(names) else [str(sample.path) for sample in samples]


def _clap(
    clap: ClapEmbedder | None,
    samples: Sequence[GeneratedSample],
    reference: Sequence[ReferenceTrack],
    windows: Callable[..., list[Samples]],
    *,
    seed: int,
) -> tuple[RelativeAlignment | None, str]:
    if clap is None:
        return None, "no CLAP checkpoint is configured"
    if clap.trained is not True:
        return None, why_untrained(clap)
    result, failure = attempt(
        lambda: relative_alignment(
            generated=Pairs(
                audio=_clip_means(windows(clap, samples)),
                text=clap.embed_text([sample.prompt for sample in samples]),
                texts=[sample.prompt for sample in samples],
                styles=[[sample.style_id] for sample in samples],
            ),
            real=Pairs(
                audio=_clip_means(windows(clap, reference)),
                text=clap.embed_text([track.prompt for track in reference]),
                texts=[track.prompt for track in reference],
                styles=[track.style_ids for track in reference],
            ),
            seed=seed,
        )
    )
    return result, failure or f"{clap.name} {clap.version} weights {clap.weights_sha256[:12]}"


def _tags_aligned(
    samples: Sequence[GeneratedSample],
    tags: npt.NDArray[np.floating] | None,
    failure: str,
    reference: Sequence[ReferenceTrack],
    reference_tags: npt.NDArray[np.floating],
    labels: Sequence[str],
) -> TagAlignment:
    if tags is None or not len(tags):
        note = failure or "no samples were generated"
        return TagAlignment(auc=None, lower=None, reference_auc=None, n_clips=0, n_unmapped=len(samples), note=note)
    return tag_alignment(
        generated_tags=tags,
        generated_prompts=[sample.prompt for sample in samples],
        reference_tags=reference_tags,
        reference_prompts=[track.prompt for track in reference],
        labels=labels,
    )


def _coverage(
    samples: Sequence[GeneratedSample],
    checks: Sequence[SampleCheck],
    tags: npt.NDArray[np.floating] | None,
    reference: Sequence[ReferenceTrack],
    reference_tags: npt.NDArray[np.floating],
    asked: Sequence[str] | None,
) -> StyleCoverage:
    by_style: dict[str, list[npt.NDArray[np.floating]]] = defaultdict(list)
    for track, row in zip(reference, reference_tags, strict=True):
        for style in track.style_ids:
            by_style[style].append(row)
    judged = [
        StyleSample(style_id=sample.style_id, usable=check.usable, tags=None if tags is None else tags[index])
        for index, (sample, check) in enumerate(zip(samples, checks, strict=True))
    ]
    return style_coverage(judged, {style: np.array(rows) for style, rows in by_style.items()}, asked=asked)


def _prompted(sample: GeneratedSample, check: SampleCheck, tag_auc: float | None) -> PromptedClip:
    return PromptedClip(
        path=sample.path,
        prompt=sample.prompt,
        style_id=sample.style_id,
        problems=check.problems,
        tag_auc=tag_auc,
    )


def _checked(samples: Sequence[GeneratedSample]) -> list[SampleCheck]:
    """Every sample's own faults, and copies: of equal audio, all but the first are marked."""
    seen: dict[str, str] = {}
    checks = []
    for sample, check in zip(samples, side_by_side(_check, samples), strict=True):
        first = seen.setdefault(check.audio_sha256, sample.path.name) if check.audio_sha256 else sample.path.name
        if first != sample.path.name:
            check = SampleCheck(problems=(*check.problems, f"same audio as {first}"), audio_sha256=check.audio_sha256)
        checks.append(check)
    return checks


def _check(sample: GeneratedSample) -> SampleCheck:
    try:
        audio, rate = read_samples(sample.path)
        return check_sample(audio, sample_rate=rate, seconds=sample.seconds)
    except MetricError as error:
        return SampleCheck(problems=(str(error),), audio_sha256="")


def _clip_means(windows: Sequence[Samples]) -> npt.NDArray[np.floating]:
    """(clips, dim): the mean window of each clip."""
    return np.array([clip.mean(axis=0, dtype=np.float64) for clip in windows])
