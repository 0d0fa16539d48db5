"""Whether a bundle makes audio: every variant of every tier, in the environment that its own requirements make.

What belongs here: running `generate.py` and listening for silence, NaN and clipping. What does not: the environment
(`bundle_environment.py`), how far the audio is from torch's (`bundle_parity.py`).
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.progress import over
from lofi_assets.quantization.quantized_tiers import CPU_VARIANT, VARIANTS, tier_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN_TIMEOUT_S = 1800
RATE = 48000
REFUSED = ("empty", "silent", "clipped")
"""How the problems of a clip begin that no bundle may have. Noise is left to the gates of the samples: a clip of few
steps is near it."""


@dataclass(frozen=True)
class Clip:
    """What every variant is asked for. Short: it is to show that the files work, and a large model takes its time."""

    prompt: str = "lofi hip hop, mellow, rhodes, vinyl crackle, 74 bpm"
    lyrics: str = "[Language: en]\n[verse]\nrain on the window\n"
    """Sung where the tier has a lyric vocabulary."""
    seconds: float = 4.0
    steps: int = 6
    seed: int = 7


CLIP = Clip()


@dataclass(frozen=True)
class Run:
    """What became of one variant."""

    problem: str
    """Empty where it made audio that can be listened to."""
    audio: "NDArray[np.float32] | None"
    """(2, n) at 48 kHz; None where there is none."""


def run_bundle(
    folder: Path, *, python: Path, scratch: Path, clip: Clip = CLIP, variants: Sequence[str] = VARIANTS
) -> Mapping[str, Run]:
    """Variant -> what its `generate.py` did.

    Args:
        python: of the environment; nothing but what is in there and in the bundle can be imported.
        scratch: an existing folder for what is written, and the working directory.
    """
    return {
        variant: _run(folder, variant, python=python, scratch=scratch, clip=clip)
        for variant in over(variants, "running the bundle", unit="variant")
    }


def arguments(folder: Path, variant: str, *, clip: Clip) -> list[str]:
    """What `generate.py` is asked for a variant; the lyrics come from `lyrics.txt` in the working directory."""
    asked: dict[str, Any] = {"--tier": tier_of(variant), "--seconds": clip.seconds, "--steps": clip.steps}
    asked |= {"--seed": clip.seed, "--output": f"{variant}.npy"}
    options = [str(part) for pair in asked.items() for part in pair]
    options += ["--lyrics", "lyrics.txt"] if sings(folder, variant) else []
    options += ["--no-cpu-graph"] if variant == tier_of(CPU_VARIANT) else []
    return [clip.prompt, *options]


def sings(folder: Path, variant: str) -> bool:
    """Whether a tier can be given lyrics."""
    return (folder / tier_of(variant) / "lyric_vocab.json").is_file()


def _run(folder: Path, variant: str, *, python: Path, scratch: Path, clip: Clip) -> Run:
    (scratch / "lyrics.txt").write_text(clip.lyrics, encoding="utf-8")
    output = scratch / f"{variant}.npy"
    output.unlink(missing_ok=True)
    cached = f"pycache_prefix={python.parent.parent / 'compiled'}"
    command = [str(python), "-I", "-X", cached, str(folder / "generate.py"), *arguments(folder, variant, clip=clip)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, cwd=scratch, check=False, env=_variables()
        )
    except subprocess.TimeoutExpired:
        return Run(f"not finished after {RUN_TIMEOUT_S} s", None)
    if done.returncode or not output.is_file():
        return Run(done.stderr.strip()[-400:] or "it wrote no audio", None)
    return heard(output, seconds=clip.seconds)


def heard(file: Path, *, seconds: float) -> Run:
    """Judge what a run wrote."""
    import numpy as np

    from lofi_assets.metrics.coverage import check_sample

    try:
        audio = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return Run(f"what it wrote is no audio ({error})", None)
    if audio.ndim != 2 or audio.shape[0] != 2 or audio.dtype != np.float32:
        return Run(f"it wrote {audio.dtype} of shape {audio.shape}, not two channels of float32", None)
    problems = check_sample(audio, sample_rate=RATE, seconds=seconds).problems
    return Run("; ".join(text for text in problems if text.startswith(REFUSED) or " instead of " in text), audio)


def _variables() -> dict[str, str]:
    """The environment without what could bring this project's packages back."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
