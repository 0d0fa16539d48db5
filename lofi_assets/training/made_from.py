"""What was made from which tracks: every dataset version and every checkpoint, archived and pruned ones too.

What belongs here: what the records of versions and runs say of their tracks. What does not: whether the rights in those
tracks hold (`trained_on.py`, `sources/`), and the page that shows both (`sources/ledger_page.py`).
"""

from lofi_assets.dataset.versions import version_record, version_tracks
from lofi_assets.sources.ledger_page import Use
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import PRUNED
from lofi_assets.training.checkpoints.manifest import pruned_records
from lofi_assets.training.trained_on import TrainedOn


def uses(store: Store) -> list[Use]:
    """Every dataset version and every checkpoint, with the tracks it was made from.

    Raises:
        DatasetError, StoreError: what a version records of itself is broken.
    """
    made, trained = [], {}
    for folder in sorted(store.datasets.glob("*/")):
        tracks, record = version_tracks(folder), version_record(folder)
        if tracks is None:
            continue
        made.append(Use("dataset", store.relative(folder), frozenset(track.track_id for track in tracks)))
        if record is not None:
            trained[record.hash] = frozenset(track.track_id for track in tracks if track.split == "train")
    for path in sorted(store.checkpoints.rglob("epoch=0-step=*_lora/config.json")):
        made.append(Use("checkpoint", store.relative(path.parent), TrainedOn.read(path.parent).train))
    for path in sorted(store.checkpoints.rglob(PRUNED)):
        for pruned in pruned_records(path.parent):
            name = f"{store.relative(path)}: {pruned.checkpoint_id}"
            made.append(Use("checkpoint", name, trained.get(pruned.dataset_hash, frozenset())))
    return made
