"""One stage of training: steps that can be killed at any moment and go on bit for bit.

What belongs here: the average, the state on disk, log and progress. What does not: what a step computes (its `Task`),
how weights move (`optimizer`).
Everything random in a task follows from seed and step, so that no random state has to be saved.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lofi_assets.demo.base_recipe.optimizer import Fixed, StageOptimizer
from lofi_assets.demo.base_recipe.settings import Training
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import StoreError, atomic_folder, atomic_path
from lofi_assets.progress import Progress
from lofi_assets.training.trainer.averaging import Average
from lofi_assets.training.trainer.log import StepLog, read_log

WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
FINISHED = "finished.json"
WEIGHT, AVERAGE = "weight", "average"
"""Of a parameter, beside the optimiser's own."""


class Task(Protocol):
    """What a stage learns."""

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Group -> name -> parameter; each group's gradient is clipped by itself."""
        ...

    @property
    def fixed(self) -> Fixed:
        """Entries that stay as they are."""
        ...

    def backward(self, step: int) -> dict[str, float]:
        """Leave the gradients of a step in the parameters; returns its losses by name, `loss` among them."""
        ...


@dataclass(frozen=True)
class Stage:
    """A stage in its folder."""

    name: str
    folder: Path
    training: Training
    run_id: str
    """Of everything that the weights depend on."""

    @property
    def weights(self) -> Path:
        """What the stage leaves: the averaged weights of its first group, once it is finished."""
        return self.folder / WEIGHTS

    @property
    def finished(self) -> bool:
        """Whether these very weights are there."""
        return self.weights.is_file() and read_json(self.folder / FINISHED, default={}).get("run") == self.run_id

    @property
    def seconds(self) -> float:
        """Wall time of all its steps, over however many calls."""
        total: float = sum(line["seconds"] for line in read_log(self.folder / LOG))
        return total


def run_stage(stage: Stage, task: Task) -> None:
    """Train until the last step and write the averaged weights; goes on from the last state of an earlier call.

    Raises:
        StoreError: the state is another recipe's, or a loss is not finite.
    """
    _require_own(stage, read_json(stage.folder / FINISHED))
    groups = task.groups()
    optimizer = StageOptimizer(groups, stage.training, task.fixed)
    average = Average.of(optimizer.parameters, decay=stage.training.ema)
    done = _restore(stage, optimizer, average)
    log = StepLog(stage.folder / LOG, after_step=done)
    try:
        steps = stage.training.steps
        with Progress(stage.name, total=steps, unit="step", first=done) as progress:
            for step in range(done + 1, steps + 1):
                started = time.perf_counter()
                losses = take_step(task, optimizer, step)
                average.update(step)
                _require_finite(stage, step, losses)
                progress.advance(note=f"loss {losses['loss']:.4f}")
                log.write(step, {**losses, "seconds": round(time.perf_counter() - started, 4)})
                if step % stage.training.save_every == 0 and step < steps:
                    log.sync()
                    _save(stage, step, optimizer, average)
    finally:
        log.close()
    kept = next(iter(groups))
    with atomic_path(stage.weights) as temporary:
        save_file({name: average.tensors[f"{kept}.{name}"].contiguous() for name in groups[kept]}, temporary)
    write_json(stage.folder / FINISHED, {"run": stage.run_id, "steps": stage.training.steps})
    shutil.rmtree(stage.folder / "state", ignore_errors=True)


def take_step(task: Task, optimizer: StageOptimizer, step: int) -> dict[str, float]:
    """One step of a task; steps count from 1. Returns its losses."""
    optimizer.zero_grad()
    losses = task.backward(step)
    optimizer.step(step)
    return losses


def read_weights(stage: Stage, module: nn.Module) -> None:
    """Put a finished stage's weights into a module.

    Raises:
        StoreError: the stage is not finished, or its weights are of another module.
    """
    if not stage.finished:
        raise StoreError(f"{stage.folder}: this stage is not finished; run lofi train-base again")
    found = module.load_state_dict(load_file(stage.weights), strict=False)
    if found.unexpected_keys:
        raise StoreError(f"{stage.weights}: holds {found.unexpected_keys[:3]}, which are not of this {stage.name}")


def losses_of(stage: Stage) -> Iterator[tuple[int, float]]:
    """(step, loss) of every step so far."""
    return ((line["step"], line["loss"]) for line in read_log(stage.folder / LOG))


def _require_finite(stage: Stage, step: int, losses: Mapping[str, float]) -> None:
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
        raise StoreError(
            f"{stage.name}: {', '.join(wrong)} is not finite at step {step}; lower its learning rate and start over"
        )


def _require_own(stage: Stage, record: Mapping[str, str] | None) -> None:
    if record is not None and record["run"] != stage.run_id:
        raise StoreError(
            f"{stage.folder}: holds the {stage.name} of another recipe; choose another folder, or remove this one"
        )


def _states(stage: Stage) -> dict[int, Path]:
    folders = (stage.folder / "state").glob("step=*")
    return {int(match[1]): path for path in folders if (match := re.fullmatch(r"step=(\d+)", path.name))}


def _save(stage: Stage, step: int, optimizer: StageOptimizer, average: Average) -> None:
    """Everything that the next step depends on, written whole; the older state goes after."""
    tensors = optimizer.state()
    for name, parameter in optimizer.parameters.items():
        tensors[f"{name}/{WEIGHT}"] = parameter.detach()
        tensors[f"{name}/{AVERAGE}"] = average.tensors[name]
    older = _states(stage)
    with atomic_folder(stage.folder / "state" / f"step={step}") as folder:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tensors.safetensors")
        (folder / "state.json").write_text(json.dumps({"run": stage.run_id, "step": step}), encoding="utf-8")
    for past, path in older.items():
        if past != step:
            shutil.rmtree(path)


def _restore(stage: Stage, optimizer: StageOptimizer, average: Average) -> int:
    """Put everything back as it was after the furthest saved step; returns that step, 0 for a fresh start."""
    states = _states(stage)
    if not states:
        return 0
    folder = states[max(states)]
    state = read_json(folder / "state.json")
    _require_own(stage, state)
    saved = load_file(folder / "tensors.safetensors")
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            parameter.copy_(saved.pop(f"{name}/{WEIGHT}"))
            average.tensors[name].copy_(saved.pop(f"{name}/{AVERAGE}"))
    optimizer.load_state(saved)
    return int(state["step"])
