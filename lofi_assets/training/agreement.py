"""Whether the processes of a run mean the same, asked before they work together.

What belongs here: what each process says of itself, what is wrong with all of that, and the store through which they
say it (torch's TCPStore, which the main process holds, or torchrun's agent for it). What does not: gradients and
tensors (`distributed`). A difference that is found later is a collective that waits for ever.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lofi_assets.constitution.made_with import code, installed_version
from lofi_assets.environment import seconds
from lofi_assets.errors import explanation
from lofi_assets.training.checkpoints.provenance import PACKAGES
from lofi_assets.training.checkpoints.runs import archived_run, current_run
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import ConfigError, TrainingRun

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # documented, but not exported by name

WAIT = "LOFI_JOIN_SECONDS"
"""Environment variable: how long a process waits for the others to come."""
WAIT_S = 600
PART_S = 10.0
"""How long the process that holds the store waits, before it ends, for the others to hear why."""
POLL_S = 0.05
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Set by torchrun (and `accelerate launch`, which is built on it): its agent holds the store."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Which process this one is, by the variables that every launcher sets (torchrun's names)."""

    rank: int = 0
    count: int = 1
    address: str = ""
    """Of the main process."""
    port: int = 0

    @classmethod
    def here(cls) -> "Place":
        """By RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

        Raises:
            ConfigError: one of them is absent or says what cannot be.
        """
        count = _number("WORLD_SIZE", 1)
        if count == 1:
            return cls()
        rank, port = _number("RANK", None), _number("MASTER_PORT", None)
        _number("LOCAL_RANK", None)  # accelerate would take the first GPU for each
        if rank >= count:
            raise ConfigError(f"RANK is {rank}, but WORLD_SIZE is {count}: ranks count from 0")
        if not os.environ.get("MASTER_ADDR"):
            raise ConfigError("MASTER_ADDR is not set: the address at which the other processes reach process 0")
        return cls(rank, count, os.environ["MASTER_ADDR"], port)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            f"{name} is {text!r}, but has to be a whole number where several processes train; torchrun, "
            "`accelerate launch` and `python -m lofi_assets.training` set it"
        )
    return int(text)


