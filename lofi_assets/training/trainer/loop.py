"""The training loop: from a `TrainingRun` to checkpoints, going on where an earlier call stopped.

What belongs here: the optimiser, the rhythm of log, validation and checkpoints, and when to stop. What does not: what a
step sees (`batches`), its loss (`backbones/`), the model (`model`), the learning rate (`optimizer`), what is saved and
when (`saving`), how files are written (`adapters`, `training.checkpoints`), signals and the command line
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

from lofi_assets.backbones.determinism import deterministic
from lofi_assets.backbones.training import TIMESTEPS, Item, Objective
from lofi_assets.progress import Progress as Told
from lofi_assets.training import track_losses
from lofi_assets.training.checkpoints import manifest as checkpoints
from lofi_assets.training.checkpoints import runs
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.config import SPLITS, TrainingRun
from lofi_assets.training.distributed import Processes, joined, whole
from lofi_assets.training.features.cache import CachedFeatures
from lofi_assets.training.planning.cards import device_name
from lofi_assets.training.trainer.averaging import Average
from lofi_assets.training.trainer.batches import Source, validation_items
from lofi_assets.training.trainer.diverged import TrainingDiverged
from lofi_assets.training.trainer.dropout import masked
from lofi_assets.training.trainer.exactness import prove_exact
from lofi_assets.training.trainer.item_losses import StepItems, diagnosis, skipping
from lofi_assets.training.trainer.log import StepLog
from lofi_assets.training.trainer.model import prepare_model
from lofi_assets.training.trainer.opening import open_folder, ready, start_of_all
from lofi_assets.training.trainer.optimizer import build_optimizer, estimates, learning_rate, restore_estimates
from lofi_assets.training.trainer.pace import FirstSteps
from lofi_assets.training.trainer.passes import Passes
from lofi_assets.training.trainer.progress import RECENT, Progress
from lofi_assets.training.trainer.saving import Saving

NOISE_LEVELS = 4
"""Timesteps at which the validation loss is taken, evenly spread over the schedule."""

Say = Callable[[str], None]


@dataclass
class Trainer:
    """A run in memory, as one of its processes has it: adapter, optimiser, data."""

    run: TrainingRun
    processes: Processes
    objective: Objective
    passes: Passes
    parameters: dict[str, torch.nn.Parameter]
    average: Average | None
    optimizer: torch.optim.Optimizer
    source: Source
    validation: Source
    log: StepLog | None
    """Of the main process."""
    progress: Progress
    say: Say
    pace: FirstSteps | None = None
    """Of the main process."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    between_steps: bool = True
    """Weights, optimiser, average and log are all those of `progress.step`; False if an error came within an update."""

    def step(self) -> None:
        """One optimiser step; raises TrainingDiverged before the weights are touched."""
        settings, step = self.run.training, self.progress.step + 1
        started, rate = time.perf_counter(), learning_rate(settings, step)
        loss, items = self._accumulate(step)
        norm = self._clip(settings.gradient_clip)
        if not (math.isfinite(loss or 0.0) and math.isfinite(norm)):
            raise TrainingDiverged(diagnosis(items, step=step, loss=loss, norm=norm, rate=rate))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.between_steps = False
        if loss is not None:  # with nothing to learn from, momentum and weight decay would still move the weights
            self.optimizer.step()
        self.passes.clear()
        if self.average:
            self.average.update(step)
        self.progress.observe(step, loss, skipped=len(items.skipped))
        self.progress.estimates = estimates(self.optimizer)
        if loss is not None:
            self.recent.append(loss)
        seconds = round(time.perf_counter() - started, 4)
        line = {"loss": loss, "smoothed": self.progress.smoothed, "lr": rate, "grad_norm": norm, **items.line()}
        if (estimate := self.progress.estimates.get("d")) is not None:
            line["d"] = estimate
        self._write({**line, "seconds": seconds})
        if pace := self.pace and self.pace.observe(step, seconds, say=self.say):
            self._write(pace)
        self.between_steps = True
        self._judge(rate, items)

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
            self.progress.observe_validation(losses["mean"])
            self._write({"validation_loss": losses["mean"], "validation_by_timestep": losses})
        return losses

    def _accumulate(self, step: int) -> tuple[float | None, StepItems]:
        """Gradients of one step; returns its mean loss, None if all was skipped, and its items in all processes.

        A skipped item counts in the divisor: the gradient is the same however a step is divided into passes.
        """
        settings, positions = self.run.training, self.source.positions(step)
        found = torch.zeros(2, len(positions), device=self.objective.device)
        losses = []
        for pass_number in range(settings.accumulate):
            share = self._share(positions, pass_number)
            items = [self.source.item(position) for position in share]
            each, skipped = self.passes(items, last=pass_number == settings.accumulate - 1)
            losses.append(each.mean() / settings.accumulate)
            here = slice(share.start - positions.start, share.stop - positions.start)
            found[0, here], found[1, here] = each, skipped
        mean, *rest = self.processes.sum(torch.cat([torch.stack(losses).sum()[None], found.flatten()])).tolist()
        draws, size = [self.source.draw(position) for position in positions], len(positions)
        seen = StepItems.of(draws, rest[:size], skipped=[bool(flag) for flag in rest[size:]])
        return seen.mean(mean / self.processes.count), seen

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

    def _judge(self, rate: float, items: StepItems) -> None:
        if items.skipped and (reason := skipping(items, self.progress, self.source, say=self.say)):
            raise TrainingDiverged(f"step {self.progress.step}: {reason}")
        smoothed, lowest, factor = self.progress.smoothed, self.progress.lowest, self.run.training.divergence_factor
        if smoothed is not None and lowest is not None and smoothed > factor * lowest:
            reached = f"{smoothed:.4g} smoothed, {factor:g} times its lowest value {lowest:.4g}"
            step = self.progress.step
            raise TrainingDiverged(diagnosis(items, step=step, loss=reached, norm="finite", rate=rate))


