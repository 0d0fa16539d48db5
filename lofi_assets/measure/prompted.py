"""`clap`: how well the clips of a folder fit their prompts, by CLAP."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.dataclasses import dataclass
from scipy import stats

from lofi_assets.files.typed import STORED
from lofi_assets.measure.encoder import EncoderUsed, loaded
from lofi_assets.measure.folders import audio_of, embedded
from lofi_assets.metrics.clap import ClapEmbedder, unit_rows
from lofi_assets.metrics.embedding import LOUDNESS_LUFS
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.number import Number
from lofi_assets.wording import shortened

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, config=STORED)
class PromptFit:
    """CLAP cosines of clips with their prompts."""

    folder: str
    encoder: EncoderUsed
    cosine: float
    """Mean over clips. It is of this checkpoint alone: other weights put the same clips elsewhere."""
    interval: tuple[float, float]
    """95 % for that mean, Student's t over clips."""
    floor: Number
    """Mean cosine of the same clips with each other's prompts; None where all prompts are one."""
    recall: Number
    """Share of clips whose own prompt is the nearest of all; None where all prompts are one."""
    chance: Number
    """The same for clips dealt at random: one over the number of prompts."""
    n_clips: int
    n_prompts: int
    clips: dict[str, float]
    """Cosine of every clip, the worst first."""


def clap(
    folder: Path | str,
    prompts: Mapping[str, str] | Path | str,
    *,
    weights: Path | str,
    lufs: float | None = LOUDNESS_LUFS,
    cache_dir: Path | None = None,
    device: str = "cpu",
) -> PromptFit:
    """Mean cosine of a folder's clips with their prompts, beside that with each other's.

    Args:
        prompts: file name (relative to the folder) -> prompt, or a file of them (`read_prompts`).
        weights: folder of a CLAP model, e.g. of `lofi convert-clap`.
    Raises:
        MetricError: as `fad`; a clip without a prompt, or a prompt without a clip.
    """
    files = audio_of(folder)
    texts = dict(prompts) if isinstance(prompts, Mapping) else read_prompts(Path(prompts))
    _belong(files, texts, folder=str(folder))
    encoder, used = loaded("laion_clap", weights=weights, lufs=lufs, device=device)
    assert isinstance(encoder, ClapEmbedder)
    windows = embedded(files, encoder, cache_dir=cache_dir)
    audio = unit_rows(np.array([windows[name].mean(axis=0, dtype=np.float64) for name in files]))
    different = sorted(set(texts.values()))
    cosines = audio @ encoder.embed_text(different).astype(np.float64).T
    own = np.array([different.index(texts[name]) for name in files])
    fits = cosines[np.arange(len(files)), own]
    several = len(different) > 1
    others = (cosines.sum(axis=1) - fits) / (len(different) - 1) if several else None
    margin = float(stats.sem(fits) * stats.t.ppf(0.5 + CONFIDENCE / 2, len(fits) - 1))
    return PromptFit(
        folder=str(folder),
        encoder=used,
        cosine=float(fits.mean()),
        interval=(float(fits.mean()) - margin, float(fits.mean()) + margin),
        floor=None if others is None else float(others.mean()),
        recall=float((cosines.argmax(axis=1) == own).mean()) if several else None,
        chance=1.0 / len(different) if several else None,
        n_clips=len(files),
        n_prompts=len(different),
        clips=dict(sorted(zip(files, map(float, fits), strict=True), key=lambda item: (item[1], item[0]))),
    )


def read_prompts(path: Path) -> dict[str, str]:
    """File name -> prompt: a CSV with the columns `file` and `prompt`, or a JSON object of names and prompts.

    Raises:
        MetricError: unreadable, another form, a name twice, or an empty prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MetricError(f"{path}: cannot be read ({error})") from error
    rows = _rows_of_json(text, path) if path.suffix.lower() == ".json" else _rows_of_csv(text, path)
    found: dict[str, str] = {}
    for name, prompt in rows:
        if not isinstance(prompt, str) or not prompt.strip():
            raise MetricError(f"{path}: {name}: no prompt")
        if name in found:
            raise MetricError(f"{path}: {name}: named twice")
        found[name] = prompt.strip()
    return found


def _rows_of_json(text: str, path: Path) -> list[tuple[str, Any]]:
    def pairs(members: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return members

    try:
        found = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise MetricError(f"{path}: no JSON ({error})") from error
    if not isinstance(found, list) or not all(isinstance(row, tuple) for row in found):
        raise MetricError(f"{path}: must be an object of file names and prompts")
    return found


def _rows_of_csv(text: str, path: Path) -> list[tuple[str, Any]]:
    reader = csv.DictReader(text.splitlines())
    if not {"file", "prompt"} <= set(reader.fieldnames or ()):
        raise MetricError(f"{path}: needs the columns file and prompt, has {', '.join(reader.fieldnames or ('none',))}")
    return [(row["file"], row["prompt"]) for row in reader]


def _belong(files: Mapping[str, Path], texts: Mapping[str, str], *, folder: str) -> None:
    silent, absent = sorted(set(files) - set(texts)), sorted(set(texts) - set(files))
    if silent:
        raise MetricError(f"{folder}: {len(silent)} clips without a prompt: {', '.join(shortened(silent, most=5))}")
    if absent:
        raise MetricError(f"{folder}: {len(absent)} prompts without a clip: {', '.join(shortened(absent, most=5))}")
