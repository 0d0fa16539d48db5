"""What a run writes to the disk, by its settings: for the plan before it starts, and for what is left of it."""

from dataclasses import dataclass

from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.training.checkpoints.state import BESIDE_KEPT, GENERATIONS
from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.planning.memory import Choices, Term, state_bytes
from lofi_assets.wording import amount

STATES_HELD = GENERATIONS + BESIDE_KEPT + 1
"""Resumable states on the disk at most: the last ones, those of the last checkpoints, and the one that is written."""
PREVIEW_BYTES_PER_SECOND = 40_000
"""A preview is an MP3 at 320 kbit/s."""
LOG_BYTES_PER_STEP = 600
"""A line of the log and its TensorBoard events."""


@dataclass(frozen=True)
class RunDisk:
    """The files of a run after `done` steps of it."""

    size: ModelSize
    settings: TrainingSettings
    done: int = 0

    @property
    def count(self) -> int:
        """Checkpoints to come."""
        interval = self.settings.checkpoint_interval
        return self.settings.max_steps // interval - self.done // interval

    @property
    def checkpoints(self) -> Term:
        """All of them, as they lie there until they have their FAD."""
        one, settings = checkpoint_bytes(self.size), self.settings
        even = self.size.adapter == self.size.adapter_evened
        numbers = (
            f"2 files x {self.size.adapter:,}" if even else f"({self.size.adapter:,} + {self.size.adapter_evened:,})"
        )
        kept = min(self.count, settings.keep_best + 1 + settings.keep_best_validation)
        return Term(
            "checkpoints until judged",
            self.count * one,
            f"{self.count} x ({numbers} x 4 B = {amount(one)}); once they have their FAD, the best "
            f"{settings.keep_best} and the latest stay: {amount(kept * one)}",
        )

    @property
    def states(self) -> Term:
        """Most that there are at once."""
        state = state_bytes(self.size, Choices.of(self.settings))
        return Term(
            "resumable state",
            STATES_HELD * state,
            f"{STATES_HELD} x {amount(state)}: the last {GENERATIONS}, those of the last {BESIDE_KEPT} checkpoints, "
            "and the one that is written",
        )

    @property
    def logs(self) -> Term:
        """And previews, of the start and of each checkpoint."""
        settings, steps = self.settings, self.settings.max_steps - self.done
        clips = settings.preview_count * settings.preview_seconds * PREVIEW_BYTES_PER_SECOND * (self.count + 1)
        return Term(
            "logs and previews",
            clips + steps * LOG_BYTES_PER_STEP,
            f"{steps:,} steps x {LOG_BYTES_PER_STEP} B + {settings.preview_count} previews x "
            f"{settings.preview_seconds:g} s x {self.count + 1}",
        )


def checkpoint_bytes(size: ModelSize) -> float:
    """The adapter in float32, in two files: PEFT's, and diffusers', which has one rank; ComfyUI's is a hard link."""
    return 4.0 * (size.adapter + size.adapter_evened)
