"""What the training loop remembers besides weights and optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lofi_assets.training.config import TrainingSettings

SMOOTHING = 0.98
"""Memory of the smoothed loss, about 50 steps: as many as it takes to even out the timesteps drawn."""
RECENT = 50


@dataclass
class Progress:
    """Where a run stands; saved with its state. A field with a default may be absent from the state of an earlier
    version."""

    step: int = 0
    smoothed: float | None = None
    lowest: float | None = None
    kernels: str | None = None
    """Compiled or not, activations recomputed or not: other last bits. None in a state of an earlier version."""
    last_loss: float | None = None
    validation_loss: float | None = None
    lowest_validation: float | None = None
    lowest_validation_step: int = 0
    stale: int = 0
    """Validation losses in a row, up to the last, that were not below the lowest."""
    skipped: int = 0
    """Items so far whose loss was no finite number."""
    estimates: Mapping[str, float] = field(default_factory=dict)
    """Of an optimiser that estimates its own rate (`optimizer.estimates`)."""

    def extra(self) -> dict[str, Any]:
        """Everything but the step, as JSON."""
        return {name: value for name, value in vars(self).items() if name != "step"}

    def observe(self, step: int, loss: float | None, *, skipped: int) -> None:
        """Take in a step and its loss, None where all its items were skipped."""
        self.step, self.skipped = step, self.skipped + skipped
        if loss is None:
            return
        self.last_loss = loss
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        if self.step >= RECENT:
            self.lowest = self.smoothed if self.lowest is None else min(self.lowest, self.smoothed)

    def observe_validation(self, loss: float) -> None:
        """Take in a validation loss; one that is no number is not a lower one."""
        self.validation_loss = loss
        if self.lowest_validation is None or loss < self.lowest_validation:
            self.lowest_validation, self.lowest_validation_step, self.stale = loss, self.step, 0
        else:
            self.stale += 1

    def ends(self, settings: TrainingSettings) -> bool:
        """Whether early stopping ends the run here."""
        return settings.ends_early(step=self.step, stale=self.stale)

    def why_early(self) -> str:
        """The end of a run by early stopping, in words."""
        return (
            f"ended early at step {self.step}: no validation loss below {self.lowest_validation:.4g} (step "
            f"{self.lowest_validation_step}) in the last {self.stale}"
        )
