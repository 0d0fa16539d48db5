"""The loss of each item of a step, over all processes, and the step without items whose loss is no number.

What belongs here: which item had which loss, and what a skipped one leaves. What does not: the loss itself
(`backbones/`), what a step sees (`batches`), what the losses say of a track (`training.track_losses`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lofi_assets.backbones.training import TIMESTEPS, Item, Objective
from lofi_assets.training.distributed import Processes
from lofi_assets.training.trainer.batches import Draw, Source
from lofi_assets.training.trainer.progress import Progress
from lofi_assets.wording import counted

DIGITS = 6
"""Significant digits of a loss in the log."""


@dataclass(frozen=True)
class StepItems:
    """The items of one optimiser step, in the step's order."""

    labels: tuple[str, ...]
    """`track@timestep`."""
    losses: tuple[float | None, ...]
    """None for an item that was skipped."""

    @classmethod
    def of(cls, draws: Sequence[Draw], losses: Sequence[float], *, skipped: Sequence[bool]) -> "StepItems":
        """The items that were drawn, with what came out."""
        labels = tuple(f"{draw.track.track_id}@{draw.sigma * TIMESTEPS:.0f}" for draw in draws)
        kept = tuple(None if left else loss for loss, left in zip(losses, skipped, strict=True))
        return cls(labels, kept)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Labels of the skipped ones."""
        return tuple(label for label, loss in zip(self.labels, self.losses, strict=True) if loss is None)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Labels of those whose loss is no finite number; of all, the largest loss first, if there is none."""
        pairs = [(loss, label) for label, loss in zip(self.labels, self.losses, strict=True) if loss is not None]
        broken = tuple(label for loss, label in pairs if not math.isfinite(loss))
        return broken or tuple(label for _, label in sorted(pairs, reverse=True))

    def mean(self, over_all: float) -> float | None:
        """The mean over those that count, from the mean in which a skipped one is a 0; None if all were skipped."""
        kept = len(self.labels) - len(self.skipped)
        if kept == len(self.labels):
            return over_all
        return over_all * len(self.labels) / kept if kept else None

    def line(self) -> dict[str, Any]:
        """As the log keeps them."""
        losses = [None if loss is None else float(f"{loss:.{DIGITS}g}") for loss in self.losses]
        left = {"skipped": list(self.skipped)} if self.skipped else {}
        return {"items": list(self.labels), "losses": losses, **left}


def finite_losses(objective: Objective, items: Sequence[Item], processes: Processes) -> tuple[Tensor, Tensor]:
    """Losses (B,) of the items of a forward pass, 0 without a gradient for those whose loss is no finite number.

    Which items these are is found one by one, since a loss that is one mean over a batch spoils its neighbours. They
    are then computed as zeros: the shapes, and the collective calls of several processes, stay as they were. Where even
    zeros give no number the weights are at fault, and the losses stay what they are.

    Returns:
        The losses, and a mask (B,) of those that were skipped.
    """
    losses = objective.losses(items)
    if not processes.any(not bool(losses.isfinite().all())):
        return losses, torch.zeros_like(losses, dtype=torch.bool)
    with torch.no_grad():
        alone = torch.cat([objective.losses([item]) for item in items])
    spoiled = ~alone.isfinite()
    blank = [_blank(item) if left else item for item, left in zip(items, spoiled.tolist(), strict=True)]
    return objective.losses(blank) * ~spoiled, spoiled


def skipping(items: StepItems, progress: Progress, source: Source, *, say: Callable[[str], None]) -> str | None:
    """Say what the step that was just done skipped; returns why the run has to end where that is too much.

    The share is of the items so far, at least of one pass: the first item of a run is not all of it.
    """
    labels, settings = ", ".join(items.skipped), source.settings
    say(f"step {progress.step}: skipped {labels} (track@timestep): the loss is no finite number")
    one_pass = sum(track.repeat for track in source.tracks)
    seen = max(progress.step * settings.global_batch, one_pass)
    if progress.skipped <= settings.skip_share * seen:
        return None
    items_skipped = counted(progress.skipped, "item")
    return (
        f"{items_skipped} of {seen} had a loss that is no finite number, more than training.skip_share "
        f"{settings.skip_share:g} allows, the last of them {labels} (track@timestep). Listen to the track and take it "
        "out of the dataset, or lower training.learning_rate"
    )


def diagnosis(items: StepItems, *, step: int, loss: float | str | None, norm: float | str, rate: float) -> str:
    """Why a run diverged at a step, and what to do."""
    return (
        f"step {step}: loss {loss}, gradient norm {norm}, learning rate {rate:.3g}, on {', '.join(items.suspects)} "
        "(track@timestep). If one track keeps coming up, listen to it and look at its measures; otherwise lower "
        "training.learning_rate, or set training.precision to '32'. What was saved before this step is kept."
    )


def _blank(item: Item) -> Item:
    return replace(
        item,
        latents=torch.zeros_like(item.latents),
        noise=torch.zeros_like(item.noise),
        conditions={name: torch.zeros_like(tensor) for name, tensor in item.conditions.items()},
        targets={name: torch.zeros_like(tensor) for name, tensor in item.targets.items()},
    )
