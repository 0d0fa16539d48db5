"""Prompt alignment and style coverage: what the numbers mean, and when there is none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lofi_assets.audio.musicnn import LABELS
from lofi_assets.constitution.gates import judge, load_gates
from lofi_assets.metrics.alignment import Pairs, prompt_labels, relative_alignment, tag_alignment
from lofi_assets.metrics.coverage import StyleSample, check_sample, lower_bound, style_coverage
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.results import RelativeAlignment, StyleFound, TagAlignment
from lofi_assets.metrics.tag_labels import TAG_LABELS
from lofi_assets.styles.taxonomy import Taxonomy, fold, load_taxonomy
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.metrics.clip_populations import text_and_audio

ALL_LABELS = (*(f"msd:{tag}" for tag in LABELS["msd"]), *(f"mtt:{tag}" for tag in LABELS["mtt"]))


STYLES = ("CORE-01", "CORE-02", "CORE-03", "CORE-04")
D = 64


def meanings(seed: int, n: int) -> np.ndarray:
    """What texts mean: half of it is the style's, which every fourth shares."""
    random = np.random.default_rng(seed)
    styles = random.normal(size=(len(STYLES), D))
    return random.normal(size=(n, D)) + styles[np.arange(n) % len(STYLES)]


def pairs(seed: int, of: np.ndarray, *, agreement: float, name: str = "prompt") -> Pairs:
    audio, text = text_and_audio(np.random.default_rng(seed), of, agreement=agreement)
    styles = [[STYLES[index % len(STYLES)]] for index in range(len(of))]
    return Pairs(audio=audio, text=text, texts=[f"{name} {index}" for index in range(len(of))], styles=styles)


def aligned(generated: Pairs, real: Pairs) -> RelativeAlignment:
    return relative_alignment(generated=generated, real=real, seed=0, n_permutations=199)


MEANT = meanings(0, 40)
REAL = pairs(1, MEANT, agreement=0.7)
PROTOTYPE = np.asarray(REAL.text).mean(axis=0)
"""Near to every prompt, and the nearest that one clip can come to all of them."""


def verdict(found: RelativeAlignment) -> str:
    """Of the real gate, as `quality_metrics` hands it the number."""
    gate = next(gate for gate in load_gates() if gate.id == "quality.clap")
    return judge(gate, {"value": found.lower, "encoder": "laion_clap", "trained": True}).status


def test_real_clips_against_themselves_are_one_and_pass() -> None:
    same = aligned(REAL, REAL)
    assert same.value == pytest.approx(1.0) and same.lower == pytest.approx(1.0) and verdict(same) == "pass"
    others = aligned(pairs(2, MEANT, agreement=0.7), REAL)
    assert others.value == pytest.approx(1.0, abs=0.2) and verdict(others) == "pass"
    assert others.recall is not None and others.recall_chance is not None and others.captions_p == 1 / 200
    assert others.recall > 0.9 and others.recall_chance < 0.35
    assert (others.n_generated, others.n_real, others.n_prompts, others.note) == (40, 40, 40, "")


def test_unrelated_clips_are_zero_and_fail() -> None:
    audio, _ = text_and_audio(np.random.default_rng(5), meanings(6, 40), agreement=1.0)
    found = aligned(replace(REAL, audio=audio), REAL)
    assert found.value is not None and found.lower is not None and found.recall is not None
    assert abs(found.value) < 0.2 and found.lower < found.value and verdict(found) == "fail"
    assert found.recall_chance is not None and abs(found.recall - found.recall_chance) < 0.15


@pytest.mark.parametrize("unequal", [False, True])
def test_one_clip_for_every_prompt_is_exactly_zero(unequal: bool) -> None:
    """The prototype, near to all prompts as the mean of real clips is, read 2.16 when the real set's shuffled pairs
    were subtracted. Its nearest prompt is always the same, which is chance."""
    styles = [[STYLES[0] if unequal and index < 30 else STYLES[index % 4]] for index in range(40)]
    found = aligned(replace(REAL, audio=np.repeat(PROTOTYPE[None], 40, axis=0), styles=styles), REAL)
    assert found.raw_cosine > found.real_cosine, "by the cosine alone it beats real music"
    assert found.value == pytest.approx(0.0, abs=1e-12) and found.recall == found.recall_chance
    assert verdict(found) == "fail"


