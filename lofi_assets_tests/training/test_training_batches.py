"""What a step sees follows from the seed and its number, however the step is divided."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.training import Item
from lofi_assets.training.config import TrackFeatures, TrainingSettings
from lofi_assets.training.trainer.batches import Source, bucketed, generator, validation_items
from lofi_assets_tests.feature_material import Given

FRAMES = {f"t{index:02}": 20 + 37 * index % 100 for index in range(23)}
KEYS = {f"latents={index:032x}": name for index, name in enumerate(FRAMES)}


def a_source(*, repeat: int = 1, **settings: Any) -> Source:
    tracks = [TrackFeatures(track_id=name, key=key, repeat=repeat) for key, name in KEYS.items()]
    conditions = conditions_of(torch.ones(3, 4), torch.zeros(2, dtype=torch.long), torch.ones(4))
    features = Given(
        latents=lambda key: torch.zeros(8, 16, FRAMES[KEYS[key]]),
        conditions=lambda key: conditions,
        frames=lambda key: FRAMES[KEYS[key]],
    )
    return Source(tracks, TrainingSettings(**settings), ACE_STEP_V1, features)


def index_drawn(settings: TrainingSettings, random: torch.Generator) -> int:
    """Place in the schedule of 1,000, noisiest first; without a shift it says the share of noise."""
    return 1000 - round(1000 * ACE_STEP_V1.draw_sigma(settings, random))


def names(source: Source, count: int) -> list[str]:
    return [source.track(position).track_id for position in range(count)]


@pytest.mark.parametrize("batch", [1, 4, 7, 50])
def test_every_pass_sees_each_track_as_often_as_it_repeats(batch: int) -> None:
    source = a_source(repeat=3, batch_size=batch)
    for turn in range(4):
        seen = Counter(source.track(turn * 69 + place).track_id for place in range(69))
        assert set(seen.values()) == {3} and len(seen) == 23


def test_how_a_step_is_divided_changes_neither_its_items_nor_their_order() -> None:
    ways = [{"batch_size": 8}, {"accumulate": 8}, {"processes": 8}, {"batch_size": 2, "accumulate": 2, "processes": 2}]
    assert len({tuple(names(a_source(**way), 100)) for way in ways}) == 1
    items = [a_source(**way).item(17) for way in ways]
    assert all(item.noise.equal(items[0].noise) for item in items)


def test_the_items_of_a_step_are_of_similar_length() -> None:
    def padding(source: Source) -> float:
        padded = total = 0
        for step in range(1, 101):
            lengths = [FRAMES[source.track(position).track_id] for position in source.positions(step)]
            padded += max(lengths) * len(lengths) - sum(lengths)
            total += max(lengths) * len(lengths)
        return padded / total

    ungrouped = a_source(repeat=40, batch_size=8, crop_frames=1)
    assert padding(a_source(repeat=40, batch_size=8)) < 0.03 < 0.2 < padding(ungrouped)


def test_equally_long_items_keep_the_shuffled_order_within_a_step() -> None:
    order = list(range(40))
    arranged = bucketed(order, [5] * 40, batch=4, lead=2, random=generator("test"))
    assert sorted(arranged) == order and arranged[:2] == [0, 1] and arranged[-2:] == [38, 39]
    steps = [arranged[first : first + 4] for first in range(2, 38, 4)]
    assert all(later == earlier + 1 for step in steps for earlier, later in pairwise(step))
    assert steps != sorted(steps)


def test_a_step_of_one_item_asks_for_no_lengths() -> None:
    source = a_source()
    assert isinstance(source.features, Given)
    unreadable = replace(source, features=replace(source.features, frames=lambda key: 1 // 0))
    assert names(unreadable, 30) == names(source, 30)


@pytest.mark.parametrize(
    ("density", "settings", "middle", "ends"),
    [
        ("logit_normal", {}, 0.51, 0.02),
        ("uniform", {}, 1 / 3, 0.1),
        ("mode", {"mode_scale": 1.29}, 0.61, 0.055),
        ("mode", {"mode_scale": 0.0}, 1 / 3, 0.1),
    ],
)
def test_timesteps_follow_the_density_that_was_chosen(
    density: Literal["logit_normal", "uniform", "mode"], settings: dict, middle: float, ends: float
) -> None:
    chosen = TrainingSettings(timestep_density=density, shift=1.0, **settings)
    random = generator("density")
    indices = torch.tensor([index_drawn(chosen, random) for _ in range(4000)])
    assert indices.min() >= 0 and indices.max() <= 999
    assert float(((indices >= 333) & (indices < 667)).float().mean()) == pytest.approx(middle, abs=0.03)
    assert float(((indices < 50) | (indices >= 950)).float().mean()) == pytest.approx(ends, abs=0.02)


def test_a_positive_logit_mean_leans_to_little_noise() -> None:
    means = []
    for logit_mean in (-1.0, 1.0):
        settings, random = TrainingSettings(logit_mean=logit_mean, shift=1.0), generator("lean")
        drawn = [index_drawn(settings, random) for _ in range(500)]
        means.append(sum(drawn) / len(drawn))
    assert means[0] < 400 < 600 < means[1]


def test_an_item_is_trained_under_one_wording_that_follows_from_seed_and_position() -> None:
    others = ("text=" + "1" * 32, "text=" + "2" * 32)

    def worded(**settings: Any) -> list[str]:
        plain, asked = a_source(text_dropout=0.0, **settings), []

        def conditions(key: str) -> dict[str, torch.Tensor]:
            asked.append(key if key in others else "as written")
            return conditions_of(torch.ones(3, 4), torch.zeros(2, dtype=torch.long), torch.ones(4))

        assert isinstance(plain.features, Given)
        tracks = [track.model_copy(update={"variants": others}) for track in plain.tracks]
        source = replace(plain, tracks=tracks, features=replace(plain.features, conditions=conditions))
        assert all(source.item(place).noise.equal(plain.item(place).noise) for place in range(60))
        return asked

    found = worded(batch_size=4)
    assert found == worded(accumulate=2, processes=2) != worded(batch_size=4, seed=1)
    assert set(Counter(found)) == {"as written", *others} and min(Counter(found).values()) > 8


def test_crops_from_the_start_differ_from_others_in_their_place_alone() -> None:
    rising = {key: torch.arange(float(FRAMES[name])).expand(8, 16, -1) for key, name in KEYS.items()}

    def heard(**settings: Any) -> tuple[list[Item], list[Item]]:
        plain = a_source(crop_frames=20, **settings)
        assert isinstance(plain.features, Given)
        source = replace(plain, features=replace(plain.features, latents=rising.__getitem__))
        validation = validation_items(source, levels=2, limit=5)
        return [source.item(place) for place in range(46)], [item for level in validation for item in level]

    (anywhere, middle), (start, beginning) = heard(), heard(crop_from="start")
    for item in start + beginning:
        assert item.latents[0, 0].tolist() == list(range(20))
    assert max(float(item.latents[0, 0, 0]) for item in anywhere) > 20
    assert all(item.latents[0, 0, 0] == (FRAMES[item.track_id] - 19) // 2 for item in middle)
    for item, other in zip(start + beginning, anywhere + middle, strict=True):
        assert item.noise.equal(other.noise) and (item.sigma, item.track_id) == (other.sigma, other.track_id)
