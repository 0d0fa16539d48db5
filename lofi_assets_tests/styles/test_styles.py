"""The taxonomy, the presets and the licence table as the project ships them, and what the loader refuses."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lofi_assets.records import STYLE_COUNTS
from lofi_assets.sources.licences import load_licences
from lofi_assets.styles import taxonomy as styles
from lofi_assets.styles.presets import load_presets, preset_tags, taxonomy_hash
from lofi_assets.styles.prompt_text import prompt_variants
from lofi_assets.styles.strict_yaml import StyleError
from lofi_assets.styles.taxonomy import Taxonomy
from lofi_assets_tests.conftest import REPOSITORY

CONFIG = REPOSITORY / "config"
TAXONOMY = styles.load_taxonomy(CONFIG)
PRESETS = load_presets(CONFIG, TAXONOMY)
SPELLINGS = [tag for category in TAXONOMY.categories for tag in (*category.tags, *category.canonical_forms)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A copy of the shipped configuration that a test may break."""
    shutil.copytree(CONFIG / "styles", tmp_path / "styles")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_seven_categories_stand_in_the_order_of_a_prompt() -> None:
    assert [category.category for category in TAXONOMY.categories] == [
        "genre",
        "mood",
        "instruments",
        "tempo",
        "production",
        "atmosphere",
        "vocal_type",
    ]


def test_all_38_presets_of_the_data_model_are_there() -> None:
    assert len(PRESETS) == 38
    assert Counter(preset.category for preset in PRESETS.values()) == STYLE_COUNTS


def test_every_preset_is_distinct_and_named() -> None:
    tags = {frozenset(sum(preset_tags(preset).values(), ())) for preset in PRESETS.values()}
    assert len(tags) == len({preset.name for preset in PRESETS.values()}) == 38
    closest = max((len(a & b) / len(a | b), sorted(a & b)) for a, b in combinations(tags, 2))
    assert closest[0] < 0.7, closest


def test_every_tag_of_a_preset_is_canonical_in_its_own_category() -> None:
    for preset in PRESETS.values():
        for category, tags in preset_tags(preset).items():
            assert all(TAXONOMY.canonical(tag) == (category, tag) for tag in tags), preset.style_id


def test_every_tag_belongs_to_one_category() -> None:
    counts = Counter(tag for category in TAXONOMY.categories for tag in category.tags)
    assert max(counts.values()) == 1


def test_a_preset_never_mixes_seasons_or_a_voice_with_instrumental() -> None:
    for preset in PRESETS.values():
        fixed = [tag for category, tags in preset_tags(preset).items() if category != "mood" for tag in tags]
        assert not [pair for pair in combinations(fixed, 2) if TAXONOMY.contradicts(*pair)], preset.style_id


def test_instrumental_styles_have_no_voice_and_vocal_styles_have_one() -> None:
    for preset in PRESETS.values():
        if preset.category == "vocal":
            assert preset.vocal_type not in (None, "instrumental")
        else:
            assert preset.vocal_type == "instrumental"


def test_a_child_inherits_what_it_leaves_open() -> None:
    parent, child = PRESETS["CORE-04"], PRESETS["VOCAL-03"]
    assert child.extends == "CORE-04"
    assert child.base_tags == parent.base_tags
    assert child.instruments != parent.instruments
    assert (child.vocal_type, parent.vocal_type) == ("rap", "instrumental")


@given(st.sampled_from(SPELLINGS), st.sampled_from([str.upper, str.title, "  {} ".format, "{}.".format]))
def test_a_canonical_form_is_its_own_canonical_form(spelling: str, disguise: Callable[[str], str]) -> None:
    known = TAXONOMY.canonical(spelling)
    assert known is not None
    assert TAXONOMY.canonical(disguise(spelling)) == known
    assert TAXONOMY.canonical(known[1]) == known


