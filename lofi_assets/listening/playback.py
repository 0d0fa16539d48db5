"""How much of an excerpt somebody has heard, by the server's clock and what the page tells of its player.

A pass begins at the start of the excerpt. Between two events only so much time counts as has gone by on the server and
in the excerpt; a pass at another speed, muted or interrupted by a stall has to be repeated, and nothing is lost by it.
"""

from dataclasses import dataclass, replace
from typing import Literal

Told = Literal["play", "beat", "pause", "ended", "stall", "rate", "mute"]
"""beat: once a second while it plays; rate and mute: the speed is no longer 1, the sound was turned off."""

TOLERANCE_S = 1.0
"""What may be missing of a pass: the first and the last event are on their way for a while."""
LONGEST_GAP_S = 5.0
"""Between two events; more of it does not count, since a page that says nothing may play nothing."""
START_S = 0.3
SPOILT = {
    "stall": "the sound stopped on the way",
    "rate": "it was played at another speed",
    "mute": "the sound was turned off",
}


@dataclass(frozen=True)
class Playback:
    """One excerpt in one presentation."""

    heard_s: float = 0.0
    """Of the present pass."""
    playing_since: float | None = None
    """Server's clock at the last event while it plays."""
    position: float = 0.0
    spoilt: str = ""
    """Why the present pass does not count."""
    passes: int = 0
    """Passes that were begun."""
    complete: bool = False
    """Whether one pass was heard to the end, or as far as was asked for."""


def told(state: Playback, event: Told, *, position: float, now: float, needed: float) -> Playback:
    """The state after an event.

    Args:
        position: of the player in the excerpt, in seconds, as the page says.
        now: the server's clock in seconds.
        needed: how many seconds must be heard.
    """
    state = _credited(state, position=position, now=now)
    if event == "play":
        if position <= START_S:
            state = replace(state, heard_s=0.0, spoilt="", passes=state.passes + 1)
        return replace(state, playing_since=now, position=position)
    if event in SPOILT:
        return replace(state, spoilt=SPOILT[event], playing_since=None, position=position)
    if event == "beat":
        return replace(state, playing_since=None if state.playing_since is None else now, position=position)
    done = state.complete or (not state.spoilt and state.heard_s >= needed - TOLERANCE_S)
    return replace(state, playing_since=None, position=position, complete=done)


def why_not(state: Playback, needed: float) -> str:
    """What to tell somebody whose pass has ended and does not count; "" if it does."""
    if state.complete:
        return ""
    if state.spoilt:
        return f"Please play it again from the start: {state.spoilt}."
    return f"Please play it again from the start: {state.heard_s:.0f} of {needed:.0f} seconds were heard."


def _credited(state: Playback, *, position: float, now: float) -> Playback:
    if state.playing_since is None:
        return state
    gone = min(now - state.playing_since, max(0.0, position - state.position) + 0.25, LONGEST_GAP_S)
    return replace(state, heard_s=state.heard_s + max(0.0, gone))
