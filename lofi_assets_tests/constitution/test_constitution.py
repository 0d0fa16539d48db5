"""Every gate at its limit, and every way in which a number must not pass."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lofi_assets.constitution.gates import (
    ENCODED_MEASURES,
    GUARDED_ASSETS,
    ConstitutionError,
    Gate,
    gates_of,
    gates_page,
    judge,
    judge_asset,
    judge_track,
    load_constitution,
    load_gates,
)
from lofi_assets.store import CONFIG_DIR
from lofi_assets_tests.conftest import REPOSITORY

GATES = load_gates()
NUMERIC = [gate for gate in GATES if isinstance(gate.limit, int | float) and not isinstance(gate.limit, bool)]
BOUNDED = [gate for gate in NUMERIC if gate.limit != math.inf]
BOOLEAN = [gate for gate in GATES if isinstance(gate.limit, bool)]
BY_ID = {gate.id: gate for gate in GATES}
PASSES = {
    "<": (True, False, False),
    "<=": (True, True, False),
    ">": (False, False, True),
    ">=": (False, True, True),
    "==": (False, True, False),
    "!=": (True, False, True),
}
"""Comparator -> whether just below, at and just above the limit passes."""

LIMITS: dict[str, tuple[str, object]] = {
    "audio.duration_min": (">=", 30),
    "audio.duration_max": ("<=", 180),
    "audio.clipping": ("<", 0.001),
    "audio.sample_rate": ("==", 48000),
    "audio.stereo": ("==", 2),
    "audio.bit_rate": ("==", 320),
    "quality.fad": ("<", 5.0),
    "quality.clap": (">", 0.7),
    "human.p_value": (">", 0.05),
    "tiers.opset_int8": ("==", 17),
    "tiers.audio_critical_bits": (">=", 16),
    "tiers.vocal_bits": (">=", 8),
    "tiers.fad_int8": ("<", 0.05),
    "tiers.fad_int4": ("<", 0.15),
}
"""The constitution's own numbers, copied: a limit changed in the table alone is found here."""


def measured(gate: Gate, value: object) -> Mapping[str, Any]:
    return {"value": value, "encoder": gate.encoder, "trained": True}


def around(gate: Gate) -> tuple[float | int, float | int, float | int]:
    limit = gate.limit
    assert isinstance(limit, int | float)
    if isinstance(limit, int):
        return limit - 1, limit, limit + 1
    return math.nextafter(limit, -math.inf), limit, math.nextafter(limit, math.inf)


def gate_of(**changes: object) -> Gate:
    values: dict[str, Any] = {"id": "x.y", "article": "", "scope": "asset", "measure": "x", "op": "<", "limit": 5.0}
    return Gate(**{**values, "why": "", "asset": "a", **changes})


def table(tmp_path: Path, *rows: Mapping[str, Any]) -> Path:
    path = tmp_path / "constitution.yaml"
    path.write_text(yaml.safe_dump({"version": "1.0.0", "gates": list(rows), "training_table": {}}), encoding="utf-8")
    return tmp_path


ROW = {"id": "a.b", "article": "I", "asset": "a", "scope": "asset", "measure": "m", "op": "==", "limit": 0, "why": "w"}


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", BOUNDED, ids=lambda gate: gate.id)
def test_a_number_passes_on_the_right_side_of_its_limit_only(gate: Gate) -> None:
    for value, expected in zip(around(gate), PASSES[gate.op], strict=True):
        if value >= 0 or gate.signed:
            assert judge(gate, measured(gate, value)).status == ("pass" if expected else "fail"), value


@pytest.mark.parametrize("gate", BOOLEAN, ids=lambda gate: gate.id)
def test_a_truth_value_passes_one_way_only(gate: Gate) -> None:
    assert judge(gate, gate.limit).status == "pass"
    assert judge(gate, not gate.limit).status == "fail"


