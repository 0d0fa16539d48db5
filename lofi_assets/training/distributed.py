"""Several processes that train one adapter: who they are, how gradients meet, how a shared-out tensor becomes whole.

What belongs here: everything that knows of more than one process, by accelerate's process state (so `accelerate launch`
and torchrun both start it) and torch's two wrappers. What does not: which items a process sees
(`trainer.batches`), starting the processes of one machine (`launch`), whether they mean the same (`agreement`). A
single process passes through untouched, and loads no accelerate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lofi_assets.training.agreement import Peers, Place, agreed, lead, stand
from lofi_assets.training.config import ConfigError, TrainingRun, TrainingSettings

if TYPE_CHECKING:
    from accelerate import PartialState


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them."""

    count: int = 1
    rank: int = 0
    state: "PartialState | None" = None
    peers: Peers | None = None

    @property
    def main(self) -> bool:
        """Whether this one writes checkpoints, state and log."""
        return self.rank == 0

    def lead(self, work: Callable[[], None]) -> None:
        """Let the main process do it while the others wait; what hinders it there ends all (`agreement.lead`)."""
        if self.peers:
            lead(self.peers, work)
        else:
            work()

    def told(self, topic: str, value: object) -> Any:
        """The main process's value, in all of them; JSON, and each topic once in a run."""
        if not self.peers:
            return value
        if self.main:
            self.peers.tell(topic, value)
        return self.peers.hear(topic, [0])[0]

    def sent(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The main process's tensors, in all of them and on the CPU, one after the other.

        Args:
            tensors: of the main process; in the others, some of the same names, shapes and types.
        """
        if not self.state:
            return dict(tensors)
        received = {}
        for name, tensor in tensors.items():
            # as bytes: a backend does not know every type
            data = tensor.contiguous().reshape(-1).view(torch.uint8).to(self.state.device)
            torch.distributed.broadcast(data, src=0)
            received[name] = data.cpu().view(tensor.dtype).reshape(tensor.shape)
        return received

    def wait(self) -> None:
        """Until all are here."""
        if self.state:
            self.state.wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """Element by element over all processes; the same for each of them."""
        if not self.state:
            return values
        from accelerate.utils import reduce

        total: Tensor = reduce(values, reduction="sum")
        return total

    def any(self, flag: bool) -> bool:
        """Whether it is true for one of them: they stop at the same step or not at all."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool) -> list[bool]:
        """`any` of each flag, in one exchange."""
        if not self.state:
            return list(flags)
        return [bool(count) for count in self.sum(torch.tensor(flags, dtype=torch.float32, device=self.state.device))]


ALONE = Processes()


@contextmanager
def joined(
    run: TrainingRun, *, fresh: bool, ready: Callable[[], torch.device]
) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that this one belongs to, agreed and connected within the block, and the device of this one.

    Args:
        fresh: the run starts over.
        ready: the device to train on; raises what hinders this process, which then ends all.
    Raises:
        ConfigError: more or fewer processes were started than the settings name; or they do not mean the same
            (`agreement.agreed`).
    """
    place = Place.here()
    if place.count == 1:
        _as_many(1, run.training)
        yield ALONE, ready()
        return

    def look() -> tuple[Any, torch.device]:
        _as_many(place.count, run.training)
        device = ready()
        return stand(run, device=device.type, fresh=fresh), device

    peers = Peers(place)
    device = agreed(peers, look)
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    try:
        processes = Processes(state.num_processes, state.process_index, state, peers)
        yield processes, state.device if device.type == "cuda" else device
    finally:
        state.destroy_process_group()


def _as_many(started: int, settings: TrainingSettings) -> None:
    if started != settings.processes:
        raise ConfigError(
            f"training.processes is {settings.processes}, but {started} were started; `python -m lofi_assets.training` "
            f"starts them on this machine, torchrun or `accelerate launch --num_processes {settings.processes}` on "
            "several (docs/several-gpus.md)"
        )


def wrapped(
    model: nn.Module,
    settings: TrainingSettings,
    processes: Processes,
    device: torch.device,
    *,
    blocks: Sequence[nn.Module],
) -> nn.Module:
    """The module to call instead of `model`, so that the processes share base (fsdp) or gradients (ddp, fsdp).

    fsdp replaces the parameters of `model` in place: take them after this call.

    Args:
        blocks: of the model, which fsdp gathers each by itself.
    """
    if processes.count == 1:
        return model
    if settings.parallel == "ddp":
        places = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=places, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.count,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    # a validation runs no backward pass, after which the parts that belong to no block would stay gathered: under
    # an average (`ema_decay`) the next step would then see the average in them
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def synchronised(model: Any, *, last: bool) -> AbstractContextManager[None]:
    """Around forward and backward pass: gradients meet in the last one of a step, and add up locally before."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        held: AbstractContextManager[None] = model.no_sync()
        return held
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that the processes share out; every process has to ask for it."""
    full = getattr(tensor, "full_tensor", None)
    return full() if full else tensor


def like(tensor: Tensor, target: Tensor) -> Tensor:
    """A full tensor, shared out as `target` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(target, DTensor) or tensor.shape != target.shape:
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements)
