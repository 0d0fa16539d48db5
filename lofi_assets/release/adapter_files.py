"""The adapter of a release: every form is compared with the tensors of the tiers, then written without private names.

What belongs here: what the checkpoint's files must be, and their published form. The checkpoint itself stays as it is;
`release.json` has the hashes of both (docs/decisions/026-a-sealed-release.md).
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import READ_BLOCK
from lofi_assets.files.typed import STORED, plain, read_typed
from lofi_assets.profiles import Profile
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.records import Checkpoint
from lofi_assets.release.comfyui import WORKFLOW, workflow_file
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.sealed_copy import SealedCopy
from lofi_assets.store import Store
from lofi_assets.training.adapter_rights import RIGHTS, unlicensed
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import (
    ADAPTER_METADATA,
    COMFYUI_WEIGHTS,
    DESCRIPTION,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
    RUN_CONFIG,
)
from lofi_assets.training.checkpoints.soundness import PATTERNS, fault
from lofi_assets.training.config import InitialAdapter, TrainingRun, load_run
from lofi_assets.training.layer_patterns import rank_of, scale_of, strengths
from lofi_assets.training.lora_settings import LoraSettings

STAGING = "checkpoint"
"""Folder of the sealed copy with the checkpoint as it is, which is not published."""
REMEDY = "restore the checkpoint's folder from a copy, or materialise lora_checkpoints and what follows"
_OF_THE_READER = ("base_model_name_or_path", "revision", "peft_version", "inference_mode")
"""Fields of an adapter's configuration that decide nothing about its tensors or their strength."""
SELDOM = ("lora_dropout", *PATTERNS)
NEUTRAL: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
}
"""Fields whose value without effect is not empty (peft 0.21.2)."""


def seal_adapter(
    sealed: SealedCopy, store: Store, profile: Profile, *, merged: MergedModel, record: Checkpoint, folder: str
) -> Mapping[str, str]:
    """Copy the checkpoint's files, check them, and write their published form into `folder` of the copy.

    Returns:
        Published file -> sha256 of the checkpoint's file that it was made from.
    Raises:
        ReleaseError: a file is not of the adapter that the tiers were made from; the message names it.
    """
    source = store.checkpoints / merged.checkpoint_id
    sealed.take(
        source / PEFT_WEIGHTS,
        f"{STAGING}/{PEFT_WEIGHTS}",
        sha256=merged.adapter_sha256,
        remedy="it is not the adapter that the tiers were made from; materialise merged_model and what follows",
    )
    for name in (RUN_CONFIG, DESCRIPTION):
        sealed.take(source / name, f"{STAGING}/{name}", sha256=None, remedy=REMEDY)
    staged = sealed.path(STAGING)
    run = _run(staged, source, merged=merged, record=record)
    _expect_rights(store, run, where=source / RUN_CONFIG)
    forms = (DIFFUSERS_WEIGHTS,) if run.lora.use_dora else (DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS)
    for name in (PEFT_CONFIG, *forms):
        sealed.take(source / name, f"{STAGING}/{name}", sha256=None, remedy=REMEDY)
    config = read_json(staged / PEFT_CONFIG)
    expect_config(config, run.lora, where=source / PEFT_CONFIG)
    if reason := fault(staged):
        raise ReleaseError(f"{reason.replace(str(staged), str(source))}; {REMEDY}")
    for name in forms:
        _expect_header(staged / name, config, rank=merged.rank, where=source / name)
    base = published_base(profile, run, where=source / RUN_CONFIG)
    _write_published(sealed, run, forms=forms, folder=folder, base=base)
    made = (RUN_CONFIG, PEFT_CONFIG, *forms)
    return {name: sealed.files[f"{STAGING}/{name}"].sha256 for name in made}


def published_base(profile: Profile, run: TrainingRun, *, where: Path) -> tuple[str, str] | None:
    """Hub repository and commit of the base that a run was trained on; None for a base that the Hub does not hold.

    Raises:
        ReleaseError: the profile names another base than the run was trained on, or no commit.
    """
    settings = profile.base_model
    if settings.kind != "hub":
        return None
    if not settings.revision:
        raise ReleaseError(
            f"config/profiles/{profile.name}.yaml: base_model.revision is empty; a release names its base by commit"
        )
    snapshot = f"models--{settings.path.replace('/', '--')}/snapshots/{settings.revision}"
    if not run.base.as_posix().endswith(snapshot):
        raise ReleaseError(
            f"{where}: was not trained on {settings.path} at {settings.revision[:12]}, which the profile "
            f"{profile.name} names as the base; release with the profile that it was trained with"
        )
    return settings.path, settings.revision


