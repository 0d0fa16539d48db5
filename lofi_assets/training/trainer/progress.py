"""What the training loop remembers besides weights and optimiser."""

from dataclasses import dataclass
from typing import Any

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
    last_loss: float | None = None
    validation_loss: float | None = None
    skipped: int = 0
    """Items so far whose loss was no finite number."""

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