def test_good_clips_of_the_common_style_and_noise_for_the_rare_one_are_still_zero() -> None:
    """Clips that fit any prompt, however they are dealt to styles, follow none."""
    audio = np.where(np.arange(40)[:, None] < 30, PROTOTYPE, -PROTOTYPE)
    found = aligned(replace(REAL, audio=audio), REAL)
    assert found.value is not None and abs(found.value) < 0.25 and verdict(found) == "fail"


@pytest.mark.parametrize("offset", [1, 13, 22])
def test_mispaired_reference_captions_give_no_number(offset: int) -> None:
    """They made the denominator nearly zero, and A 9.6."""
    wrong = replace(REAL, audio=np.roll(np.asarray(REAL.audio), offset, axis=0))
    found = aligned(pairs(2, MEANT, agreement=1.0), wrong)
    assert found.value is None and found.lower is None and verdict(found) == "inconclusive"
    assert "captions and tracks belong together" in found.note
    assert found.captions_p is not None and found.captions_p > 0.01


def test_mispaired_prompts_of_the_generated_clips_fail() -> None:
    made = pairs(2, MEANT, agreement=1.0)
    assert verdict(aligned(replace(made, audio=np.roll(np.asarray(made.audio), 1, axis=0)), REAL)) == "fail"


def test_repeated_prompts_are_no_errors_and_count_once() -> None:
    """Five seeds of each prompt: pairs of equal words are no shuffled pairs, and the bound is over prompts."""
    random = np.random.default_rng(8)
    some = np.repeat(MEANT[:8], 5, axis=0)
    audio = text_and_audio(random, some, agreement=0.7)[0]
    text = np.repeat(np.asarray(REAL.text)[:8], 5, axis=0)
    texts = [f"prompt {index // 5}" for index in range(40)]
    found = aligned(Pairs(audio=audio, text=text, texts=texts, styles=[[t] for t in texts]), REAL)
    assert found.value == pytest.approx(1.0, abs=0.3) and found.n_prompts == 8 and found.recall is not None
    assert found.recall > 0.9
    every = aligned(pairs(2, MEANT, agreement=1.0), REAL)
    assert found.value is not None and found.lower is not None and every.value is not None and every.lower is not None
    assert found.value - found.lower > every.value - every.lower


def test_few_prompts_have_a_value_and_no_bound() -> None:
    few = aligned(pairs(2, MEANT[:7], agreement=1.0), REAL)
    assert few.value is not None and few.lower is None and "needs 8" in few.note and verdict(few) == "inconclusive"


def test_alignment_does_not_depend_on_the_order_of_pairs() -> None:
    made, order = pairs(2, MEANT, agreement=0.8), np.random.default_rng(3).permutation(40)
    shuffled = Pairs(
        audio=np.asarray(REAL.audio)[order],
        text=np.asarray(REAL.text)[order],
        texts=[REAL.texts[i] for i in order],
        styles=[REAL.styles[i] for i in order],
    )
    assert aligned(made, shuffled).value == pytest.approx(aligned(made, REAL).value, rel=1e-12)
    assert aligned(made, shuffled).lower == pytest.approx(aligned(made, REAL).lower, rel=1e-9)


def test_texts_that_are_all_alike_give_no_number() -> None:
    made = pairs(2, MEANT, agreement=1.0)
    alike = Pairs(
        audio=REAL.audio, text=np.repeat(np.asarray(REAL.text)[:1], 40, 0), texts=["lofi"] * 40, styles=[[]] * 40
    )
    blind = aligned(made, alike)
    assert blind.value is None and blind.real_shuffled_cosine is None and "all alike" in blind.note
    asked = aligned(alike, REAL)
    assert asked.value is None and asked.recall is None and "all alike" in asked.note


def test_embeddings_that_are_no_pairs_are_refused() -> None:
    changes: list[dict[str, Any]] = [{"audio": np.asarray(REAL.audio)[:9]}, {"texts": REAL.texts[:9]}, {"styles": [[]]}]
    for change in changes:
        with pytest.raises(MetricError, match=r"real: .* not pairs"):
            aligned(REAL, replace(REAL, **change))
    with pytest.raises(MetricError, match="length zero"):
        aligned(replace(REAL, audio=np.zeros((40, D))), REAL)


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(REPOSITORY / "config")


