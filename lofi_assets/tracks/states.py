"""The states of a track and which steps between them are legal (data model, State Transitions)."""

from collections.abc import Mapping
from typing import get_args

from lofi_assets.errors import LofiError
from lofi_assets.records import TrackState

STATES: tuple[TrackState, ...] = get_args(TrackState)
"""In the order in which a track goes through them."""

STEPS: Mapping[TrackState, frozenset[TrackState]] = {
    "RAW": frozenset({"PROCESSED"}),
    "PROCESSED": frozenset({"TAGGED"}),
    "TAGGED": frozenset({"VERIFIED", "TRAINING_READY"}),
    "VERIFIED": frozenset({"TRAINING_READY"}),
    "TRAINING_READY": frozenset(),
}
"""State -> states that may follow; a review is optional. What changes a track (new audio, new tags) starts it anew."""


class StateError(LofiError, ValueError):
    """A step that the data model does not have."""


def advance(state: str, to: TrackState) -> TrackState:
    """`to`, if that step exists.

    Raises:
        StateError: `state` is unknown, or `to` does not follow it.
    """
    if state not in STATES:
        raise StateError(f"{state!r} is no state of a track; the data model has {', '.join(STATES)}")
    allowed = STEPS[state]
    if to not in allowed:
        after = ", ".join(name for name in STATES if name in allowed) or "nothing: it is made anew instead"
        raise StateError(f"a track cannot go from {state} to {to}; {state} is followed by {after}")
    return to