def train(
    run: TrainingRun,
    *,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
    say: Say = print,
    check: Callable[[], None] = lambda: None,
) -> runs.TrainingSummary:
    """Train until `max_steps`, or until `stop()` is true, going on from the furthest saved state.

    The result at a step depends on the run alone: killed and resumed or in one go, the adapter has the same bits on the
    same machine (constitution II). State is saved every `state_minutes`, at every checkpoint, at the last step, on a
    stop, and where an error ends the run between two steps.

    Args:
        fresh: archive what this run already has, and start over.
        stop: asked after every step.
        say: told about milestones.
        check: raises what hinders this process from starting; all of several then end.
    Raises:
        ConfigError: base or device are not what the run says; processes that do not mean the same.
        FeatureError: cached features are missing or damaged, or a track would outweigh or waste the training.
        CheckpointError: checkpoints without the state to go on from.
        TrainingDiverged: with a diagnosis; the last saved state stays.
        DiskError: no room for a checkpoint or a state; the last saved state stays.
    """
    with ExitStack() as held:
        processes, device = held.enter_context(joined(run, fresh=fresh, ready=lambda: ready(run, check)))
        held.enter_context(deterministic(device))
        processes.lead(lambda: open_folder(run, held, fresh=fresh, say=say))
        trainer = _prepare(run, device, processes, say)
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
    start, progress = start_of_all(run, processes), Progress()
    adapted = prepare_model(run, device=device, processes=processes, at_start=start is None)
    parameters = adapted.parameters
    optimizer = build_optimizer(settings, parameters.values())
    average = Average.of(parameters, decay=settings.ema_decay) if settings.ema_decay else None
    kernels = f"compiled {adapted.compiled}, recomputed {settings.gradient_checkpointing}"
    if start:
        averaged = average.tensors if average else None
        resume.restore_state(
            start.point, parameters=parameters, optimizer=optimizer, average=averaged, tensors=start.tensors
        )
        progress = Progress(step=start.point.step, **start.point.extra)
        restore_estimates(optimizer, progress.estimates)
    if start and processes.main:
        say(f"going on after step {start.point.step}")
        if adapted.compiled and progress.kernels not in (kernels, None):
            say(f"kernels were: {progress.kernels}, are: {kernels}; the last bits differ from a run in one go")
    progress.kernels = kernels
    settings = settings.model_copy(update={"compile": adapted.compiled})
    source, validation = _sources(run)
    plain = run.backbone.objective(adapted.model, settings, dtype=adapted.dtype, device=device)
    objective = masked(plain, share=run.lora.lora_dropout, seed=settings.seed)
    return Trainer(
        run=run,
        processes=processes,
        objective=objective,
        passes=Passes.of(objective, list(parameters.values()), settings, processes),
        parameters=parameters,
        average=average,
        optimizer=optimizer,
        source=source,
        validation=validation,
        log=StepLog(runs.log_path(run), after_step=progress.step or -1) if processes.main else None,
        progress=progress,
        say=say,
        pace=FirstSteps(run, source, device_name(str(device)), adapted.layers) if processes.main else None,
    )


def _run(trainer: Trainer, stop: Callable[[], bool]) -> runs.TrainingSummary:
    settings, progress, first = trainer.run.training, trainer.progress, trainer.progress.step
    processes = trainer.processes
    started, saving = time.perf_counter(), Saving(trainer)
    with saving.before_an_error():
        if trainer.objective.device.type == "cuda" and first < settings.max_steps:
            prove_exact(trainer.passes, [trainer.source.longest()], trainer.parameters)
        if first == 0:
            saving.save_state()
            if not processes.any(stop()):
                trainer.validate()
        _steps(trainer, saving, stop)
    done, early = progress.step - first, progress.ends(settings) and progress.step < settings.max_steps
    if early and processes.main:
        trainer.say(progress.why_early())
    return runs.TrainingSummary(
        run_id=trainer.run.run_id,
        step=progress.step,
        steps_now=done,
        last_loss=progress.last_loss,
        skipped_items=progress.skipped,
        mean_loss=math.fsum(trainer.recent) / len(trainer.recent) if trainer.recent else None,
        validation_loss=progress.validation_loss,
        seconds_per_step=(time.perf_counter() - started) / done if done else None,
        checkpoints=tuple(r.checkpoint_id for r in checkpoints.read_manifest(trainer.run.checkpoints_dir)),
        log=str(runs.log_path(trainer.run)),
        interrupted=progress.step < settings.max_steps and not early,
        ended_early=early,
    )


def _steps(trainer: Trainer, saving: Saving, stop: Callable[[], bool]) -> None:
    """Steps until `max_steps`, an early end or a stop; what they came to is saved."""
    settings, progress, processes = trainer.run.training, trainer.progress, trainer.processes
    say = trainer.say if processes.main else lambda line: None
    with Told("training", total=settings.max_steps, unit="step", first=progress.step, say=say) as told:
        while progress.step < settings.max_steps and not progress.ends(settings):
            stopping, due = processes.any_of(stop(), saving.due())
            if stopping:
                break
            if due:
                saving.save_state()
            trainer.step()
            told.advance(note="" if progress.smoothed is None else f"loss {progress.smoothed:.4f}")
            if progress.step % settings.checkpoint_interval == 0:
                saving.save_checkpoint()
                if processes.main:
                    track_losses.report(runs.log_path(trainer.run), say=say)
                if not stop():
                    saving.preview()
            elif settings.validation_interval and progress.step % settings.validation_interval == 0:
                saving.validate()
    saving.save_state()