def test_every_mapped_tag_is_in_the_taxonomy_and_every_label_in_the_tagger(taxonomy: Taxonomy) -> None:
    tags = {fold(tag) for category in taxonomy.categories for tag in category.tags}
    words = {word for tag in tags for word in tag.split()}
    for key, labels in TAG_LABELS.items():
        assert key == fold(key) and key in tags | words, key
        assert labels and set(labels) <= set(ALL_LABELS), key


def test_a_label_that_is_evidence_for_a_tag_is_also_expected_of_it(taxonomy: Taxonomy) -> None:
    for model, rules in taxonomy.heard.items():
        for label, rule in rules.items():
            assert rule.tag is None or f"{model}:{label}" in prompt_labels(rule.tag), (model, label)


def test_a_prompt_is_read_as_whole_words_and_longest_first() -> None:
    assert prompt_labels("Lofi Hip Hop, soft piano, vinyl crackle") == (
        "msd:Hip-Hop",
        "mtt:beat",
        "msd:chillout",
        "msd:chill",
        "mtt:piano",
        "mtt:soft",
    )
    assert "msd:Hip-Hop" in prompt_labels("Lofi Hip-Hop")
    assert prompt_labels("felt piano") == ("mtt:piano",)
    assert prompt_labels("rainy window, tape hiss, 72 bpm, drumstick") == ()


def tags_for(prompts: list[str], *, seed: int, strength: float) -> np.ndarray:
    """Tag probabilities around 0.1 that rise for the labels the prompt asks for."""
    logits = np.random.default_rng(seed).normal(-2.2, 0.5, size=(len(prompts), 100))
    for row, prompt in zip(logits, prompts, strict=True):
        row[[ALL_LABELS.index(label) for label in prompt_labels(prompt)]] += strength
    return 1.0 / (1.0 + np.exp(-logits))


PROMPTS = ["jazz, piano", "ambient, synth", "acoustic guitar, folk", "hip hop, drums", "slow, strings"] * 4


def tags_aligned(tags: np.ndarray, prompts: list[str] = PROMPTS) -> TagAlignment:
    return tag_alignment(
        generated_tags=tags,
        generated_prompts=prompts,
        reference_tags=tags_for(PROMPTS, seed=0, strength=2.0),
        reference_prompts=PROMPTS,
        labels=ALL_LABELS,
    )


def test_tags_that_follow_the_prompt_rank_high_and_others_by_chance() -> None:
    follows = tags_aligned(tags_for(PROMPTS, seed=1, strength=2.0))
    assert follows.auc is not None and follows.reference_auc is not None and follows.lower is not None
    assert follows.auc > 0.85 and follows.reference_auc > 0.85 and 0.8 < follows.lower < follows.auc
    ignores = tags_aligned(tags_for(PROMPTS, seed=1, strength=0.0))
    assert ignores.auc == pytest.approx(0.5, abs=0.1) and ignores.lower is not None and ignores.lower < 0.5
    assert follows.n_clips == 20 and follows.n_unmapped == 0


def test_one_clip_for_every_prompt_has_tags_of_chance_whatever_they_are() -> None:
    """Also the mean of real clips, and one that has every label that most prompts ask for."""
    for row in (tags_for(["jazz, piano"], seed=1, strength=6.0)[0], tags_for(PROMPTS, seed=0, strength=2.0).mean(0)):
        found = tags_aligned(np.repeat(row[None], len(PROMPTS), axis=0))
        assert found.auc == 0.5 and found.lower == 0.5


def test_a_label_that_every_prompt_asks_for_tells_nothing() -> None:
    prompts = [f"lofi hip hop, {prompt}" for prompt in PROMPTS]
    tags = tags_for(PROMPTS, seed=1, strength=2.0)
    louder = tags.copy()
    louder[:, ALL_LABELS.index("msd:Hip-Hop")] = np.linspace(0.1, 0.9, 20)
    assert tags_aligned(tags, prompts) == tags_aligned(louder, prompts)


