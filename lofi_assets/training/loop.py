"""The training loop: from a `TrainingRun` to checkpoints, going on where an earlier call stopped.

What belongs here: the optimiser, the rhythm of log, validation, checkpoints and resumable state, and when to stop. What
does not: what a step sees (`batches`), its loss (`objective`), how files are written (`adapters`, `checkpoints`,
`resume`), signals and the command line (`__main__`).
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from tqdm import tqdm

from lofi_assets.ace_step.flow_matching import training_schedule
from lofi_assets.ace_step.identity import base_fingerprint
from lofi_assets.ace_step.loading import load_base
from lofi_assets.records import Checkpoint, dump
from lofi_assets.store import atomic_folder, write_json
from lofi_assets.training import adapters, checkpoints, features, resume, runs
from lofi_assets.training.batches import Item, Source, validation_items
from lofi_assets.training.config import SPLITS, ConfigError, TrainingRun, TrainingSettings, save_run
from lofi_assets.training.log import StepLog
from lofi_assets.training.objective import Objective
from lofi_assets.training.pace import Pace
from lofi_assets.training.preview import write_previews
from lofi_assets.training.provenance import provenance

NOISE_LEVELS = 4
"""Timesteps at which the validation loss is taken, evenly spread over the schedule."""
SMOOTHING = 0.98
"""Memory of the smoothed loss, about 50 steps: as many as it takes to even out the timesteps drawn."""
RECENT = 50

Say = Callable[[str], None]


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number, or far above what it was; the message is the diagnosis."""


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
    """A run in memory: adapter, optimiser, data."""

    run: TrainingRun
    objective: Objective
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    source: Source
    validation: Source
    log: StepLog
    progress: Progress
    say: Say
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def step(self) -> None:
        """One optimiser step.

        Raises:
            TrainingDiverged: before the weights are touched.
        """
        settings, step = self.run.training, self.progress.step + 1
        started, rate = time.perf_counter(), learning_rate(settings, step)
        loss, seen = self._accumulate(step)
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.gradient_clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(_diagnosis(step, loss=loss, norm=norm, rate=rate, seen=seen))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step = step
        self.progress.observe(loss)
        self.recent.append(loss)
        seconds = round(time.perf_counter() - started, 4)
        smoothed = self.progress.smoothed
        line = {"loss": loss, "smoothed": smoothed, "lr": rate, "grad_norm": norm, "items": seen, "seconds": seconds}
        self.log.write(step, line)
        self._judge(rate, seen)

    def validate(self) -> dict[str, float]:
        """Loss per timestep (`t=<timestep>`) and their mean (`mean`), on the same noise every time."""
        levels = validation_items(self.validation, levels=NOISE_LEVELS, limit=self.run.training.validation_limit)
        losses: dict[str, float] = {}
        with torch.no_grad():
            for items in levels:
                values = [float(self.objective.losses([item])) for item in items]
                if values:
                    losses[f"t={self.objective.schedule.timesteps[items[0].timestep_index]:.0f}"] = math.fsum(
                        values
                    ) / len(values)
        if losses:
            losses["mean"] = math.fsum(losses.values()) / len(losses)
            self.progress.validation_loss = losses["mean"]
            self.log.write(self.progress.step, {"validation_loss": losses["mean"], "validation_by_timestep": losses})
        return losses

    def save_checkpoint(self) -> Checkpoint:
        """Write `epoch=0-step={N}_lora/`, read it back, and enter it into the manifest."""
        run, step = self.run, self.progress.step
        losses = self.validate()
        identifier = checkpoints.checkpoint_id(step)
        folder = run.checkpoints_dir / identifier
        tensors = adapters.snapshot(self.parameters)
        record = Checkpoint(
            checkpoint_id=identifier,
            step=step,
            path=f"{run.checkpoints_dir.name}/{identifier}",
            timestamp=datetime.now(UTC),
            is_valid=True,
            config_hash=run.config_hash,
            dataset_hash=run.dataset_hash,
        )
        with atomic_folder(folder) as temporary:
            adapters.write_adapter(temporary, tensors, lora=run.lora, base=str(run.base))
            save_run(temporary / checkpoints.RUN_CONFIG, run)
            description = self._description(record, losses, adapters.digest(tensors))
            write_json(temporary / checkpoints.DESCRIPTION, description)
        reason = checkpoints.fault(folder)
        record = record.model_copy(update={"is_valid": reason is None})
        checkpoints.add_record(run.checkpoints_dir, record)
        mean = f", validation loss {losses['mean']:.4f}" if losses else ""
        self.say(reason or f"{identifier}: loss {self.progress.smoothed:.4f}{mean}")
        return record

    def save_state(self) -> None:
        """Save what the next step depends on."""
        self.log.sync()
        resume.save_state(
            self.run.checkpoints_dir,
            run_id=self.run.run_id,
            step=self.progress.step,
            parameters=self.parameters,
            optimizer=self.optimizer,
            extra=self.progress.extra(),
        )

    def preview(self) -> None:
        """Let the adapter be heard as it is now; never changes or ends the run."""
        objective, step = self.objective, self.progress.step
        write_previews(self.run, objective.transformer, device=objective.device, step=step, say=self.say)

    def _accumulate(self, step: int) -> tuple[float, list[str]]:
        """Gradients of one step; returns its mean loss and what it saw, as `track@timestep`."""
        settings, total, seen = self.run.training, 0.0, []
        for micro in range(settings.accumulate):
            first = ((step - 1) * settings.accumulate + micro) * settings.batch_size
            items = [self.source.item(first + offset) for offset in range(settings.batch_size)]
            loss = self.objective.losses(items).mean() / settings.accumulate
            loss.backward()
            total += float(loss.detach())
            seen += [f"{item.track_id}@{self._timestep(item):.0f}" for item in items]
        return total, seen

    def _timestep(self, item: Item) -> float:
        return float(self.objective.schedule.timesteps[item.timestep_index])

    def _judge(self, rate: float, seen: list[str]) -> None:
        smoothed, lowest, factor = self.progress.smoothed, self.progress.lowest, self.run.training.divergence_factor
        if smoothed is not None and lowest is not None and smoothed > factor * lowest:
            reached = f"{smoothed:.4g} smoothed, {factor:g} times its lowest value {lowest:.4g}"
            raise TrainingDiverged(_diagnosis(self.progress.step, loss=reached, norm="finite", rate=rate, seen=seen))

    def _description(self, record: Checkpoint, losses: dict[str, float], digest: str) -> dict[str, Any]:
        return {
            "record": dump(record),
            "run_id": self.run.run_id,
            "dataset_id": self.run.dataset_id,
            "seed": self.run.training.seed,
            "adapter_sha256": digest,
            "lora_scale": self.run.lora.scale,
            "train_loss": self.progress.smoothed,
            "validation_loss": losses.get("mean"),
            "validation_by_timestep": losses,
            "log": str(runs.log_path(self.run)),
            "provenance": provenance(device=str(self.objective.device), threads=torch.get_num_threads()),
        }


