"""The asset `feature_cache`: features of every track of the current dataset, and their record."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import ACE_STEP_V1, Backbone, backbone_of
from lofi_assets.backbones.features import FeatureError
from lofi_assets.dataset.versions import current_dataset
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile, setting
from lofi_assets.records import Split
from lofi_assets.store import Store
from lofi_assets.training import report as training_report
from lofi_assets.training.base_model import backbone_for, resolve_base
from lofi_assets.training.config import TRAINING_RUN, TrackFeatures
from lofi_assets.training.features.files import exclusive, keys_of_runs, unneeded_files
from lofi_assets.training.settings import training_settings
from lofi_assets.wording import tallied

if TYPE_CHECKING:
    from lofi_assets.training.features.cache import FeatureRow

FEATURES = "feature_cache.json"
REMEDY = "materialise feature_cache again"


@dataclass(frozen=True, config=STORED)
class FeatureRecord:
    """What `feature_cache` wrote: `metadata/feature_cache.json`."""

    base: str
    """Folder of the base model."""
    base_fingerprint: str
    tracks: tuple[TrackFeatures, ...]
    architecture: str = ACE_STEP_V1
    dataset_id: str = ""
    """Of the version whose tracks these are; a record without it is of no dataset that is known."""
    dataset_hash: str = ""
    lyric_vocabulary: str | None = None
    """File that stands in for the one in the base's folder."""
    prompt_variants: int = 1
    """Wordings of each training prompt that there are features of (`TrainingSettings.prompt_variants`)."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Track id -> language of its lyrics, of those that are sung."""

    @classmethod
    def path(cls, store: Store) -> Path:
        """Where it lies."""
        return store.metadata(FEATURES)

    @classmethod
    def read(cls, store: Store) -> "FeatureRecord":
        """The record.

        Raises:
            FeatureError: absent, or of another version.
            StoreError: not JSON.
        """
        path = cls.path(store)
        try:
            record = read_typed(path, cls, remedy=f"{REMEDY}, which reads what is cached")
        except StoreError as error:
            raise FeatureError(str(error)) from error
        if record is None:
            raise FeatureError(f"{path}: no features yet; {REMEDY}")
        return record

    def write(self, store: Store) -> None:
        """Replace the record."""
        write_typed(self.path(store), self)

    @property
    def backbone(self) -> Backbone:
        """The model family that the features are of."""
        return backbone_of(self.architecture)

    @property
    def vocabulary(self) -> Path | None:
        """`lyric_vocabulary` as a path."""
        return Path(self.lyric_vocabulary) if self.lyric_vocabulary else None


def cache_dataset_features(store: Store, profile: Profile) -> Outcome:
    """Features of every track of the current dataset version; what is cached is read, not computed again."""
    from lofi_assets.training.features.cache import cache_features
    from lofi_assets.training.features.jobs import feature_jobs, lyric_vocabulary, reworded, ssl_folders
    from lofi_assets.training.features.latents import measured_latents

    folder, manifest, tracks = current_dataset(store)
    with setting(profile, "base_model"):
        backbone = backbone_for(profile.base_model)
        base = resolve_base(store, profile.base_model)
        identity = backbone.fingerprint(base)
    with setting(profile, "lyric_vocabulary"):
        vocabulary = lyric_vocabulary(store, profile)
    splits, wordings = {track.track_id: track.split for track in tracks}, training_settings(profile).prompt_variants
    jobs = feature_jobs(store, folder, tracks)
    found = cache_features(
        [*jobs, *reworded([job for job in jobs if splits[job.track_id] == "train"], wordings)],
        backbone=backbone,
        encoders=backbone.encoders(
            base,
            fingerprint=identity,
            device=profile.training.get("device", "cpu"),
            vocabulary=vocabulary,
            ssl_encoders=ssl_folders(store, profile),
        ),
        cache_dir=store.features,
    )
    rows = found[: len(jobs)]
    latents = measured_latents(backbone, store.features, {row.track_id: row.key for row in rows})
    languages = {row.track_id: row.notes["language"] for row in rows if row.notes.get("language")}
    FeatureRecord(
        base=str(base),
        base_fingerprint=identity,
        tracks=_tracks(found, splits),
        architecture=backbone.architecture,
        dataset_id=manifest.dataset_id,
        dataset_hash=manifest.hash,
        lyric_vocabulary=str(vocabulary) if vocabulary else None,
        prompt_variants=wordings,
        languages=languages,
    ).write(store)
    computed, orphaned = sum(not row.reused for row in rows), len(unneeded_features(store))
    return Outcome(
        # The dataset's hash covers what no key does: which tracks are trained on, and which validate.
        data_version=hash_of(identity, manifest.hash, [(row.track_id, row.key) for row in found]),
        summary=training_report.features_summary(len(rows), computed=computed, orphaned=orphaned, latents=latents),
        needs=latents.needs(),
        rows=latents.rows(),
        counts={
            "tracks": len(rows),
            "latent_frames": sum(row.frames for row in rows),
            "recomputed": computed,
            "orphaned_files": orphaned,
        },
        # Not the features: they can be deleted at any time, and are found by what they were made of.
        written=Written([FeatureRecord.path(store)]),
        values={
            "missing_features": sum(not all(path.is_file() for path in row.files.values()) for row in found),
            **latents.values(),
        },
        details={"base": f"{base.name} {identity[:12]}", "languages": tallied(languages.values()) or None},
    )


def _tracks(rows: "Sequence[FeatureRow]", splits: Mapping[str, Split]) -> tuple[TrackFeatures, ...]:
    """The tracks; the first row of each is of its prompt as it is written, the others are of other wordings."""
    keys: dict[str, list[str]] = {}
    for row in rows:
        keys.setdefault(row.track_id, []).append(row.key)
    return tuple(
        TrackFeatures(track_id=track_id, key=first, variants=tuple(others), split=splits[track_id])
        for track_id, (first, *others) in keys.items()
    )


def unneeded_features(store: Store) -> list[Path]:
    """Cached files that neither the current features nor any run, archived ones among them, name."""
    keys = keys_of_runs(FeatureRecord.path(store), store.metadata(TRAINING_RUN), store.checkpoints)
    return unneeded_files(store.features, keys)


def prune_features(store: Store) -> list[Path]:
    """Remove what `unneeded_features` lists.

    Raises:
        FeatureError: features are being computed right now.
    """
    with exclusive(store.features):
        unneeded = unneeded_features(store)
        for path in unneeded:
            path.unlink()
    return unneeded
