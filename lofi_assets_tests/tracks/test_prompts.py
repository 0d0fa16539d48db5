"""Prompt and lyrics files of processed tracks, and whose word decides their style."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution.gates import gates_of, judge_asset, load_gates
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.sources.curator_files import CuratorFiles, Sidecars
from lofi_assets.sources.style_taxonomy import describe_taxonomy, vocabulary
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.styles.presets import category_of
from lofi_assets.styles.strict_yaml import StyleError
from lofi_assets.tracks import prompts
from lofi_assets.tracks.curation import chosen_styles, curated_tempo_ranges
from lofi_assets.tracks.prompt_table import read_prompts
from lofi_assets.tracks.prompts import prompt_paths, write_prompts
from lofi_assets.tracks.tagged_tracks import categories, evidence, tag_tracks
from lofi_assets.tracks.track_table import TrackRow, accepted_tracks, write_tracks
from lofi_assets_tests.defs.test_asset_pages import assert_reads_well
from lofi_assets_tests.stage_rows import track_row

PROMPT = "lofi, chill, rhodes, 74 bpm"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two accepted tracks as the audio chain leaves them; a curator wrote a prompt for the first."""
    store = Store(tmp_path / "data")
    write_tracks(store, [processed("a"), processed("b"), processed("c", status="rejected")])
    raw(store, "a_prompt.txt", PROMPT)
    return store


def processed(track_id: str, *, status: str = "accepted", **measures: Any) -> TrackRow:
    return track_row(track_id, status=status, measures={"tempo_bpm": 74.2, "tempo_confidence": 0.9, **measures})


def raw(store: Store, name: str, text: str) -> None:
    path = store.raw / "royalty-free" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def curate(store: Store, **styles: list[str]) -> None:
    """What a person does: change entries of the file as it stands."""
    path = store.metadata("style_mapping.json")
    write_json(path, {**read_json(path, default={}), **styles})


def mapping(store: Store) -> dict[str, list[str]]:
    return read_json(store.metadata("style_mapping.json"))


# --- files -----------------------------------------------------------------------------------------------------------


def test_every_accepted_track_gets_a_prompt_and_lyrics_beside_its_audio(store: Store) -> None:
    outcome = write_prompts(store)
    assert_reads_well(outcome, root=store.root)
    for track_id in ("a", "b"):
        folder = store.processed / "core"
        assert (folder / f"{track_id}_lyrics.txt").read_text("utf-8") == "[Instrumental]"
        assert "lofi" in (folder / f"{track_id}_prompt.txt").read_text("utf-8")
    assert not (store.processed / "core" / "c_prompt.txt").exists()
    assert outcome.values == {
        "missing_sidecars": 0,
        "undocumented_tags": 0,
        "tracks_without_style": 0,
        "unused_curated_tags": {"value": 0, "note": ""},
    }
    assert (outcome.counts["tracks"], outcome.counts["recomputed"]) == (2, 2)


def test_a_curators_tags_are_in_the_prompt(store: Store) -> None:
    write_prompts(store)
    words = (store.processed / "core" / "a_prompt.txt").read_text("utf-8").split(", ")
    assert {"lofi", "chill", "rhodes", "74 bpm"} <= set(words)


def test_a_curators_tag_that_the_taxonomy_lacks_is_counted_and_not_used(store: Store) -> None:
    raw(store, "a_prompt.txt", f"{PROMPT}, zzyzx core")
    outcome = write_prompts(store)
    assert outcome.values["unused_curated_tags"] == {"value": 1, "note": "'zzyzx core' of a"}
    assert outcome.values["undocumented_tags"] == 0
    assert "zzyzx" not in (store.processed / "core" / "a_prompt.txt").read_text("utf-8")


def test_an_unchanged_library_writes_no_prompt_again(store: Store) -> None:
    first = write_prompts(store)
    path = store.processed / "core" / "a_prompt.txt"
    before = path.stat().st_mtime_ns
    again = write_prompts(store)
    assert (again.counts["recomputed"], again.data_version) == (0, first.data_version)
    assert path.stat().st_mtime_ns == before


