"""What a step sees: which tracks, which part of them, with which noise.

What belongs here: everything random about training. Each draw follows from the run's seed and the item's position
alone, so that order and noise are the same in one go or resumed, on whatever device, and however the items of a step
are divided into forward passes and processes. What does not: the density of noise levels, the model and the loss
(`backbones/`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.features import Conditions
from lofi_assets.backbones.training import Item
from lofi_assets.files.hashing import hash_of
from lofi_assets.training.config import TrackFeatures, TrainingSettings

BUCKETED_STEPS = 50
"""Steps whose items are sorted by length together: enough that little is padded, few enough that the order of a pass
stays random."""


class Features(Protocol):
    """Features of tracks by their keys (`training.features.cache.CachedFeatures`)."""

    def frames(self, key: str) -> int: ...
    def latents(self, key: str) -> Tensor: ...
    def conditions(self, key: str) -> Conditions: ...
    def targets(self, key: str) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Draw:
    """What chance decides about an item."""

    track: TrackFeatures
    place: float
    """Of the crop, in [0, 1) of what is left over."""
    sigma: float
    """Share of noise, in [0, 1]."""
    dropped: frozenset[str]
    """Groups of conditions that it is trained without."""
    random: torch.Generator
    """Draws the noise."""


@dataclass(frozen=True)
class Source:
    """The training set as an endless sequence of items, addressed by position."""

    tracks: Sequence[TrackFeatures]
    settings: TrainingSettings
    backbone: Backbone
    features: Features
    """Targets are asked for only if `ssl_weight` is above 0."""

    def positions(self, step: int) -> range:
        """Positions of the items of a step, counted from 1."""
        batch = self.settings.global_batch
        return range((step - 1) * batch, step * batch)

    def draw(self, position: int) -> Draw:
        """What chance decides about the item at `position`; reads no file."""
        rates = self.backbone.dropout(self.settings)
        random = generator(self.settings.seed, "item", position)
        drawn, *chances = torch.rand(1 + len(rates), generator=random).tolist()
        place = drawn if self.settings.crop_from == "anywhere" else 0.0
        dropped = frozenset(group for chance, group in zip(chances, rates, strict=True) if chance < rates[group])
        sigma = self.backbone.draw_sigma(self.settings, random)
        return Draw(self.track(position), place, sigma, dropped, random)

    def item(self, position: int) -> Item:
        """The item at `position`; position 0 is the first of the run."""
        draw, axis = self.draw(position), self.backbone.latents.frame_axis
        whole = self.features.latents(draw.track.key)
        latents = crop(whole, axis=axis, frames=self.settings.crop_frames, place=draw.place)
        share = latents.shape[axis] / whole.shape[axis]
        conditions = self.features.conditions(self._worded(draw.track, position))
        targets = self.features.targets(draw.track.key) if self.settings.ssl_weight else {}
        return Item(
            track_id=draw.track.track_id,
            latents=latents,
            noise=torch.randn(latents.shape, generator=draw.random),
            sigma=draw.sigma,
            conditions=self.backbone.without(conditions, draw.dropped),
            targets={name: crop_target(target, share=share, place=draw.place) for name, target in targets.items()},
            position=position,
        )

    def longest(self) -> Item:
        """An item as long as any that training sees."""
        frames = [self.features.frames(track.key) for track in self.tracks]
        order = _order(self._repeats, self._lengths, self.settings.seed, 0, self.settings.global_batch)
        return self.item(order.index(frames.index(max(frames))))

    def track(self, position: int) -> TrackFeatures:
        """The track at `position`.

        Every pass shuffles the whole set anew, repeats included. The items of a step that lies within a pass are of
        similar length, shortest first.
        """
        turn, place = divmod(position, sum(self._repeats))
        order = _order(self._repeats, self._lengths, self.settings.seed, turn, self.settings.global_batch)
        return self.tracks[order[place]]

    def _worded(self, track: TrackFeatures, position: int) -> str:
        """Key of the wording that the item at `position` is trained under."""
        keys = (track.key, *track.variants)
        random = generator(self.settings.seed, "wording", position)
        return keys[int(torch.randint(len(keys), (), generator=random))] if track.variants else track.key

    @cached_property
    def _repeats(self) -> tuple[int, ...]:
        return tuple(track.repeat for track in self.tracks)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Frames of each track that training sees; a step of one item never compares them."""
        if self.settings.global_batch == 1:
            return (0,) * len(self.tracks)
        longest = self.settings.crop_frames
        frames = [self.features.frames(track.key) for track in self.tracks]
        return tuple(frames if longest is None else (min(count, longest) for count in frames))


