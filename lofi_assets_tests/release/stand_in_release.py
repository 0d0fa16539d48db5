"""A data root with all that a release reads: tiers of a few bytes, a real adapter of two layers, an approved card."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.profiles import Profile, load_profile
from lofi_assets.records import Checkpoint, parse
from lofi_assets.release.model_card import approve
from lofi_assets.release.onnx_artifacts import MANIFEST, Bundle, ExampleRun
from lofi_assets.store import Store
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings, save_run
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets_tests.quantization.stand_in_manifest import MANIFEST as MANIFEST_OF_TIER
from lofi_assets_tests.quantization.stand_in_manifest import merged_model
from lofi_assets_tests.release.fake_hub import FakeHub

CHECKPOINT = "epoch=0-step=10_lora"
REPOS = {"adapter": "team/lofi-lora", "tiers": "team/lofi-lora-onnx"}
NOW = datetime(2025, 12, 22, 12, 0, tzinfo=UTC)
CARD = b"---\nlicense: apache-2.0\n---\n\n# Lofi LoRA\n"
BASE_FINGERPRINT = "b" * 64
TRACKS = ("rain_walk_01", "kopf_hoch_02", "Morning")
KEY = f"{'a' * 32}" + f".{'b' * 32}" * 3
LORA = LoraSettings(r=4, lora_alpha=32, target_modules=("to_q",))
LAYERS = ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_q")
HALVES = (("A", (4, 8)), ("B", (8, 4)))
ADAPTER = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "comfyui_lora.safetensors",
    "comfyui_workflow.json",
    "config.json",
    "evidence/constitution.yaml",
    "pytorch_lora_weights.safetensors",
    "release.intoto.json",
    "release.json",
}
"""Files of the adapter's repository; there is no evidence, since no asset was made here."""


def put(path: Path, data: bytes) -> None:
    """Write as the assets do: a new file in the place of the old one, never into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def write_checkpoint(root: Path, *, base: str = "/work/models/base") -> None:
    """A checkpoint as the trainer leaves it, below a data root (`test_release_adapter.py` compares it with that)."""
    random = np.random.default_rng(1)
    tensors = {f"{name}.lora_{half}.weight": random.normal(size=size) for name in LAYERS for half, size in HALVES}
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    folder = root / "checkpoints" / CHECKPOINT
    settings = adapter_config(base_model_name_or_path=base)
    write_json(folder / "adapter_config.json", settings)
    peft = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(peft, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    scaled = {name: tensor * LORA.scale if ".lora_B." in name else tensor for name, tensor in tensors.items()}
    unit = json.dumps(settings | {"lora_alpha": LORA.r, "use_rslora": False}, sort_keys=True)
    for name in ("pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"):
        save_file(scaled, folder / name, metadata={"format": "pt", "lora_adapter_metadata": unit})
    write_records(folder, run(root, base=base))


def write_records(folder: Path, run: TrainingRun) -> None:
    """What a checkpoint says of its run."""
    save_run(folder / "config.json", run)
    row = parse(Checkpoint, checkpoint_row(run), where="test")
    CheckpointDescription(record=row, run_id=run.run_id).write(folder)
    trainer_record.enter(run, folder, step=10)


def checkpoint_row(run: TrainingRun) -> dict[str, Any]:
    """The record of the checkpoint."""
    return {
        "checkpoint_id": CHECKPOINT,
        "step": 10,
        "path": f"checkpoints/{CHECKPOINT}",
        "timestamp": "2025-12-20T10:00:00Z",
        "is_valid": True,
        "config_hash": run.config_hash,
        "dataset_hash": "d" * 64,
    }


def adapter_config(**changes: Any) -> dict[str, Any]:
    """What peft writes of it, shortened."""
    return {
        "alpha_pattern": {},
        "bias": "none",
        "init_lora_weights": True,
        "lora_alpha": LORA.lora_alpha,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": LORA.r,
        "rank_pattern": {},
        "revision": None,
        "target_modules": list(LORA.target_modules),
        "use_dora": False,
        "use_rslora": True,
        "base_model_name_or_path": "/work/models/base",
        **changes,
    }


def run(root: Path, *, base: str = "/work/models/base", **changes: Any) -> TrainingRun:
    """What the checkpoint was trained with."""
    values: dict[str, Any] = {
        "base": Path(base),
        "base_fingerprint": BASE_FINGERPRINT,
        "features_dir": root / "cache" / "features",
        "tracks": tuple(TrackFeatures(track_id=name, key=KEY) for name in TRACKS),
        "dataset_id": "lofi-ddd",
        "dataset_hash": "d" * 64,
        "checkpoints_dir": root / "checkpoints",
        "logs_dir": root / "logs",
        "lora": LORA,
        "training": TrainingSettings(),
    }
    return TrainingRun(**{**values, **changes})


def write_release(store: Store, checkpoint: Path) -> None:
    """Everything that a release reads, around a copy of what `write_checkpoint` wrote below another root."""
    shutil.copytree(checkpoint / "checkpoints", store.checkpoints)
    folder = store.checkpoints / CHECKPOINT
    adapter_sha256 = sha256_file(folder / "adapter_model.safetensors")
    put(store.export / "int8" / "transformer.onnx", b"weights" * 500)
    put(store.export / "fp16" / "vocoder.onnx", b"half" * 700)
    put(store.export / "example.py", b"print('music')\n")
    for tier in ("fp16", "int8", "int4"):
        write_tier(store, tier, adapter_sha256)
    list_bundle(store)
    write_json(store.checkpoints / "manifest.json", [checkpoint_row(run(store.root))])
    merged_model(
        CHECKPOINT,
        adapter_sha256=adapter_sha256,
        base_fingerprint=BASE_FINGERPRINT,
        rank=LORA.r,
        scale=LORA.scale,
        modules=len(LAYERS),
    ).write(store)
    write_card(store, CARD)


def write_tier(store: Store, tier: str, adapter_sha256: str) -> None:
    """The manifest of a tier in the bundle."""
    provenance = {"checkpoint": CHECKPOINT, "merge.adapter_sha256": adapter_sha256}
    data = MANIFEST_OF_TIER | {"tier": tier, "provenance": provenance}
    put(store.export / tier / "manifest.json", json.dumps(data, indent=2).encode())


def list_bundle(store: Store) -> None:
    """Put what lies in the bundle's folder into its manifest."""
    files = {name: digest for name, digest in sha256_folder(store.export).items() if name != MANIFEST}
    Bundle("k", ExampleRun(True, ""), files).write(store.export)


def write_card(store: Store, text: bytes) -> None:
    """Put a card there and approve it."""
    put(store.release / "README.md", text)
    approve(store, card=hashlib.sha256(text).hexdigest(), by="R. Manager", now=NOW)


def profile_for(target: str, **release: Any) -> Profile:
    """The demo's profile with other settings of its release."""
    demo = load_profile("demo")
    named = {"target": target, "repo_id": REPOS["adapter"], "tiers_repo_id": REPOS["tiers"], **release}
    return demo.model_copy(update={"release": demo.release.model_copy(update=named)})


def published(store: Store, part: str | None = None) -> dict[str, bytes]:
    """What lies in `release/published/`, or in the folder of one part."""
    folder = store.release / "published" / (part or "")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def on_hub(hub: FakeHub) -> dict[str, bytes]:
    """Everything that both repositories hold on main."""
    held = {part: hub.files(repo) for part, repo in REPOS.items() if repo in hub.repositories}
    return {f"{part}/{name}": data for part, files in held.items() for name, data in files.items()}
