"""The asset `licensed_sources`: every raw file with its claim, verdict and hash."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lofi_assets.constitution.gates import Gate, gates_of
from lofi_assets.constitution.verdicts import track_rules
from lofi_assets.files.hashing import hash_of
from lofi_assets.outcome import Outcome, Written
from lofi_assets.sources.claims import load_sources, verify_sources
from lofi_assets.sources.inventory import SourceRow, inventory_path, known_files, write_inventory
from lofi_assets.sources.ledger_text import ledger_path
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.raw_files import scan_raw, tree_of
from lofi_assets.sources.report import RejectedFile, inventory_summary, rejected_files
from lofi_assets.sources.unread import problems as unread
from lofi_assets.store import CONFIG_DIR, Store

LICENCES = "licences"
"""Of the values: licence id -> tracks that it lets in. Ids of the table alone, which say nothing of a contract."""
UNLISTED = "unlisted"


def inventory_sources(store: Store, *, gates: Sequence[Gate], today: date, config_dir: Path = CONFIG_DIR) -> Outcome:
    """Write `raw_inventory.parquet`: every raw file, verified or rejected with the rule that rejected it."""
    source_file = load_sources(ledger_path(store))
    before = known_files(store)
    known = {row.path: (row.stat, row.sha256) for row in before}
    track_gates = gates_of(gates, asset="licensed_sources", scope="track")
    tree = tree_of(store.raw)
    files = scan_raw(store, tree, memory=known)
    problems = [*source_file.problems, *unread(store, tree, files, before=before, records=source_file.records)]
    licences = load_licences(config_dir)
    verdicts = verify_sources(files, source_file=source_file, licences=licences, gates=track_gates, today=today)
    rows = write_inventory(store, verdicts)
    verified = [row for row in rows if row.status == "verified"]
    rejected = [row for row in rows if row.status == "rejected"]
    return Outcome(
        data_version=hash_of(
            [(row.track_id, row.sha256, row.status, row.source_id, row.license_type) for row in rows],
            sorted({(row.source_id, row.provider, row.attribution) for row in verified}),
        ),
        counts={
            "raw_files": len(rows),
            "verified": len(verified),
            "rejected": len(rejected),
            "recomputed": sum(known.get(row.path) != (row.stat, row.sha256) for row in rows),
        },
        values={
            "invalid_records": len(source_file.problems),
            "verified_tracks": len(verified),
            LICENCES: dict(Counter(licences.find(row.license_type).id or UNLISTED for row in verified)),
        },
        **track_rules(
            track_gates,
            accepted=[(row.track_id, row.measures) for row in verified],
            rejected=[(row.track_id, row.rule) for row in rejected],
        ),
        summary=inventory_summary(rejected=[row.rule for row in rejected], verified=len(verified), problems=problems),
        needs=rejected_files([RejectedFile(row.track_id, row.path, row.rule, row.reason) for row in rejected]),
        written=Written(
            files=[inventory_path(store)],
            given=[ledger_path(store), *(store.root / row.path for row in verified)],
        ),
        rows=[_shown_source(row) for row in (*rejected, *verified)],
        details={"problems": "\n".join(f"- {problem}" for problem in problems) or None},
    )


def _shown_source(row: SourceRow) -> Mapping[str, Any]:
    return {
        "track_id": row.track_id,
        "status": row.status,
        "rule": row.rule,
        "reason": row.reason,
        "source": row.source_id,
        "licence": row.license_type,
        "path": row.path,
    }
