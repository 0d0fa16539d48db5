"""The asset `feature_cache`: features of every track of the current dataset, and their record."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lofi_assets.dataset.versions import current_dataset
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile, setting
from lofi_assets.store import Store
from lofi_assets.training import report as training_report
from lofi_assets.training.base_model import base_identity, resolve_base
from lofi_assets.training.config import RUN_CONFIG, TrackFeatures
from lofi_assets.training.features.files import FeatureError, exclusive, keys_of_runs, unneeded_files
from lofi_assets.wording import tallied

FEATURES = "feature_cache.json"


def cache_dataset_features(store: Store, profile: Profile) -> Outcome:
    """Features of every track of the current dataset version; what is cached is read, not computed again."""
    from lofi_assets.training.features.cache import cache_features
    from lofi_assets.training.features.jobs import feature_jobs, lyric_vocabulary, ssl_folders

    folder, manifest, tracks = current_dataset(store)
    with setting(profile, "base_model"):
        base = resolve_base(store, profile.base_model)
        identity = base_identity(base)
    with setting(profile, "lyric_vocabulary"):
        vocabulary = lyric_vocabulary(store, profile.lyric_vocabulary)
    rows = cache_features(
        feature_jobs(store, folder, tracks),
        base_path=base,
        base_fingerprint=identity,
        cache_dir=store.features,
        device=profile.training.get("device", "cpu"),
        vocabulary=vocabulary,
        ssl_encoders=ssl_folders(store, profile),
    )
    splits = {track.track_id: track.split for track in tracks}
    features = [{"track_id": row.track_id, "key": row.key, "split": splits[row.track_id]} for row in rows]
    languages = {row.track_id: row.language for row in rows if row.language}
    write_json(
        store.metadata(FEATURES),
        {"base": str(base), "base_fingerprint": identity, "tracks": features}
        | {"dataset_id": manifest.dataset_id, "dataset_hash": manifest.hash}
        | {"lyric_vocabulary": str(vocabulary) if vocabulary else None, "languages": languages},
    )
    computed, orphaned = sum(not row.reused for row in rows), len(unneeded_features(store))
    return Outcome(
        # The dataset's hash covers what no key does: which tracks are trained on, and which validate.
        data_version=fingerprint(identity, manifest.hash, [(row.track_id, row.key) for row in rows]),
        summary=training_report.features_summary(len(rows), computed=computed, orphaned=orphaned),
        counts={
            "tracks": len(rows),
            "latent_frames": sum(row.frames for row in rows),
            "recomputed": computed,
            "orphaned_files": orphaned,
        },
        values={"missing_features": sum(not all(path.is_file() for path in row.files.values()) for row in rows)},
        details={"base": f"{base.name} {identity[:12]}", "languages": tallied(languages.values()) or None},
    )


def unneeded_features(store: Store) -> list[Path]:
    """Cached files that neither the current features nor any run, archived ones among them, name."""
    keys = keys_of_runs(store.metadata(FEATURES), store.metadata(RUN_CONFIG), store.checkpoints)
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


def features_on_record(store: Store) -> dict[str, Any]:
    """What `feature_cache` wrote: `base`, `base_fingerprint`, `tracks` and perhaps `lyric_vocabulary`.

    Raises:
        FeatureError: absent, or of another version.
        StoreError: not JSON.
    """
    path, remedy = store.metadata(FEATURES), "materialise feature_cache again"
    features: dict[str, Any] = read_json(path, default={}, remedy=f"remove it and {remedy}, which reads what is cached")
    try:
        needed = {"base": features["base"], "base_fingerprint": features["base_fingerprint"]}
        tracks = [TrackFeatures.model_validate(track) for track in features["tracks"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise FeatureError(f"{path}: absent or of another version; {remedy}") from error
    return features | needed | {"tracks": tracks}
