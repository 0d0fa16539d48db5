"""Prompt alignment and style coverage: what the numbers mean, and when there is none."""

from typing import Any

import numpy as np
import pytest

from lofi_assets.audio.musicnn import LABELS
from lofi_assets.metrics.alignment import prompt_labels, relative_alignment, tag_alignment
from lofi_assets.metrics.coverage import StyleSample, check_sample, lower_bound, style_coverage
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.results import RelativeAlignment, StyleFound
from lofi_assets.metrics.tag_labels import TAG_LABELS
from lofi_assets.styles.taxonomy import Taxonomy, fold, load_taxonomy
from lofi_assets_tests.conftest import REPOSITORY

ALL_LABELS = (*(f"msd:{tag}" for tag in LABELS["msd"]), *(f"mtt:{tag}" for tag in LABELS["mtt"]))


Pairs = tuple[np.ndarray, np.ndarray]


def pairs(seed: int, n: int, *, agreement: float, d: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Audio and text embeddings that share a direction to the given degree, as CLAP's modalities do."""
    r = np.random.default_rng(seed)
    meaning = r.normal(size=(n, d))
    return agreement * meaning + r.normal(size=(n, d)), meaning + 0.5 * r.normal(size=(n, d))


def aligned(generated: Pairs, real: Pairs, **options: Any) -> RelativeAlignment:
    return relative_alignment(
        generated_audio=generated[0],
        generated_text=generated[1],
        real_audio=real[0],
        real_text=real[1],
        seed=0,
        n_resamples=300,
        **options,
    )


def test_real_clips_against_themselves_are_one_and_unrelated_clips_are_zero() -> None:
    real = pairs(0, 60, agreement=1.0)
    same = aligned(real, real)
    assert same.value == pytest.approx(1.0) and 0.7 < same.lower < 1.0
    chance = aligned(pairs(1, 60, agreement=0.0), real)
    assert abs(chance.value) < 0.25 and chance.lower < chance.value
    assert same.raw_cosine == same.real_cosine > same.shuffled_cosine


def test_few_clips_give_a_lower_bound_far_below_the_value() -> None:
    real = pairs(0, 60, agreement=1.0)
    few, many = (aligned(pairs(2, n, agreement=1.0), real) for n in (4, 60))
    assert few.value - few.lower > many.value - many.lower


def test_alignment_does_not_depend_on_the_order_of_pairs() -> None:
    generated, real = pairs(1, 20, agreement=0.8), pairs(0, 30, agreement=1.0)
    order = np.random.default_rng(3).permutation(30)
    shuffled = aligned(generated, (real[0][order], real[1][order]))
    assert shuffled.value == pytest.approx(aligned(generated, real).value, rel=1e-12)


def test_an_encoder_that_cannot_tell_real_from_shuffled_pairs_gives_no_number() -> None:
    r = np.random.default_rng(0)
    blind = r.normal(size=(20, 16)), r.normal(size=(20, 16))
    result = aligned(pairs(1, 20, agreement=1.0, d=16), blind)
    assert result.value is None and result.lower is None and "shuffled" in result.note
    audio, text = pairs(0, 10, agreement=1.0)
    alike = aligned((audio, text), (audio, np.repeat(text[:1], 10, axis=0)))
    assert alike.value is None and alike.shuffled_cosine is None and "all alike" in alike.note


def test_embeddings_that_are_no_pairs_are_refused() -> None:
    audio, text = pairs(0, 10, agreement=1.0)
    with pytest.raises(MetricError, match="not pairs"):
        aligned((audio, text[:9]), (audio, text))
    with pytest.raises(MetricError, match="length zero"):
        aligned((np.zeros_like(audio), text), (audio, text))


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


def test_tags_that_follow_the_prompt_rank_high_and_others_by_chance() -> None:
    reference = tags_for(PROMPTS, seed=0, strength=2.0)
    options: dict[str, Any] = {
        "reference_tags": reference,
        "reference_prompts": PROMPTS,
        "labels": ALL_LABELS,
        "seed": 0,
    }
    follows = tag_alignment(
        generated_tags=tags_for(PROMPTS, seed=1, strength=2.0), generated_prompts=PROMPTS, **options
    )
    ignores = tag_alignment(
        generated_tags=tags_for(PROMPTS, seed=1, strength=0.0), generated_prompts=PROMPTS, **options
    )
    assert follows.auc > 0.85 and follows.reference_auc > 0.85 and 0.5 < follows.lower < follows.auc
    assert ignores.auc < 0.6 and follows.n_clips == 20 and follows.n_unmapped == 0


def test_prompts_without_a_label_and_too_small_a_reference_give_no_alignment() -> None:
    tags = tags_for(PROMPTS, seed=0, strength=1.0)
    unmapped = tag_alignment(
        generated_tags=tags[:2],
        generated_prompts=["rain", "tape hiss"],
        reference_tags=tags,
        reference_prompts=PROMPTS,
        labels=ALL_LABELS,
        seed=0,
    )
    assert unmapped.auc is None and unmapped.n_unmapped == 2 and "tag_labels" in unmapped.note
    lone = tag_alignment(
        generated_tags=tags[:2],
        generated_prompts=PROMPTS[:2],
        reference_tags=tags[:1],
        reference_prompts=PROMPTS[:1],
        labels=ALL_LABELS,
        seed=0,
    )
    assert lone.auc is None and "at least 2" in lone.note


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
