"""Publishing under the guard's permit, for what happens after the guard has recomputed everything."""

from typing import Any

from lofi_assets.constitution.clearance import Clearance, give
from lofi_assets.constitution.gates import Verdict, load_gates
from lofi_assets.constitution.made_with import constitution_in_force
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.release import hub_release
from lofi_assets.store import Store

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
