"""Styles that people choose: their own file, and what becomes of an edit of the result."""

from pathlib import Path

import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.sources.licences import SourceError
from lofi_assets.store import CHOSEN_STYLES, STYLE_MAPPING, Store
from lofi_assets.tracks.curation import chosen_styles, hand_edits, take_over, write_mapping
from lofi_assets.tracks.prompt_table import write_prompt_rows
from lofi_assets_tests.stage_rows import prompt_row


def mapping(store: Store, **styles: list[str]) -> None:
    """What a person does to the result: change entries of the file as it stands."""
    path = store.metadata("style_mapping.json")
    write_json(path, {**read_json(path, default={}), **styles})


def chosen(store: Store) -> dict[str, list[str]]:
    return read_json(store.metadata(CHOSEN_STYLES), default={})


def test_what_the_platform_writes_is_nobodys_choice(store: Store) -> None:
    write_mapping(store, {"rain": ["CORE-01"]})
    assert chosen_styles(store) == {} and take_over(store) == ""
    assert not store.metadata(CHOSEN_STYLES).exists()


def test_an_edit_of_the_result_is_taken_over_once_with_a_message(store: Store) -> None:
    write_mapping(store, {"rain": ["CORE-01"], "snow": ["CORE-02"]})
    mapping(store, rain=["THEME-02"])
    assert chosen_styles(store) == {"rain": ("THEME-02",)}
    message = take_over(store)
    assert "rain" in message and "snow" not in message and CHOSEN_STYLES in message
    assert chosen(store) == {"rain": ["THEME-02"]}
    assert take_over(store) == "" and chosen_styles(store) == {"rain": ("THEME-02",)}


def test_an_edit_back_to_what_tagging_once_wrote_is_an_edit(store: Store) -> None:
    write_mapping(store, {"rain": ["CORE-01"]})
    write_mapping(store, {"rain": ["CORE-02"]})
    mapping(store, rain=["CORE-01"])
    assert hand_edits(store) == {"rain": ("CORE-01",)}


@pytest.mark.parametrize("written", ["cache/style_mapping.json", "metadata/style_mapping.json"])
def test_a_kill_while_the_result_is_written_leaves_no_false_choice(
    store: Store, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Killed right after one of the files was written, whichever."""
    write_mapping(store, {"rain": ["CORE-01"], "snow": ["CORE-01"]})

    def killed(path: Path, data: object) -> None:
        write_json(path, data)
        if store.relative(path) == written:
            raise KeyboardInterrupt

    monkeypatch.setattr("lofi_assets.tracks.curation.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_mapping(store, {"rain": ["CORE-02"], "snow": ["CORE-01"]})
    monkeypatch.undo()
    assert hand_edits(store) == {}
    write_mapping(store, {"rain": ["CORE-03"], "snow": ["CORE-01"]})
    assert hand_edits(store) == {}


def test_a_choice_can_be_withdrawn_in_the_file_that_people_write(store: Store) -> None:
    write_json(store.metadata(CHOSEN_STYLES), {"rain": ["THEME-02"]})
    write_mapping(store, {"rain": ["THEME-02"]})
    write_json(store.metadata(CHOSEN_STYLES), {})
    assert chosen_styles(store) == {}


def test_choices_of_a_library_without_a_copy_are_found_by_what_tagging_recorded(store: Store) -> None:
    """Data of a version that kept choices in the result, or whose cache was removed."""
    rows = [
        ("suggested", "suggested", ["CORE-01"], False, []),
        ("named", "human", ["CORE-02"], False, ["CORE-02"]),
        ("reviewed", "human", ["CORE-03"], True, []),
        ("both", "human", ["CORE-04"], True, ["CORE-05"]),
        ("edited", "suggested", ["CORE-06"], False, []),
    ]
    columns = ("style_origin", "style_ids", "reviewed_styles", "curated_styles")
    given = [prompt_row(row[0], **dict(zip(columns, row[1:], strict=True))) for row in rows]
    write_prompt_rows(store, given)
    write_json(store.metadata("style_mapping.json"), {row[0]: row[2] for row in rows} | {"edited": ["CORE-07"]})
    assert chosen_styles(store) == {"named": ("CORE-02",), "both": ("CORE-05",), "edited": ("CORE-07",)}


def test_styles_that_a_person_wrote_before_anything_was_tagged_are_choices(store: Store) -> None:
    mapping(store, rain=["THEME-02"], snow=[])
    assert chosen_styles(store) == {"rain": ("THEME-02",)}


@pytest.mark.parametrize("name", [CHOSEN_STYLES, STYLE_MAPPING])
@pytest.mark.parametrize("content", [[], "CORE-01", {"a": "CORE-01"}, {"a": None}, {"a": [1]}])
def test_choices_of_another_form_are_refused_by_name(store: Store, name: str, content: object) -> None:
    write_json(store.metadata(name), content)
    with pytest.raises(SourceError, match=name):
        chosen_styles(store)
