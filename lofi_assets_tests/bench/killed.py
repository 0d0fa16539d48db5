"""A run whose process is killed, and that another process takes up from the state on the disk: the same bits or not.

The state is written, found and put back by `training.checkpoints.state`, as the trainer does it.
"""

import json
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.backbones.determinism import deterministic
from lofi_assets.training.checkpoints.state import collect_state, restore_state, resume_point, save_state
from lofi_assets.training.trainer import adapters

if TYPE_CHECKING:
    from lofi_assets_tests.bench.gpu import Bench

FOUND = "found.json"


def killed_row(bench: "Bench", *, compiled: bool, recorded: bool) -> dict[str, Any]:
    """Half of the steps in a process that is killed, the rest in another, beside all of them in a third.

    Raises:
        RuntimeError: a process ended otherwise than it should.
    """
    steps = 2 if bench.tiny else 10
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
        _run(bench, (compiled, recorded), whole, steps, killed_after=None)
        _run(bench, (compiled, recorded), broken, steps, killed_after=steps // 2)
        if (broken / FOUND).exists() or resume_point(broken) is None:
            raise RuntimeError("the killed process left a result, or no state")
        _run(bench, (compiled, recorded), broken, steps, killed_after=None)
        wanted, found = (json.loads((folder / FOUND).read_text(encoding="utf-8")) for folder in (whole, broken))
    resumed = {"resumed_at": found["first"], "same_weights": wanted["weights"] == found["weights"]}
    same = wanted["losses"][found["first"] :] == found["losses"]
    ways = {"compiled": compiled, "recorded": recorded}
    return {"row": "killed and resumed", **ways, "steps": steps, **resumed, "same_losses": same}


def _run(bench: "Bench", ways: tuple[bool, bool], folder: Path, steps: int, *, killed_after: int | None) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_train, args=(bench, *ways, folder, steps, killed_after)
    )
    process.start()
    process.join()
    wanted = 0 if killed_after is None else -signal.SIGKILL
    if process.exitcode != wanted:
        raise RuntimeError(f"the training process ended with {process.exitcode}, not {wanted}")


def _train(bench: "Bench", compiled: bool, recorded: bool, folder: Path, steps: int, killed_after: int | None) -> None:
    """From the state in `folder`, if there is one, to the end; or into a step whose work is lost."""
    items = [bench.item(bench.seconds[-1])]
    with deterministic(bench.device):
        trained, point = bench.trained(compiled=compiled, recorded=recorded), resume_point(folder)
        if point:
            restore_state(point, parameters=trained.parameters, optimizer=trained.optimizer)
        first = point.step if point else 0
        losses = []
        for step in range(first, steps):
            losses.append(trained.step(items))
            if step + 1 == killed_after:
                state = collect_state(trained.parameters, trained.optimizer)
                save_state(folder, run_id="bench", step=killed_after, tensors=state, extra={})
                trained.step(items)
                os.kill(os.getpid(), signal.SIGKILL)
    weights = adapters.digest(adapters.snapshot(trained.parameters))
    folder.mkdir(parents=True, exist_ok=True)
    found = {"first": first, "losses": losses, "weights": weights}
    (folder / FOUND).write_text(json.dumps(found), encoding="utf-8")
