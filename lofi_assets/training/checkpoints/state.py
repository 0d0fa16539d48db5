"""The state a killed run goes on from: adapter, its average and optimiser, apart from the weights that are released.

It is in `checkpoints/.resume/step={N}/`, written whole and renamed, the older one removed after, and in
`epoch=0-step={N}_lora/state/`, hard links to the same files, so that a run goes on exactly from any checkpoint that is
kept. Tensors are safetensors and the rest is JSON: nothing is unpickled. Random state is not among it, since every
random number follows from seed and position (`training.trainer.batches`, `training.trainer.randomness`).
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.files.documents import write_json
from lofi_assets.files.writing import StoreError, atomic_folder, link_or_copy
from lofi_assets.training.checkpoints.files import checkpoint_id

if TYPE_CHECKING:
    import torch

FOLDER = ".resume"
BESIDE = "state"
"""Folder in a checkpoint."""
STATE = "state.json"
TENSORS = "tensors.safetensors"
WEIGHT = "weight"
AVERAGE = "average"

State = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stands."""

    folder: Path
    run_id: str
    step: int
    extra: Mapping[str, Any]
    """Small values of the loop, as JSON."""


def resume_point(checkpoints_dir: Path) -> ResumePoint | None:
    """The furthest saved state that is sound, None if there is none. Reads no tensors."""
    found = (_read(folder) for _, folder in sorted(_folders(checkpoints_dir).items(), reverse=True))
    return next((point for point in found if isinstance(point, ResumePoint)), None)


def unsound_states(checkpoints_dir: Path) -> list[str]:
    """What is wrong with each saved state that cannot be gone on from, the furthest first; names the file."""
    found = (_read(folder) for _, folder in sorted(_folders(checkpoints_dir).items(), reverse=True))
    return [fault for fault in found if isinstance(fault, str)]


def keep_beside_checkpoint(checkpoints_dir: Path) -> None:
    """Put the furthest state into the checkpoint of its step, if there is one that lacks it.

    Hard links cost nothing while the state is the furthest; afterwards the checkpoint's retention frees it.
    """
    point = resume_point(checkpoints_dir)
    checkpoint = checkpoints_dir / checkpoint_id(point.step) if point else None
    if point and checkpoint and checkpoint.is_dir() and not (checkpoint / BESIDE).is_dir():
        _link(point.folder, checkpoint / BESIDE)


def recover(checkpoints_dir: Path, *, run_id: str) -> bool:
    """Make the state of the run's furthest checkpoint with a sound one the state to go on from; False if none has."""
    states = {}
    for folder in checkpoints_dir.glob(f"epoch=0-step=*_lora/{BESIDE}"):
        state = _read(folder)
        if isinstance(state, ResumePoint) and state.run_id == run_id:
            states[state.step] = folder
    if not states:
        return False
    _link(states[max(states)], checkpoints_dir / FOLDER / f"step={max(states)}")
    return True


def save_state(checkpoints_dir: Path, *, run_id: str, step: int, tensors: "State", extra: Mapping[str, Any]) -> None:
    """Save everything that step `step` + 1 depends on, then drop the older state."""
    from safetensors.torch import save_file

    older = _folders(checkpoints_dir)
    with atomic_folder(checkpoints_dir / FOLDER / f"step={step}") as folder:
        save_file(dict(tensors), folder / TENSORS)
        write_json(folder / STATE, {"run_id": run_id, "step": step, "extra": dict(extra)})
    for past in older.values():
        if past.name != f"step={step}":
            shutil.rmtree(past)


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

    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        point = ResumePoint(folder, state["run_id"], state["step"], state["extra"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{folder / STATE}: is no saved state ({type(error).__name__}: {error})"
    try:
        with safe_open(folder / TENSORS, framework="numpy"):
            return point
    except (OSError, SafetensorError) as error:
        return f"{folder / TENSORS}: does not load ({error})"


def _link(source: Path, target: Path) -> None:
    with atomic_folder(target) as folder:
        for name in (TENSORS, STATE):
            link_or_copy(source / name, folder / name)


def _folders(checkpoints_dir: Path) -> dict[int, Path]:
    found = {}
    for path in (checkpoints_dir / FOLDER).glob("step=*"):
        if match := re.fullmatch(r"step=(\d+)", path.name):
            found[int(match[1])] = path
    return found