def test_prompts_without_a_label_give_no_tag_alignment_and_two_clips_no_bound() -> None:
    tags = tags_for(PROMPTS, seed=0, strength=1.0)
    unmapped = tags_aligned(tags[:2], ["rain", "tape hiss"])
    assert unmapped.auc is None and unmapped.n_unmapped == 2 and "tag_labels" in unmapped.note
    alike = tags_aligned(tags[:3], ["jazz, piano"] * 3)
    assert alike.auc is None and alike.n_unmapped == 3
    two = tags_aligned(tags[:2], PROMPTS[:2])
    assert two.auc is not None and two.lower is None and "a bound needs 3" in two.note
    with pytest.raises(MetricError, match="NaN"):
        tags_aligned(np.full((20, 100), np.nan))
    with pytest.raises(MetricError, match="do not belong together"):
        tags_aligned(tags[:5])


def tone(seconds: float, *, gain: float = 0.3) -> np.ndarray:
    t = np.arange(round(seconds * 48000)) / 48000
    return np.stack([gain * np.sin(2 * np.pi * 330 * t)] * 2).astype(np.float32)


@pytest.mark.parametrize(
    ("audio", "problem"),
    [
        (tone(4), ""),
        (tone(3), "3.00 s instead of 4.00 s"),
        (tone(4, gain=0.001), "silent"),
        (np.clip(tone(4, gain=3.0), -1, 1), "clipped"),
        (np.full((2, 9), np.nan, dtype=np.float32), "NaN"),
        (np.zeros((2, 0), dtype=np.float32), "empty"),
    ],
)
def test_a_sample_is_generated_only_if_it_is_finite_whole_audible_and_unclipped(
    audio: np.ndarray, problem: str
) -> None:
    check = check_sample(audio, sample_rate=48000, seconds=4.0)
    assert check.usable == (not problem) and problem in " ".join(check.problems)


def test_a_style_is_recognizable_when_its_samples_are_nearest_to_its_own_centroid_beyond_luck() -> None:
    styles = ["CORE-01", "CORE-02", "CORE-03"]
    prompts = ["jazz, piano", "ambient, synth", "hip hop, drums"]
    reference = {
        style: tags_for([prompt] * 5, seed=i, strength=2.0)
        for i, (style, prompt) in enumerate(zip(styles, prompts, strict=True))
    }
    samples = [
        StyleSample(style_id=style, usable=True, tags=row)
        for style, prompt in (("CORE-01", prompts[0]), ("CORE-02", prompts[0]))
        for row in tags_for([prompt] * 4, seed=9, strength=2.0)
    ]
    lucky = StyleSample(style_id="CORE-03", usable=True, tags=tags_for([prompts[2]], seed=3, strength=2.0)[0])
    broken = StyleSample(style_id="THEME-01", usable=False, tags=None)
    result = style_coverage([*samples, lucky, broken], reference)
    assert result.styles == {
        "CORE-01": StyleFound(generated=True, recognizable=True),
        "CORE-02": StyleFound(generated=True, recognizable=False),
        "CORE-03": StyleFound(generated=True, recognizable=False),
        "THEME-01": StyleFound(generated=False, recognizable=False),
    }
    assert result.top1 == pytest.approx(5 / 9) and result.chance == pytest.approx(1 / 3)
    assert result.without_reference == ("THEME-01",)


def test_a_style_that_was_asked_for_and_has_too_few_samples_is_not_generated() -> None:
    sample = StyleSample(style_id="CORE-01", usable=True, tags=None)
    empty = style_coverage([], {}, asked=["CORE-01", "CORE-02"])
    assert [style.generated for style in empty.styles.values()] == [False, False]
    partly = style_coverage([sample], {}, asked=["CORE-01", "CORE-01", "CORE-02"])
    assert {name: style.generated for name, style in partly.styles.items()} == {"CORE-01": False, "CORE-02": False}
    whole = style_coverage([sample, sample], {}, asked=["CORE-01", "CORE-01"])
    assert whole.styles["CORE-01"].generated


def test_without_two_styles_to_choose_from_nothing_is_recognizable() -> None:
    tags = tags_for(["jazz"] * 3, seed=0, strength=2.0)
    sample = StyleSample(style_id="CORE-01", usable=True, tags=tags[0])
    for reference in ({}, {"CORE-01": tags}):
        result = style_coverage([sample], reference)
        assert result.styles == {"CORE-01": StyleFound(generated=True, recognizable=False)}
        assert result.chance is None and result.top1 is None


def test_lower_bound_is_exact() -> None:
    assert lower_bound(0, 5) == 0.0
    assert lower_bound(4, 4) == pytest.approx(0.05 ** (1 / 4))
