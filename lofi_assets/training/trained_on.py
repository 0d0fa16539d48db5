"""Which tracks a checkpoint heard, and whether their rights still hold (constitution I).

What belongs here: what a checkpoint's own record says it was trained on, against the ledger of today. What does not:
the ledger (`sources.py`), the training (`experiment.py`).
"""

from datetime import UTC, date, datetime

from lofi_assets.constitution.gates import load_gates
from lofi_assets.files.documents import read_json
from lofi_assets.records import Checkpoint
from lofi_assets.sources.claims import load_licences, unlicensed, withdrawn_tracks
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.sources.rights import latest_day
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.tracks.processed_tracks import INVENTORY, rows_of
from lofi_assets.training.checkpoints.manifest import read_manifest


def on_revoked_tracks(store: Store, *, today: date | None = None) -> dict[str, str]:
    """Checkpoint id -> why a track that it was trained on has no rights now: by the inventory, or the records since.

    The records are asked as they stand, so that a revocation counts before anything is materialised again, and after
    the raw file is gone.
    """
    rows = {row["track_id"]: row for row in rows_of(store, INVENTORY)}
    trained = {
        record.checkpoint_id: {raw_track_id(track, inventory=rows.keys()) for track in _trained_on(store, record)}
        for record in read_manifest(store.checkpoints)
    }
    if not trained:
        return {}
    lost = {track: rows[track]["reason"] for track in withdrawn_tracks(list(rows.values()))} | unlicensed(
        store,
        set().union(*trained.values()),
        licences=load_licences(CONFIG_DIR),
        gates=load_gates(),
        today=today or latest_day(datetime.now(UTC)),
    )
    found = {name: sorted(tracks & lost.keys()) for name, tracks in trained.items()}
    return {name: f"{tracks[0]}: {lost[tracks[0]]}" for name, tracks in found.items() if tracks}


def _trained_on(store: Store, record: Checkpoint) -> set[str]:
    run = read_json(store.checkpoints / record.checkpoint_id / "config.json", default={})
    return {track["track_id"] for track in run.get("tracks", ()) if track.get("split") == "train"}