def _run(staged: Path, source: Path, *, merged: MergedModel, record: Checkpoint) -> TrainingRun:
    """The run's configuration, which is the one on record and gives the strength that was merged."""
    run = load_run(staged / RUN_CONFIG)
    numbers = layer_numbers(run.lora, staged / PEFT_WEIGHTS)
    rank, scale = max(rank for rank, _ in numbers), max(scale for _, scale in numbers)
    found = {
        "configuration hash": (run.config_hash, record.config_hash),
        "dataset hash": (run.dataset_hash, record.dataset_hash),
        "base": (run.base_fingerprint, merged.base_fingerprint),
        "rank": (rank, merged.rank),
        "ranks and scales": (strengths(numbers), dict(merged.layers)),
        "model family": (run.architecture, merged.architecture),
        "run of these tracks": (run.run_id, CheckpointDescription.read(staged).run_id or "(none)"),
    }
    wrong = [f"{name} {has}, on record {known}" for name, (has, known) in found.items() if has != known]
    if not math.isclose(scale, merged.scale, rel_tol=1e-6):
        wrong.append(f"scale {scale:.6g}, merged with {merged.scale:.6g}")
    if wrong:
        raise ReleaseError(f"{source / RUN_CONFIG}: is not of the adapter in the tiers ({'; '.join(wrong)}); {REMEDY}")
    return run


def layer_numbers(lora: LoraSettings, weights: Path) -> list[tuple[int, float]]:
    """Rank and scale of each layer that has weights, by the settings of its run.

    Raises:
        ReleaseError: the weights cannot be read, or are none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            names = [name.removeprefix(PEFT_PREFIX) for name in file.keys()]  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{weights}: cannot be read ({error}); {REMEDY}") from error
    layers = [name.partition(".lora_A.")[0] for name in names if ".lora_A." in name]
    if not layers:
        raise ReleaseError(f"{weights}: holds no LoRA; {REMEDY}")
    return [(rank_of(lora, layer), round(scale_of(lora, layer), 9)) for layer in layers]


def _expect_rights(store: Store, run: TrainingRun, *, where: Path) -> None:
    """Refuse an adapter that goes back to a LoRA from elsewhere whose rights are not on record as they stand now."""
    lacking = unlicensed(store, run.initial.foreign if run.initial else ())
    for sha256, why in lacking.items():
        raise ReleaseError(
            f"{where}: training started from the LoRA {sha256}, {why}; record them in {store.metadata(RIGHTS)} "
            "(docs/loras.md), or train from nothing"
        )


def expect_config(config: Any, lora: LoraSettings, *, where: Path) -> None:
    """Refuse an adapter configuration by which peft would apply something else than was trained and merged, or would
    import something (`megatron_core`).

    Without peft, whose import takes seconds: what the settings decide is compared with them, and any other field has to
    be neutral, so that one which changes strength or targets (`alpha_pattern`, `modules_to_save`) cannot slip in.
    """
    if not isinstance(config, dict):
        raise ReleaseError(f"{where}: holds no adapter's configuration; {REMEDY}")
    expected = {
        **NEUTRAL,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "target_modules": sorted(lora.target_modules),
    }
    # what most adapters do without may be absent where it is not set
    expected |= {name: value for name in SELDOM if (value := getattr(lora, name))}
    given = {name: _ordered(value) for name, value in config.items() if name not in _OF_THE_READER}
    wrong = [
        f"{name} is {value!r}, trained with {expected.get(name)!r}"
        for name, value in sorted(given.items())
        if (value != expected[name] if name in expected else bool(value))
    ]
    wrong += [f"{name} is absent" for name in sorted(expected.keys() - NEUTRAL.keys() - given.keys())]
    if wrong:
        raise ReleaseError(f"{where}: {'; '.join(wrong)}; {REMEDY}")


def _expect_header(path: Path, config: Mapping[str, Any], *, rank: int, where: Path) -> None:
    """Refuse a form whose header has other settings than the adapter's, at strength 1: diffusers takes them from it.

    Args:
        rank: of every layer there.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said = json.loads((file.metadata() or {}).get(ADAPTER_METADATA, "{}"))
    even = {"r": rank, "lora_alpha": rank, "use_rslora": False}
    expected = {**config, **even, **{name: {} for name in PATTERNS if name in config}}
    wrong = sorted(name for name in said.keys() | expected.keys() if said.get(name) != expected.get(name))
    if wrong:
        raise ReleaseError(f"{where}: its header has other settings than {PEFT_CONFIG} ({', '.join(wrong)}); {REMEDY}")