@pytest.mark.parametrize(("gate_id", "rule"), LIMITS.items())
def test_the_limits_are_the_constitutions(gate_id: str, rule: tuple[str, object]) -> None:
    assert (BY_ID[gate_id].op, BY_ID[gate_id].limit) == rule


def test_absolute_quality_is_bound_to_the_encoder_its_limit_is_on() -> None:
    assert (BY_ID["quality.fad"].encoder, BY_ID["quality.clap"].encoder) == ("vggish", "laion_clap")


# --- what never passes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.id)
def test_what_is_missing_or_not_a_number_never_passes(gate: Gate) -> None:
    texts = [] if isinstance(gate.limit, str) else ["", "12"]
    values: list[Any] = [None, math.nan, math.inf, -math.inf, {}, {"value": None}, [], *texts]
    assert {judge(gate, value).status for value in values} == {"inconclusive"}
    assert not any(judge(gate, value).passed for value in values)


@pytest.mark.parametrize("gate", [gate for gate in NUMERIC if not gate.signed], ids=lambda gate: gate.id)
def test_a_negative_number_is_a_fault_where_none_can_be(gate: Gate) -> None:
    assert judge(gate, measured(gate, -0.5)).status == "inconclusive"
    assert judge(gate, measured(gate, -1)).status == "inconclusive"


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.id)
def test_an_untrained_encoder_never_passes(gate: Gate) -> None:
    value = gate.limit if gate.op in ("<=", ">=", "==") else 1
    verdict = judge(gate, {"value": value, "encoder": gate.encoder, "trained": False})
    assert verdict.status == "inconclusive"


@pytest.mark.parametrize("gate", [gate for gate in GATES if gate.measure in ENCODED_MEASURES], ids=lambda gate: gate.id)
@pytest.mark.parametrize("word", ["absent", None, False, "False", "false", "true", "True", 0, 1, 1.0, [], {}], ids=repr)
def test_an_encoder_counts_only_if_it_is_said_to_be_trained(gate: Gate, word: object) -> None:
    value = {"<": 0.0, ">": 1.0}[gate.op]
    given: dict[str, Any] = {"value": value, "encoder": gate.encoder} | ({} if word == "absent" else {"trained": word})
    assert judge(gate, given).status == "inconclusive"
    assert judge(gate, value).status == "inconclusive", "a number alone"
    assert judge(gate, given | {"trained": True}).passed


def test_every_gate_that_is_bound_to_an_encoder_is_known_to_come_from_one() -> None:
    assert {gate.measure for gate in GATES if gate.encoder or "fad" in gate.measure} == ENCODED_MEASURES


@pytest.mark.parametrize("encoder", ["musicnn", "", None, "VGGish"])
def test_a_number_on_another_encoders_scale_never_passes(encoder: str | None) -> None:
    verdict = judge(BY_ID["quality.fad"], {"value": 0.1, "encoder": encoder, "trained": True})
    assert verdict.status == "inconclusive" and "vggish" in verdict.note
    assert judge(BY_ID["quality.fad"], 0.1).status == "inconclusive"


@pytest.mark.parametrize("gate", [gate for gate in NUMERIC if not gate.encoder], ids=lambda gate: gate.id)
def test_a_truth_value_is_no_number(gate: Gate) -> None:
    assert {judge(gate, value).status for value in (True, False)} == {"inconclusive"}


@pytest.mark.parametrize("gate", BOOLEAN, ids=lambda gate: gate.id)
def test_a_number_or_a_word_is_no_truth_value(gate: Gate) -> None:
    assert {judge(gate, value).status for value in (0, 1, 1.0, "true", "True")} == {"inconclusive"}


def test_an_unmeasured_number_says_why() -> None:
    assert judge(gate_of(), {"value": None, "note": "no CLAP weights"}).note == "no CLAP weights"
    assert judge(gate_of(), None).note == "not measured"