def test_a_prompt_that_was_deleted_is_written_again(store: Store) -> None:
    write_prompts(store)
    path = store.processed / "core" / "b_prompt.txt"
    path.unlink()
    assert write_prompts(store).values["missing_sidecars"] == 0 and path.is_file()


def test_a_changed_prompt_recomputes_its_own_track_only(store: Store) -> None:
    first = write_prompts(store)
    raw(store, "a_prompt.txt", "lofi, sad, piano, 74 bpm")
    again = write_prompts(store)
    assert (again.counts["stale"], again.counts["unchanged"]) == (1, 1)
    assert again.data_version != first.data_version


def test_lyrics_are_kept_with_their_structure(store: Store) -> None:
    raw(store, "a_lyrics.txt", "[verse]\r\nrain on the window\r\n\r\n[Chorus]\r\nslow down")
    write_prompts(store)
    found = (store.processed / "core" / "a_lyrics.txt").read_bytes().decode()
    assert found == "[Verse]\nrain on the window\n\n[Chorus]\nslow down"


def test_lyrics_without_structure_send_the_track_to_quarantine(store: Store) -> None:
    raw(store, "a_lyrics.txt", "just words")
    outcome = write_prompts(store)
    rows = {row.track_id: row for row in read_prompts(store)}
    assert (rows["a"].status, rows["a"].rule) == ("rejected", "prompts.lyrics")
    assert rows["b"].status == "tagged"
    assert "line 1" in read_json(store.quarantine / "prompts" / "a.json")["reason"]
    assert outcome.tracks["prompts.lyrics"] == {"accepted": 1, "violating": 0, "rejected": 1}
    raw(store, "a_lyrics.txt", "[Verse]\njust words")
    assert write_prompts(store).counts["rejected"] == 0
    assert not (store.quarantine / "prompts" / "a.json").exists()


def test_an_empty_library_has_no_prompts(tmp_path: Path) -> None:
    outcome = write_prompts(Store(tmp_path))
    assert outcome.counts["tracks"] == 0 and read_prompts(Store(tmp_path)) == []


# --- styles ----------------------------------------------------------------------------------------------------------


def test_every_track_has_a_known_style_in_the_mapping(store: Store) -> None:
    write_prompts(store)
    assert mapping(store).keys() == {"a", "b"}
    _, presets = vocabulary()
    assert all(styles and set(styles) <= presets.keys() for styles in mapping(store).values())


def test_a_curators_style_decides_folder_and_tempo_range(store: Store) -> None:
    curate(store, a=["SEASON-02", "CORE-01"])
    assert categories(store)(accepted_tracks(store))["a"] == "seasonal"
    assert curated_tempo_ranges(store) == {"a": vocabulary()[1]["SEASON-02"].tempo_range}
    write_prompts(store)
    assert mapping(store)["a"] == ["SEASON-02", "CORE-01"]


def test_a_curators_style_stays_however_often_prompts_are_written(store: Store) -> None:
    curate(store, a=["SEASON-02"])
    first = write_prompts(store)
    for _ in range(2):
        again = write_prompts(store)
        assert mapping(store)["a"] == ["SEASON-02"]
        assert again.data_version == first.data_version
        assert categories(store)(accepted_tracks(store))["a"] == "seasonal"


def test_a_curators_change_of_a_suggested_style_is_kept(store: Store) -> None:
    write_prompts(store)
    curate(store, b=["THEME-03"])
    write_prompts(store)
    assert mapping(store)["b"] == ["THEME-03"]


def test_a_style_named_before_its_track_is_processed_is_not_lost(store: Store) -> None:
    curate(store, later=["VOCAL-01"])
    write_prompts(store)
    assert chosen_styles(store)["later"] == ("VOCAL-01",)


