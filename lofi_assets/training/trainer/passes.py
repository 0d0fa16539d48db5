"""A forward and backward pass, whose gradients add up in the parameters: launched kernel by kernel, or replayed.

What belongs here: how a pass is run. What does not: its loss (`backbones/`), which items it sees (`batches`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi_assets.backbones.cuda_graphs import CudaGraphs, Record, Replayed
from lofi_assets.backbones.training import Item, Objective, RecordableObjective
from lofi_assets.training.config import ConfigError, TrainingSettings
from lofi_assets.training.distributed import Processes, synchronised
from lofi_assets.training.trainer.item_losses import finite_losses


@dataclass(frozen=True)
class Passes:
    """The passes of an optimiser step over an objective."""

    objective: Objective
    parameters: Sequence[torch.nn.Parameter]
    accumulate: int
    """Passes of a step."""
    processes: Processes
    skips: bool
    """Items whose loss is no finite number are left out."""
    replayed: Callable[[Sequence[Item]], Tensor] | None = None
    """A pass as a CUDA graph, if it is recorded: losses (B,), and the gradients as a side effect."""

    @classmethod
    def of(
        cls,
        objective: Objective,
        parameters: Sequence[torch.nn.Parameter],
        settings: TrainingSettings,
        processes: Processes,
        *,
        record: Record | None = None,
    ) -> "Passes":
        """As the settings say.

        Args:
            record: what records a pass; None: CUDA graphs.
        Raises:
            ConfigError: `cuda_graphs` where nothing can be recorded.
        """
        replayed = _replayed(objective, settings.accumulate, record) if settings.cuda_graphs else None
        return cls(objective, parameters, settings.accumulate, processes, settings.skip_share > 0, replayed)

    def __call__(self, items: Sequence[Item], *, last: bool) -> tuple[Tensor, Tensor]:
        """Add the gradients of a share of 1 / `accumulate` in the mean loss of the items.

        Args:
            last: the step's last pass, in which several processes exchange gradients.
        Returns:
            Losses (B,) without a graph, and which of them were skipped.
        """
        if self.replayed:
            self._gradients_have_a_place()
            each = self.replayed(items)
            return each, torch.zeros_like(each, dtype=torch.bool)
        with synchronised(self.objective.model, last=last):
            each, skipped = self._losses(items)
            (each.mean() / self.accumulate).backward()
        return each.detach(), skipped

    def clear(self) -> None:
        """No gradients; a recorded pass adds to the memory that it was recorded with."""
        for parameter in self.parameters:
            if self.replayed is None:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def _losses(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        if self.skips:
            return finite_losses(self.objective, items, self.processes)
        losses = self.objective.losses(items)
        return losses, torch.zeros_like(losses, dtype=torch.bool)

    def _gradients_have_a_place(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def _replayed(objective: Objective, accumulate: int, record: Record | None) -> Callable[[Sequence[Item]], Tensor]:
    if not isinstance(objective, RecordableObjective):
        raise ConfigError(f"training.cuda_graphs: {type(objective).__name__} cannot be recorded; set it to false")
    if record is None and objective.device.type != "cuda":
        raise ConfigError(f"training.cuda_graphs needs a CUDA device, not {objective.device}; set it to false")

    def work(**tensors: Tensor | None) -> Tensor:
        each = objective.losses_of(tensors)
        (each.mean() / accumulate).backward()
        return each.detach()

    replayed = Replayed(work, record or CudaGraphs().record)
    return lambda items: replayed(objective.tensors(items))
