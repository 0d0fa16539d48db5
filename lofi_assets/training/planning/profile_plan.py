"""What a profile and the data at hand come to before training starts; nothing is downloaded, no weight is read.

The plan's numbers come from the base on disk, the feature cache, the dataset, or what a person says; `plan` computes
with them. The check before a start is here too.
"""

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
from lofi_assets.training.planning.memory import GB, Workload
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.planning.plan import Card, Plan, does_not_fit, make_plan
from lofi_assets.training.settings import lora_settings, training_settings

CARDS = {"RTX 3090": 71.0, "RTX 4090": 165.2, "L40S": 362.0, "A100": 312.0, "H100": 989.0}
"""Dense bfloat16 TFLOP/s with float32 sums, by NVIDIA's data sheets."""
DEFAULT_CARD = "RTX 4090"
"""What the constitution's training table is made for."""
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
    config_dir: Path = CONFIG_DIR,
) -> Plan:
    """The plan of the profile's run.

    Args:
        memory: of the card in GB; by default what this machine has, where the profile trains on it.
        minutes, longest: of the dataset (min) and of its longest track (s), in place of what the data says.
        hours: in which the steps are wanted.
        tflops: data sheet throughput of the card, in place of what its name says.
    Raises:
        ProfileError, ConfigError: the profile or the adapter's settings do not fit.
    """
    backbone = backbone_for(profile.base_model)
    size = measure(backbone, base_on_disk(store, profile.base_model), lora_settings(profile, config_dir=config_dir))
    work = _told(_workload(store, backbone), backbone, minutes=minutes, longest=longest)
    card = _card(profile.training.get("device", "auto"), asked=memory)
    if tflops is not None:
        card = replace(card, tflops=tflops)
    return make_plan(size, training_settings(profile), work, card, hours=hours)


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
    counts = [features.token_counts(track.key) for track in tracks]
    return Workload(
        frames=max(frames),
        tokens={kind: max(count[kind] for count in counts) for kind in counts[0]},
        tracks=len(tracks),
        minutes=sum(frames) / backbone.latents.frames_per_second / 60,
        source="feature cache",
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
    )


def assumed_workload(backbone: Backbone) -> Workload:
    """Before there is a dataset."""
    return Workload(
        frames=int(LONGEST_S * backbone.latents.frames_per_second),
        tokens=backbone.longest_tokens,
        tracks=500,
        minutes=1000.0,
        source=f"assumed: 500 instrumental tracks of 2 min, the longest the constitution's {LONGEST_S} s",
    )


def _told(work: Workload, backbone: Backbone, *, minutes: float | None, longest: float | None) -> Workload:
    if longest is not None:
        frames = int(longest * backbone.latents.frames_per_second)
        work = replace(work, frames=frames, source=f"{work.source}; longest as told")
    if minutes is not None:
        work = replace(work, minutes=minutes, source=f"{work.source}; minutes as told")
    return work


def _card(device: str, *, asked: float | None) -> Card:
    """The device as this machine has it; a GPU that is not here is the default card, with the memory asked for."""
    import torch

    gpu = device.startswith("cuda") or (device == "auto" and (torch.cuda.is_available() or asked is not None))
    if not gpu:
        import psutil

        return Card("CPU", psutil.virtual_memory().available if asked is None else asked * GB, None)
    if asked is not None or not torch.cuda.is_available():
        return Card(DEFAULT_CARD, asked * GB if asked is not None else None, CARDS[DEFAULT_CARD])
    chosen = torch.device("cuda" if device == "auto" else device)
    name = torch.cuda.get_device_name(chosen)
    speed = next((tflops for known, tflops in CARDS.items() if known in name), CARDS[DEFAULT_CARD])
    return Card(name, float(torch.cuda.mem_get_info(chosen)[0]), speed)
