"""What a profile and the data at hand come to before training starts; nothing is downloaded, no weight is read.

The plan's numbers come from the base on disk, the feature cache, the dataset, or what a person says; `plan` computes
with them. The check before a start is here too.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lofi_assets.backbones import Backbone
from lofi_assets.dataset.versions import current_dataset, recorded_dataset
from lofi_assets.profiles import Profile
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.base_model import backbone_for, base_on_disk
from lofi_assets.training.config import TrackFeatures, TrainingRun
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.training.features.cache import CachedFeatures
from lofi_assets.training.planning.calibration import recorded
from lofi_assets.training.planning.cards import Card, card_named, card_present, device_name
from lofi_assets.training.planning.memory import GB, Workload
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.planning.plan import Plan, make_plan
from lofi_assets.training.planning.text import does_not_fit
from lofi_assets.training.settings import lora_settings, training_settings

CLEARLY_LESS = 0.9
"""A start is refused when less than this share of what the tensors take is free: the formulas are good to 5 %."""
LONGEST_S = 180
"""The longest track that the constitution allows."""


def plan_profile(
    store: Store,
    profile: Profile,
    *,
    memory: float | None = None,
    minutes: float | None = None,
    longest: float | None = None,
    hours: float | None = None,
    tflops: float | None = None,
    card: str | None = None,
    headless: bool = False,
    config_dir: Path = CONFIG_DIR,
) -> Plan:
    """The plan of the profile's run.

    Args:
        memory: of the card in GB; by default that of `card`, or what this machine has, where the profile trains on it.
        minutes, longest: of the dataset (min) and of its longest track (s), in place of what the data says.
        hours: in which the steps are wanted.
        tflops: data sheet throughput of the card, in place of what its name says.
        card: its name, where it is another than this machine's.
        headless: it drives no screens.
    Raises:
        UnknownCardError: no table has that card.
        ProfileError, ConfigError: the profile or the adapter's settings do not fit.
    """
    planned = card_named(card, headless=headless) if card else _card(_device(profile), asked=memory)
    if card and memory is not None:
        planned = replace(planned, memory=memory * GB, desktop=0.0)
    if tflops is not None:
        planned = replace(planned, tflops=tflops, unknown=False, source="given")
    backbone = backbone_for(profile.base_model)
    size = measure(backbone, base_on_disk(store, profile.base_model), lora_settings(profile, config_dir=config_dir))
    work = _told(_workload(store, backbone), backbone, minutes=minutes, longest=longest)
    return make_plan(
        size,
        training_settings(profile),
        work,
        planned,
        hours=hours,
        architecture=backbone.architecture,
        calibrations=recorded(store.logs, card=planned.name),
        free_disk=_free_disk(store.root),
    )


def obstacle(run: TrainingRun) -> str | None:
    """Why this run should not start on the memory that its device has free now, None if it may."""
    card = _card(run.device, asked=None)
    if card.memory is None:
        return None
    size, work = measure(run.backbone, run.base, run.lora), cached_workload(run.backbone, run.features_dir, run.tracks)
    plan = make_plan(size, run.training, work, card)
    return does_not_fit(plan, free=card.memory) if card.memory < CLEARLY_LESS * plan.memory.used else None


def cached_workload(backbone: Backbone, features_dir: Path, tracks: Sequence[TrackFeatures]) -> Workload:
    """The longest track and conditions of the cache. Reads every file: a damaged one is found before a start.

    Raises:
        FeatureError: cached features are missing or damaged.
    """
    features, axis = CachedFeatures(backbone, features_dir), backbone.latents.frame_axis
    frames = [features.latents(track.key).shape[axis] for track in tracks]
    counts = [features.token_counts(key) for track in tracks for key in (track.key, *track.variants)]
    return Workload(
        frames=max(frames),
        tokens={kind: max(count[kind] for count in counts) for kind in counts[0]},
        tracks=len(tracks),
        minutes=sum(frames) / backbone.latents.frames_per_second / 60,
        source="feature cache",
        mean_frames=round(sum(frames) / len(frames)),
        cached=True,
    )


def _workload(store: Store, backbone: Backbone) -> Workload:
    if FeatureRecord.path(store).is_file():
        record = FeatureRecord.read(store)
        if record.architecture == backbone.architecture:
            return cached_workload(backbone, store.features, record.tracks)
    if recorded_dataset(store) is None:
        return assumed_workload(backbone)
    _, manifest, tracks = current_dataset(store)
    durations = [track.duration for track in tracks]
    return Workload(
        frames=int(max(durations) * backbone.latents.frames_per_second),
        tokens=backbone.longest_tokens,
        tracks=len(durations),
        minutes=sum(durations) / 60,
        source=f"dataset {manifest.dataset_id}; tokens assumed until feature_cache is materialised",
        mean_frames=int(sum(durations) / len(durations) * backbone.latents.frames_per_second),
    )


def assumed_workload(backbone: Backbone) -> Workload:
    """Before there is a dataset."""
    return Workload(
        frames=int(LONGEST_S * backbone.latents.frames_per_second),
        tokens=backbone.longest_tokens,
        tracks=500,
        minutes=1000.0,
        mean_frames=int(120 * backbone.latents.frames_per_second),
        source=f"assumed: 500 instrumental tracks of 2 min, the longest the constitution's {LONGEST_S} s",
    )


def _told(work: Workload, backbone: Backbone, *, minutes: float | None, longest: float | None) -> Workload:
    if longest is not None:
        frames = int(longest * backbone.latents.frames_per_second)
        work = replace(work, frames=frames, source=f"{work.source}; longest as told")
    if minutes is not None:
        work = replace(work, minutes=minutes, source=f"{work.source}; minutes as told")
    return work


def _device(profile: Profile) -> str:
    return str(profile.training.get("device", "auto"))


def _free_disk(folder: Path) -> float | None:
    """Bytes that a data root may still take, by its nearest folder that exists."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), None)
    return float(shutil.disk_usage(there).free) if there else None


def _card(device: str, *, asked: float | None) -> Card:
    """The device as this machine has it; of a GPU that is not here only the memory asked for is known."""
    import torch

    gpu = device.startswith("cuda") or (device == "auto" and (torch.cuda.is_available() or asked is not None))
    if not gpu:
        import psutil

        return Card(device_name("cpu"), psutil.virtual_memory().available if asked is None else asked * GB, None)
    if asked is not None or not torch.cuda.is_available():
        return Card("a GPU without a name", asked * GB if asked is not None else None, None, unknown=True)
    chosen = torch.device("cuda" if device == "auto" else device)
    free, total = torch.cuda.mem_get_info(chosen)
    return card_present(device_name(str(chosen)), total=float(total), free=float(free))
