"""One listener's session: what was asked, heard and answered, held in memory and line by line on the disk.

Whatever the page is told stands on the disk before: a session that is loaded from its lines goes on where it was, and a
killed server loses at most how far an excerpt had been played.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from lofi_assets.files.typed import parsed, plain
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.headphones import ATTEMPTS, quietest_tones
from lofi_assets.listening.journal import Journal, Line
from lofi_assets.listening.order import Presentation
from lofi_assets.listening.playback import Playback, Told, told, why_not

Stage = Literal["check", "listen", "done", "stopped"]
TIER_SECONDS = 3.0
"""Of each condition of a comparison of tiers that must be heard, besides the tolerance."""
SAID: Mapping[str, tuple[str, ...]] = {"single": ("ai", "real"), "pair": ("first", "second")}


class RefusedError(ListeningError):
    """The page asked for something that the session does not allow now; the message is for the listener."""


@dataclass(frozen=True)
class Answer:
    """One answer, as the server took it."""

    said: str
    """"" for ratings."""
    ratings: tuple[int, ...]
    confidence: int
    seconds: float
    """From when everything had been heard."""


@dataclass
class Session:
    """The state; change it by its methods only, each of which writes before it returns."""

    journal: Journal
    seconds: float
    """Length of an excerpt."""
    order: tuple[Presentation, ...] = ()
    quietest: list[list[int]] = field(default_factory=list)
    """Of every attempt at the headphone check, which tones were the quietest."""
    checked: list[bool] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    heard_at: dict[str, float] = field(default_factory=dict)
    playback: dict[tuple[str, int], Playback] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    """Stalls, changes of speed, muting: how often."""
    finished_at: float | None = None
    void: tuple[str, ...] = ()
    _lines: int = 0

    @classmethod
    def load(cls, journal: Journal, *, seconds: float) -> "Session":
        """From its lines; with an empty order before it was begun, or if that line is void."""
        session = cls(journal, seconds)
        lines, session.void = journal.read()
        for line in lines:
            session._take(line)
        return session

    @classmethod
    def begin(cls, journal: Journal, order: Sequence[Presentation], *, seconds: float, now: float) -> "Session":
        """A new one.

        Raises:
            ListeningError: lines of it are there, which do not hold any more.
        """
        session = cls.load(journal, seconds=seconds)
        if session.void or session.order:
            raise ListeningError(
                f"{journal.path}: is there already; restore it from a copy or invite the listener anew"
            )
        session._write(now, event="begun", order=[plain(one) for one in order], quietest=quietest_tones())
        return session

    @property
    def stage(self) -> Stage:
        if self.finished_at is not None:
            return "done"
        if not any(self.checked):
            return "stopped" if len(self.checked) >= ATTEMPTS else "check"
        return "listen"

    @property
    def current(self) -> Presentation | None:
        """The first question without an answer."""
        return next((one for one in self.order if one.id not in self.answers), None)

    def needed(self, shown: Presentation) -> float:
        """Seconds of each excerpt that must be heard."""
        return min(TIER_SECONDS, self.seconds) if shown.form == "tiers" else self.seconds

    def heard(self, shown: Presentation) -> list[bool]:
        """Of each excerpt, whether it was heard."""
        if shown.id in self.heard_at:
            return [True] * len(shown.items)
        return [self._state(shown, slot).complete for slot in range(len(shown.items))]

    def check(self, quietest: Sequence[int], *, now: float) -> bool:
        """Take an attempt at the headphone check; whether it is passed."""
        if self.stage != "check":
            raise RefusedError("The headphone check is over.")
        passed = list(quietest) == self.quietest[-1]
        again = {} if passed else {"quietest": quietest_tones()}
        self._write(now, event="check", passed=passed, **again)
        return passed

    def tell(self, presentation: str, slot: int, event: Told, *, position: float, now: float) -> str:
        """Take an event of the player; what to tell the listener, "" if nothing."""
        shown = self._asked(presentation)
        if not 0 <= slot < len(shown.items):
            raise RefusedError("There is no such excerpt.")
        before, needed = self._state(shown, slot), self.needed(shown)
        after = told(before, event, position=position, now=now, needed=needed)
        self.playback[shown.id, slot] = after
        if event != "beat":
            self._write(now, event=event, presentation=shown.id, slot=slot, position=round(position, 2))
        if shown.id not in self.heard_at and all(self.heard(shown)):
            self._write(now, event="heard", presentation=shown.id)
        if event in ("beat", "play") or (event == "pause" and not after.spoilt):
            return ""
        return why_not(after, needed)

    def answer(self, presentation: str, content: Mapping[str, Any], *, now: float) -> None:
        """Take an answer; one that is there already stays as it is, so that a page may send it again.

        Raises:
            RefusedError: not everything was heard, or it is no answer to this question.
        """
        if presentation in self.answers:
            return
        shown = self._asked(presentation)
        if not all(self.heard(shown)):
            raise RefusedError("Please listen to the end first.")
        taken = _content(shown, content)
        self._write(
            now,
            event="answer",
            presentation=shown.id,
            seconds=round(now - self.heard_at[shown.id], 3),
            passes=[self._state(shown, slot).passes for slot in range(len(shown.items))],
            **taken,
        )
        self.end_if_answered(now=now)

    def end_if_answered(self, *, now: float) -> None:
        """Where a kill came between the last answer and the end, write the end."""
        if self.order and self.current is None and self.finished_at is None:
            self._write(now, event="finished")

    def _asked(self, presentation: str) -> Presentation:
        shown = self.current
        if self.stage != "listen" or shown is None or shown.id != presentation:
            raise RefusedError("This question is not asked now.")
        return shown

    def _state(self, shown: Presentation, slot: int) -> Playback:
        return self.playback.get((shown.id, slot), Playback())

    def _write(self, now: float, **content: Any) -> None:
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        self._take(self.journal.add(self._lines, at=at, **content))

    def _take(self, line: Line) -> None:
        """What a line says, whether it was just written or is read again."""
        self._lines = line["n"] + 1
        at = datetime.fromisoformat(line["at"]).timestamp()
        presentation = line.get("presentation", "")
        match line["event"]:
            case "begun":
                self.order = tuple(_presentation(one) for one in line["order"])
                self.quietest.append(line["quietest"])
            case "check":
                self.checked.append(line["passed"])
                self.quietest += [line["quietest"]] if "quietest" in line else []
            case "heard":
                self.heard_at[presentation] = at
            case "answer":
                ratings = tuple(line.get("ratings", ()))
                answer = Answer(line.get("said", ""), ratings, line.get("confidence", 0), line["seconds"])
                self.answers[presentation] = answer
            case "finished":
                self.finished_at = at
            case "stall" | "rate" | "mute":
                self.faults[line["event"]] = self.faults.get(line["event"], 0) + 1


def _presentation(data: object) -> Presentation:
    return parsed(Presentation, data, where="the order of a session", remedy="close the test and open another")


def _content(shown: Presentation, content: Mapping[str, Any]) -> dict[str, Any]:
    if shown.form == "tiers":
        ratings = content.get("ratings")
        wanted = len(shown.items) - 1
        if not isinstance(ratings, list) or len(ratings) != wanted or not all(_is_within(r, 0, 100) for r in ratings):
            raise RefusedError(f"Please give {wanted} ratings from 0 to 100.")
        return {"ratings": ratings}
    said, confidence = content.get("said"), content.get("confidence")
    if said not in SAID[shown.form]:
        raise RefusedError("Please choose one of the two.")
    if not _is_within(confidence, 1, 5):
        raise RefusedError("Please say how sure you are.")
    return {"said": said, "confidence": confidence}


def _is_within(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
