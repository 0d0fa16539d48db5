"""Under which id a run was begun: the version before told runs apart by their processes, too. Imports without torch."""

from lofi_assets.training.checkpoints.runs import archived_run, current_run
from lofi_assets.training.config import TrainingRun


def as_begun(run: TrainingRun) -> TrainingRun:
    """The run under the id by which its folder, or the archive there, already knows it."""
    former, folder = run.model_copy(update={"split_identifies": True}), run.checkpoints_dir
    here = current_run(folder)
    if here == run.run_id:
        return run
    return former if here == former.run_id or archived_run(folder, former.run_id) else run
