"""A blind listening test as a folder: a static page with opaque audio beside it, and the truth outside it.

DIRECTORY/page/index.html     what listeners get; serve or zip this folder and nothing else
DIRECTORY/page/audio/*.wav    excerpts, alike in length, loudness, rate, fades, format and size
DIRECTORY/page/manifest.json  trial ids, files and their hashes
DIRECTORY/truth.json          which is which; `read_trials` joins it to the answers
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass as stored

from lofi_assets.files.typed import STORED, Stored, plain
from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Samples, file_sha256, read_samples, resampled
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.listening_trials import Answer, Kind, ListeningTruth, TrialTruth

PAGE = Path(__file__).with_name("listening.html")
"""Plain HTML, CSS and JavaScript; `__TEST_DATA__` stands for the title, the manifest's hash and the trials."""

SAMPLE_RATE = 48_000
PEAK_CEILING_DBFS = -1.0
FADE_S = 0.25
MIN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A file to be judged; clips of the two sides are paired within a style."""

    path: Path
    style_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ListeningPage:
    """Where a test was written and what is in it."""

    page: Path
    truth: Path
    n_pairs: int
    n_controls: int
    seconds: float
    left_out: tuple[Path, ...]
    """Clips without a partner of their style."""


@stored(frozen=True, config=STORED)
class PageTrial:
    """A clip as listeners get it."""

    trial_id: str
    file: str
    """Relative to the page."""
    sha256: str


@stored(frozen=True, config=STORED)
class PageManifest:
    """`page/manifest.json`: what the page plays."""

    title: str
    trials: tuple[PageTrial, ...]


def truth_path(directory: Path) -> Path:
    """Which clip of a test is which; a test is there if this is."""
    return directory / "truth.json"


def write_listening_page(
    directory: Path,
    *,
    ai_clips: Sequence[Clip],
    real_clips: Sequence[Clip],
    seed: int,
    controls: Sequence[Clip] = (),
    seconds: float = 20.0,
    title: str = "Listening test",
) -> ListeningPage:
    """Write a blind test of equally many generated and real clips, paired by style; deterministic in its seed.

    Args:
        controls: obviously generated clips; a listener who calls one real is left out of the statistics.
        seconds: excerpt length, from the middle; shorter for all when one clip is shorter.
    Raises:
        MetricError: no style has clips on both sides, a clip cannot be read, is silent or shorter than 1 s, or the
            directory holds another test.
    """
    if truth_path(directory).exists():
        raise MetricError(f"{directory}: holds a listening test whose answers may be under way; use a new directory")
    generator = np.random.default_rng(seed)
    pairs, left_out = _pairs(ai_clips, real_clips, generator)
    entries: list[tuple[Answer, Kind, Clip]] = [("ai", "test", generated) for generated, _ in pairs]
    entries += [("real", "test", real) for _, real in pairs]
    entries += [("ai", "control", clip) for clip in controls]
    # Shuffled before writing, so that neither names nor times of the files follow the truth.
    order = generator.permutation(len(entries))
    entries = [entries[i] for i in order]
    audio = [_stereo(clip.path) for _, _, clip in entries]
    length = min(round(seconds * SAMPLE_RATE), *(a.shape[1] for a in audio))
    if length < MIN_SECONDS * SAMPLE_RATE:
        raise MetricError(f"the shortest clip has {length / SAMPLE_RATE:.2f} s; a listener needs {MIN_SECONDS:g} s")
    excerpts = _at_one_loudness([_excerpt(a, length) for a in audio], [clip.path for _, _, clip in entries])
    shutil.rmtree(directory / "page", ignore_errors=True)
    (directory / "page" / "audio").mkdir(parents=True)
    trials: list[PageTrial] = []
    truth: dict[str, TrialTruth] = {}
    for index, ((answer, kind, clip), samples) in enumerate(zip(entries, excerpts, strict=True)):
        trial_id = hashlib.sha256(f"{seed}|{title}|{index}".encode()).hexdigest()[:16]
        file = directory / "page" / "audio" / f"{trial_id}.wav"
        _write_wav(file, samples)
        trials.append(PageTrial(trial_id, f"audio/{file.name}", file_sha256(file)))
        truth[trial_id] = TrialTruth(truth=answer, kind=kind, style_id=clip.style_id, source=str(clip.path))
    digest = _write_page(directory / "page", PageManifest(title, tuple(trials)))
    _write_json(truth_path(directory), ListeningTruth(manifest_sha256=digest, seed=seed, trials=truth))
    return ListeningPage(
        page=directory / "page" / "index.html",
        truth=truth_path(directory),
        n_pairs=len(pairs),
        n_controls=len(controls),
        seconds=length / SAMPLE_RATE,
        left_out=tuple(left_out),
    )


def _pairs(
    ai_clips: Sequence[Clip], real_clips: Sequence[Clip], generator: np.random.Generator
) -> tuple[list[tuple[Clip, Clip]], list[Path]]:
    """As many clips of each side in every style; which of the larger side take part is drawn."""
    sides: list[dict[str, list[Clip]]] = []
    for clips in (ai_clips, real_clips):
        groups: dict[str, list[Clip]] = defaultdict(list)
        for clip in sorted(clips, key=lambda c: str(c.path)):
            groups[clip.style_id or ""].append(clip)
        sides.append({style: [g[i] for i in generator.permutation(len(g))] for style, g in sorted(groups.items())})
    ai, real = sides
    pairs = [pair for style in sorted(ai) for pair in zip(ai[style], real.get(style, []), strict=False)]
    if not pairs:
        raise MetricError(
            f"no style has both: generated {sorted(ai)}, real {sorted(real)}; give clips of the same styles"
        )
    used = {clip.path for pair in pairs for clip in pair}
    return pairs, sorted({clip.path for clip in (*ai_clips, *real_clips)} - used)


def _stereo(path: Path) -> Samples:
    samples, rate = read_samples(path)
    if not np.isfinite(samples).all():
        raise MetricError(f"{path}: holds NaN or infinity; take another clip")
    samples = resampled(samples, source=rate, target=SAMPLE_RATE)
    return np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples[:2]


def _excerpt(samples: Samples, length: int) -> Samples:
    start = (samples.shape[1] - length) // 2
    fade = np.ones(length, dtype=np.float32)
    ramp = np.sin(np.linspace(0.0, np.pi / 2.0, round(FADE_S * SAMPLE_RATE), dtype=np.float32)) ** 2
    fade[: len(ramp)], fade[-len(ramp) :] = ramp, ramp[::-1]
    return samples[:, start : start + length] * fade


def _at_one_loudness(excerpts: Sequence[Samples], paths: Sequence[Path]) -> list[Samples]:
    """All at -23 LUFS, or together at the loudest level at which none peaks above -1 dBFS."""
    import pyloudnorm

    meter = pyloudnorm.Meter(SAMPLE_RATE)
    loudness, target = [], LOUDNESS_LUFS
    for samples, path in zip(excerpts, paths, strict=True):
        with np.errstate(divide="ignore"):
            level = float(meter.integrated_loudness(samples.T.astype(np.float64)))
            peak = 20.0 * float(np.log10(np.abs(samples).max()))
        if not np.isfinite(level):
            raise MetricError(f"{path}: its excerpt is silent; take another clip")
        loudness.append(level)
        target = min(target, level + PEAK_CEILING_DBFS - peak)
    return [samples * 10.0 ** ((target - level) / 20.0) for samples, level in zip(excerpts, loudness, strict=True)]


def _write_wav(path: Path, samples: Samples) -> None:
    """16-bit WAV: every browser plays it, equal lengths are equal sizes, and it has no room for tags."""
    import soundfile

    soundfile.write(path, samples.T, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def _write_page(page: Path, manifest: PageManifest) -> str:
    """Manifest and page; returns the manifest's SHA-256, by which answers are bound to this test."""
    _write_json(page / "manifest.json", manifest)
    digest = file_sha256(page / "manifest.json")
    data = json.dumps(plain(manifest) | {"manifest_sha256": digest}, sort_keys=True)
    # "</" inside a JSON string would end the script element.
    html = PAGE.read_text(encoding="utf-8").replace("__TEST_DATA__", data.replace("</", "<\\/"))
    (page / "index.html").write_text(html, encoding="utf-8")
    return digest


def _write_json(path: Path, value: Stored) -> None:
    """The bytes are part of what a test is: its answers carry the hash of the manifest."""
    path.write_text(json.dumps(plain(value), indent=1, sort_keys=True) + "\n", encoding="utf-8")