@given(st.text(max_size=30))
def test_canonicalising_any_text_twice_changes_nothing(text: str) -> None:
    known = TAXONOMY.canonical(text)
    assert known is None or TAXONOMY.canonical(known[1]) == known


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("Lo-Fi", ("genre", "lofi")),
        ("lo_fi hip-hop", ("genre", "lofi hip hop")),
        ("lo\u2011fi", ("genre", "lofi")),  # a non-breaking hyphen, as word processors write it
        ("Rhodes Piano", ("instruments", "rhodes")),
        ("Hip-Hop", ("genre", "hip hop")),
        ("Hip-Hop/Rap", ("genre", "hip hop")),
        ("laid back", ("tempo", "laid-back")),
        ("82 BPM", ("tempo", "82 bpm")),
        ("082bpm", ("tempo", "82 bpm")),
        ("BPM: 82", ("tempo", "82 bpm")),
        ("82.4 bpm", ("tempo", "82 bpm")),
        ("39 bpm", None),
        ("201 bpm", None),
        ("shoegaze", None),
        ("", None),
    ],
)
def test_spellings_lead_to_the_canonical_tag(spelling: str, canonical: tuple[str, str] | None) -> None:
    assert TAXONOMY.canonical(spelling) == canonical


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("slow", "uptempo", True),
        ("instrumental", "female vocals", True),
        ("instrumental", "vocal chops", False),
        ("happy", "sad", True),
        ("winter", "summer", True),
        ("happy", "chill", False),
        ("82 bpm", "84 bpm", True),
        ("82 bpm", "82 bpm", False),
        ("slow", "140 bpm", True),
        ("slow", "84 bpm", False),
        ("lofi", "140 bpm", False),
    ],
)
def test_contradictions_hold_both_ways(a: str, b: str, expected: bool) -> None:
    assert TAXONOMY.contradicts(a, b) is expected
    assert TAXONOMY.contradicts(b, a) is expected


@given(st.integers(40, 200))
def test_a_measured_tempo_never_contradicts_its_own_word(bpm: int) -> None:
    word = TAXONOMY.tempo_word(bpm)
    assert word is not None
    assert not TAXONOMY.contradicts(word, styles.bpm_tag(bpm))


def test_every_label_of_the_audio_tagger_is_mapped_or_ignored_with_a_reason(reference_dir: Path) -> None:
    labels = json.loads((reference_dir / "musicnn" / "labels.json").read_text(encoding="utf-8"))
    assert list(TAXONOMY.heard["msd"]) == labels["MSD"]
    assert list(TAXONOMY.heard["mtt"]) == labels["MTT"]


def test_what_the_audio_tagger_hears_is_in_the_vocabulary() -> None:
    rules = [rule for tagger in TAXONOMY.heard.values() for rule in tagger.values()]
    assert len(rules) == 100
    assert all(bool(rule.tag) != bool(rule.reason) for rule in rules)
    assert all(TAXONOMY.canonical(rule.tag) for rule in rules if rule.tag)


def test_the_fingerprint_ignores_comments_and_sees_meaning(config: Path) -> None:
    before = taxonomy_hash(TAXONOMY, PRESETS)
    edit(config / "styles" / "taxonomy.yaml", "categories:", "# a comment\ncategories:")
    assert fingerprint(config) == before
    edit(config / "styles" / "presets" / "core.yaml", "tempo_range: [70, 90]", "tempo_range: [70, 91]")
    assert fingerprint(config) != before


def fingerprint(config: Path) -> str:
    taxonomy: Taxonomy = styles.load_taxonomy(config)
    return taxonomy_hash(taxonomy, load_presets(config, taxonomy))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("taxonomy.yaml", "      - chillhop\n", "      - chillhop\n      - chill\n", "already means 'chill' in genre"),
        ("taxonomy.yaml", "lofi beats: lofi", "lofi beats: lowfi", "alias of 'lowfi'"),
        ("taxonomy.yaml", "other: [uptempo]", "other: [allegro]", "'allegro' is not a canonical tag"),
        ("taxonomy.yaml", "measured: [76, 89]", "measured: [77, 89]", "must be measured from 76"),
        ("taxonomy.yaml", "chill hop: chillhop", "chill hop: chillhop\n      chill hop: jazzhop", "stands twice"),
        ("taxonomy.yaml", "categories:", "categories: [", "not YAML"),
        ("musicnn_map.yaml", "{tag: jazz, at: 0.50}", "{tag: jaz, at: 0.50}", "msd.jazz: 'jaz'"),
        ("musicnn_map.yaml", "{tag: jazz, at: 0.50}", "{tag: jazz, at: 3}", "each label needs"),
        ("presets/core.yaml", "style_id: CORE-02", "style_id: CORE-08", "the data model counts"),
        ("presets/core.yaml", "extends: CORE-01", "extends: CORE-99", "CORE-02 extends 'CORE-99'"),
        ("presets/core.yaml", "name: Classic Lofi Hip Hop\n", "name: Classic\n  extends: CORE-02\n", "own descendant"),
        ("presets/core.yaml", "[rhodes, bass, drums]", "[rhodes piano, bass, drums]", "'rhodes piano' is no canonical"),
        ("presets/core.yaml", "tempo_range: [70, 90]", "tempo_range: [90, 70]", "tempo_range"),
        ("presets/core.yaml", "tempo_range: [70, 90]", "tempo_rnage: [70, 90]", "unknown fields ['tempo_rnage']"),
        ("presets/core.yaml", "swung drums, warm]", "dusty, clean]", "exclude each other"),
        ("presets/core.yaml", "  vocal_type: instrumental", "  vocal_type: [instrumental]", "breaks the data model"),
    ],
)
def test_a_broken_configuration_is_refused_by_file_and_key(
    config: Path, file: str, old: str, new: str, message: str
) -> None:
    edit(config / "styles" / file, old, new)
    with pytest.raises(StyleError) as caught:
        load_presets(config, styles.load_taxonomy(config))
    assert message in str(caught.value)
    assert Path(file).name in str(caught.value)