def train(
    run: TrainingRun, *, fresh: bool = False, stop: Callable[[], bool] = lambda: False, say: Say = print
) -> runs.TrainingSummary:
    """Train until `max_steps`, or until `stop()` is true, going on from the furthest saved state.

    The result at a step depends on the run alone: killed and resumed or in one go, the adapter has the same bits on the
    same machine (constitution II). State is saved at every checkpoint, at the last step, and on a stop.

    Args:
        fresh: archive what this run already has, and start over.
        stop: asked after every step.
        say: told about milestones.
    Raises:
        ConfigError: base or device are not what the run says.
        FeatureError: cached features are missing or damaged.
        CheckpointError: checkpoints without the state to go on from.
        TrainingDiverged: with a diagnosis; the last saved state stays.
    """
    device = pick_device(run.device, precision=run.training.precision)
    if base_fingerprint(run.base) != run.base_fingerprint:
        raise ConfigError(
            f"base: {run.base} has changed since the features were computed; materialise feature_cache again"
        )
    with runs.exclusive(run.checkpoints_dir), deterministic(device):
        archived = runs.open_run(run, fresh=fresh)
        if archived:
            say(f"a new run; the earlier one is kept in {run.checkpoints_dir.name}/{runs.ARCHIVE}/{archived}")
        trainer = _prepare(run, device, say)
        try:
            return _run(trainer, stop)
        finally:
            trainer.log.close()


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then constant or linear to zero after `max_steps`."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "constant" or step <= settings.warmup_steps:
        return settings.learning_rate * warm
    left = settings.max_steps + 1 - step
    return settings.learning_rate * max(left, 0) / (settings.max_steps + 1 - settings.warmup_steps)


