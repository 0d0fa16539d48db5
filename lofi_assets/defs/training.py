"""Training: frozen features once, then the LoRA in its own process.

Cancelling the run in the UI interrupts the step, and Dagster's Pipes client passes that on as SIGINT: the trainer ends
its step, saves its state, and the next materialisation goes on from there.
"""

import re
import warnings
from contextlib import suppress
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from lofi_assets.backbones.features import FEATURES_VERSION
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import evidence_of_runs, report
from lofi_assets.defs.resources import Platform
from lofi_assets.errors import DiskError
from lofi_assets.training.death import Watch, watched
from lofi_assets.training.ending import INTERRUPTED, Ending, begin, killed, read_ending, start_of, write_ending
from lofi_assets.training.feature_cache import cache_dataset_features
from lofi_assets.training.launch import started_by_this
from lofi_assets.training.lora_checkpoints import PlannedRun, describe_training, plan_training

TRAINER = dg.PipesSubprocessClient(termination_timeout_seconds=300)
"""Runs the trainer on this machine. A stop waits for what is under way, at worst a validation and a checkpoint, and for
3 GB of state; `cancel_timeout_seconds` in dagster.yaml is longer."""
RETRY_AFTER_S = 60
"""A trainer that crashed or was killed is started once more, and goes on from its last state. An end that it can
explain is not tried again."""


@dg.asset(
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=["team:training"],
    deps=[dataset_manifest],
    code_version=FEATURES_VERSION,
    pool="gpu",
)
@explained
def feature_cache(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """Latents, text states, lyric ids, speakers and SSL targets of every track, computed once per track and model."""
    return report(context, platform, cache_dataset_features(platform.store, platform.profile))


@dg.asset(
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=["team:training"],
    deps=[dataset_manifest, feature_cache],
    pool="gpu",
)
@explained
def lora_checkpoints(
    context: dg.AssetExecutionContext, platform: Platform, pipes: dg.PipesSubprocessClient
) -> dg.MaterializeResult[Any]:
    """Every LoRA checkpoint with its configuration, seeds, hashes and resumable state; trained in its own process."""
    run = plan_training(platform.store, platform.profile)
    if run.remaining_steps:
        train(context, pipes, run)
    earlier = evidence_of_runs(context.instance, platform.store, context.asset_key.to_user_string())
    return report(context, platform, describe_training(platform.store, run, earlier=earlier))


def train(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient, run: PlannedRun) -> None:
    """Run the trainer to its end.

    Raises:
        dg.Failure: with the trainer's own words where it could say why it ended.
        dg.RetryRequested: it crashed or was killed, for the first time.
    """
    context.log.info(f"{run.remaining_steps} steps to do; `tensorboard --logdir {run.run.logs_dir}` shows the curves")
    begin(run.config)
    with watched() as watch:
        try:
            with warnings.catch_warnings():
                # Dagster's client uses what Dagster has in preview: nothing that its user can act on
                warnings.filterwarnings("ignore", "Function `PipesMessageReader", dg.PreviewWarning)
                pipes.run(context=context, command=run.command, env=started_by_this()).get_results()
            return
        except DagsterPipesExecutionError as error:
            failed = error
    ending = _ending(run, watch, _EXIT_CODE.search(str(failed)))
    if not ending.explained and context.retry_number == 0:
        context.log.warning(f"{ending.message}. It is started once more, and goes on from its last state")
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_AFTER_S) from failed
    raise _failure(run, ending) from failed


_EXIT_CODE = re.compile(r"code (-?\d+)")
"""In the message of Dagster's error, which has no field for it."""


def _ending(run: PlannedRun, watch: Watch, code: re.Match[str] | None) -> Ending:
    """The trainer's own words, else what is known of its end, which is then kept where its words would be."""
    said = read_ending(run.config)
    if said is not None:
        return said
    number = int(code[1]) if code else None
    ending = killed(number, watch.account(number))
    with suppress(DiskError):
        write_ending(run.config, ending, start=start_of(run.config))
    return ending


def _failure(run: PlannedRun, ending: Ending) -> dg.Failure:
    metadata: dict[str, Any] = {"command": " ".join(run.command), "exit_code": ending.code, "ending": ending.kind}
    again = {
        "killed": ". Materialise lora_checkpoints again to go on from what was saved; its output is under this step's "
        "stderr",
        "unknown": ". Its output is under this step's stderr",
    }
    more = ". Materialise lora_checkpoints again to go on." if ending.code == INTERRUPTED else "."
    return dg.Failure(ending.message.rstrip(".") + again.get(ending.kind, more), metadata=metadata, allow_retries=False)


feature_cache_gates = gate_checks(feature_cache)
lora_checkpoints_gates = gate_checks(lora_checkpoints)
