"""The log's numbers as TensorBoard curves, in the folder beside the log: `tensorboard --logdir data/logs`.

Written with `tensorboard` (Apache-2.0, in the lock already) through torch's SummaryWriter, rather than tensorboardX
(MIT, 88 kB): whoever wants to look needs `tensorboard` anyway. Without it training runs as well, without curves.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BY_TIMESTEP = "validation_by_timestep"


class Curves:
    """Scalars of a run by step; those after the step that a run goes on from are cut off, as in the log."""

    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add every number of a log line, and the memory in use."""
        for name, value in _numbers(values):
            self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("memory_gb", _memory_gb(), step)

    def sync(self) -> None:
        """Bring what was written to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def open_curves(folder: Path, *, after_step: int) -> Curves | None:
    """Curves in `folder` that go on after `after_step`; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return Curves(SummaryWriter(str(folder), purge_step=max(after_step + 1, 0)))


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if name == BY_TIMESTEP:
            yield from ((f"validation/{timestep}", loss) for timestep, loss in value.items())
        elif isinstance(value, int | float):
            yield name, value


def _memory_gb() -> float:
    """Most that tensors took on the GPU so far, else what this process takes of the host."""
    import psutil
    import torch

    taken = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
    return taken / 1e9
