"""What a step sees: which tracks, which part of them, with which noise.

What belongs here: everything random about training. Each draw follows from the run's seed and the item's position
alone, so that order and noise are the same in one go or resumed, whatever the batch size, the accumulation or the
device. What does not belong here: the model and the loss (`objective`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from lofi_assets.store import fingerprint
from lofi_assets.training.config import TrackFeatures, TrainingSettings
from lofi_assets.training.features import TrackConditions

LatentReader = Callable[[TrackFeatures], Tensor]
ConditionReader = Callable[[TrackFeatures], TrackConditions]
SslReader = Callable[[TrackFeatures], Mapping[str, Tensor]]


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
class Source:
    """The training set as an endless sequence of items, addressed by position."""

    tracks: Sequence[TrackFeatures]
    settings: TrainingSettings
    timesteps: int
    """Length of the training schedule."""
    read_latents: LatentReader
    read_conditions: ConditionReader
    read_ssl_targets: SslReader = lambda track: {}
    """Asked only if `ssl_weight` is above 0."""

    def item(self, position: int) -> Item:
        """The item at `position`; position 0 is the first of the run."""
        settings = self.settings
        random = generator(settings.seed, "item", position)
        track = self.track(position)
        place, *dropped = torch.rand(4, generator=random).tolist()
        logit = torch.randn((), generator=random) * settings.logit_std + settings.logit_mean
        whole = self.read_latents(track)
        latents = crop(whole, frames=settings.crop_frames, place=place)
        share = latents.shape[-1] / whole.shape[-1]
        targets = self.read_ssl_targets(track) if settings.ssl_weight else {}
        rates = (settings.text_dropout, settings.speaker_dropout, settings.lyric_dropout)
        text, speaker, lyrics = (draw < rate for draw, rate in zip(dropped, rates, strict=True))
        return Item(
            track_id=track.track_id,
            latents=latents,
            noise=torch.randn(latents.shape, generator=random),
            timestep_index=min(int(torch.sigmoid(logit) * self.timesteps), self.timesteps - 1),
            conditions=self.read_conditions(track).without(text=text, speaker=speaker, lyrics=lyrics),
            ssl_targets={name: crop_ssl(target, share=share, place=place) for name, target in targets.items()},
        )

    def track(self, position: int) -> TrackFeatures:
        """The track at `position`: every pass shuffles the whole set anew, repeats included."""
        repeats = tuple(track.repeat for track in self.tracks)
        turn, place = divmod(position, sum(repeats))
        return self.tracks[_shuffled(repeats, self.settings.seed, turn)[place]]


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


def _validation_item(source: Source, track: TrackFeatures, index: int) -> Item:
    latents = crop(source.read_latents(track), frames=source.settings.crop_frames, place=0.5)
    random = generator(source.settings.seed, "validation", track.track_id, index)
    noise = torch.randn(latents.shape, generator=random)
    return Item(track.track_id, latents, noise, index, source.read_conditions(track))


@lru_cache(maxsize=2)
def _shuffled(repeats: tuple[int, ...], seed: int, turn: int) -> list[int]:
    """Track indices of one pass, each as often as it repeats."""
    order = [index for index, count in enumerate(repeats) for _ in range(count)]
    shuffle = torch.randperm(len(order), generator=generator(seed, "order", turn)).tolist()
    return [order[index] for index in shuffle]
