"""The training loop: from a `TrainingRun` to checkpoints, going on where an earlier call stopped.

What belongs here: the optimiser, the rhythm of log and checkpoints, and when to stop. What does not: what a step sees
(`batches`), its loss (`backbones/`), the model (`model`), the learning rate (`optimizer`), what is saved and when
(`saving`), how files are written (`adapters`, `training.checkpoints`), signals and the command line
(`training.__main__`).

Every process of a run goes through the same calls; only the main one writes.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from lofi_assets.backbones.training import TIMESTEPS, Item, Objective
from lofi_assets.progress import Progress as Told
from lofi_assets.training.checkpoints import manifest as checkpoints
from lofi_assets.training.checkpoints import runs
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.config import SPLITS, ConfigError, TrainingRun
from lofi_assets.training.distributed import Processes, joined, synchronised, whole
from lofi_assets.training.features.cache import CachedFeatures
from lofi_assets.training.trainer.averaging import Average
from lofi_assets.training.trainer.batches import Source, validation_items
from lofi_assets.training.trainer.device import deterministic, pick_device
from lofi_assets.training.trainer.diverged import TrainingDiverged
from lofi_assets.training.trainer.log import StepLog
from lofi_assets.training.trainer.model import prepare_model
from lofi_assets.training.trainer.optimizer import build_optimizer, learning_rate
from lofi_assets.training.trainer.saving import Saving

NOISE_LEVELS = 4
"""Timesteps at which the validation loss is taken, evenly spread over the schedule."""
SMOOTHING = 0.98
"""Memory of the smoothed loss, about 50 steps: as many as it takes to even out the timesteps drawn."""
RECENT = 50

Say = Callable[[str], None]


@dataclass
class Progress:
    """What the loop remembers besides weights and optimiser; saved with them."""

    step: int = 0
    smoothed: float | None = None
    lowest: float | None = None
    last_loss: float | None = None
    validation_loss: float | None = None

    def extra(self) -> dict[str, Any]:
        """Everything but the step, as JSON."""
        return {name: value for name, value in vars(self).items() if name != "step"}

    def observe(self, loss: float) -> None:
        """Take in the loss of a step."""
        self.last_loss = loss
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        if self.step >= RECENT:
            self.lowest = self.smoothed if self.lowest is None else min(self.lowest, self.smoothed)


@dataclass
class Trainer:
    """A run in memory, as one of its processes has it: adapter, optimiser, data."""

    run: TrainingRun
    processes: Processes
    objective: Objective
    parameters: dict[str, torch.nn.Parameter]
    average: Average | None
    optimizer: torch.optim.Optimizer
    source: Source
    validation: Source
    log: StepLog | None
    """Of the main process."""
    progress: Progress
    say: Say
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    between_steps: bool = True
    """Weights, optimiser, average and log are all those of `progress.step`; False if an error came within an update."""

    def step(self) -> None:
        """One optimiser step; raises TrainingDiverged before the weights are touched."""
        settings, step = self.run.training, self.progress.step + 1
        started, rate = time.perf_counter(), learning_rate(settings, step)
        loss, seen = self._accumulate(step)
        norm = self._clip(settings.gradient_clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(_diagnosis(step, loss=loss, norm=norm, rate=rate, seen=seen))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.between_steps = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(step)
        self.progress.step = step
        self.progress.observe(loss)
        self.recent.append(loss)
        seconds = round(time.perf_counter() - started, 4)
        smoothed = self.progress.smoothed
        line = {"loss": loss, "smoothed": smoothed, "lr": rate, "grad_norm": norm, "items": seen, "seconds": seconds}
        self._write(line)
        self.between_steps = True
        self._judge(rate, seen)

    def validate(self) -> dict[str, float]:
        """Loss per timestep (`t=<timestep>`) and their mean (`mean`), on the same noise every time."""
        levels = validation_items(self.validation, levels=NOISE_LEVELS, limit=self.run.training.validation_limit)
        losses: dict[str, float] = {}
        with self.released(), torch.no_grad():
            for items in filter(None, levels):
                values = self._validation_losses(items)
                losses[f"t={items[0].sigma * TIMESTEPS:.0f}"] = math.fsum(values) / len(values)
        if losses:
            losses["mean"] = math.fsum(losses.values()) / len(losses)
            self.progress.validation_loss = losses["mean"]
            self._write({"validation_loss": losses["mean"], "validation_by_timestep": losses})
        return losses

    def _accumulate(self, step: int) -> tuple[float, list[str]]:
        """Gradients of one step; returns its mean loss and what it saw in all processes, as `track@timestep`."""
        accumulate, positions = self.run.training.accumulate, self.source.positions(step)
        losses = []
        for pass_number in range(accumulate):
            items = [self.source.item(position) for position in self._share(positions, pass_number)]
            with synchronised(self.objective.model, last=pass_number == accumulate - 1):
                loss = self.objective.losses(items).mean() / accumulate
                loss.backward()
            losses.append(loss.detach())
        total = self.processes.sum(torch.stack(losses).sum()) / self.processes.count
        draws = [self.source.draw(position) for position in positions]
        return float(total), [f"{draw.track.track_id}@{draw.sigma * TIMESTEPS:.0f}" for draw in draws]

    def _share(self, positions: range, pass_number: int) -> range:
        """What this process takes in a forward pass: neighbours in the step's order, which are of similar length."""
        size = self.run.training.batch_size
        first = (pass_number * self.processes.count + self.processes.rank) * size
        return positions[first : first + size]

    def _clip(self, largest: float) -> float:
        """Scale the gradients down to a norm of `largest`; returns the norm before, over all processes."""
        return float(whole(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), largest)))

    def _validation_losses(self, items: Sequence[Item]) -> list[float]:
        """Loss of each item; the processes take turns, and every one goes through as many forward passes."""
        size, processes = self.run.training.batch_size, self.processes
        order = sorted(range(len(items)), key=lambda index: items[index].latents.shape[-1])
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        losses = torch.zeros(len(items), device=self.objective.device)
        for first in range(0, len(batches), processes.count):
            turn = first + processes.rank
            batch = batches[min(turn, len(batches) - 1)]
            found = self.objective.losses([items[index] for index in batch])
            if turn < len(batches):
                losses[batch] = found
        return [float(loss) for loss in processes.sum(losses)]

    def released(self) -> AbstractContextManager[None]:
        """Within the block the model is what a checkpoint holds: the average where one is kept."""
        return self.average.applied() if self.average else nullcontext()

    def _write(self, values: dict[str, Any]) -> None:
        if self.log:
            self.log.write(self.progress.step, values)

    def _judge(self, rate: float, seen: list[str]) -> None:
        smoothed, lowest, factor = self.progress.smoothed, self.progress.lowest, self.run.training.divergence_factor
        if smoothed is not None and lowest is not None and smoothed > factor * lowest:
            reached = f"{smoothed:.4g} smoothed, {factor:g} times its lowest value {lowest:.4g}"
            raise TrainingDiverged(_diagnosis(self.progress.step, loss=reached, norm="finite", rate=rate, seen=seen))


