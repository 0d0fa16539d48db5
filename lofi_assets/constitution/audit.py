"""The repository against the constitution: what holds for every change, whatever data there is (Governance).

What belongs here: measures for the gates of scope `repository`. What does not: gates of assets (`verdicts.py`), the log
of amendments (`amendments.py`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lofi_assets.constitution.amendments import unversioned_amendments
from lofi_assets.constitution.gates import Verdict, gates_page, judge, load_constitution, load_gates
from lofi_assets.files.documents import read_json
from lofi_assets.profiles import Profile, ProfileError, load_profile
from lofi_assets.records import stale_schemas
from lofi_assets.store import CONFIG_DIR

PINNED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[0-9][A-Za-z0-9.!+_-]*$")
"""`name==exact version`, and nothing looser (constitution II)."""


def audit(root: Path | None = None) -> list[Verdict]:
    """Verdicts of every repository gate over the checkout at `root` (default: this one)."""
    root = root or CONFIG_DIR.parent
    measured = {
        "unpinned_requirements": unpinned_requirements(root / "requirements.txt"),
        "training_table_mismatches": training_table_mismatches(root / "config"),
        "stale_schemas": stale_schemas(root / "config" / "schemas"),
        "stale_gate_pages": stale_gate_pages(root),
        "unversioned_amendments": unversioned_amendments(root),
        "profile_gate_overrides": profile_gate_overrides(root / "config"),
    }
    return [
        judge(gate, {"value": len(measured[gate.measure]), "note": "; ".join(measured[gate.measure])})
        for gate in load_gates(root / "config")
        if gate.scope == "repository"
    ]


def unpinned_requirements(path: Path) -> list[str]:
    """Lines of a requirements file that do not lock one exact version."""
    if not path.is_file():
        return [f"{path.name} is missing"]
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not PINNED.match(line)]


def training_table_mismatches(config_dir: Path) -> list[str]:
    """Where the production configuration differs from the constitution's training table."""
    table = load_constitution(config_dir)["training_table"]
    try:
        profile = load_profile("production", config_dir=config_dir)
    except ProfileError as error:
        return [str(error)]
    found = _production_settings(profile, config_dir)
    return [f"{key} is {found.get(key)}, must be {value}" for key, value in table.items() if found.get(key) != value]


def _production_settings(profile: Profile, config_dir: Path) -> Mapping[str, Any]:
    """Settings of adapter and training; a rank that does not hold for every layer is none."""
    lora = {**read_json(config_dir / "lofi_lora_config.json", default={}), **profile.lora}
    if pattern := lora.get("rank_pattern"):
        lora["r"] = f"{lora.get('r')} but for {pattern}"
    return {**lora, **profile.training}


def stale_gate_pages(root: Path) -> list[str]:
    """docs/gates.md if it is not what the table says."""
    page = root / "docs" / "gates.md"
    current = page.is_file() and page.read_text(encoding="utf-8") == gates_page(root / "config")
    return [] if current else ["docs/gates.md (run: lofi docs)"]


def profile_gate_overrides(config_dir: Path) -> list[str]:
    """Profiles that do not load, since unknown keys (gates among them) are refused, or name a gate's measure."""
    measures = {gate.measure for gate in load_gates(config_dir)}
    faults = []
    for path in sorted((config_dir / "profiles").glob("*.yaml")):
        try:
            load_profile(path.stem, config_dir=config_dir)
        except ProfileError as error:
            faults.append(str(error))
        named = measures & set(_keys(yaml.safe_load(path.read_text(encoding="utf-8"))))
        faults += [f"{path.name} sets {measure}, which a gate judges" for measure in sorted(named)]
    return faults


def _keys(data: Any) -> list[str]:
    if not isinstance(data, Mapping):
        return []
    return [*map(str, data), *(key for value in data.values() for key in _keys(value))]
