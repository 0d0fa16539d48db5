"""The asset `merged_model`: the best checkpoint merged into its base."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import ACE_STEP_V1, Backbone, backbone_of
from lofi_assets.errors import LofiError
from lofi_assets.evaluation.generated_samples import BROKEN
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import STORED, plain, read_typed
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.progress import Progress
from lofi_assets.quantization.merge_report import MergeReport, as_stored, read_merge_report
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import PEFT_CONFIG, PEFT_WEIGHTS, CheckpointError
from lofi_assets.training.checkpoints.manifest import best, read_manifest, update_record
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.trained_on import trained_base
from lofi_assets.wording import named, rounded


def _model_files(folder: Path) -> list[Path]:
    """Without what is remembered beside them."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


class NoMergedModelError(LofiError, RuntimeError):
    """There is no merged model yet; the message says which asset to materialise."""


class NothingToMergeError(LofiError, RuntimeError):
    """No checkpoint has been evaluated; the message says which asset to materialise."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class MergedModel(MergeReport):
    """The current merged model: `metadata/merged_model.json`."""

    checkpoint_id: str
    """What the tiers are made from; not the checkpoint that is best by now."""
    architecture: str = ACE_STEP_V1
    """Model family (`backbones.backbone_of`)."""

    @classmethod
    def read(cls, store: Store) -> "MergedModel | None":
        """What is on record; None before.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(cls.path(store), cls, remedy="remove it and materialise merged_model again")

    @classmethod
    def current(cls, store: Store) -> "MergedModel":
        """What is on record.

        Raises:
            NoMergedModelError: nothing is.
            StoreError: it is broken, or of another version.
        """
        if found := cls.read(store):
            return found
        raise NoMergedModelError(f"{cls.path(store)}: absent; materialise merged_model")

    def write(self, store: Store) -> None:
        """Put on record."""
        write_json(self.path(store), {"checkpoint_id": self.checkpoint_id} | as_stored(self))

    @property
    def backbone(self) -> Backbone:
        """The model family.

        Raises:
            BackboneError: it is not installed.
        """
        return backbone_of(self.architecture)

    def folder(self, store: Store) -> Path:
        """Where the model lies."""
        return store.merged / self.checkpoint_id

    @staticmethod
    def path(store: Store) -> Path:
        """Where it is on record."""
        return store.metadata("merged_model.json")


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
    wanted = (sha256_file(adapter / PEFT_WEIGHTS), features.base_fingerprint)
    report = read_merge_report(target)
    unchanged = report is not None and (report.adapter_sha256, report.base_fingerprint) == wanted
    if report is None or not unchanged:
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
            progress.advance()
    MergedModel(checkpoint_id=chosen.checkpoint_id, architecture=features.architecture, **plain(report)).write(store)
    return Outcome(
        data_version=hash_of(report.adapter_sha256, report.base_fingerprint),
        counts={"modules": report.modules, "recomputed": int(not unchanged)},
        values={"merge_max_error": report.max_error},
        written=Written(
            files=[MergedModel.path(store), *_model_files(target)],
            materials=[adapter / PEFT_WEIGHTS, adapter / PEFT_CONFIG],
        ),
        summary=f"{chosen.checkpoint_id} is merged into its base: outputs differ from those with the adapter by "
        f"{report.max_error:.1e} at most; the adapter moves them by {report.adapter_effect:.2g}.",
        details={
            "fad": rounded(chosen.fad_score, 2),
            "max_error": report.max_error,
            "adapter_effect": report.adapter_effect,
            "scale": rounded(report.scale, 4),
            "rank": report.rank,
            "layers that differ": named([f"{count} of {what}" for what, count in report.layers.items()]) or None,
            "checkpoint": chosen.checkpoint_id,
        },
    )
