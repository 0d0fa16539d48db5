"""The time of a run's first steps, into its log: what is left, and what the next plan of the same card goes by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lofi_assets.progress import duration
from lofi_assets.training.config import TrainingRun
from lofi_assets.training.planning.calibration import STEPS, Calibration, measured
from lofi_assets.training.planning.memory import Choices
from lofi_assets.training.trainer.batches import Source


@dataclass
class FirstSteps:
    """Watches the first `STEPS` steps of a call."""

    run: TrainingRun
    source: Source
    card: str
    """`planning.cards.device_name`."""
    layers: int
    """Blocks of the model."""
    _seconds: list[float] = field(default_factory=list)
    _frames: list[int] = field(default_factory=list)

    def observe(self, step: int, seconds: float, *, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Take in a step; with the last one that it watches, say what is left and return the line for the log."""
        if len(self._seconds) == STEPS:
            return None
        settings, features = self.source.settings, self.source.features
        longest = settings.crop_frames
        self._seconds.append(seconds)
        for position in self.source.positions(step):
            frames = features.frames(self.source.track(position).key)
            self._frames.append(frames if longest is None else min(frames, longest))
        if len(self._seconds) < STEPS:
            return None
        found = self._found()
        left = duration(found.seconds * (settings.max_steps - step))
        say(f"{found.seconds:.3g} s per step on {self.card}: {left} left, validation and checkpoints not counted")
        return found.line()

    def _found(self) -> Calibration:
        return measured(
            self._seconds,
            self._frames,
            card=self.card,
            layers=self.layers,
            architecture=self.run.architecture,
            choices=Choices.of(self.run.training),
        )
