"""What was merged into what: read without torch, which merging needs.

models/merged/<checkpoint>/merge.json    beside the merged model (`MergeReport`)
"""

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import write_text
from lofi_assets.files.typed import STORED, plain, read_typed


@dataclass(frozen=True, kw_only=True, config=STORED)
class MergeReport:
    """What was merged, and how far the merged model is from base and adapter run together."""

    max_error: float
    """Largest difference of the velocity over random conditions, as a share of its largest magnitude."""
    adapter_effect: float
    """The same between base and merged model: what the adapter changes. Zero means that it does nothing."""
    modules: int
    """Layers that carry an adapter."""
    scale: float
    """Factor on B A; the largest where layers differ."""
    rank: int
    """The largest where layers differ."""
    base_fingerprint: str
    adapter_sha256: str
    layers: Mapping[str, int] = field(default_factory=dict)
    """`rank 64, scale 2` -> how many layers have it, where they differ; empty where all are alike."""


def read_merge_report(folder: Path) -> MergeReport | None:
    """The report in the folder of a merged model; None for a base that nothing was merged into.

    Raises:
        StoreError: it is broken, or of another version.
    """
    return read_typed(folder / _REPORT, MergeReport, remedy="remove the folder and materialise merged_model again")


def write_merge_report(folder: Path, report: MergeReport) -> None:
    """Write it. Its bytes are part of the model's fingerprint: the same as ever where layers are alike."""
    write_text(folder / _REPORT, json.dumps(as_stored(report), indent=2, sort_keys=True) + "\n")


def as_stored(report: MergeReport) -> dict[str, Any]:
    """As JSON; what layers differ in is left out where they are alike."""
    return {name: value for name, value in plain(report).items() if name != "layers" or value}


_REPORT = "merge.json"
