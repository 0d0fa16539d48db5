"""What a run in memory leaves on the disk, and when: checkpoints by step, state by minutes, and state before an end.

What belongs here: from a `Trainer` to its checkpoint, state and previews, with the room that they take. What does not:
the loop (`loop`), how files are written (`adapters`, `training.checkpoints`), how previews are made (`preview`).

Every process of a run goes through the same calls; only the main one writes.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from lofi_assets.errors import DiskError, explanation
from lofi_assets.files.writing import atomic_folder
from lofi_assets.records import Checkpoint
from lofi_assets.training.checkpoints import manifest as checkpoints
from lofi_assets.training.checkpoints import runs, trainer_record
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import RUN_CONFIG, checkpoint_id
from lofi_assets.training.checkpoints.provenance import provenance
from lofi_assets.training.checkpoints.room import require_room
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.config import save_run
from lofi_assets.training.planning.disk import PREVIEW_BYTES_PER_SECOND
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.diverged import TrainingDiverged
from lofi_assets.training.trainer.preview import preview_tracks, write_previews
from lofi_assets.training.trainer.randomness import randomness

if TYPE_CHECKING:
    from lofi_assets.training.trainer.loop import Trainer

REMEDY = "make room, and start again: the run goes on from its last saved state"


@dataclass
class Saving:
    """Saves a run; remembers which step has its state saved, and when that was."""

    trainer: "Trainer"
    saved_step: int | None = None
    """The last step whose state this call saved, or that it went on from."""
    saved_at: float = field(default_factory=lambda: time.monotonic())
    checkpoint_step: int | None = None
    """The last step whose checkpoint this call wrote, or that it went on from."""
    validated_step: int | None = None
    """The last step at which this call took the validation loss, or that it went on from."""

    def __post_init__(self) -> None:
        """A run that goes on has the state of its step on the disk, and its checkpoint if there is to be one."""
        if self.trainer.progress.step:
            self.saved_step = self.checkpoint_step = self.validated_step = self.trainer.progress.step

    @property
    def owes(self) -> bool:
        """Whether the step lacks a checkpoint or validation loss, which a run that goes on from it would leave out."""
        step, settings = self.trainer.progress.step, self.trainer.run.training
        checkpoint = step % settings.checkpoint_interval == 0 and self.checkpoint_step != step
        interval = settings.validation_interval
        validation = interval is not None and step % interval == 0 and self.validated_step != step
        return step > 0 and (checkpoint or validation)

    def due(self) -> bool:
        """Whether `state_minutes` have passed; asked of the main process, whose clock counts."""
        passed = time.monotonic() - self.saved_at
        return self.trainer.processes.main and passed >= 60 * self.trainer.run.training.state_minutes

    def save_state(self) -> None:
        """Save what the next step depends on, if that is not saved yet.

        Raises:
            TrainingDiverged: the adapter holds a number that is not finite, so that nothing can go on from it.
            DiskError: no room for it.
        """
        trainer, step = self.trainer, self.trainer.progress.step
        if self.saved_step == step:
            return
        average = trainer.average.tensors if trainer.average else None
        tensors = resume.collect_state(trainer.parameters, trainer.optimizer, average=average)
        if trainer.log:
            self._require_sound(tensors)
            folder, size = trainer.run.checkpoints_dir, sum(tensor.nbytes for tensor in tensors.values())
            require_room(folder, size, what=f"the state of step {step}", remedy=REMEDY)
            trainer.log.sync()
            extra = trainer.progress.extra()
            resume.save_state(folder, run_id=trainer.run.run_id, step=step, tensors=tensors, extra=extra)
        self.saved_step, self.saved_at = step, time.monotonic()

    def save_checkpoint(self) -> None:
        """Write `epoch=0-step={N}_lora/`, read it back, enter it into the manifest, and save the state beside it."""
        trainer = self.trainer
        losses = trainer.validate()
        with trainer.released():
            tensors = adapters.snapshot(trainer.parameters)
        if trainer.processes.main:
            self._write_checkpoint(tensors, losses)
        self.checkpoint_step = self.validated_step = trainer.progress.step
        self.save_state()
        if trainer.processes.main:
            resume.keep_beside_checkpoint(trainer.run.checkpoints_dir)

    def validate(self) -> None:
        """Take the validation loss between checkpoints."""
        self.trainer.validate()
        self.validated_step = self.trainer.progress.step

    def preview(self) -> None:
        """Let the adapter be heard as it is released; never changes or ends the run.

        Not under fsdp, where no process has the whole base: sampling would need all of them, step by step.
        """
        trainer = self.trainer
        run, step, processes = trainer.run, trainer.progress.step, trainer.processes
        sharded = processes.count > 1 and run.training.parallel == "fsdp"
        if not processes.main or sharded:
            return
        size = len(preview_tracks(run)) * run.training.preview_seconds * PREVIEW_BYTES_PER_SECOND
        try:
            require_room(run.logs_dir, size, what=f"the preview of step {step}", remedy="training goes on without")
        except DiskError as error:
            trainer.say(str(error))
            return
        wrapped: Any = trainer.objective.model
        model = getattr(wrapped, "module", wrapped)
        with trainer.released():
            write_previews(run, model, device=trainer.objective.device, step=step, say=trainer.say)

    @contextmanager
    def before_an_error(self) -> Iterator[None]:
        """Where the block ends by an error, save what is in memory, unless that cannot be gone on from.

        Not after a divergence, whose next step would be the same; not within an update of the weights, nor before the
        checkpoint of the step is there; and where processes share out the weights (fsdp), not without the others,
        which do not come here.
        """
        try:
            yield
        except BaseException as error:
            trainer = self.trainer
            sharded = trainer.processes.count > 1 and trainer.run.training.parallel == "fsdp"
            sound = trainer.between_steps and not self.owes and not isinstance(error, TrainingDiverged)
            if trainer.processes.main and sound and not sharded:
                self._save_all_the_same()
            raise

    def _save_all_the_same(self) -> None:
        trainer = self.trainer
        try:
            self.save_state()
        except Exception as error:
            why = explanation(error) or f"{type(error).__name__}: {error}"
            trainer.say(f"the state of step {trainer.progress.step} could not be saved ({why})")

    def _require_sound(self, tensors: Mapping[str, torch.Tensor]) -> None:
        weights = {name: tensor for name, tensor in tensors.items() if name.endswith(f"/{resume.WEIGHT}")}
        broken = next((name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())), None)
        if broken:
            raise TrainingDiverged(
                f"step {self.trainer.progress.step}: {broken} holds a number that is not finite; lower "
                "training.learning_rate, or set training.precision to '32'. What was saved before this step is kept."
            )

    def _write_checkpoint(self, tensors: dict[str, torch.Tensor], losses: dict[str, float]) -> None:
        trainer, run, step = self.trainer, self.trainer.run, self.trainer.progress.step
        identifier = checkpoint_id(step)
        folder = run.checkpoints_dir / identifier
        size = adapters.checkpoint_bytes(tensors)
        require_room(run.checkpoints_dir, size, what=f"the checkpoint of step {step}", remedy=REMEDY)
        record = Checkpoint(
            checkpoint_id=identifier,
            step=step,
            path=f"{run.checkpoints_dir.name}/{identifier}",
            timestamp=datetime.now(UTC),
            is_valid=True,
            config_hash=run.config_hash,
            dataset_hash=run.dataset_hash,
        )
        checkpoints.expect(run.checkpoints_dir, identifier)
        with atomic_folder(folder) as temporary:
            adapters.write_adapter(temporary, tensors, lora=run.lora, base=str(run.base))
            save_run(temporary / RUN_CONFIG, run)
            _description(trainer, record, losses, adapters.digest(tensors)).write(temporary)
            trainer_record.enter(run, temporary, step=step)
        reason = fault(folder)
        record = record.model_copy(update={"is_valid": reason is None})
        checkpoints.add_record(run.checkpoints_dir, record)
        mean = f", validation loss {losses['mean']:.4f}" if losses else ""
        loss = "none" if trainer.progress.smoothed is None else f"{trainer.progress.smoothed:.4f}"
        trainer.say(reason or f"{identifier}: loss {loss}{mean}")


def _description(
    trainer: "Trainer", record: Checkpoint, losses: dict[str, float], digest: str
) -> CheckpointDescription:
    run = trainer.run
    return CheckpointDescription(
        record=record,
        run_id=run.run_id,
        dataset_id=run.dataset_id,
        seed=run.training.seed,
        randomness=randomness(run, step=record.step),
        adapter_sha256=digest,
        lora_scale=run.lora.scale,
        started_from=run.initial.sha256 if run.initial else "",
        train_loss=trainer.progress.smoothed,
        validation_loss=losses.get("mean"),
        validation_by_timestep=losses,
        log=str(runs.log_path(run)),
        provenance=provenance(device=str(trainer.objective.device), threads=torch.get_num_threads()),
    )
