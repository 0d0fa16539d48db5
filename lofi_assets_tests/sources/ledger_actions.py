"""A library of three tracks, and what people do with its licence ledger."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from lofi_assets.constitution.gates import load_gates
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.sources.ledger import add, revoke, verify
from lofi_assets.sources.ledger_page import Survey, survey
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.store import CONFIG_DIR, Store

TODAY = date(2025, 12, 22)
LICENCES = load_licences(CONFIG_DIR)
GATES = load_gates()
GOOD: dict[str, Any] = {
    "source_id": "studio-7",
    "track_ids": ["rain", "snow"],
    "source_type": "commissioned",
    "provider": "Studio 7",
    "license_type": "AI Training Rights",
    "cost": 120.0,
    "date_acquired": "2025-05-04",
    "verified_by": "M. Keller",
    "ai_training_rights": True,
    "evidence": "https://example.org/contract",
}


def library(root: Path) -> Store:
    store = Store(root)
    for name in ("rain", "snow", "fog"):
        raw(store, f"a/{name}.wav")
    return store


def raw(store: Store, name: str) -> Path:
    path = store.raw / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
    return path


def added(store: Store, file: Path | None = None, **changes: Any) -> None:
    data = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    add(store, data, evidence_file=file, licences=LICENCES, today=TODAY)


def confirmed(store: Store, **changes: Any) -> None:
    verify(store, "studio-7", **{"by": "M. Keller", **changes}, licences=LICENCES, today=TODAY)


def revoked(store: Store, **changes: Any) -> tuple[str, ...]:
    return revoke(store, "studio-7", **{"reason": "ended", "by": "K", "today": TODAY, **changes})


def text_of(store: Store) -> str:
    return store.metadata("sources.json").read_bytes().decode()


def records(store: Store) -> dict[str, dict[str, Any]]:
    return {record["source_id"]: record for record in json.loads(text_of(store))}


def rules(store: Store) -> dict[str, str]:
    """Track id -> the rule that the inventory rejects it by, empty if it may be used."""
    inventory_sources(store, gates=GATES, today=TODAY)
    return {row.track_id: row.rule for row in read_inventory(store)}


def surveyed(store: Store) -> Survey:
    return survey(store, licences=LICENCES, gates=GATES, today=TODAY)


def contract(folder: Path, content: bytes = b"signed") -> Path:
    path = folder / "Contract (final).PDF"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
