"""What shows that an encoder is the one that its name says: published weights, known answers, and outputs that differ.

Names and shapes of tensors prove nothing: VGGish with random weights has them all, hears everything alike, and reads a
FAD of 1e-4 for white noise. So an encoder is asked about clips whose answers are known before any number of it counts,
and what it answered is kept with the numbers.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.results import EncoderProof, ProofCheck

ANSWER_TOLERANCE = 5e-3
"""Length of the difference to the recorded answer, relative to its own. CPUs, threads and libraries differ by 1e-5 here
and half precision by 1e-3; random weights of the right shapes by 1, a last layer left off by .3."""

LEAST_AUDIO_SPREAD = 0.1
"""Mean distance between the probes' embeddings, relative to their mean length: tones, drums and noise are not alike."""

MOST_TEXT_COSINE = 0.9
"""Mean cosine between unlike captions. Text towers that were lost in a conversion read .9993 (laion/larger_clap_music,
mteb#5069), working ones .3 (larger_clap_general)."""

_ANSWERS = Path(__file__).with_name("known_answers.json")


def proof_of(encoder: object) -> EncoderProof | None:
    """What an encoder was asked; None for one that cannot say."""
    found = getattr(encoder, "proof", None)
    return found if isinstance(found, EncoderProof) else None


def why_untrained(encoder: object) -> str:
    """In words, for a note beside a number that is None."""
    proof = proof_of(encoder)
    because = f" ({proof.text})" if proof and not proof.trained else ""
    return f"{getattr(encoder, 'name', 'the encoder')} is untrained{because}: its distances mean nothing"


def published_weights(sha256: str, published: dict[str, str], *, decides: bool) -> ProofCheck:
    """Whether a file is one that its authors published.

    Args:
        published: sha256 -> what it is of.
        decides: whether another file fails; where weights are converted by users, another hash says nothing.
    """
    what = published.get(sha256)
    told = f"weights are {what}" if what else f"weights {sha256[:12]} are no published file known here"
    return ProofCheck(name="weights", value=None, passed=bool(what) if what or decides else None, told=told)


def known_answer(found: npt.ArrayLike, recorded: npt.ArrayLike, *, source: str) -> ProofCheck:
    """An embedding against the one on record.

    Args:
        source: where the answer on record comes from.
    """
    expected = np.asarray(recorded, dtype=np.float64)
    answer = np.asarray(found, dtype=np.float64)
    same_shape = answer.shape == expected.shape
    apart = float(np.linalg.norm(answer - expected) / np.linalg.norm(expected)) if same_shape else np.inf
    told = f"answer to a probe is off by {apart:.2g} of its length (at most {ANSWER_TOLERANCE:g}; {source})"
    return ProofCheck(name="known answer", value=apart, passed=bool(apart <= ANSWER_TOLERANCE), told=told)


def audio_spread(embeddings: npt.ArrayLike | Sequence[npt.ArrayLike]) -> ProofCheck:
    """Whether probes that are nothing alike are heard as different: the mean vectors of each, (clips, dim)."""
    rows = np.asarray(embeddings, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1).mean()
    gaps = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(len(rows), k=1)]
    spread = float(gaps.mean() / length) if length > 0 and np.isfinite(rows).all() else 0.0
    told = f"unlike probes lie {spread:.2g} of their length apart (at least {LEAST_AUDIO_SPREAD:g})"
    return ProofCheck(name="audio spread", value=spread, passed=spread >= LEAST_AUDIO_SPREAD, told=told)


def text_spread(unit_rows: npt.ArrayLike) -> ProofCheck:
    """Whether unlike captions are read as different: (texts, dim), each of unit length."""
    rows = np.asarray(unit_rows, dtype=np.float64)
    cosine = float((rows @ rows.T)[np.triu_indices(len(rows), k=1)].mean())
    told = f"unlike captions have a mean cosine of {cosine:.4f} (at most {MOST_TEXT_COSINE:g})"
    return ProofCheck(name="text spread", value=cosine, passed=bool(cosine <= MOST_TEXT_COSINE), told=told)


@cache
def answers() -> dict[str, Any]:
    """The answers on record, by encoder (`known_answers.json` says where each comes from)."""
    found: dict[str, Any] = json.loads(_ANSWERS.read_text(encoding="utf-8"))
    return found


def proven(checks: Iterable[ProofCheck]) -> EncoderProof:
    """The proof that checks make."""
    return EncoderProof(checks=tuple(checks))