def validation_items(source: Source, *, levels: int, limit: int) -> list[list[Item]]:
    """Per noise level (rising share of noise), one item for each of at most `limit` tracks: always the same ones.

    Nothing is dropped and the middle of a track is taken, or its start where training hears that alone, so that the
    loss moves only with the weights.
    """
    seed = source.settings.seed
    chosen = sorted(source.tracks, key=lambda track: hash_of(seed, "validation", track.track_id))[:limit]
    sigmas = source.backbone.validation_sigmas(source.settings, levels=levels)
    return [[_validation_item(source, track, *level) for track in chosen] for level in sigmas.items()]


def crop(latents: Tensor, *, axis: int, frames: int | None, place: float) -> Tensor:
    """At most `frames` along an axis, from `place` in [0, 1) of what is left over; all of them for None."""
    total = latents.shape[axis]
    if frames is None or total <= frames:
        return latents
    start = int(place * (total - frames + 1))
    return latents.narrow(axis, start, frames)


def crop_target(targets: Tensor, *, share: float, place: float) -> Tensor:
    """The part of (frames, width) that is heard in a crop of `share` of the latents at the same `place`."""
    total = len(targets)
    frames = max(1, round(share * total))
    start = int(place * (total - frames + 1))
    return targets[start : start + frames]


def generator(*parts: object) -> torch.Generator:
    """A CPU generator that depends on `parts` only."""
    return torch.Generator().manual_seed(int(hash_of(*parts)[:15], 16))


def bucketed(
    order: Sequence[int], lengths: Sequence[int], *, batch: int, lead: int, random: torch.Generator
) -> list[int]:
    """The entries of `order` rearranged so that each batch of them is of similar length; nothing is lost or added.

    Args:
        order: indices into `lengths`, shuffled.
        batch: entries that are trained together.
        lead: entries at the start that complete the batch of an earlier pass; they stay where they are, like those at
            the end that a later pass completes.
    Returns:
        Within every `BUCKETED_STEPS` batches the entries sorted by length and cut into batches, the batches shuffled.
    """
    whole = max(0, len(order) - lead) // batch * batch
    arranged = list(order[:lead])
    for first in range(lead, lead + whole, BUCKETED_STEPS * batch):
        window = order[first : min(first + BUCKETED_STEPS * batch, lead + whole)]
        window = sorted(window, key=lambda index: lengths[index])
        for place in torch.randperm(len(window) // batch, generator=random).tolist():
            arranged += window[place * batch : (place + 1) * batch]
    return arranged + list(order[lead + whole :])


def _validation_item(source: Source, track: TrackFeatures, level: int, sigma: float) -> Item:
    settings, features, axis = source.settings, source.features, source.backbone.latents.frame_axis
    place = 0.5 if settings.crop_from == "anywhere" else 0.0
    latents = crop(features.latents(track.key), axis=axis, frames=settings.crop_frames, place=place)
    random = generator(settings.seed, "validation", track.track_id, level)
    noise = torch.randn(latents.shape, generator=random)
    return Item(track.track_id, latents, noise, sigma, features.conditions(track.key))


@lru_cache(maxsize=4)
def _order(repeats: tuple[int, ...], lengths: tuple[int, ...], seed: int, turn: int, batch: int) -> list[int]:
    """Track indices of one pass, each as often as it repeats."""
    order = [index for index, count in enumerate(repeats) for _ in range(count)]
    random = generator(seed, "order", turn)
    order = [order[place] for place in torch.randperm(len(order), generator=random).tolist()]
    if batch == 1:
        return order
    return bucketed(order, lengths, batch=batch, lead=-turn * len(order) % batch, random=random)