def _ordered(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, list | tuple | set) else value


def _write_published(
    sealed: SealedCopy, run: TrainingRun, *, forms: Sequence[str], folder: str, base: tuple[str, str] | None
) -> None:
    """The same tensors, and configurations that name the base as others find it."""
    staged, target = sealed.path(STAGING), sealed.path(folder)
    name, revision = base or (None, None)
    of_base = {"base_model_name_or_path": name, "revision": revision}
    sealed.take(
        staged / PEFT_WEIGHTS,
        f"{folder}/{PEFT_WEIGHTS}",
        sha256=sealed.files[f"{STAGING}/{PEFT_WEIGHTS}"].sha256,
        remedy="",
    )
    sealed.write(f"{folder}/{PEFT_CONFIG}", as_json(read_json(staged / PEFT_CONFIG) | of_base))
    for form in forms:
        sealed.write_blocks(f"{folder}/{form}", _with_base(staged / form, of_base))
    sealed.write(f"{folder}/{RUN_CONFIG}", as_json(_published_run(run, base)))
    if COMFYUI_WEIGHTS in forms:
        sealed.write(f"{folder}/{WORKFLOW}", workflow_file())
    if reason := fault(target):
        raise ReleaseError(f"{reason}: what was written for the release is not the adapter; report this")


def _with_base(path: Path, of_base: Mapping[str, str | None]) -> Iterator[bytes]:
    """A safetensors file in blocks, with the base in the adapter's settings of its header replaced.

    https://github.com/huggingface/safetensors#format: a length, a JSON header padded with spaces, the tensors, whose
    places are counted from the end of the header.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        settings = json.loads(header["__metadata__"][ADAPTER_METADATA])
        said = {ADAPTER_METADATA: json.dumps(settings | of_base, sort_keys=True), "format": "pt"}
        text = json.dumps(header | {"__metadata__": said}, separators=(",", ":"), ensure_ascii=False).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        yield struct.pack("<Q", len(text)) + text
        while block := file.read(READ_BLOCK):
            yield block


@dataclass(frozen=True, kw_only=True, config=STORED)
class PublishedRun:
    """`config.json` of a release: how the adapter was trained, with counts in place of tracks and folders."""

    architecture: str
    base_model: str | None
    """Hub repository; None of a base that the Hub does not hold."""
    base_revision: str | None
    base_fingerprint: str
    dataset_id: str
    dataset_hash: str
    config_hash: str
    tracks: Mapping[str, int]
    """By split."""
    lora: Mapping[str, Any]
    """`LoraSettings`."""
    training: Mapping[str, Any]
    """`TrainingSettings`."""
    started_from: Mapping[str, Any] | None = None
    """The LoRA that training started from; None: from nothing."""

    @classmethod
    def read(cls, folder: Path) -> "PublishedRun | None":
        """That of a released adapter; None where there is none.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(folder / RUN_CONFIG, cls, remedy="download the release again")


def as_json(data: Any) -> bytes:
    """A document of a release."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _published_run(run: TrainingRun, base: tuple[str, str] | None) -> dict[str, Any]:
    name, revision = base or (None, None)
    made = PublishedRun(
        architecture=run.architecture,
        base_model=name,
        base_revision=revision,
        base_fingerprint=run.base_fingerprint,
        dataset_id=run.dataset_id,
        dataset_hash=run.dataset_hash,
        config_hash=run.config_hash,
        tracks={split: len(run.of_split(split)) for split in ("train", "validation")},
        lora=run.lora.model_dump(mode="json"),
        training=run.training.model_dump(mode="json"),
        started_from=_published_start(run.initial) if run.initial else None,
    )
    return {key: value for key, value in plain(made).items() if key != "started_from" or value is not None}


def _published_start(initial: InitialAdapter) -> dict[str, Any]:
    """What the adapter started from, without the tracks that this was trained on."""
    return {"sha256": initial.sha256, "form": initial.form, "from_elsewhere": list(initial.foreign)}