def test_a_style_that_a_person_writes_into_the_result_meanwhile_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is written anew at the end of a run that may take minutes; the next run then reads the choice."""
    write_prompts(store)
    tag = tag_tracks

    def slowly(*arguments: Any) -> Any:
        tagged = tag(*arguments)
        curate(store, a=["THEME-02"])
        return tagged

    monkeypatch.setattr(prompts, "tag_tracks", slowly)
    write_prompts(store)
    monkeypatch.undo()
    assert chosen_styles(store)["a"] == ("THEME-02",)
    write_prompts(store)
    assert mapping(store)["a"] == ["THEME-02"]


def test_a_style_that_does_not_exist_is_not_used_and_said(store: Store) -> None:
    curate(store, a=["LOFI-99"])
    outcome = write_prompts(store)
    (shown,) = [row for row in outcome.rows if row["track_id"] == "a"]
    assert "LOFI-99" in shown["notes"] and shown["review"] and "LOFI-99" not in shown["styles"]


def test_the_first_style_is_the_folder() -> None:
    assert [category_of([style]) for style in ("CORE-01", "SEASON-01", "THEME-01", "INST-01", "VOCAL-01")] == [
        *("core", "seasonal", "thematic", "instrumental", "vocal")
    ]


# --- evidence --------------------------------------------------------------------------------------------------------


def test_a_tempo_that_could_not_be_told_says_nothing(store: Store) -> None:
    found = evidence(processed("b", tempo_bpm=None, tempo_confidence=None), (), {}, Sidecars("", None, ""))
    assert (found.bpm, found.bpm_confidence, found.curated_tags) == (None, 0.0, ())


def test_what_the_audio_model_heard_reaches_the_tagger(store: Store) -> None:
    row = replace(processed("a"), heard={"msd": {"jazz": 0.6}, "mtt": {"piano": 0.8}})
    found = evidence(row, ("CORE-03",), {}, CuratorFiles(store).beside(row.raw_path))
    assert (found.msd, found.mtt, found.curated_styles) == ({"jazz": 0.6}, {"piano": 0.8}, ("CORE-03",))
    assert found.curated_tags == ("lofi", "chill", "rhodes", "74 bpm")


def test_prompt_and_lyrics_stand_beside_the_audio() -> None:
    assert prompt_paths(processed("a").audio_path) == ("processed/core/a_prompt.txt", "processed/core/a_lyrics.txt")


def test_the_taxonomy_documents_every_tag_of_its_38_presets() -> None:
    outcome = describe_taxonomy()
    assert outcome.values == {"presets": 38, "undocumented_tags": 0}
    assert outcome.counts["categories"] == 7 and len(outcome.rows) == 38


@pytest.mark.parametrize(
    ("written", "instead", "values"),
    [
        ("warm", "warmish", {"presets": 38, "undocumented_tags": 1}),
        ("- style_id: CORE-07", "- style_id: CORE-06", {"presets": 37, "undocumented_tags": 0}),
    ],
)
def test_undocumented_tags_and_absent_presets_fail_their_gates(
    tmp_path: Path, written: str, instead: str, values: dict[str, int]
) -> None:
    shutil.copytree(CONFIG_DIR / "styles", tmp_path / "styles")
    core = tmp_path / "styles" / "presets" / "core.yaml"
    core.write_text(core.read_text().replace(written, instead))
    outcome = describe_taxonomy(tmp_path)
    assert outcome.values == values and str(core) in outcome.details["refused"]
    gates = gates_of(load_gates(), asset="style_taxonomy", scope="asset")
    assert [verdict.status for verdict in judge_asset(gates, outcome.values)].count("fail") == 1


def test_presets_that_contradict_themselves_are_no_measured_fault_but_an_error(tmp_path: Path) -> None:
    shutil.copytree(CONFIG_DIR / "styles", tmp_path / "styles")
    core = tmp_path / "styles" / "presets" / "core.yaml"
    core.write_text(core.read_text().replace("tempo_range: [70, 90]", "tempo_range: [90, 70]"))
    with pytest.raises(StyleError, match="tempo_range"):
        describe_taxonomy(tmp_path)