def test_what_was_measured_is_said_before_what_is_noted() -> None:
    given = {"value": 0.5, "of": "16 pairs of 8 s", "note": "point +0.5 %"}
    assert judge(gate_of(), given).note == "16 pairs of 8 s; point +0.5 %"
    assert judge(gate_of(), given | {"note": ""}).note == "16 pairs of 8 s"


def test_zero_is_not_negative() -> None:
    assert judge(gate_of(), 0.0).passed and judge(gate_of(), -0.0).passed


def test_a_verdict_tells_a_person_the_number_and_the_limit() -> None:
    text = judge(gate_of(), {"value": 7.25, "note": "64 clips"}).text
    assert "7.25" in text and "< 5.0" in text and "64 clips" in text


@pytest.mark.parametrize(
    ("measured", "op", "limit", "said"),
    [
        # What is shown must never read as a number that would pass, nor the other way round.
        (180.02, "<=", 180, "measure = 180.02, must be <= 180"),
        (180.0000004, "<=", 180, "measure = 180.0000004, must be <= 180"),
        (29.999979, ">=", 30, "measure = 29.99998, must be >= 30"),
        (0.00099999999, "<", 0.001, "measure = 0.00099999999, must be < 0.001"),
        (0.0010000001, "<", 0.001, "measure = 0.0010000001, must be < 0.001"),
        (-1.3004, ">=", -1.3, "measure = -1.3004, must be >= -1.3"),
        (4.9999999, "<", 5.0, "measure = 4.9999999, must be < 5.0"),
        (5.0, "<", 5.0, "measure = 5, must be < 5.0"),
        (7.123456, "<", 5.0, "measure = 7.123, must be < 5.0"),
        (180.00000000000003, "<=", 180, "measure = 180.00000000000003, must be <= 180"),
        # An absence is no number, and a yes or no no comparison.
        (None, ">", 0.05, "measure: not measured, must be > 0.05"),
        (
            {"value": None, "note": "no answers yet"},
            ">",
            0.05,
            "measure: not measured, must be > 0.05 (no answers yet)",
        ),
        (None, "==", True, "measure: not measured, must be yes"),
        (False, "==", True, "measure = no, must be yes"),
        (True, "==", False, "measure = yes, must be no"),
        ("denied", "!=", "denied", "measure = denied, must be != denied"),
        (1, "==", 38, "measure = 1, must be == 38"),
        (math.nan, "<", 5.0, "measure = nan, must be < 5.0 (not a finite number)"),
        (0.5, "==", True, "measure = 0.5, must be yes (float where bool is asked)"),
    ],
)
def test_a_verdict_shows_what_was_compared(measured: object, op: str, limit: object, said: str) -> None:
    gate = Gate("a.b", "I", "asset", "measure", op, limit, "why", asset="x", signed=True)  # type: ignore[arg-type]
    assert judge(gate, measured).text == said


def test_a_file_that_is_too_long_is_told_the_way_out_and_a_short_one_is_not() -> None:
    limits = {gate.id: gate for gate in gates_of(load_gates(), asset="processed_tracks", scope="track")}
    assert judge(limits["audio.duration_max"], 180.02).text == (
        "duration_s = 180.02, must be <= 180; with `audio.segment: true` the profile has longer files cut into tracks "
        "of 60 to 120 s"
    )
    assert judge(limits["audio.duration_max"], 60.0).text == "duration_s = 60, must be <= 180"
    assert judge(limits["audio.duration_min"], 29.5).text == "duration_s = 29.5, must be >= 30"


# --- tracks and assets -----------------------------------------------------------------------------------------------


def test_a_track_is_rejected_by_the_first_rule_it_misses() -> None:
    gates = gates_of(GATES, asset="processed_tracks", scope="track")
    verdict = judge_track(gates, {"readable": True, "duration_s": 12.0, "clipped_share": 0.5})
    assert verdict is not None and verdict.gate.id == "audio.duration_min"
    assert judge_track(gates, {"readable": True, "duration_s": 60.0}) is None


