"""The asset `merged_model`: the best checkpoint merged into its base."""

from dataclasses import asdict
from pathlib import Path

from lofi_assets.errors import LofiError
from lofi_assets.evaluation.generated_samples import BROKEN
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint, sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.progress import Progress
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import CheckpointError
from lofi_assets.training.checkpoints.manifest import best, read_manifest, update_record
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.trained_on import trained_base
from lofi_assets.wording import rounded


class NothingToMergeError(LofiError, RuntimeError):
    """No checkpoint has been evaluated; the message says which asset to materialise."""


def best_checkpoint(store: Store) -> Checkpoint:
    """The valid checkpoint with the lowest FAD.

    Raises:
        NothingToMergeError: none has a FAD.
    """
    chosen = best(read_manifest(store.checkpoints))
    if chosen is None:
        raise NothingToMergeError(
            f"{store.checkpoints}: no valid checkpoint has a FAD; materialise generated_samples and quality_metrics"
        )
    return chosen


def merge_best(store: Store, profile: Profile) -> Outcome:
    """Merge the best checkpoint into its base; an existing merge of the same adapter and base is kept.

    Raises:
        CheckpointError: it no longer loads; the manifest then marks it invalid.
    """
    chosen = best_checkpoint(store)
    adapter, target = store.checkpoints / chosen.checkpoint_id, store.merged / chosen.checkpoint_id
    features = trained_base(store, [chosen.checkpoint_id])
    wanted = {
        "adapter_sha256": sha256_file(adapter / "adapter_model.safetensors"),
        "base_fingerprint": features.base_fingerprint,
    }
    known = read_json(target / "merge.json", default={})
    unchanged = all(known.get(key) == value for key, value in wanted.items())
    if not unchanged:
        if reason := fault(adapter):
            update_record(store.checkpoints, chosen.checkpoint_id, is_valid=False)
            raise CheckpointError(f"{reason}; the manifest marks it invalid now. {BROKEN}")
        from lofi_assets.quantization.merge import merge_lora

        with Progress("merging the adapter into the base", total=1, unit="model") as progress:
            report = merge_lora(
                Path(features.base),
                adapter,
                target,
                backbone=features.backbone,
                lyric_vocabulary=features.vocabulary,
            )
            known = asdict(report)
            progress.advance()
    write_json(
        store.metadata("merged_model.json"),
        {"checkpoint_id": chosen.checkpoint_id, "architecture": features.architecture, **known},
    )
    return Outcome(
        data_version=fingerprint(known["adapter_sha256"], known["base_fingerprint"]),
        counts={"modules": known["modules"], "recomputed": int(not unchanged)},
        values={"merge_max_error": known["max_error"]},
        summary=f"{chosen.checkpoint_id} is merged into its base: outputs differ from those with the adapter by "
        f"{known['max_error']:.1e} at most; the adapter moves them by {known['adapter_effect']:.2g}.",
        details={
            "fad": rounded(chosen.fad_score, 2),
            "max_error": known["max_error"],
            "adapter_effect": known["adapter_effect"],
            "scale": rounded(known["scale"], 4),
            "rank": known["rank"],
            "checkpoint": chosen.checkpoint_id,
        },
    )


def merged_folder(store: Store) -> Path:
    """Folder of the current merged model."""
    checkpoint_id: str = read_json(store.metadata("merged_model.json"))["checkpoint_id"]
    return store.merged / checkpoint_id
