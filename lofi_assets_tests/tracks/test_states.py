"""RAW -> PROCESSED -> TAGGED -> (VERIFIED) -> TRAINING_READY, and no other way."""

from itertools import product

import pytest

from lofi_assets.records import Track, TrackState
from lofi_assets.tracks.states import STATES, STEPS, StateError, advance

LEGAL = {
    ("RAW", "PROCESSED"),
    ("PROCESSED", "TAGGED"),
    ("TAGGED", "VERIFIED"),
    ("TAGGED", "TRAINING_READY"),
    ("VERIFIED", "TRAINING_READY"),
}


@pytest.mark.parametrize(("state", "to"), sorted(product(STATES, STATES)))
def test_only_the_steps_of_the_data_model_exist(state: TrackState, to: TrackState) -> None:
    if (state, to) in LEGAL:
        assert advance(state, to) == to
    else:
        with pytest.raises(StateError, match=f"from {state} to {to}"):
            advance(state, to)


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(StateError, match="'READY' is no state"):
        advance("READY", "TAGGED")


def test_every_state_is_a_state_that_a_track_record_may_have() -> None:
    assert set(STEPS) == set(STATES)
    assert set(Track.model_json_schema()["properties"]["state"]["enum"]) == set(STATES)