def train(
    run: TrainingRun, *, fresh: bool = False, stop: Callable[[], bool] = lambda: False, say: Say = print
) -> runs.TrainingSummary:
    """Train until `max_steps`, or until `stop()` is true, going on from the furthest saved state.

    The result at a step depends on the run alone: killed and resumed or in one go, the adapter has the same bits on the
    same machine (constitution II). State is saved every `state_minutes`, at every checkpoint, at the last step, on a
    stop, and where an error ends the run between two steps.

    Args:
        fresh: archive what this run already has, and start over.
        stop: asked after every step.
        say: told about milestones.
    Raises:
        ConfigError: base or device are not what the run says.
        FeatureError: cached features are missing or damaged.
        CheckpointError: checkpoints without the state to go on from.
        TrainingDiverged: with a diagnosis; the last saved state stays.
        DiskError: no room for a checkpoint or a state; the last saved state stays.
    """
    device = pick_device(run.device, precision=run.training.precision)
    if run.backbone.fingerprint(run.base) != run.base_fingerprint:
        raise ConfigError(
            f"base: {run.base} has changed since the features were computed; materialise feature_cache again"
        )
    with joined(run.training, cpu=device.type == "cpu") as processes, deterministic(device), ExitStack() as held:
        if processes.main:
            held.enter_context(runs.exclusive(run.checkpoints_dir))
            archived = runs.open_run(run, fresh=fresh, say=say)
            if archived:
                say(f"a new run; the earlier one is kept in {run.checkpoints_dir.name}/{runs.ARCHIVE}/{archived}")
        processes.wait()
        trainer = _prepare(run, processes.device(device), processes, say)
        if trainer.log:
            held.enter_context(closing(trainer.log))
        processes.wait()
        summary = _run(trainer, stop)
        processes.wait()
        return summary


