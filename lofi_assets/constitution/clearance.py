"""The permit to release: made by the guard after it recomputed everything, good for one use, and soon void."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lofi_assets.constitution.gates import Verdict
from lofi_assets.constitution.made_with import ConstitutionInForce
from lofi_assets.errors import LofiError

GOOD_FOR_SECONDS = 3600.0
"""A release is hashed and assembled at once; an upload that takes longer reads a copy."""

_unused: set[int] = set()
"""Identities of the clearances that the guard gave out and nobody used."""


class NotClearedError(LofiError, RuntimeError):
    """A release without a permit of the guard; the message says how to get one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clearance:
    """That every gate holds for these very bytes."""

    asset: str
    verdicts: tuple[Verdict, ...]
    """Of every gate that holds the asset; all pass."""
    evidence: Mapping[str, str]
    """Asset of the lineage -> sha256 of its evidence."""
    files: Mapping[str, str]
    """File below the data root -> sha256, as evidence has it and as it was hashed now."""
    constitution: ConstitutionInForce
    at: float = field(default_factory=time.monotonic)
    """When it was given, on this process's clock."""


def give(clearance: Clearance) -> Clearance:
    """Make a clearance good for one use: for the guard alone (`defs/gates.py`), which has recomputed what it says."""
    _unused.add(id(clearance))
    return clearance


def use(clearance: Clearance, *, asset: str) -> None:
    """Take a clearance before doing what it permits.

    Raises:
        NotClearedError: the guard did not give it, it was used, it is for another asset, or too old.
    """
    given = id(clearance) in _unused
    _unused.discard(id(clearance))
    if not given or clearance.asset != asset or time.monotonic() - clearance.at > GOOD_FOR_SECONDS:
        raise NotClearedError(
            f"{asset} needs a clearance that the guard gave just now, for it and for one use: materialise {asset} "
            "(in the UI, or `lofi release`), whose guard recomputes every gate"
        )
