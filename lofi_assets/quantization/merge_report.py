"""What was merged into what: read without torch, which merging needs.

models/merged/<checkpoint>/merge.json    beside the merged model (`MergeReport`)
"""

import json
from pathlib import Path

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
    rank: int
    base_fingerprint: str
    adapter_sha256: str


def read_merge_report(folder: Path) -> MergeReport | None:
    """The report in the folder of a merged model; None for a base that nothing was merged into.

    Raises:
        StoreError: it is broken, or of another version.
    """
    return read_typed(folder / _REPORT, MergeReport, remedy="remove the folder and materialise merged_model again")


def write_merge_report(folder: Path, report: MergeReport) -> None:
    """Write it. Its bytes are part of the model's fingerprint, so its keys are sorted, as they always were."""
    write_text(folder / _REPORT, json.dumps(plain(report), indent=2, sort_keys=True) + "\n")


_REPORT = "merge.json"
