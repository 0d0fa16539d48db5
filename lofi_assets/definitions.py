"""The Dagster code location: every asset, check, job, schedule and sensor, listed in lineage order."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lofi_assets.defs import (
    alerts,
    dataset,
    evaluation,
    jobs,
    quantization,
    release,
    resources,
    sensors,
    sources,
    tracks,
    training,
)


def build_defs(
    *, resources_overrides: Mapping[str, Any] | None = None, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Definitions for production, tests and the command line alike.

    Args:
        resources_overrides: resources by name (`platform`, `notifier`, `pipes`) in place of the default ones.
        loggers: in place of Dagster's console logger.
    """
    return dg.Definitions(
        assets=[
            sources.licensed_sources,
            sources.style_taxonomy,
            tracks.processed_tracks,
            tracks.prompts,
            dataset.dataset_manifest,
            training.feature_cache,
            training.lora_checkpoints,
            evaluation.generated_samples,
            evaluation.quality_metrics,
            evaluation.human_evaluation,
            quantization.merged_model,
            quantization.quantized_tiers,
            release.onnx_artifacts,
            release.model_card,
            release.hub_release,
        ],
        asset_checks=[
            sources.licensed_sources_gates,
            sources.style_taxonomy_gates,
            tracks.processed_tracks_gates,
            tracks.prompts_gates,
            dataset.dataset_manifest_gates,
            training.feature_cache_gates,
            training.lora_checkpoints_gates,
            evaluation.generated_samples_gates,
            evaluation.quality_metrics_gates,
            evaluation.human_evaluation_gates,
            quantization.merged_model_gates,
            quantization.quantized_tiers_gates,
            release.onnx_artifacts_gates,
            release.model_card_gates,
            release.ready_to_release,
            release.reads_back,
        ],
        jobs=[jobs.everything, jobs.refresh_data, jobs.train_and_judge],
        schedules=[jobs.weekly_training],
        sensors=[
            sensors.new_tracks_landed,
            sensors.rebuild_data,
            sensors.judge_training,
            sensors.answers_arrived,
            alerts.alerts,
        ],
        resources={
            "platform": resources.Platform(),
            "workers": resources.Workers(),
            "notifier": resources.Notifier(),
            "pipes": training.TRAINER,
            **(resources_overrides or {}),
        },
        loggers=loggers,
        executor=dg.multiprocess_executor.configured({"max_concurrent": 2, "start_method": {"forkserver": {}}}),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `workspace.yaml` and `dg` load."""
    return build_defs()
