"""`fad`, `kad` and `compare`: distances of folders from a folder of reference clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.measure.copied import Copies, nearest_of, read_all, similarity_among
from lofi_assets.measure.encoder import EncoderUsed, loaded
from lofi_assets.measure.folders import audio_of, embedded
from lofi_assets.metrics.distances import measure_distances
from lofi_assets.metrics.embedding import LOUDNESS_LUFS
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.results import FrechetResult

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, config=STORED)
class Distance:
    """How far a folder lies from a reference, with what it takes to read that."""

    measure: Literal["fad", "kad"]
    reference: str
    folder: str
    encoder: EncoderUsed
    result: FrechetResult
    """Both distances, their intervals and floors, and the numbers of clips and windows."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Compared:
    """Folders beside each other, all against one reference."""

    reference: str
    encoder: EncoderUsed
    folders: dict[str, FrechetResult]
    copies: dict[str, Copies]
    """Of each folder, how near its clips come to the reference's recordings."""


class Options(TypedDict, total=False):
    """What may be said of a measurement; each has a default."""

    encoder: str
    """`musicnn` (the default, shipped), `vggish` (weights: the published file) or `laion_clap` (weights: a folder)."""
    weights: Path | str | None
    lufs: float | None
    """Loudness that every clip is brought to first, -23 by default; None leaves them at their own level."""
    seed: int
    """Of the draws behind interval and floor."""
    resamples: int
    """How many draws, 1000 by default."""
    cache_dir: Path | None
    """Where embeddings are kept, by content; None, the default, keeps nothing."""
    device: str
    """Of torch."""


def fad(reference: Path | str, folder: Path | str, **options: Unpack[Options]) -> Distance:
    """Frechet audio distance of a folder from a reference folder (Kilgour et al. 2019): `result.value`.

    Args:
        reference, folder: two or more audio files each, anywhere below.
        options: see `Options`.
    Raises:
        MetricError: a folder with fewer than two audio files, files that cannot be read (all are named), an encoder
            without weights or one that is not proven trained, or a distance that these clips do not give.
    """
    return _distance("fad", reference, folder, **options)


def kad(reference: Path | str, folder: Path | str, **options: Unpack[Options]) -> Distance:
    """Kernel audio distance of a folder from a reference folder (arXiv 2502.15602): `result.kad`. As `fad`."""
    return _distance("kad", reference, folder, **options)


def _distance(
    measure: Literal["fad", "kad"], reference: Path | str, folder: Path | str, **options: Unpack[Options]
) -> Distance:
    used, ((name, result),) = _measured(str(reference), {str(folder): audio_of(folder)}, **options)
    if (result.value if measure == "fad" else result.kad) is None:
        raise MetricError(f"{name} against {reference}: {result.note}")
    return Distance(measure=measure, reference=str(reference), folder=name, encoder=used, result=result)


def compare(reference: Path | str, *folders: Path | str, **options: Unpack[Options]) -> Compared:
    """FAD, KAD and copies of several folders against one reference, which is heard once. Errors as of `fad`."""
    files = {str(folder): audio_of(folder) for folder in folders}
    if not folders or len(files) < len(folders):
        raise MetricError("name a reference and one folder or more, each once")
    used, results = _measured(str(reference), files, **options)
    recordings = read_all(audio_of(reference))
    floor = similarity_among(recordings)
    nearest = {
        name: nearest_of(read_all(clips), recordings, floor=floor, reference=str(reference), folder=name)
        for name, clips in files.items()
    }
    return Compared(reference=str(reference), encoder=used, folders=dict(results), copies=nearest)


def _measured(
    reference: str, folders: Mapping[str, Mapping[str, Path]], **options: Unpack[Options]
) -> tuple[EncoderUsed, list[tuple[str, FrechetResult]]]:
    real = audio_of(reference)
    cache, seed, resamples = options.get("cache_dir"), options.get("seed", 0), options.get("resamples", RESAMPLES)
    encoder, used = loaded(
        options.get("encoder", "musicnn"),
        weights=options.get("weights"),
        lufs=options.get("lufs", LOUDNESS_LUFS),
        device=options.get("device", "cpu"),
    )
    theirs = embedded(real, encoder, cache_dir=cache)
    found = [
        (
            name,
            measure_distances(embedded(clips, encoder, cache_dir=cache), theirs, seed=seed, n_splits=resamples),
        )
        for name, clips in folders.items()
    ]
    return used, found
