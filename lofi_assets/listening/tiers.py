"""Comparing the precision tiers by ear: MUSHRA with FP32 as the reference (`metrics/mushra.py`).

listening/<test>/plan.json      pieces, conditions and the rule, fixed when the test is opened
listening/<test>/result.json    the summary, written whenever it is asked for
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass

from lofi_assets.audio.encode import SAMPLE_RATE
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.listening import excerpts
from lofi_assets.listening.answers import sessions
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.items import Item, TestKey
from lofi_assets.listening.ledger import Entry
from lofi_assets.listening.opening import enter, write_test
from lofi_assets.listening.plan import plan_hash, plan_path
from lofi_assets.metrics.embedding import Samples
from lofi_assets.metrics.mushra import ANCHOR_HZ, REFERENCE, MushraResult, Rating, mushra_result
from lofi_assets.store import Store

MOST_PIECES = 8
"""Of about two minutes each; more tires listeners."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TiersPlan:
    """Of a comparison of tiers. Who rates the hidden reference below 90 in more than 15 % of the pieces is left out."""

    test: str
    about: str
    made: datetime
    pieces: int
    conditions: tuple[str, ...]
    seconds: float


def open_tiers_test(
    store: Store, tiers: Mapping[str, Mapping[str, Path]], *, about: str, seconds: float, now: datetime
) -> TiersPlan:
    """Make a comparison and put it into the ledger.

    Args:
        tiers: condition -> piece -> recording; `fp32` is the reference.
        about: fingerprint of the tiers.
    Raises:
        ListeningError: FP32 or every other tier is missing, or recordings that cannot be used.
    """
    others = sorted(set(tiers) - {"fp32"})
    if "fp32" not in tiers or not others:
        raise ListeningError("no clips of FP32 and another tier: materialise quantized_tiers first")
    shared = sorted(set.intersection(*(set(pieces) for pieces in tiers.values())))[:MOST_PIECES]
    played: list[tuple[Item, excerpts.Steps]] = []
    for piece in shared:
        for condition, samples in _conditions({tier: pieces[piece] for tier, pieces in tiers.items()}, seconds).items():
            item = Item(truth="ai", source=piece, style_id="", sha256="", condition=condition)
            played.append((item, excerpts.steps(samples)))
    if not played:
        raise ListeningError("the tiers share no piece: materialise quantized_tiers again")
    plan = TiersPlan(
        test=secrets.token_hex(4),
        about=about,
        made=now,
        pieces=len(shared),
        conditions=(REFERENCE, *others, *ANCHOR_HZ),
        seconds=seconds,
    )
    write_test(store, plan.test, plan, played, sample_rate=SAMPLE_RATE)
    enter(store, plan, kind="tiers", test=plan.test, about=about, name="tiers", now=now)
    return plan


def read_tiers_plan(store: Store, entry: Entry) -> TiersPlan:
    """The plan of a comparison, as it was when it was opened.

    Raises:
        ListeningError: it is gone, or was changed.
    """
    path = plan_path(store, entry.test)
    try:
        plan = read_typed(path, TiersPlan, remedy="restore it from a copy, or open another test")
    except StoreError as error:
        raise ListeningError(str(error)) from error
    if plan is None or plan_hash(plan) != entry.plan_sha256:
        raise ListeningError(f"{path}: is gone or was changed; restore it from a copy, or open another test")
    return plan


def tiers_result(store: Store, entry: Entry) -> MushraResult:
    """The summary so far, also written beside the sessions.

    Raises:
        ListeningError: plan or key are gone.
    """
    plan = read_tiers_plan(store, entry)
    key = TestKey.read(store, entry.test)
    ratings: list[Rating] = []
    for session in sessions(store, entry.test, key, seconds=plan.seconds):
        if session.finished_at is None:
            continue
        for shown in session.order:
            answer = session.answers.get(shown.id)
            for item, score in zip(shown.items[1:], answer.ratings if answer else (), strict=False):
                about = key.items[item]
                ratings.append(
                    Rating(listener=session.journal.session, piece=about.source, condition=about.condition, score=score)
                )
    result = mushra_result(ratings)
    write_typed(store.listening / entry.test / "result.json", result)
    return result


def _conditions(files: Mapping[str, Path], seconds: float) -> dict[str, Samples]:
    """The same excerpt of every tier at one gain, that of the reference, and its anchors; (2, frames) at 48 kHz."""
    cut: dict[str, Samples] = {}
    for tier, path in files.items():
        found = excerpts.cuts(path, seconds, most=1)
        if not found:
            raise ListeningError(f"{path}: is shorter than {seconds:g} s; ask for shorter excerpts")
        cut[REFERENCE if tier == "fp32" else tier] = found[0]
    level = excerpts.loudness(cut[REFERENCE])
    cut |= {name: excerpts.low_passed(cut[REFERENCE], hz) for name, hz in ANCHOR_HZ.items()}
    gained = {name: excerpts.gained(samples, level) for name, samples in cut.items()}
    return _below_clipping({name: excerpts.faded(samples, SAMPLE_RATE) for name, samples in gained.items()})


def _below_clipping(made: Mapping[str, Samples]) -> dict[str, Samples]:
    """All turned down by one gain if any would clip."""
    loudest: Sequence[float] = [float(np.abs(samples).max()) for samples in made.values()]
    gain = min(1.0, 0.89 / max(loudest))
    return {name: (samples * np.float32(gain)).astype(np.float32) for name, samples in made.items()}