def pick_device(name: str, *, precision: str) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: it is absent, or cannot do the precision.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    device = torch.device(chosen)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name} asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    if device.type == "cuda" and precision == "bf16-mixed" and not torch.cuda.is_bf16_supported():
        raise ConfigError("training.precision: this GPU has no bfloat16; use '32'")
    return device


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic kernels within the block; on a GPU those that exist, with a warning for the others."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def _sources(run: TrainingRun, *, timesteps: int) -> list[Source]:
    """Training and validation set."""
    return [
        Source(
            tracks=run.of_split(split),
            settings=run.training,
            timesteps=timesteps,
            read_latents=lambda track: features.read_latents(run.features_dir, track.key),
            read_conditions=lambda track: features.read_conditions(run.features_dir, track.key),
        )
        for split in SPLITS
    ]


def _prepare(run: TrainingRun, device: torch.device, say: Say) -> Trainer:
    settings = run.training
    name = "float32" if settings.precision == "32" else "bfloat16"
    options = {"drop_dead_projections": True, "build_projectors": False}
    base = load_base(run.base, dtype=name, device=str(device), components=("transformer",), transformer_options=options)
    assert base.transformer is not None
    parameters = adapters.add_lora(base.transformer, run.lora, seed=settings.seed)
    if settings.gradient_checkpointing:
        base.transformer.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    point = resume.resume_point(run.checkpoints_dir)
    progress = Progress()
    if point:
        resume.restore_state(point, parameters=parameters, optimizer=optimizer)
        progress = Progress(step=point.step, **point.extra)
        say(f"going on after step {point.step}")
    schedule = training_schedule(shift=settings.shift)
    source, validation = _sources(run, timesteps=len(schedule.timesteps))
    return Trainer(
        run=run,
        objective=Objective(base.transformer, schedule, getattr(torch, name)),
        parameters=parameters,
        optimizer=optimizer,
        source=source,
        validation=validation,
        log=StepLog(runs.log_path(run), after_step=progress.step or -1),
        progress=progress,
        say=say,
    )


def _run(trainer: Trainer, stop: Callable[[], bool]) -> runs.TrainingSummary:
    settings, progress, first = trainer.run.training, trainer.progress, trainer.progress.step
    started = time.perf_counter()
    if first == 0:
        trainer.save_state()
        if not stop():
            trainer.validate()
    pace = Pace(total=settings.max_steps, first=first, say=trainer.say)
    every = 2.0 if sys.stderr.isatty() else 60.0
    with tqdm(total=settings.max_steps, initial=first, desc="training", unit="step", mininterval=every) as bar:
        while progress.step < settings.max_steps and not stop():
            trainer.step()
            bar.set_postfix(loss=f"{progress.smoothed:.4f}", refresh=False)
            bar.update()
            pace.observe(progress.step, loss=progress.smoothed)
            if progress.step % settings.checkpoint_interval == 0:
                trainer.save_checkpoint()
                trainer.save_state()
                if not stop():
                    trainer.preview()
    done = progress.step - first
    if done and progress.step % settings.checkpoint_interval:
        trainer.save_state()
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


def _diagnosis(step: int, *, loss: float | str, norm: float | str, rate: float, seen: list[str]) -> str:
    return (
        f"step {step}: loss {loss}, gradient norm {norm}, learning rate {rate:.3g}, on {', '.join(seen)} "
        "(track@timestep). If one track keeps coming up, listen to it and look at its measures; otherwise lower "
        "training.learning_rate, or set training.precision to '32'. What was saved before this step is kept."
    )