def _sources(run: TrainingRun) -> list[Source]:
    """Training and validation set."""
    features = CachedFeatures(run.backbone, run.features_dir)
    return [Source(run.of_split(split), run.training, run.backbone, features) for split in SPLITS]


def _prepare(run: TrainingRun, device: torch.device, processes: Processes, say: Say) -> Trainer:
    settings = run.training
    adapted = prepare_model(run, device=device, processes=processes)
    parameters = adapted.parameters
    optimizer = build_optimizer(settings, parameters.values())
    average = Average.of(parameters, decay=settings.ema_decay) if settings.ema_decay else None
    point = resume.resume_point(run.checkpoints_dir)
    progress = Progress()
    if point:
        tensors = average.tensors if average else None
        resume.restore_state(point, parameters=parameters, optimizer=optimizer, average=tensors)
        progress = Progress(step=point.step, **point.extra)
    if point and processes.main:
        say(f"going on after step {point.step}")
    source, validation = _sources(run)
    return Trainer(
        run=run,
        processes=processes,
        objective=run.backbone.objective(adapted.model, settings, dtype=adapted.dtype, device=device),
        parameters=parameters,
        average=average,
        optimizer=optimizer,
        source=source,
        validation=validation,
        log=StepLog(runs.log_path(run), after_step=progress.step or -1) if processes.main else None,
        progress=progress,
        say=say,
    )


def _run(trainer: Trainer, stop: Callable[[], bool]) -> runs.TrainingSummary:
    settings, progress, first = trainer.run.training, trainer.progress, trainer.progress.step
    processes = trainer.processes
    started, saving = time.perf_counter(), Saving(trainer)
    with saving.before_an_error():
        if first == 0:
            saving.save_state()
            if not processes.any(stop()):
                trainer.validate()
        _steps(trainer, saving, stop)
    done = progress.step - first
    return runs.TrainingSummary(
        run_id=trainer.run.run_id,
        step=progress.step,
        steps_now=done,
        last_loss=progress.last_loss,
        mean_loss=math.fsum(trainer.recent) / len(trainer.recent) if trainer.recent else None,
        validation_loss=progress.validation_loss,
        seconds_per_step=(time.perf_counter() - started) / done if done else None,
        checkpoints=tuple(r.checkpoint_id for r in checkpoints.read_manifest(trainer.run.checkpoints_dir)),
        log=str(runs.log_path(trainer.run)),
        interrupted=progress.step < settings.max_steps,
    )


def _steps(trainer: Trainer, saving: Saving, stop: Callable[[], bool]) -> None:
    """Steps until `max_steps` or a stop; what they came to is saved."""
    settings, progress, processes = trainer.run.training, trainer.progress, trainer.processes
    say = trainer.say if processes.main else lambda line: None
    with Told("training", total=settings.max_steps, unit="step", first=progress.step, say=say) as told:
        while progress.step < settings.max_steps:
            stopping, due = processes.any_of(stop(), saving.due())
            if stopping:
                break
            if due:
                saving.save_state()
            trainer.step()
            told.advance(note=f"loss {progress.smoothed:.4f}")
            if progress.step % settings.checkpoint_interval == 0:
                saving.save_checkpoint()
                if not stop():
                    saving.preview()
    saving.save_state()


def _diagnosis(step: int, *, loss: float | str, norm: float | str, rate: float, seen: list[str]) -> str:
    return (
        f"step {step}: loss {loss}, gradient norm {norm}, learning rate {rate:.3g}, on {', '.join(seen)} "
        "(track@timestep). If one track keeps coming up, listen to it and look at its measures; otherwise lower "
        "training.learning_rate, or set training.precision to '32'. What was saved before this step is kept."
    )
