"""Whether a clip has the tempo and the key that its prompt names, and the labels, clip by clip.

What belongs here: what a prompt asks for, and who gave it. What does not: the alignment of a whole set with its labels
(`alignment.py`), the estimates (`audio/tempo.py`, `audio/key.py`).
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lofi_assets.audio.key import NAMES, Key, same_notes
from lofi_assets.audio.tempo import AGREEMENT
from lofi_assets.metrics.alignment import clip_aucs, standardised_tags
from lofi_assets.metrics.clip_measures import ClipMeasures
from lofi_assets.metrics.sample_checks import Adherence, Followed
from lofi_assets.styles.taxonomy import bpm_of, fold

T = TypeVar("T")

OCTAVES = (0.5, 1.0, 2.0)
"""A tempo tracker and a listener may count every other beat, or twice."""
LEAST_ASKED = 6
"""Of fewer prompts with a tempo, a model that does not listen gets most right too often."""
LEAST_GAP = 0.3
"""Real clips must fit their own prompts better than the others' by this, or there is nothing to compare with."""
_FLATS = {"db": 1, "eb": 3, "gb": 6, "ab": 8, "bb": 10, "cb": 11, "fb": 4}
_TONICS = {**{name.lower(): tonic for tonic, name in enumerate(NAMES)}, **_FLATS, "e#": 5, "b#": 0}
_KEY = re.compile(r"(?:in )?(?:the )?(?:key of |key )?([a-g][#b]?) ?(?:-| )?(sharp|flat)? ?(major|minor|maj|min)")


def bpm_asked(prompt: str) -> int | None:
    """The BPM that a comma-separated prompt names; None for none, or more than one."""
    found = {bpm for part in prompt.split(",") if (bpm := bpm_of(fold(part))) is not None}
    return found.pop() if len(found) == 1 else None


def key_asked(prompt: str) -> Key | None:
    """The key that a comma-separated prompt names, as in "A minor" or "key of Eb major"; None for none or several."""
    matches = [_KEY.fullmatch(part.strip().lower().replace("♯", "#").replace("♭", "b")) for part in prompt.split(",")]
    found = {_key(match) for match in matches if match}
    return found.pop() if len(found) == 1 else None


def _key(match: re.Match[str]) -> Key:
    letter, sign, mode = match.groups()
    shift = {"sharp": 1, "flat": -1}.get(sign or "", 0)
    return Key((_TONICS[letter] + shift) % 12, mode.startswith("min"))


def in_tempo(found: float | None, asked: float) -> bool:
    """Whether a tempo lies within 4 % of the one asked for, octaves apart allowed; None is in no tempo."""
    return found is not None and any(abs(found / (asked * octave) - 1.0) <= AGREEMENT for octave in OCTAVES)


def in_key(found: Key | None, asked: Key) -> bool:
    """Whether the notes are those of the key asked for; its relative has the same."""
    return found is not None and same_notes(found, asked)


def tag_aucs(
    tags: npt.ArrayLike | None, reference_tags: npt.ArrayLike, prompts: Sequence[str], labels: Sequence[str]
) -> list[float | None]:
    """Per clip, how far the prompt's own labels rank above the others; None for a prompt without any.

    Which styles are missed, not how good a model is: the same clip for every prompt is good for some of them.

    Args:
        tags: (clips, labels) mean tag probabilities; None where they could not be had.
        reference_tags: the same of the real clips, by which they are standardised; at least 2.
    """
    if tags is None or len(np.atleast_2d(reference_tags)) < 2:
        return [None] * len(prompts)
    rows = standardised_tags(tags, reference_tags)[:, None] if prompts else ()
    found = [clip_aucs(row, [prompt], labels) for row, prompt in zip(rows, prompts, strict=True)]
    return [aucs[0] if aucs else None for aucs in found]


def adherence(
    clips: Sequence[ClipMeasures], prompts: Sequence[str], real: Sequence[ClipMeasures], real_prompts: Sequence[str]
) -> Adherence:
    """Tempo and key of clips against their prompts; clip i has prompt i.

    A model that makes one tempo whatever it is asked is right as often as that tempo is asked for. So the share that
    fits the *other* prompts is taken off, as shuffled pairs are from an alignment.
    """
    tempo, real_tempo = (
        _followed(*pair, _tempo, bpm_asked, in_tempo) for pair in ((clips, prompts), (real, real_prompts))
    )
    key, real_key = (
        _followed(*pair, lambda clip: clip.key, key_asked, in_key) for pair in ((clips, prompts), (real, real_prompts))
    )
    relative, note = _relative(tempo, real_tempo)
    return Adherence(tempo=tempo, real_tempo=real_tempo, relative_tempo=relative, key=key, real_key=real_key, note=note)


def _tempo(clip: ClipMeasures) -> float | None:
    return clip.tempo_bpm


def _relative(own: Followed, real: Followed) -> tuple[float | None, str]:
    if min(own.asked, real.asked) < LEAST_ASKED:
        return None, f"{min(own.asked, real.asked)} prompts name a tempo; at least {LEAST_ASKED} are needed"
    if own.others is None or real.others is None:
        return None, "every prompt names the same tempo, so that it cannot be told whether a model listens"
    gap = real.right / real.asked - real.others
    if gap < LEAST_GAP:
        return None, f"real clips fit their own prompts' tempo only {gap:.2f} better than the others'"
    return (own.right / own.asked - own.others) / gap, ""


def _followed(
    clips: Sequence[ClipMeasures],
    prompts: Sequence[str],
    found: Callable[[ClipMeasures], T | None],
    asked_of: Callable[[str], T | None],
    fits: Callable[[T | None, T], bool],
) -> Followed:
    asked = [(found(clip), wish) for clip, prompt in zip(clips, prompts, strict=True) if (wish := asked_of(prompt))]
    foreign = [fits(value, other) for value, wish in asked for _, other in asked if not fits(wish, other)]
    return Followed(
        asked=len(asked),
        right=sum(fits(value, wish) for value, wish in asked),
        others=sum(foreign) / len(foreign) if foreign else None,
    )