def test_two_presets_with_the_same_tags_are_refused(config: Path) -> None:
    path = config / "styles" / "presets" / "core.yaml"
    presets = yaml.safe_load(path.read_text(encoding="utf-8"))
    presets[1] = presets[0] | {"style_id": "CORE-02", "name": "Twin"}
    path.write_text(yaml.safe_dump(presets), encoding="utf-8")
    with pytest.raises(StyleError, match="CORE-01 and CORE-02 hold the same tags"):
        load_presets(config, styles.load_taxonomy(config))


def test_a_missing_file_says_which() -> None:
    with pytest.raises(StyleError, match=r"nowhere.*taxonomy\.yaml: cannot be read"):
        styles.load_taxonomy(Path("/nowhere"))


def test_the_style_modules_load_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'librosa', 'dagster', 'pandas'}"
    code = f"import sys, lofi_assets.tracks.tagging; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONFIG.parent)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("AI Training Rights", "permitted"),
        ("Work for hire (AI training)", "permitted"),
        ("CC BY 4.0", "permitted"),
        ("cc0", "permitted"),
        ("CC-BY-SA-4.0", "ambiguous"),
        ("Royalty-free", "ambiguous"),
        ("Something nobody listed", "ambiguous"),
        ("CC BY-ND 4.0", "denied"),
        ("CC BY-NC 4.0", "denied"),
        ("CC BY-NC-SA 3.0", "denied"),
        ("All rights reserved", "denied"),
        ("Epidemic Sound", "denied"),
    ],
)
def test_licence_types_have_the_status_that_the_policy_gives_them(name: str, status: str) -> None:
    assert load_licences(CONFIG).status(name) == status


def test_every_licence_says_why_and_no_name_stands_twice() -> None:
    rows = yaml.safe_load((CONFIG / "licenses.yaml").read_text(encoding="utf-8"))
    assert all(row["why"] and row["status"] in ("permitted", "ambiguous", "denied") for row in rows)
    names = Counter(styles.fold(name) for row in rows for name in (row["id"], *row.get("aliases", [])))
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_licence_that_forbids_commerce_or_adaptation_passes() -> None:
    licences = load_licences(CONFIG)
    rows = yaml.safe_load((CONFIG / "licenses.yaml").read_text(encoding="utf-8"))
    closed = [row["id"] for row in rows if {"NC", "ND"} & set(row["id"].split("-"))]
    assert len(closed) == 20
    assert {licences.status(name) for name in closed} == {"denied"}


def test_wordings_of_a_prompt_are_its_tags_in_other_orders() -> None:
    prompt = "lofi hip hop, mellow, rhodes, 80 bpm, vinyl crackle"
    found = prompt_variants(prompt, 8)
    assert found[0] == prompt and len(set(found)) == 8
    assert {tuple(sorted(text.split(", "))) for text in found} == {tuple(sorted(prompt.split(", ")))}
    assert prompt_variants(prompt, 3) == found[:3] == prompt_variants(prompt, 3)
    assert prompt_variants("lofi", 8) == ("lofi",)
    assert set(prompt_variants("lofi, rainy", 8)) == {"lofi, rainy", "rainy, lofi"}
