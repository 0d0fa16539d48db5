"""What metrics give back is stored without NaN, and comes back as it was."""

import math
from typing import Any

import pytest

from lofi_assets.files.typed import Stored, parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics.results import Evaluation, ListeningResult, NoiseDistances, TierFidelity
from lofi_assets_tests.metrics.stand_in_results import CLAP, EVALUATION, FIDELITY, LISTENING, evaluation, fidelity

KINDS: list[tuple[type[Stored], dict[str, Any]]] = [
    (Evaluation, EVALUATION),
    (Evaluation, EVALUATION | {"clap": CLAP, "tag_alignment": None}),
    (TierFidelity, FIDELITY),
    (ListeningResult, LISTENING | {"forms": {}, "look": 3, "looks": 3, "adjusted_p": 0.65}),
]


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_a_result_is_read_and_written_again_as_it_was(kind: type[Stored], data: dict[str, Any]) -> None:
    assert plain(parsed(kind, data, where="file", remedy="again")) == data


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_stored_as_none(number: float) -> None:
    assert fidelity(upper=number).upper is None and NoiseDistances(fad=number, kad=1.0) == NoiseDistances(kad=1.0)
    measured = evaluation(fad=EVALUATION["fad"] | {"value": number, "interval": [number, 2.0]}, clap=CLAP)
    assert (measured.fad.value, measured.fad.interval) == (None, (None, 2.0))
    assert evaluation(clap=CLAP | {"lower": number}).clap == evaluation(clap=CLAP | {"lower": None}).clap


@pytest.mark.parametrize(
    "change",
    [{"fad": {"value": 1.0}}, {"kid": 1.0}, {"style_coverage": {}}, {"trained": "maybe"}, {"clap_note": None}],
)
def test_a_result_of_another_version_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=rf"file: is of another version .*{next(iter(change))}.*; measure again"):
        parsed(Evaluation, EVALUATION | change, where="file", remedy="measure again")
