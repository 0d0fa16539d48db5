"""What the first steps of a run took, so that the next plan of the same card need not assume it.

What belongs here: the measurement, its line in the log, and finding it again. What does not: the plan (`plan`).
Imports without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from lofi_assets.training.planning.cards import same_card
from lofi_assets.training.planning.memory import Choices
from lofi_assets.training.trainer.log import read_log

STEPS = 50
"""Steps of a call of the trainer that are looked at."""
WARM_UP = 5
"""First ones of them that are left out: kernels are chosen, loaded and compiled then."""
LINE = "calibration"


@dataclass(frozen=True)
class Calibration:
    """Measured time of a step."""

    card: str
    """As the driver names it; a CPU with its threads."""
    seconds: float
    """Median of a step: without validation, checkpoints and what the log and the data take between steps."""
    frames: float
    """Median latent frames of an item of those steps."""
    layers: int
    """Blocks of the model."""
    architecture: str
    choices: Mapping[str, Any]
    """Settings that decide how much a step computes (`Choices`)."""

    def line(self) -> dict[str, Any]:
        """As the log keeps it."""
        return {LINE: asdict(self)}

    def of_step_like(self, *, architecture: str, layers: int, choices: Choices) -> bool:
        """Whether a step under these settings computes the same, but for the length of its items."""
        return (self.architecture, self.layers, dict(self.choices)) == (architecture, layers, step_choices(choices))


def step_choices(choices: Choices) -> dict[str, Any]:
    """The settings that a step's time depends on, as JSON."""
    left_out = {"crop_frames", "preview_count", "preview_seconds"}
    return {field.name: getattr(choices, field.name) for field in fields(choices) if field.name not in left_out}


def measured(
    seconds: Sequence[float], frames: Sequence[int], *, card: str, layers: int, architecture: str, choices: Choices
) -> Calibration:
    """The calibration of a run from its first `STEPS` steps.

    Args:
        seconds: of each step, `STEPS` of them.
        frames: latent frames of each item of those steps.
    """
    return Calibration(
        card=card,
        seconds=median(seconds[WARM_UP:]),
        frames=median(frames),
        layers=layers,
        architecture=architecture,
        choices=step_choices(choices),
    )


def recorded(logs_dir: Path, *, card: str) -> list[Calibration]:
    """What runs on this card measured, the latest first; lines that are of another version are passed over."""
    logs = sorted(logs_dir.glob("train-*.jsonl"), key=lambda path: path.stat().st_mtime)
    found = [line[LINE] for log in logs for line in read_log(log) if LINE in line]
    names = {field.name for field in fields(Calibration)}
    return [
        Calibration(**entry) for entry in reversed(found) if entry.keys() == names and same_card(entry["card"], card)
    ]
