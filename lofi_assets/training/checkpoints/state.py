"""The state a killed run goes on from: adapter, its average and optimiser, apart from the weights that are released.

It is in `checkpoints/.resume/step={N}/`, written whole and renamed, the last two of them (`GENERATIONS`), and in
`epoch=0-step={N}_lora/state/` of the last two checkpoints, hard links to the same files. Tensors are safetensors and
the rest is JSON: nothing is unpickled. `state.json` holds the digest of the tensors' file and its own. Random state is
not among it, since every random number follows from seed and position (`training.trainer.batches`,
`training.trainer.randomness`).
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass as record

from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError, atomic_folder, link_or_copy
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.tensor_file import write_hashed

if TYPE_CHECKING:
    import torch

FOLDER = ".resume"
BESIDE = "state"
"""Folder in a checkpoint."""
STATE = "state.json"
TENSORS = "tensors.safetensors"
WEIGHT = "weight"
AVERAGE = "average"
GENERATIONS = 2
"""States that are kept: where the last one is damaged, the run goes on from the one before."""
BESIDE_KEPT = 2
"""Checkpoints that keep their state; the others hold what is released alone, 2 of 5 GB at the published size."""
DAMAGED = "damaged-"
"""Begins the name of a state that is set aside, until the run has passed its step."""

State = Mapping[str, "torch.Tensor"]
Say = Callable[[str], None]


@record(frozen=True, kw_only=True, config=STORED)
class StateRecord:
    """`state.json`. A file without the two digests is of a version that wrote none, and its tensors are not checked."""

    run_id: str
    step: int
    extra: Mapping[str, Any]
    tensors_sha256: str | None = None
    """Of the tensors' file."""
    sha256: str | None = None
    """Of the other fields (`hash_of`)."""

    @property
    def own_digest(self) -> str:
        """What `sha256` has to be."""
        return hash_of(self.run_id, self.step, dict(self.extra), self.tensors_sha256)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stands."""

    folder: Path
    run_id: str
    step: int
    extra: Mapping[str, Any]
    """Small values of the loop, as JSON."""
    tensors_sha256: str | None = None
    """None: written by a version without digests."""


def resume_point(checkpoints_dir: Path) -> ResumePoint | None:
    """The furthest saved state whose files are whole, None if there is none. Reads no tensors: see `choose_state`."""
    return next((point for point in _states(checkpoints_dir) if isinstance(point, ResumePoint)), None)


def choose_state(checkpoints_dir: Path, *, run_id: str, say: Say) -> list[str]:
    """Make a state whose tensors are those that were saved the furthest one; reads every byte of it.

    Looks at the furthest state first, then at the one before, then at those beside checkpoints. What is damaged is set
    aside and told.

    Returns:
        What is wrong with every state that there is, and nothing if one of them is sound or there is none.
    """
    faults: dict[Path, str] = {}
    beside = None
    for folder, found in zip(_by_step(checkpoints_dir), _states(checkpoints_dir), strict=True):
        fault = found if isinstance(found, str) else changed(found)
        if fault is None:
            break
        faults[folder] = fault
    else:
        beside = _sound_beside(checkpoints_dir, run_id=run_id)
        if beside is None:
            return list(faults.values())
    for folder in faults:
        _set_aside(folder)
    if beside:
        _link(beside.folder, checkpoints_dir / FOLDER / f"step={beside.step}")
    point = resume_point(checkpoints_dir)
    for fault in faults.values():
        say(f"{fault}; the run goes on from step {point.step if point else 0}, and what came after is done again")
    if point and point.tensors_sha256 is None:
        say(f"{point.folder}: an earlier version saved it without a digest, so its tensors are not checked")
    return []


def changed(point: ResumePoint) -> str | None:
    """Why the tensors of a state are not those that were saved, None if they are or nothing says; reads all bytes."""
    path = point.folder / TENSORS
    if point.tensors_sha256 is None:
        return None
    try:
        found = sha256_file(path)
    except OSError as error:
        return f"{path}: does not read ({error})"
    if found == point.tensors_sha256:
        return None
    return f"{path}: holds other bytes than were saved (sha256 {found[:12]}, not {point.tensors_sha256[:12]})"


def keep_beside_checkpoint(checkpoints_dir: Path) -> None:
    """Put the furthest state into the checkpoint of its step, if there is one that lacks it; free those of others.

    Hard links cost nothing while `.resume` has the same state. The states of all but the last `BESIDE_KEPT`
    checkpoints are removed.
    """
    point = resume_point(checkpoints_dir)
    checkpoint = checkpoints_dir / checkpoint_id(point.step) if point else None
    if point and checkpoint and checkpoint.is_dir() and not (checkpoint / BESIDE).is_dir():
        _link(point.folder, checkpoint / BESIDE)
    beside = _beside(checkpoints_dir)
    for step in sorted(beside)[:-BESIDE_KEPT]:
        shutil.rmtree(beside[step], ignore_errors=True)  # retention may remove the checkpoint meanwhile


def save_state(checkpoints_dir: Path, *, run_id: str, step: int, tensors: "State", extra: Mapping[str, Any]) -> None:
    """Save everything that step `step` + 1 depends on, then drop all states but the last `GENERATIONS`."""
    with atomic_folder(checkpoints_dir / FOLDER / f"step={step}") as folder:
        digest = write_hashed(tensors, folder / TENSORS)
        saved = StateRecord(run_id=run_id, step=step, extra=dict(extra), tensors_sha256=digest)
        write_typed(folder / STATE, replace(saved, sha256=saved.own_digest))
    states = _folders(checkpoints_dir)
    kept = sorted(past for past in states if past <= step)[-GENERATIONS:]
    passed = [path for number, path in _folders(checkpoints_dir, prefix=DAMAGED).items() if number <= step]
    for path in (*passed, *(states[number] for number in states if number not in kept)):
        shutil.rmtree(path)


def collect_state(
    parameters: "Mapping[str, torch.nn.Parameter]",
    optimizer: "torch.optim.Optimizer",
    *,
    average: "State | None" = None,
) -> "State":
    """Copies on the CPU of what `save_state` writes: `<parameter>/<field>`. Every process has to take part."""
    import torch

    from lofi_assets.training.distributed import whole

    tensors = {}
    for name, parameter in parameters.items():
        fields = {WEIGHT: parameter.detach(), **optimizer.state[parameter]}
        if average is not None:
            fields[AVERAGE] = average[name]
        for field, value in fields.items():
            # a copy of each: 8-bit moments share their quantization map, and safetensors writes no shared memory
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
            tensors[f"{name}/{field}"] = whole(tensor).to("cpu", copy=True).contiguous()
    return tensors


def restore_state(
    point: ResumePoint,
    *,
    parameters: "Mapping[str, torch.nn.Parameter]",
    optimizer: "torch.optim.Optimizer",
    average: "State | None" = None,
    tensors: "State | None" = None,
) -> None:
    """Put adapter, optimiser and average back as they were after step `point.step`.

    Args:
        tensors: what the state's file holds, where this process cannot read it.
    Raises:
        StoreError: the saved tensors are not those of this adapter.
    """
    import torch
    from safetensors.torch import load_file

    from lofi_assets.training.distributed import like

    saved: dict[str, dict[str, Any]] = {}
    for key, tensor in (tensors or load_file(point.folder / TENSORS)).items():  # found whole by `resume_point`
        name, _, field = key.rpartition("/")
        saved.setdefault(name, {})[field] = tensor
    if saved.keys() != parameters.keys() or (average is not None) != all(
        AVERAGE in fields for fields in saved.values()
    ):
        raise StoreError(f"{point.folder}: holds another adapter than this run's; start over with --fresh")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like(saved[name].pop(WEIGHT), parameter))
            if average is not None:
                average[name].copy_(like(saved[name].pop(AVERAGE), parameter))
    states = [
        {field: _number_or(like(value, parameter)) for field, value in saved[name].items()}
        for name, parameter in parameters.items()
    ]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": dict(enumerate(states)), "param_groups": groups})


def _number_or(value: "torch.Tensor") -> Any:
    """bitsandbytes counts its steps in a plain integer."""
    import torch

    return int(value) if value.dtype == torch.int64 and value.ndim == 0 else value


def _read(folder: Path) -> ResumePoint | str:
    """The state in `folder`, or what is wrong with it; a file that is cut short is seen by its header and size."""
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    try:
        saved = read_typed(path, StateRecord, remedy="restore it from a copy")
    except (OSError, StoreError) as error:
        return f"{path}: is no saved state ({error})"
    if saved is None:
        return f"{path}: is no saved state (absent)"
    if (saved.sha256, saved.tensors_sha256) != (None, None) and saved.sha256 != saved.own_digest:
        return f"{path}: holds other values than were saved (its sha256 does not fit)"
    try:
        with safe_open(folder / TENSORS, framework="numpy"):
            return ResumePoint(folder, saved.run_id, saved.step, saved.extra, saved.tensors_sha256)
    except (OSError, SafetensorError) as error:
        return f"{folder / TENSORS}: does not load ({error})"


def _link(source: Path, target: Path) -> None:
    with atomic_folder(target) as folder:
        for name in (TENSORS, STATE):
            link_or_copy(source / name, folder / name)


def _sound_beside(checkpoints_dir: Path, *, run_id: str) -> ResumePoint | None:
    """The furthest sound state of the run that a checkpoint holds."""
    for _, folder in sorted(_beside(checkpoints_dir).items(), reverse=True):
        state = _read(folder)
        if isinstance(state, ResumePoint) and state.run_id == run_id and changed(state) is None:
            return state
    return None


def _set_aside(folder: Path) -> None:
    """Out of the way of what is gone on from; the bytes stay until the run has passed them."""
    target = folder.with_name(DAMAGED + folder.name)
    if target.is_dir():
        shutil.rmtree(target)
    folder.rename(target)


def _states(checkpoints_dir: Path) -> Iterator[ResumePoint | str]:
    """The saved states, the furthest first, or what is wrong with them."""
    return (_read(folder) for folder in _by_step(checkpoints_dir))


def _by_step(checkpoints_dir: Path) -> list[Path]:
    return [folder for _, folder in sorted(_folders(checkpoints_dir).items(), reverse=True)]


def _folders(checkpoints_dir: Path, *, prefix: str = "") -> dict[int, Path]:
    return _numbered((checkpoints_dir / FOLDER).glob(f"{prefix}step=*"), rf"{prefix}step=(\d+)")


def _beside(checkpoints_dir: Path) -> dict[int, Path]:
    """Step -> the state beside its checkpoint."""
    checkpoints = _numbered(checkpoints_dir.glob("epoch=0-step=*_lora"), r"epoch=0-step=(\d+)_lora")
    return {step: path / BESIDE for step, path in checkpoints.items() if (path / BESIDE).is_dir()}


def _numbered(paths: Iterable[Path], pattern: str) -> dict[int, Path]:
    found = {}
    for path in paths:
        if match := re.fullmatch(pattern, path.name):
            found[int(match[1])] = path
    return found
