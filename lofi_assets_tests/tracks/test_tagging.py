"""Tagging: whose word counts, what is never invented, and prompts and lyrics that read back as they were written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lofi_assets.lyrics import text as lyrics
from lofi_assets.lyrics.text import LyricsError
from lofi_assets.records import TagCategoryName
from lofi_assets.styles import taxonomy as styles
from lofi_assets.styles.presets import load_presets, preset_tags
from lofi_assets.styles.prompt_text import PROMPT_CHARACTERS, Tag, parse_prompt, prompt_text
from lofi_assets.tracks import tagging
from lofi_assets.tracks.evidence import Evidence
from lofi_assets.tracks.tagging import TaggingError, TrackTags
from lofi_assets_tests.conftest import REPOSITORY

CONFIG = REPOSITORY / "config"
TAXONOMY = styles.load_taxonomy(CONFIG)
PRESETS = load_presets(CONFIG, TAXONOMY)
KNOWN: list[tuple[TagCategoryName, str]] = [
    (category.category, tag) for category in TAXONOMY.categories for tag in category.tags
]
KNOWN += [("tempo", styles.bpm_tag(bpm)) for bpm in (60, 72, 84, 120)]
WORDS = st.sampled_from([tag for _, tag in KNOWN] + ["no such tag"])
HEARD = {
    tagger: st.dictionaries(st.sampled_from(list(rules)), st.floats(0, 1), max_size=12)
    for tagger, rules in TAXONOMY.heard.items()
}


Heard = list[tuple[TagCategoryName, str]]


def tag(**evidence: Any) -> TrackTags:
    return tagging.tag_track(Evidence(track_id="track_001", **evidence), TAXONOMY, PRESETS)


def words(outcome: TrackTags, *, origin: str | None = None) -> set[str]:
    return {tag.tag for tag in outcome.tags if origin in (None, tag.origin)}


def as_tags(words_: Sequence[tuple[TagCategoryName, str]]) -> list[Tag]:
    return [Tag(category, word, "human", 1.0) for category, word in words_]


def test_curated_tags_win_over_everything_heard() -> None:
    outcome = tag(curated_tags=("Lo-Fi", "sad", "female vocal"), msd={"happy": 0.9, "instrumental": 0.9, "jazz": 0.5})
    assert words(outcome, origin="human") == {"lofi", "sad", "female vocals"}
    assert words(outcome, origin="audio_model") == {"jazz"}
    assert "happy (audio_model) contradicts sad (human) and is not used" in outcome.notes


def test_the_files_own_tags_win_over_the_audio_tagger() -> None:
    outcome = tag(metadata_tags=("Lo-Fi; Happy/Chill", "Other"), msd={"sad": 0.6})
    assert words(outcome, origin="metadata") == {"lofi", "happy", "chill"}
    assert "sad" not in words(outcome)


def test_unknown_curated_tags_are_listed_and_not_used() -> None:
    outcome = tag(curated_tags=("lofi", "shoegaze", "shoegaze", "tape hiss"))
    assert outcome.unknown_tags == ("shoegaze",)
    assert words(outcome, origin="human") == {"lofi", "tape hiss"}
    assert outcome.needs_review


def test_a_certain_tempo_gives_a_word_and_a_number() -> None:
    outcome = tag(bpm=82.3, bpm_confidence=0.8)
    assert {"laid-back", "82 bpm"} <= words(outcome, origin="signal")


@pytest.mark.parametrize(("bpm", "confidence"), [(None, 0.0), (82.0, 0.05), (float("nan"), 1.0), (300.0, 1.0)])
def test_an_uncertain_tempo_gives_nothing(bpm: float | None, confidence: float) -> None:
    assert not [tag for tag in tag(bpm=bpm, bpm_confidence=confidence).tags if tag.category == "tempo"]


def test_a_curators_tempo_word_outlives_an_octave_error() -> None:
    outcome = tag(curated_tags=("lofi", "slow"), bpm=140.0, bpm_confidence=0.9)
    assert "slow" in words(outcome)
    assert not {"uptempo", "140 bpm"} & words(outcome)


def test_measures_support_only_what_they_show() -> None:
    assert words(tag(signals={"dual_mono": True}), origin="signal") == {"mono"}
    assert words(tag(signals={"dual_mono": np.bool_(True)}), origin="signal") == {"mono"}
    assert words(tag(signals={"dual_mono": float("nan")}), origin="signal") == set()
    assert words(tag(signals={"edge_hz": 7000.0, "edge_drop_db": 30.0}), origin="signal") == {"low-pass filtered"}
    for nothing in ({}, {"edge_hz": 7000.0, "edge_drop_db": 4.0}, {"edge_hz": 16000.0, "edge_drop_db": 40.0}):
        assert words(tag(signals=nothing), origin="signal") == set()
    assert (
        words(tag(signals={"edge_hz": float("nan"), "edge_drop_db": 30.0, "dual_mono": None}), origin="signal") == set()
    )


def test_the_resting_answers_of_the_audio_tagger_are_no_evidence() -> None:
    """What it says of a sine, of noise, of speech and of a loop without guitar."""
    msd = {"ambient": 0.40, "electronic": 0.37, "Hip-Hop": 0.34}
    mtt = {"flute": 0.52, "fast": 0.41, "slow": 0.37, "guitar": 0.30, "drums": 0.25, "piano": 0.12}
    assert words(tag(msd=msd, mtt=mtt), origin="audio_model") == set()


def test_the_audio_tagger_names_a_kind_of_voice_rather_than_a_voice() -> None:
    outcome = tag(mtt={"vocals": 0.5, "female voice": 0.4})
    assert words(outcome, origin="audio_model") == {"female vocals"}
    assert any("no lyrics" in note for note in outcome.notes)


def test_a_label_that_the_map_lacks_is_an_error() -> None:
    with pytest.raises(TaggingError, match="musicnn_map"):
        tag(msd={"vaporwave": 0.9})


def test_a_track_without_evidence_has_a_style_and_a_genre_and_nothing_more() -> None:
    outcome = tag()
    assert outcome.tags == (Tag("genre", "lofi", "preset", 0.0),)
    assert (outcome.style_ids, outcome.style_confidence) == (("CORE-01",), 0.0)
    assert outcome.needs_review


def test_curated_styles_win_and_fill_genre_and_mood() -> None:
    outcome = tag(curated_styles=("CORE-03", "THEME-03", "CORE-99"), msd={"metal": 0.9})
    assert outcome.style_ids == ("CORE-03", "THEME-03")
    assert (outcome.style_confidence, outcome.style_origin) == (1.0, "human")
    assert words(outcome, origin="preset") == {"lofi", "jazzhop", "jazz", "smooth"}
    assert any("CORE-99" in note for note in outcome.notes)


def test_a_style_fills_nothing_that_a_person_said() -> None:
    outcome = tag(curated_styles=("CORE-03",), curated_tags=("boom bap", "moody"))
    assert words(outcome, origin="preset") == set()


def test_a_tempo_outside_the_curated_style_is_noted() -> None:
    outcome = tag(curated_styles=("CORE-06",), bpm=70.0, bpm_confidence=0.9)
    assert any("outside the tempo range of CORE-06" in note for note in outcome.notes)


@pytest.mark.parametrize("style_id", list(PRESETS))
def test_the_tags_of_a_preset_suggest_that_preset(style_id: str) -> None:
    preset = PRESETS[style_id]
    evidence = as_tags([(category, tag) for category, tags in preset_tags(preset).items() for tag in tags])
    tempo = Tag("tempo", styles.bpm_tag(sum(preset.tempo_range) / 2), "signal", 0.9)
    best, lead = tagging.suggest_style([*evidence, tempo], TAXONOMY, PRESETS)
    assert best == style_id
    assert lead >= tagging.STYLE_CONFIDENCE


def test_a_sung_style_needs_evidence_of_a_voice() -> None:
    shared = ("boom bap", "drum breaks", "turntables", "chopped samples")
    assert tag(curated_tags=shared).style_ids == ("CORE-04",)
    assert tag(curated_tags=(*shared, "rap"), lyrics="[Verse]\nwords").style_ids == ("VOCAL-03",)


def test_tempo_decides_between_styles_that_sound_alike() -> None:
    shared = ("synth bass", "drum machine", "synth pad", "dreamy")
    assert tag(curated_tags=shared, bpm=120.0, bpm_confidence=0.9).style_ids == ("CORE-06",)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=30), st.lists(WORDS, max_size=5), HEARD["msd"], HEARD["mtt"], st.floats(40, 200))
def test_a_prompt_is_canonical_free_of_contradiction_and_short_enough(
    curated: list[str], metadata: list[str], msd: dict[str, float], mtt: dict[str, float], bpm: float
) -> None:
    evidence = {"curated_tags": tuple(curated), "metadata_tags": tuple(metadata), "msd": msd, "mtt": mtt}
    outcome = tag(**evidence, bpm=bpm, bpm_confidence=0.9)
    prompt = prompt_text(outcome.tags)
    assert prompt and len(prompt) <= PROMPT_CHARACTERS
    read, unknown = parse_prompt(prompt, TAXONOMY)
    assert unknown == ()
    assert [(t.category, t.tag) for t in read] == [(t.category, t.tag) for t in outcome.tags]
    assert any(t.category == "genre" for t in read)
    assert len({t.tag for t in read}) == len(read)
    assert not [(a, b) for a in read for b in read if TAXONOMY.contradicts(a.tag, b.tag)]
    assert outcome == tag(**evidence, bpm=bpm, bpm_confidence=0.9)


@given(st.lists(st.sampled_from(KNOWN), max_size=20))
def test_a_prompt_reads_back_as_it_was_written(chosen: list[tuple[TagCategoryName, str]]) -> None:
    prompt = prompt_text(as_tags(chosen))
    read, unknown = parse_prompt(prompt, TAXONOMY)
    assert unknown == ()
    assert {(t.category, t.tag) for t in read} == set(chosen)
    assert prompt_text(read) == prompt


@given(st.permutations(KNOWN[:12]))
def test_a_prompt_does_not_depend_on_the_order_of_its_tags(chosen: list[tuple[TagCategoryName, str]]) -> None:
    assert prompt_text(as_tags(chosen)) == prompt_text(as_tags(KNOWN[:12]))


def test_a_prompt_stands_in_the_order_of_the_categories() -> None:
    tags, unknown = parse_prompt("No Vocals, rain, 72 BPM,slow\nvinyl, Rhodes Piano, , chill, lo-fi, xyz", TAXONOMY)
    assert prompt_text(tags) == "lofi, chill, rhodes, slow, 72 bpm, vinyl crackle, rain, instrumental"
    assert unknown == ("xyz",)


@pytest.mark.parametrize("raw", [None, "", "  \n\t\n", "[instrumental]", "\ufeff[Instrumental]\r\n"])
def test_no_lyrics_means_instrumental(raw: str | None) -> None:
    assert lyrics.lyrics_text(raw) == "[Instrumental]"


def test_markers_get_one_spelling_and_words_stay_as_they_are() -> None:
    raw = "[verse 1]\r\nRain on the window, \r\n\n\n\n[pre chorus]\nhold on\n[CHORUS]\nstay (stay)\n[Outro]"
    text = lyrics.lyrics_text(raw)
    assert text == "[Verse 1]\nRain on the window,\n\n[Pre-Chorus]\nhold on\n[Chorus]\nstay (stay)\n[Outro]"
    assert lyrics.lyrics_text(text) == text
    assert lyrics.has_words(text)
    assert not lyrics.has_words("[Intro]\n[Verse]\n[Outro]")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("[Verse]\nwords\n[Guitar wizardry]", r"line 3: unknown marker '\[Guitar wizardry\]'; use one of \[Intro\]"),
        ("words first\n[Verse]", "line 1: words before any section"),
        ("[Verse]\nsing [Chorus] here", "line 2: .* stands alone"),
        ("[Verse\nwords", "line 1: .* stands alone"),
        ("[Verse]\nwo\x00rds", "line 2: holds a control character"),
    ],
)
def test_broken_lyrics_are_refused_by_line(raw: str, message: str) -> None:
    with pytest.raises(LyricsError, match=message):
        lyrics.lyrics_text(raw)


@given(st.lists(st.sampled_from(["[Verse]", "[chorus 2]", "la la", "", "  x  "]), max_size=12))
def test_lyrics_that_pass_once_pass_again_unchanged(lines: list[str]) -> None:
    text = lyrics.lyrics_text("[Intro]\n" + "\n".join(lines))
    assert lyrics.lyrics_text(text) == text


@pytest.mark.parametrize(
    ("lyrics", "expected"),
    [("[Verse]\nwords", {"vocals"}), ("[Instrumental]", {"instrumental"}), ("[Intro]\n[Outro]", set())],
)
def test_a_lyrics_file_says_whether_there_is_a_voice(lyrics: str, expected: set[str]) -> None:
    assert words(tag(lyrics=lyrics), origin="human") == expected


def test_broken_lyrics_are_noted_and_say_nothing() -> None:
    outcome = tag(lyrics="[Nonsense]")
    assert any("unknown marker" in note for note in outcome.notes)
    assert words(outcome, origin="human") == set()


# --- what the file states, general words, absent voices --------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "measured", "confidence", "expected"),
    [
        (150.0, 75.2, 0.7, "150 bpm"),
        (75.0, 75.4, 0.7, "75 bpm"),
        (93.0, 75.0, 0.7, "75 bpm"),
        (120.0, 75.0, 0.7, "75 bpm"),
        (93.0, None, 0.0, "93 bpm"),
        (120.0, None, 0.0, None),
        (1e9, 75.0, 0.7, "75 bpm"),
        (float("nan"), None, 0.0, None),
    ],
)
def test_a_stated_tempo_settles_the_octave_and_alone_is_believed(
    stated: float, measured: float | None, confidence: float, expected: str | None
) -> None:
    outcome = tag(metadata_bpm=stated, bpm=measured, bpm_confidence=confidence)
    found = [tag.tag for tag in outcome.tags if tag.tag.endswith("bpm")]
    assert found == ([expected] if expected else [])
    assert any("the file states" in note for note in outcome.notes) == (stated == 93.0 and measured is not None)


def test_a_general_word_that_was_heard_is_not_repeated_beside_its_kind() -> None:
    outcome = tag(curated_tags=("jazzhop", "felt piano"), msd={"jazz": 0.6}, mtt={"piano": 0.7})
    assert words(outcome) >= {"jazzhop", "felt piano"} and not words(outcome) & {"jazz", "piano"}
    assert {"jazz", "piano"} <= words(tag(msd={"jazz": 0.6}, mtt={"piano": 0.7}))
    assert {"piano", "felt piano"} <= words(tag(curated_tags=("piano", "felt piano")))


def test_a_track_in_which_no_kind_of_voice_is_heard_is_instrumental() -> None:
    silent = {tagger: dict.fromkeys(rules, 0.05) for tagger, rules in TAXONOMY.heard.items()}
    assert "instrumental" in words(tag(**silent), origin="audio_model")
    assert "instrumental" not in words(tag(msd=silent["msd"], mtt=silent["mtt"] | {"woman": 0.2}))
    assert "instrumental" not in words(tag(msd=silent["msd"]))
    assert words(tag(**silent, curated_tags=("rap",))) & {"instrumental", "rap"} == {"rap"}


def test_a_prompt_says_lofi_before_what_it_leans_to() -> None:
    text = prompt_text(as_tags([("genre", "jazz"), ("genre", "boom bap"), ("genre", "lofi hip hop")]))
    assert text == "lofi hip hop, boom bap, jazz"


def test_a_season_is_not_suggested_from_sound_alone() -> None:
    heard: list[tuple[TagCategoryName, str]] = [
        ("genre", "jazz"),
        ("instruments", "piano"),
        ("instruments", "upright bass"),
        ("tempo", "80 bpm"),
    ]
    style, _ = tagging.suggest_style(as_tags(heard), TAXONOMY, PRESETS)
    assert PRESETS[style].category in ("core", "instrumental")


def test_a_style_of_an_instrument_is_not_suggested_without_that_instrument() -> None:
    heard: list[tuple[TagCategoryName, str]] = [
        ("genre", "jazz"),
        ("instruments", "piano"),
        ("tempo", "66 bpm"),
        ("vocal_type", "instrumental"),
    ]
    style, _ = tagging.suggest_style(as_tags(heard), TAXONOMY, PRESETS)
    assert PRESETS[style].category == "core"
    style, _ = tagging.suggest_style(as_tags([*heard, ("instruments", "saxophone")]), TAXONOMY, PRESETS)
    assert style == "INST-05"
