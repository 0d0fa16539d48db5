"""What a step sees: which tracks, which part of them, with which noise.

What belongs here: everything random about training. Each draw follows from the run's seed and the item's position
alone, so that order and noise are the same in one go or resumed, on whatever device, and however the items of a step
are divided into forward passes and processes. What does not belong here: the model and the loss (`objective`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from lofi_assets.files.hashing import fingerprint
from lofi_assets.training.config import TrackFeatures, TrainingSettings
from lofi_assets.training.features.cache import TrackConditions

BUCKETED_STEPS = 50
"""Steps whose items are sorted by length together: enough that little is padded, few enough that the order of a pass
stays random."""

LatentReader = Callable[[TrackFeatures], Tensor]
ConditionReader = Callable[[TrackFeatures], TrackConditions]
SslReader = Callable[[TrackFeatures], Mapping[str, Tensor]]
FrameReader = Callable[[TrackFeatures], int]


@dataclass(frozen=True)
class Item:
    """One training example."""

    track_id: str
    latents: Tensor
    """(8, 16, T) float32."""
    noise: Tensor
    """(8, 16, T) float32, standard normal."""
    timestep_index: int
    """Index into the training schedule."""
    conditions: TrackConditions
    """With what dropout left of them."""
    ssl_targets: Mapping[str, Tensor] = field(default_factory=dict)
    """SSL encoder -> (SSL frames of the crop, SSL width); empty unless `ssl_weight` is above 0."""


@dataclass(frozen=True)
class Draw:
    """What chance decides about an item."""

    track: TrackFeatures
    place: float
    """Of the crop, in [0, 1) of what is left over."""
    timestep_index: int
    """Index into the training schedule."""
    dropped: tuple[bool, bool, bool]
    """Whether it is trained without its text, speaker, lyrics."""
    random: torch.Generator
    """Draws the noise."""


@dataclass(frozen=True)
class Source:
    """The training set as an endless sequence of items, addressed by position."""

    tracks: Sequence[TrackFeatures]
    settings: TrainingSettings
    timesteps: int
    """Length of the training schedule."""
    read_latents: LatentReader
    read_conditions: ConditionReader
    read_frames: FrameReader
    read_ssl_targets: SslReader = lambda track: {}
    """Asked only if `ssl_weight` is above 0."""

    def positions(self, step: int) -> range:
        """Positions of the items of a step, counted from 1."""
        batch = self.settings.global_batch
        return range((step - 1) * batch, step * batch)

    def draw(self, position: int) -> Draw:
        """What chance decides about the item at `position`; reads no file."""
        settings = self.settings
        random = generator(settings.seed, "item", position)
        place, *chances = torch.rand(4, generator=random).tolist()
        rates = (settings.text_dropout, settings.speaker_dropout, settings.lyric_dropout)
        text, speaker, lyrics = (chance < rate for chance, rate in zip(chances, rates, strict=True))
        index = timestep_index(settings, timesteps=self.timesteps, random=random)
        return Draw(self.track(position), place, index, (text, speaker, lyrics), random)

    def item(self, position: int) -> Item:
        """The item at `position`; position 0 is the first of the run."""
        draw = self.draw(position)
        text, speaker, lyrics = draw.dropped
        whole = self.read_latents(draw.track)
        latents = crop(whole, frames=self.settings.crop_frames, place=draw.place)
        share = latents.shape[-1] / whole.shape[-1]
        targets = self.read_ssl_targets(draw.track) if self.settings.ssl_weight else {}
        return Item(
            track_id=draw.track.track_id,
            latents=latents,
            noise=torch.randn(latents.shape, generator=draw.random),
            timestep_index=draw.timestep_index,
            conditions=self.read_conditions(draw.track).without(text=text, speaker=speaker, lyrics=lyrics),
            ssl_targets={name: crop_ssl(target, share=share, place=draw.place) for name, target in targets.items()},
        )

    def track(self, position: int) -> TrackFeatures:
        """The track at `position`.

        Every pass shuffles the whole set anew, repeats included. The items of a step that lies within a pass are of
        similar length, shortest first.
        """
        turn, place = divmod(position, sum(self._repeats))
        order = _order(self._repeats, self._lengths, self.settings.seed, turn, self.settings.global_batch)
        return self.tracks[order[place]]

    @cached_property
    def _repeats(self) -> tuple[int, ...]:
        return tuple(track.repeat for track in self.tracks)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Frames of each track that training sees; a step of one item never compares them."""
        if self.settings.global_batch == 1:
            return (0,) * len(self.tracks)
        longest = self.settings.crop_frames
        frames = [self.read_frames(track) for track in self.tracks]
        return tuple(frames if longest is None else (min(count, longest) for count in frames))


def timestep_index(settings: TrainingSettings, *, timesteps: int, random: torch.Generator) -> int:
    """An index into the training schedule, noisiest first, from the density of the settings."""
    share = compute_density_for_timestep_sampling(
        settings.timestep_density,
        1,
        logit_mean=settings.logit_mean,
        logit_std=settings.logit_std,
        mode_scale=settings.mode_scale,
        generator=random,
    )
    return min(max(int(share * timesteps), 0), timesteps - 1)


def validation_items(source: Source, *, levels: int, limit: int) -> list[list[Item]]:
    """Per noise level (rising timestep), one item for each of at most `limit` tracks: always the same ones.

    Nothing is dropped and the middle of a track is taken, so that the loss moves only with the weights.
    """
    seed, step = source.settings.seed, source.timesteps / levels
    chosen = sorted(source.tracks, key=lambda track: fingerprint(seed, "validation", track.track_id))[:limit]
    indices = [source.timesteps - 1 - int(step * (level + 0.5)) for level in range(levels)]
    return [[_validation_item(source, track, index) for track in chosen] for index in indices]


def crop(latents: Tensor, *, frames: int | None, place: float) -> Tensor:
    """At most `frames` of (8, 16, T), from `place` in [0, 1) of what is left over; all of them for None."""
    total = latents.shape[-1]
    if frames is None or total <= frames:
        return latents
    start = int(place * (total - frames + 1))
    return latents[..., start : start + frames]


def crop_ssl(targets: Tensor, *, share: float, place: float) -> Tensor:
    """The part of (SSL frames, width) that is heard in a crop of `share` of the latents at the same `place`."""
    total = len(targets)
    frames = max(1, round(share * total))
    start = int(place * (total - frames + 1))
    return targets[start : start + frames]


def generator(*parts: object) -> torch.Generator:
    """A CPU generator that depends on `parts` only."""
    return torch.Generator().manual_seed(int(fingerprint(*parts)[:15], 16))


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


def _validation_item(source: Source, track: TrackFeatures, index: int) -> Item:
    latents = crop(source.read_latents(track), frames=source.settings.crop_frames, place=0.5)
    random = generator(source.settings.seed, "validation", track.track_id, index)
    noise = torch.randn(latents.shape, generator=random)
    return Item(track.track_id, latents, noise, index, source.read_conditions(track))


@lru_cache(maxsize=4)
def _order(repeats: tuple[int, ...], lengths: tuple[int, ...], seed: int, turn: int, batch: int) -> list[int]:
    """Track indices of one pass, each as often as it repeats."""
    order = [index for index, count in enumerate(repeats) for _ in range(count)]
    random = generator(seed, "order", turn)
    order = [order[place] for place in torch.randperm(len(order), generator=random).tolist()]
    if batch == 1:
        return order
    return bucketed(order, lengths, batch=batch, lead=-turn * len(order) % batch, random=random)
