"""Opening a test of generated against real tracks: plan, excerpts and key in a folder of its own, then the ledger."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import Stored, write_typed
from lofi_assets.files.writing import atomic_folder, make_folder
from lofi_assets.listening import excerpts
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.items import Item, TestKey, Truth, audio_path, random_id
from lofi_assets.listening.ledger import Entry, TestKind, ended, of_test, opened, read_ledger, record
from lofi_assets.listening.order import TooFewExcerptsError, order_of
from lofi_assets.listening.plan import OBVIOUS, Plan, new_plan, plan_hash
from lofi_assets.metrics.embedding import Samples
from lofi_assets.metrics.listener_screening import Form
from lofi_assets.metrics.sequential import Spending
from lofi_assets.progress import over
from lofi_assets.store import Store

MOST_EXCERPTS = 96
"""Of each side, of recordings that are drawn; more is room on the disk for nothing."""
OBVIOUS_EXCERPTS = OBVIOUS + 2
"""The controls of a session, and one for the training of each form."""
MOST_TRIALS = 16
TRIES = 20
"""Sessions that are drawn before a test is opened, so that none fails when a listener has come."""

_RANDOM = secrets.SystemRandom()

AskedForm = Literal["single", "pair", "both"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording to be judged."""

    path: Path
    style_id: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a test is about."""

    about: str
    """SHA-256 of the checkpoint's adapter."""
    checkpoint_id: str
    generated: Sequence[Clip]
    real: Sequence[Clip]


def open_test(
    store: Store,
    judged: Judged,
    *,
    form: AskedForm,
    trials: int | None,
    listeners: int | None,
    seconds: float,
    spending: Spending,
    now: datetime,
) -> Plan:
    """Make a test and put it into the ledger, for ever.

    Args:
        trials: of one listener, without the controls; None for as many as there are excerpts for, up to 16.
        listeners: whose answers count at the last look; None for as many as prove true guessing with power 0.8.
    Raises:
        ListeningError: another one of the same checkpoint is still open; no style has recordings on both sides; too
            few excerpts for one listener; a recording that cannot be used; a plan that could prove nothing.
    """
    entries = read_ledger(store)
    tests = opened(entries, kind="ai_or_real", about=judged.about)
    if going_on := [entry.test for entry in tests if not ended(entries, entry.test)]:
        raise ListeningError(
            f"test {going_on[0]} of {judged.checkpoint_id} is still open; let it end, or close it: "
            f"lofi listen close {going_on[0]} --by NAME --reason TEXT"
        )
    answered = sum(bool(of_test(entries, entry.test, "started")) for entry in tests)
    styles = _shared_styles(judged)
    cut = _cut(store, judged, styles, seconds)
    drafts = {random_id(): item for item, _ in cut}

    def planned(asked: int) -> Plan:
        plan = new_plan(
            test=secrets.token_hex(4),
            about=judged.about,
            checkpoint_id=judged.checkpoint_id,
            made=now,
            earlier_tests=answered,
            forms=_forms(form, asked),
            listeners=listeners,
            seconds=seconds,
            spending=spending,
        )
        for _ in range(TRIES):
            order_of(drafts, plan)
        return plan

    plan = planned(trials) if trials else _largest(planned)
    whole = excerpts.alike([samples for _, samples in over(cut, "making excerpts", unit="excerpt")])
    played = [(item, excerpts.steps(samples)) for (item, _), samples in zip(cut, whole, strict=True)]
    write_test(store, plan.test, plan, played, sample_rate=excerpts.PLAYED_RATE)
    enter(store, plan, kind="ai_or_real", test=plan.test, about=plan.about, name=plan.checkpoint_id, now=now)
    return plan


def enter(store: Store, plan: Stored, *, kind: TestKind, test: str, about: str, name: str, now: datetime) -> Entry:
    """Put a test that was written into the ledger."""
    return record(
        store, at=now, event="opened", test=test, kind=kind, about=about, plan_sha256=plan_hash(plan), name=name
    )


def write_test(
    store: Store, test: str, plan: Stored, played: Sequence[tuple[Item, excerpts.Steps]], *, sample_rate: int
) -> None:
    """The folder of a test, as a whole: excerpts in random order under random names, the key, the plan."""
    order = list(played)
    _RANDOM.shuffle(order)
    make_folder(store.listening)
    with atomic_folder(store.listening / test) as folder:
        (folder / "audio").mkdir()
        items: dict[str, Item] = {}
        for item, samples in order:
            name = random_id()
            path = audio_path(folder, name)
            path.write_bytes(excerpts.wav(samples, sample_rate))
            items[name] = replace(item, sha256=sha256_file(path))
        TestKey(mac_key=secrets.token_hex(32), items=items).write(folder)
        write_typed(folder / "plan.json", plan)


def _forms(form: AskedForm, trials: int) -> dict[Form, int]:
    if trials % 4 or trials < 4:
        raise ListeningError(f"{trials} trials cannot be shared out evenly; take a multiple of 4")
    return {"single": trials // 2, "pair": trials // 2} if form == "both" else {form: trials}


def _largest(planned: Callable[[int], Plan]) -> Plan:
    """The plan with as many trials as there are excerpts for."""
    for trials in range(MOST_TRIALS, 4, -4):
        with suppress(TooFewExcerptsError):
            return planned(trials)
    return planned(4)


def _shared_styles(judged: Judged) -> set[str]:
    styles = {clip.style_id for clip in judged.generated} & {clip.style_id for clip in judged.real}
    if not styles:
        sides = [sorted({clip.style_id for clip in side}) for side in (judged.generated, judged.real)]
        raise ListeningError(f"no style has both: generated {sides[0]}, real {sides[1]}; give clips of the same styles")
    return styles


def _cut(store: Store, judged: Judged, styles: set[str], seconds: float) -> list[tuple[Item, Samples]]:
    """Excerpts of the styles that both sides have, and obvious ones made of the generated."""
    sides_of: dict[Truth, Sequence[Clip]] = {"ai": judged.generated, "real": judged.real}
    made = {truth: _side(store, clips, truth, styles, seconds) for truth, clips in sides_of.items()}
    if len(made["ai"]) < OBVIOUS_EXCERPTS:
        found = len(made["ai"])
        raise ListeningError(f"{found} generated excerpts of {seconds:g} s; give more clips, or ask for shorter ones")
    obvious = [
        (Item(truth="ai", source=item.source, style_id=item.style_id, sha256="", obvious=True), samples)
        for item, samples in _RANDOM.sample(made["ai"], OBVIOUS_EXCERPTS)
    ]
    return [*made["ai"], *made["real"], *((item, excerpts.made_obvious(samples)) for item, samples in obvious)]


def _side(
    store: Store, clips: Sequence[Clip], truth: Truth, styles: set[str], seconds: float
) -> list[tuple[Item, Samples]]:
    made: list[tuple[Item, Samples]] = []
    for clip in _RANDOM.sample(clips, len(clips)):
        if clip.style_id not in styles or len(made) >= MOST_EXCERPTS:
            continue
        inside = clip.path.is_relative_to(store.root)
        source = store.relative(clip.path) if inside else str(clip.path)
        item = Item(truth=truth, source=source, style_id=clip.style_id, sha256="")
        made += [(item, samples) for samples in excerpts.cuts(clip.path, seconds)]
    return made