@dataclass(frozen=True)
class Stand:
    """What a process says of itself."""

    host: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Name -> value that has to be the same in all; JSON values."""
    step: int = 0
    """Up to which it has saved states of the run, in the folder that it sees."""
    fault: str = ""
    """Why it cannot start."""


def stand(run: TrainingRun, *, device: str, fresh: bool) -> Stand:
    """Of this process.

    Args:
        device: kind of device that it trains on (`cpu`, `cuda`).
        fresh: the run starts over, so that saved states do not count.
    """
    facts = {
        "run": run.run_id,
        "dataset": run.dataset_id,
        "base": run.base_fingerprint[:12],
        **{f"training.{name}": value for name, value in run.training.model_dump(mode="json").items()},
        "device": device,
        "--fresh": fresh,
        "lofi_assets' source": code().source_sha256[:12],
        **{name: installed_version(name) for name in PACKAGES},
    }
    return Stand(socket.gethostname(), facts, 0 if fresh else _saved_step(run))


def _saved_step(run: TrainingRun) -> int:
    folder = run.checkpoints_dir
    place = folder if current_run(folder) == run.run_id else archived_run(folder, run.run_id)
    point = resume_point(place) if place else None
    return point.step if point else 0


def disagreement(stands: Sequence[Stand]) -> str:
    """Why these processes, by rank, cannot train together, with what to do; "" if they can."""
    faults = [f"{_who(rank, one)} cannot start: {one.fault}" for rank, one in enumerate(stands) if one.fault]
    if faults:
        return "; ".join(faults)
    main = stands[0]
    differing = [
        f"{_who(rank, one)} has {name} {one.facts.get(name)}, {_who(0, main)} has {main.facts.get(name)}"
        for rank, one in enumerate(stands)
        for name in dict.fromkeys([*main.facts, *one.facts])
        if one.facts.get(name) != main.facts.get(name)
    ]
    if differing:
        return f"{'; '.join(differing)}: start every process with the same file, arguments, code and packages"
    rank, further = max(enumerate(stands), key=lambda pair: pair[1].step)
    if further.step > main.step:
        return (
            f"{_who(rank, further)} has saved this run up to step {further.step}, {_who(0, main)} up to step "
            f"{main.step}: what the main process has is gone on from. Make {further.host} the first machine, or copy "
            f"its checkpoints folder to {main.host}; or remove it there"
        )
    return ""


def _who(rank: int, one: Stand) -> str:
    return f"process {rank} on {one.host}"


class Peers:
    """All processes of a run as one of them reaches them: short JSON values in a store, by topic and rank."""

    def __init__(self, place: Place, *, wait_s: float | None = None) -> None:
        """Reach the store.

        Raises:
            ConfigError: nobody holds it at that address in time, or it cannot be held there.
        """
        from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

        self.place = place
        self._wait_s = wait_s or seconds(WAIT, WAIT_S)
        self._holds = place.rank == 0 and os.environ.get(AGENT) != "True"
        try:
            # not waiting for workers: who is missing is to be named
            self._held = TCPStore(
                place.address,
                place.port,
                place.count,
                self._holds,
                timedelta(seconds=self._wait_s),
                wait_for_workers=False,
                multi_tenant=True,  # torch's own store of the process group is then the same
            )
        except (DistError, ValueError) as error:
            what = "cannot be held" if self._holds else f"answered nothing within {self._wait_s:g} s"
            raise ConfigError(
                f"process {place.rank} of {place.count}: the store at {place.address}:{place.port} {what} "
                f"({_first_line(error)}); MASTER_ADDR and MASTER_PORT have to be an address and a free port of the "
                "machine of process 0, which the others reach"
            ) from error
        self._store: Store = PrefixStore("lofi_assets", self._held)

    def tell(self, topic: str, value: object) -> None:
        """Say something to all.

        Raises:
            ConfigError: the store is gone with the process that held it.
        """
        with self._reached():
            self._store.set(f"{topic}/{self.place.rank}", json.dumps(value))

    def hear(self, topic: str, ranks: Sequence[int]) -> list[Any]:
        """What these processes said, once all of them did.

        Raises:
            ConfigError: one did not in time, or the store is gone with the process that held it.
        """
        missing = self._missing(topic, ranks, seconds=self._wait_s)
        if missing:
            names = ", ".join(map(str, missing))
            raise ConfigError(
                f"process {self.place.rank} waited {self._wait_s:g} s for process {names} of {self.place.count} in "
                f"vain: start all of them, or read why they ended ({WAIT} sets how long to wait)"
            )
        with self._reached():
            return [json.loads(self._store.get(f"{topic}/{rank}")) for rank in ranks]

    def part(self) -> None:
        """Before an end that all heard the reason of: whoever holds the store ends last."""
        self.tell("parting", True)
        if self._holds:
            self._missing("parting", range(self.place.count), seconds=PART_S)

    def _missing(self, topic: str, ranks: Sequence[int], *, seconds: float) -> list[int]:
        deadline = time.monotonic() + seconds
        while True:
            with self._reached():
                missing = [rank for rank in ranks if not self._store.check([f"{topic}/{rank}"])]
            if not missing or time.monotonic() > deadline:
                return missing
            time.sleep(POLL_S)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        from torch.distributed import DistError

        try:
            yield
        except DistError as error:
            raise ConfigError(
                f"process {self.place.rank}: process 0 ended while it was waited for; its own message says why"
            ) from error


def agreed(peers: Peers, look: Callable[[], tuple[Stand, T]]) -> T:
    """What `look` found beside this process's stand, once it is known that all processes can train together.

    Args:
        look: raises what hinders this process, which then ends all.
    Raises:
        ConfigError: another process cannot start, or means another run, step or code; the same sentence in each.
        Exception: what `look` raised.
    """
    try:
        own, found = look()
    except Exception as error:
        withdraw(peers, error)
        raise
    peers.tell("stand", asdict(own))
    sentence = disagreement([Stand(**one) for one in peers.hear("stand", range(peers.place.count))])
    if sentence:
        peers.part()
        raise ConfigError(sentence)
    return found


def withdraw(peers: Peers, error: Exception) -> None:
    """Say that this process cannot start, and why; to nobody, if they are gone already."""
    with suppress(ConfigError):
        peers.tell("stand", asdict(Stand(socket.gethostname(), fault=_sentence(error))))
        peers.part()


def lead(peers: Peers, work: Callable[[], None]) -> None:
    """Let the main process do `work` while the others wait, once in a run; what hinders it there ends all.

    Raises:
        ConfigError: the main process could not; in the others.
        Exception: what `work` raised; in the main process.
    """
    if peers.place.rank:
        (fault,) = peers.hear("led", [0])
        if fault:
            peers.part()
            raise ConfigError(f"process 0 cannot start: {fault}")
        return
    try:
        work()
    except Exception as error:
        peers.tell("led", _sentence(error))
        peers.part()
        raise
    peers.tell("led", "")


def _sentence(error: Exception) -> str:
    return explanation(error) or f"{type(error).__name__}: {error}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
