"""Populations of clips and of text-audio pairs whose truth is known, for the statistics of evaluation."""

import numpy as np

Clips = dict[str, np.ndarray]


def clips_of(
    random: np.random.Generator,
    n: int,
    *,
    d: int = 8,
    windows: int = 12,
    icc: float = 0.5,
    shift: float = 0.0,
    scale: float = 1.0,
) -> Clips:
    """Clips whose windows share the part `icc` of their variance; dimension k has variance 1 / k.

    Args:
        shift: of the mean, in deviations of each dimension.
        scale: of the deviations.
    """
    deviations = np.arange(1, d + 1) ** -0.5
    own, shared = random.normal(size=(n, windows, d)), random.normal(size=(n, 1, d))
    values = (np.sqrt(1.0 - icc) * own + np.sqrt(icc) * shared) * scale + shift
    return {f"clip{index:04d}": clip for index, clip in enumerate(values * deviations)}


def stacked(by_clip: Clips) -> np.ndarray:
    """All windows of all clips."""
    return np.concatenate([*by_clip.values()])


def text_and_audio(
    random: np.random.Generator, meanings: np.ndarray, *, agreement: float, gap: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Audio and text embeddings of the meanings, each modality off to its own side as CLAP's are.

    Args:
        agreement: of the audio with the meaning; 0 for none.
    """
    d = meanings.shape[1]
    audio = agreement * meanings + random.normal(size=meanings.shape) + gap * np.eye(d)[0] * np.sqrt(d)
    text = meanings + 0.3 * random.normal(size=meanings.shape) + gap * np.eye(d)[1] * np.sqrt(d)
    return audio, text
