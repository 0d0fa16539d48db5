"""Text that people write by hand: what is refused, and where the message says that it stands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lofi_assets.files.hand_written import HandWrittenError, decoded, json_elements, members, parse_json, parse_yaml
from lofi_assets.near_names import meant

REFUSED = {
    '{"a": 1,\n "a": 2}': "line 2: the key 'a' stands twice (first on line 1); keep one",
    '[{"b": {"c": 1,\n"d": [1, {"c": 2}],\n"c": 3}}]': "line 3: the key 'c' stands twice (first on line 1)",
    '{"a": 1, "\\u0061": 2}': "line 1: the key 'a' stands twice",
    '{"cost": Infinity}': "line 1: cost is Infinity, which is no number",
    '{"cost": -Infinity}': "cost is -Infinity",
    '{"cost": 1e999}': "cost is 1e999",
    '{"x":\n [1, NaN]}': "line 2: x is NaN",
    "[NaN]": "a value is NaN",
    '{"n": ' + "9" * 5000 + "}": "n is 99999999999999999999, which is no number",
    '{"a": "\\ud800"}': 'line 1: "\\ud800" holds half of a character',
    '{"a": 1,}': "line 1, column",
    "": "line 1, column 1: not JSON",
    '{"a": 1}]': "not JSON (Extra data)",
    "[" * 100_000: "nested too deep",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_json_that_leaves_a_choice_is_refused_by_line_and_key(text: str) -> None:
    with pytest.raises(HandWrittenError) as refused:
        parse_json(text, where="sources.json")
    assert str(refused.value).startswith("sources.json: ") and REFUSED[text] in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_sound_json_is_read_as_python_reads_it(value: object, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert parse_json(text, where="x") == value
    (element,) = json_elements(f" [ {text} ]\n", where="x")
    assert (element.value, element.fault) == (value, "")
    if isinstance(value, dict):
        assert {member.key: member.value for member in members(text, 0)} == value


def test_one_bad_element_does_not_hide_the_others_and_its_line_is_that_of_the_file() -> None:
    found = json_elements('[{"a": 1},\n{"b": 1, "b": 2},\n{"c": NaN}, 4]', where="x")
    assert [element.fault[:20] for element in found] == ["", "line 2: the key 'b' ", "line 3: c is NaN, wh", ""]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'[\n1,\n"Caf\xe9"]', "line 3 holds the byte 0xe9, which is not UTF-8"),
        ("[]".encode("utf-16"), "saved as UTF-16"),
        (b"\xfe\xff\0[\0]", "saved as UTF-16"),
    ],
)
def test_bytes_that_are_no_utf_8_are_named_and_how_to_save_them(data: bytes, said: str) -> None:
    with pytest.raises(HandWrittenError, match="save it again with the encoding UTF-8") as refused:
        decoded(data, where="x.json")
    assert str(refused.value).startswith("x.json: ") and said in str(refused.value)


def test_a_byte_order_mark_at_the_start_is_dropped_and_no_other() -> None:
    assert decoded(b"\xef\xbb\xbflofi\xef\xbb\xbf", where="x") == "lofi\ufeff"


@pytest.mark.parametrize("text", ["limit: 5\nlimit: 50\n", "a: {b: 1, b: 2}", "'a': 1\na: 2", "[a: b"])
def test_yaml_that_leaves_a_choice_is_refused(text: str) -> None:
    with pytest.raises(HandWrittenError, match=r"x\.yaml.*line \d"):
        parse_yaml(text, where="x.yaml")


LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'ha'] * 9)}]\n" for n in range(10))


YAML_REFUSED = [
    (LAUGHS, "l0 stands inside of what has an anchor itself; write it out"),
    ("a: &a [*a]", "stands inside of what has an anchor itself"),
    ("[" * 100_000, "nested too deep"),
    ("[" * 2_000 + "]" * 2_000, "nested too deep"),
    ("a: 1\nday: 2026-13-45", r"'2026-13-45' is no timestamp; put it in quotes if it is text.*line 2"),
    ("n: " + "9" * 5_000, "is no int"),
    ("n: !!float many", "'many' is no float"),
]


def test_a_part_that_stands_in_two_places_is_read_as_tools_write_it() -> None:
    assert parse_yaml("a: &id001 [lofi]\nb: *id001\n", where="x.yaml") == {"a": ["lofi"], "b": ["lofi"]}


@pytest.mark.parametrize(
    ("text", "said"),
    YAML_REFUSED,
    ids=["a thousand million laughs", "itself", "deep", "deep and closed", "no day", "a long number", "no number"],
)
def test_yaml_that_no_machine_can_hold_or_that_says_nothing_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(HandWrittenError, match=said) as refused:
        parse_yaml(text, where="x.yaml")
    assert str(refused.value).startswith("x.yaml: not YAML") and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("Revoked", "revoked", True),
        ("revoekd", "revoked", True),
        ("revoke", "revoked", True),
        ("AI training-rights", "ai_training_rights", True),
        ("ai_traning_rigths", "ai_training_rights", True),
        ("ai_trainig_righs_", "ai_training_rights", True),
        ("Rain_01", "rain_01", True),
        ("rain_02", "rain_01", False),
        ("rain_011", "rain_01", False),
        ("provider_id", "provider", False),
        ("evidence_2", "evidence", False),
        ("a", "b", False),
        ("cost", "cost", False),
    ],
)
def test_a_slip_is_one_of_case_spacing_or_a_letter_and_no_digit(name: str, known: str, near: bool) -> None:
    assert meant(name, [known]) == (known if near else None)
