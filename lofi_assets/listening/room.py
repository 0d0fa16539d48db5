"""The listening room: every open test, who may come in, and their sessions, as the server holds them.

All calls come one after another (`server.py` has one thread for them), so nothing here is locked.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lofi_assets.files.hashing import sha256_file
from lofi_assets.listening.answers import truth_of
from lofi_assets.listening.arrivals import sessions_folder
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.excerpts import played
from lofi_assets.listening.headphones import ATTEMPTS, ROUNDS, TONES, tones
from lofi_assets.listening.invitations import read_invitations, token_hash
from lofi_assets.listening.items import TestKey, audio_path
from lofi_assets.listening.journal import Journal
from lofi_assets.listening.ledger import Entry, ended, of_test, opened, read_ledger, record
from lofi_assets.listening.order import Presentation, order_of, order_of_tiers
from lofi_assets.listening.plan import Plan, read_plan
from lofi_assets.listening.playback import Told
from lofi_assets.listening.session import RefusedError, Session
from lofi_assets.listening.tiers import TiersPlan, read_tiers_plan
from lofi_assets.store import Store

UNKNOWN = "This link is no invitation to a listening test. Please ask whoever sent it for another."
OVER = "This listening test is over. Thank you for coming."


@dataclass
class Seat:
    """One listener's session in its test."""

    entry: Entry
    plan: Plan | TiersPlan
    key: TestKey
    session: Session
    delivered: set[tuple[str, int]] = field(default_factory=set)
    """Excerpts that this process has handed out."""
    noted: bool = False
    """That it is finished stands in the ledger."""


class Room:
    """Over one data root."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock
        self._seats: dict[str, Seat] = {}

    def seat(self, token: str) -> Seat:
        """The session of an invitation, begun now or where it was left.

        Raises:
            RefusedError: no invitation, or to a test that has ended.
            ListeningError: the test's files do not hold.
        """
        asked = token_hash(token)
        if asked not in self._seats:
            self._seats[asked] = self._come_in(asked)
        return self._seats[asked]

    def _come_in(self, asked: str) -> Seat:
        entries = read_ledger(self.store)
        for entry in opened(entries):
            for invitation in read_invitations(self.store, entry.test):
                if hmac.compare_digest(invitation.token_sha256, asked):
                    return self._session(entry, invitation.listener, over=ended(entries, entry.test))
        raise RefusedError(UNKNOWN)

    def _session(self, entry: Entry, listener: str, *, over: bool) -> Seat:
        plan: Plan | TiersPlan = (
            read_plan(self.store, entry) if entry.kind == "ai_or_real" else read_tiers_plan(self.store, entry)
        )
        key = TestKey.read(self.store, entry.test)
        journal = Journal(sessions_folder(self.store, entry.test) / f"{listener}.jsonl", key.signing)
        session = Session.load(journal, seconds=plan.seconds)
        if not session.order:
            if over:
                raise RefusedError(OVER)
            order = order_of(key.items, plan) if isinstance(plan, Plan) else order_of_tiers(key.items)
            session = Session.begin(journal, order, seconds=plan.seconds, now=self.clock())
        session.end_if_answered(now=self.clock())
        seat = Seat(entry, plan, key, session)
        self._note(seat)
        return seat

    def state(self, seat: Seat) -> dict[str, Any]:
        """Where a listener is: all that the page is told."""
        session = seat.session
        asked = [shown for shown in session.order if shown.kind != "training"]
        found: dict[str, Any] = {
            "stage": session.stage,
            "kind": seat.entry.kind,
            "seconds": session.seconds,
            "total": len(asked),
            "done": sum(shown.id in session.answers for shown in asked),
        }
        if session.stage == "check":
            left = ATTEMPTS - len(session.checked)
            found["check"] = {"rounds": ROUNDS, "tones": TONES, "left": left, "attempt": len(session.checked)}
        if session.stage == "listen" and (shown := session.current):
            found["question"] = {
                "id": shown.id,
                "form": shown.form,
                "training": shown.kind == "training",
                "excerpts": len(shown.items),
                "heard": session.heard(shown),
            }
        return found

    def check(self, seat: Seat, quietest: Sequence[int]) -> bool:
        """Take an attempt at the headphone check."""
        return seat.session.check(quietest, now=self.clock())

    def tones(self, seat: Seat, number: int) -> bytes:
        """The tones of a round of the headphone check."""
        if seat.session.stage != "check" or not 0 <= number < ROUNDS:
            raise RefusedError("The headphone check is over.")
        return tones(seat.session.quietest[-1][number])

    def excerpt(self, seat: Seat, presentation: str, slot: int) -> bytes:
        """An excerpt of the question that is asked now.

        Raises:
            ListeningError: its file was changed.
        """
        shown = self._asked(seat, presentation, slot)
        item = shown.items[slot]
        path = audio_path(self.store.listening / seat.entry.test, item)
        if sha256_file(path) != seat.key.items[item].sha256:
            raise ListeningError(f"{path}: was changed; restore it from a copy, or close the test and open another")
        seat.delivered.add((shown.id, slot))
        return played(path)

    def tell(self, seat: Seat, presentation: str, slot: int, event: Told, *, position: float) -> dict[str, Any]:
        """Take an event of the player."""
        shown = self._asked(seat, presentation, slot)
        if (shown.id, slot) not in seat.delivered:
            raise RefusedError("Please load the excerpt again.")
        said = seat.session.tell(presentation, slot, event, position=position, now=self.clock())
        return {"message": said, "heard": seat.session.heard(shown)}

    def answer(self, seat: Seat, presentation: str, content: Mapping[str, Any]) -> str:
        """Take an answer; what to say about it in training, "" otherwise."""
        shown = next((one for one in seat.session.order if one.id == presentation), None)
        seat.session.answer(presentation, content, now=self.clock())
        self._note(seat)
        return self._feedback(seat, shown) if shown and shown.kind == "training" else ""

    def _note(self, seat: Seat) -> None:
        """Put into the ledger that a test has answers, and who has finished: such a session cannot be taken away."""
        session, test = seat.session, seat.entry.test
        if seat.noted or not session.answers:
            return
        entries = read_ledger(self.store)
        about = {"test": test, "kind": seat.entry.kind, "about": seat.entry.about}
        at = datetime.fromtimestamp(self.clock(), UTC)
        if not of_test(entries, test, "started"):
            record(self.store, at=at, event="started", **about)
        if session.stage != "done":
            return
        who = session.journal.session
        if all(entry.name != who for entry in of_test(entries, test, "finished")):
            record(self.store, at=at, event="finished", name=who, **about)
        seat.noted = True

    def _feedback(self, seat: Seat, shown: Presentation) -> str:
        truth = truth_of(shown, seat.key.items)
        right = seat.session.answers[shown.id].said == truth
        told = {
            "ai": "This one was made by AI.",
            "real": "This one was made by people.",
            "first": "The first one was made by AI, the second by people.",
            "second": "The second one was made by AI, the first by people.",
        }[truth or "ai"]
        return f"{'Right.' if right else 'Not quite.'} {told}"

    def _asked(self, seat: Seat, presentation: str, slot: int) -> Presentation:
        shown = seat.session.current
        if seat.session.stage != "listen" or shown is None or shown.id != presentation:
            raise RefusedError("This question is not asked now.")
        if not 0 <= slot < len(shown.items):
            raise RefusedError("There is no such excerpt.")
        return shown
