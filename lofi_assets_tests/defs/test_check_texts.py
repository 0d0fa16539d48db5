"""What a check says: the outcome and the number first, then who broke the rule, what follows, and what to do."""

import pytest

from lofi_assets.constitution.gates import Gate, judge, load_gates
from lofi_assets.constitution.verdict_text import NEXT_STEP, REMEDIES, effect, remedy, sentence, track_sentence
from lofi_assets.constitution.verdicts import track_rules

GATES = {gate.id: gate for gate in load_gates()}
CLIPPING = GATES["audio.clipping"]


def counts(*, rejected: int = 0, accepted: int = 0, violating: int = 0) -> dict[str, int]:
    return {"accepted": accepted, "violating": violating, "rejected": rejected}


def test_a_track_rule_counts_who_it_rejected_and_names_them() -> None:
    found = track_sentence(CLIPPING, counts(rejected=1, accepted=48), {"rejected": ["too_hot_master_01"]})
    assert found == "Pass: 1 rejected, 48 accepted. In quarantine: too_hot_master_01."


def test_only_the_first_names_stand_in_the_sentence() -> None:
    names = [f"t{number}" for number in range(20)]
    found = track_sentence(CLIPPING, counts(rejected=31, accepted=2), {"rejected": names})
    assert found.endswith("In quarantine: t0, t1, t2 and 28 more.")


def test_an_accepted_track_that_breaks_a_rule_is_named() -> None:
    found = track_sentence(CLIPPING, counts(accepted=3, violating=1), {"violating": ["loud"]})
    assert found.startswith("Fail: 1 accepted track breaks the rule clipped_share < 0.001") and "Let in: loud." in found


def test_tracks_behind_the_counts_are_found() -> None:
    found = track_rules(
        [CLIPPING, GATES["audio.silence"]],
        accepted=[
            ("fine", {"clipped_share": 0.0, "silent_share": 0.1}),
            ("loud", {"clipped_share": 1, "silent_share": 0}),
        ],
        rejected=[("hot", "audio.clipping"), ("short", "audio.duration_min")],
    )
    assert found["tracks"]["audio.clipping"] == counts(accepted=2, violating=1, rejected=1)
    assert found["named"] == {"audio.clipping": {"rejected": ["hot"], "violating": ["loud"]}}


@pytest.mark.parametrize(
    ("gate", "measure", "said"),
    [
        (
            "quality.fad",
            {"value": 9.1234567, "encoder": "vggish", "trained": True},
            "Fail: fad is 9.123, must be below 5",
        ),
        ("quality.fad", {"value": 1.05, "encoder": "musicnn"}, "Inconclusive: fad is 1.05, measured with musicnn"),
        ("human.p_value", {"value": None, "note": "no answers yet"}, "Not measured: no answers yet"),
        ("human.p_value", None, "Not measured (p_value must be above 0.05)"),
        ("dataset.hash", True, "Pass: hash_verified is yes, must be yes"),
        ("tracks.rejected_share", 0.5, "Pass: rejected_share is 0.5, must be at most 0.5"),
        ("audio.duration_max", 180.0000021, "Fail: duration_s is 180.000002, must be at most 180"),
        (
            "quality.fad",
            {"value": 5.00004, "encoder": "vggish", "trained": True},
            "Fail: fad is 5.00004, must be below 5",
        ),
        (
            "prompts.unused_curated_tags",
            {"value": 1, "note": "zz of a"},
            "Fail: unused_curated_tags is 1, must be 0 (zz",
        ),
    ],
)
def test_a_verdict_starts_with_outcome_and_number(gate: str, measure: object, said: str) -> None:
    assert sentence(judge(GATES[gate], measure)).startswith(said)


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_no_gate_shows_none_or_python(gate: Gate) -> None:
    for value in (None, gate.limit):
        found = sentence(judge(gate, value))
        assert "None" not in found and "True" not in found and "==" not in found


def test_quarantine_is_not_called_blocking() -> None:
    for gate in GATES.values():
        assert effect(gate).startswith("Quarantine") == (gate.scope == "track")
    assert effect(GATES["dataset.leak"]).startswith("What follows in the run is stopped. Holds back merged_model")
    assert effect(GATES["tracks.rejected_share"]) == "A warning; the run goes on."


def test_every_gate_has_something_to_do_and_a_place_to_begin() -> None:
    for gate in GATES.values():
        if gate.asset:
            assert remedy(gate, "inconclusive") and remedy(gate, "fail")
    assert GATES.keys() >= REMEDIES.keys()
    assert NEXT_STEP.keys() == {gate.asset for gate in GATES.values() if gate.asset}
