"""Clips that a bundle carries to be heard before it is downloaded: the Hub's player has them beside their prompts.

Made by the bundle itself in its own environment, of prompts that stand here and of no track, without lyrics. Whoever
has the bundle makes them again (`lofi verify --deep`), so they are stored without loss.

    samples/1.flac, samples/2.flac, samples/samples.json (`Samples`)
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.profiles import SamplingSettings
from lofi_assets.release.bundle_runs import RATE, Clip, run_bundle

FOLDER = "samples"
TIER = "fp16"
PROMPTS = (
    "lofi hip hop, mellow, rhodes, vinyl crackle, 74 bpm, instrumental",
    "lofi jazz, calm, upright bass, brushed drums, 82 bpm, rain, instrumental",
)
SEED = 11


@dataclass(frozen=True, config=STORED)
class Sample:
    """One clip."""

    file: str
    """In the folder of the samples."""
    prompt: str
    lyrics: str
    seed: int


@dataclass(frozen=True, kw_only=True, config=STORED)
class Samples:
    """All of them."""

    tier: str
    seconds: float
    steps: int
    guidance_scale: float
    clips: tuple[Sample, ...]

    @classmethod
    def read(cls, bundle: Path) -> "Samples | None":
        """Those of a bundle; None of one without.

        Raises:
            StoreError: the record is broken, or of another version.
        """
        return read_typed(_record(bundle), cls, remedy="remove the folder and materialise onnx_artifacts again")


def _record(bundle: Path) -> Path:
    return bundle / FOLDER / "samples.json"


def write_samples(bundle: Path, *, python: Path, scratch: Path, settings: SamplingSettings) -> None:
    """Make the clips and put them into the bundle; none if one of them is silent, clipped or not there at all.

    Args:
        python: of the bundle's environment.
        settings: seconds and steps; the guidance is the bundle's own.
    """
    import soundfile

    made = []
    for number, prompt in enumerate(PROMPTS, 1):
        clip = Clip(prompt, "", settings.seconds, settings.steps, SEED + number)
        run = run_bundle(bundle, python=python, scratch=scratch, clip=clip, variants=[TIER])[TIER]
        if run.problem or run.audio is None:
            return
        made.append((Sample(f"{number}.flac", clip.prompt, clip.lyrics, clip.seed), run.audio))
    (bundle / FOLDER).mkdir()
    for sample, audio in made:
        soundfile.write(bundle / FOLDER / sample.file, audio.T, RATE, subtype="PCM_16")
    samples = Samples(
        tier=TIER,
        seconds=settings.seconds,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        clips=tuple(sample for sample, _ in made),
    )
    write_typed(_record(bundle), samples)


def widget(samples: Samples | None) -> Sequence[dict[str, object]] | None:
    """The model card's `widget`: a prompt and the address of its clip in the repository; None without samples."""
    if samples is None:
        return None
    return [{"text": clip.prompt, "output": {"url": f"{FOLDER}/{clip.file}"}} for clip in samples.clips]
