"""Publishing under the guard's permit, for what happens after the guard has recomputed everything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution.clearance import Clearance, give
from lofi_assets.constitution.gates import Verdict, load_gates
from lofi_assets.constitution.made_with import constitution_in_force
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.release import hub_release
from lofi_assets.release.files import ReleaseError
from lofi_assets.store import Store
from lofi_assets_tests.release.stand_in_release import CHECKPOINT, profile_for

FOLDER = profile_for("folder")
RELEASED = ("export", "checkpoints", "release", "models")


def cleared(store: Store) -> Clearance:
    """What the guard gives when every gate holds for what lies in this store now."""
    files = [path for name in RELEASED for path in (store.root / name).rglob("*") if path.is_file()]
    return give(
        Clearance(
            asset="hub_release",
            verdicts=tuple(Verdict(gate, "pass", gate.limit) for gate in load_gates() if "hub_release" in gate.holds),
            evidence={},
            files={store.relative(path): sha256_file(path) for path in files},
            constitution=constitution_in_force(),
        )
    )


def publish(store: Store, profile: Profile, **options: Any) -> Outcome:
    """`hub_release.publish` with a fresh permit."""
    return hub_release.publish(store, profile, cleared(store), **options)


def refused_by_name(store: Store, attack: Callable[[Store], None], said: str) -> None:
    """What an attack on a data root that may be released comes to: a message that names it, and nothing published."""
    attack(store)
    with pytest.raises(ReleaseError, match=said):
        publish(store, FOLDER)
    assert not (store.release / "published").exists() and not list(store.release.glob(".sealed-*"))


def adapter(store: Store) -> Path:
    """The checkpoint's folder."""
    return store.checkpoints / CHECKPOINT


def secret(store: Store) -> Path:
    """A file of this machine that no release may hold."""
    path = store.root.parent / "id_ed25519"
    path.write_bytes(b"PRIVATE KEY")
    return path