def test_a_track_whose_measure_is_not_a_number_is_rejected() -> None:
    gates = gates_of(GATES, asset="processed_tracks", scope="track")
    verdict = judge_track(gates, {"clipped_share": math.nan})
    assert verdict is not None and verdict.gate.id == "audio.clipping"


def test_a_measure_that_an_asset_did_not_record_is_inconclusive_and_never_skipped() -> None:
    gates = gates_of(GATES, asset="dataset_manifest", scope="asset")
    assert [verdict.status for verdict in judge_asset(gates, {})] == ["inconclusive"] * len(gates)


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "~"}, "op is '~'"),
        ({"op": "=<"}, "op is '=<'"),
        ({"scope": "run"}, "scope is 'run'"),
        ({"severity": "INFO"}, "severity is 'INFO'"),
        ({"tolerance": 0.1}, "tolerance"),
        ({"holds": ["feature_cache"]}, "feature_cache, which has no guard"),
        ({"scope": "repository"}, "do not go together"),
        ({"asset": None}, "do not go together"),
    ],
)
def test_a_row_that_breaks_the_tables_rules_is_refused_by_name(
    tmp_path: Path, change: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConstitutionError, match=rf"gate a\.b.*{re.escape(message)}"):
        load_gates(table(tmp_path, {**ROW, **change}))


@pytest.mark.parametrize("key", sorted(ROW.keys() - {"asset"}))
def test_a_row_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConstitutionError, match=key):
        load_gates(table(tmp_path, {name: value for name, value in ROW.items() if name != key}))


def test_two_gates_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match=r"used twice: a\.b"):
        load_gates(table(tmp_path, ROW, {**ROW, "limit": 9}))


@pytest.mark.parametrize("text", ["", "gates: []", "version: [", "version: 1\ngates: []"])
def test_a_constitution_that_is_not_whole_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "constitution.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConstitutionError, match=r"constitution\.yaml"):
        load_constitution(tmp_path)


def test_a_missing_constitution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="cannot be read"):
        load_gates(tmp_path)


def test_check_names_are_unique_and_need_no_dot() -> None:
    names = [gate.check_name for gate in GATES]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_the_page_of_gates_lists_every_gate_with_its_rule_and_reason() -> None:
    page = gates_page()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert list(rows) == [gate.id for gate in GATES]
    assert all(gate.rule in rows[gate.id] and gate.why in rows[gate.id] for gate in GATES)
    assert load_constitution()["version"] in page


def test_every_gate_names_an_article_of_the_constitution() -> None:
    headings = re.findall(r"^#+ (.+)$", (REPOSITORY / "docs" / "constitution.md").read_text("utf-8"), re.MULTILINE)
    known = {heading.partition(" (")[0].strip() for heading in headings}
    text = (REPOSITORY / "docs" / "constitution.md").read_text("utf-8")
    for gate in GATES:
        section, _, part = gate.article.partition(" / ")
        assert section in known, gate.id
        assert not part or part in known or f"**{part}**" in text, gate.id


def test_every_guarded_asset_is_held_by_gates_and_only_by_gates_of_assets_before_it() -> None:
    order = list(dict.fromkeys(gate.asset for gate in GATES if gate.asset))
    for guarded in GUARDED_ASSETS:
        holding = [gate for gate in GATES if guarded in gate.holds]
        assert holding
        if guarded in order:
            assert all(order.index(gate.asset or "") < order.index(guarded) for gate in holding)


def test_a_release_waits_for_every_quality_gate_of_the_constitution() -> None:
    held = {gate.id for gate in GATES if "hub_release" in gate.holds}
    quality = {"quality.fad", "quality.clap", "human.p_value", "tiers.fad_int8", "tiers.fad_int4", "card.approved"}
    assert quality <= held


def test_the_configuration_is_the_checkouts() -> None:
    assert (CONFIG_DIR / "constitution.yaml").is_file()
