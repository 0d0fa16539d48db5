"""The log of amendments: every text and every table of gates that was in force, by version (Governance).

The hashes of both and what licences were held to, whether the log has them, and adding a row.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lofi_assets.constitution.gates import ConstitutionError, gates_page, load_constitution
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_yaml
from lofi_assets.files.hashing import hash_of
from lofi_assets.wording import named

AMENDMENTS = "amendments.json"
TABLE = "licenses.yaml"
LICENCES = "licences"
"""Of a row of the log: what `licence_rules` were then."""
DENIED, ATTRIBUTION = "denied", "attribution"
TEXT = "docs/constitution.md"
_IN_FORCE = re.compile(
    r"^\*\*Version\*\*: (\S+) \| \*\*Ratified\*\*: \S+ \| \*\*Last Amended\*\*: (\S+)$", re.MULTILINE
)
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def constitution_hashes(root: Path) -> dict[str, str]:
    """Hashes that an amendment row records: of the text, and of what the gates mean."""
    text = (root / TEXT).read_bytes()
    return {"text_sha256": hashlib.sha256(text).hexdigest(), "gates_sha256": gates_sha256(root / "config")}


def gates_sha256(config_dir: Path) -> str:
    """Hash of what the gates of a configuration folder mean, comments and order aside."""
    return _meaning(load_constitution(config_dir))


def licence_rules(config_dir: Path) -> dict[str, list[str]]:
    """What the table of licences denies, and which ask for a name: of each all names, ids and aliases, sorted.

    A name that another row has too, which does not, counts as not.

    Raises:
        ConstitutionError: the table cannot be read.
    """
    path = config_dir / TABLE
    try:
        data = parse_yaml(decoded(path.read_bytes(), where=str(path)), where=str(path))
        rows = data["licenses"] if isinstance(data, dict) else data
        return {
            DENIED: _names(rows, lambda row: row["status"] == "denied"),
            ATTRIBUTION: _names(rows, lambda row: row.get("attribution") is True),
        }
    except (OSError, HandWrittenError, KeyError, TypeError, AttributeError) as error:
        raise ConstitutionError(f"{path}: no table of licences ({error}); restore it") from error


def _names(rows: Sequence[Mapping[str, Any]], holds: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for row in rows:
        found[holds(row)] |= {str(name) for name in (row["id"], *row.get("aliases", ()))}
    return sorted(found[True] - found[False])


def _meaning(data: Mapping[str, Any]) -> str:
    try:
        return hash_of({"gates": {row["id"]: row for row in data["gates"]}, "training_table": data["training_table"]})
    except (KeyError, TypeError, ValueError) as error:  # YAML has types that JSON, which is hashed, does not have
        raise ConstitutionError(
            f"the table of gates holds what has no hash ({error}); mend config/constitution.yaml"
        ) from error


def unlogged_gates(config_dir: Path, *, known: Path) -> str:
    """Why gates are not those of the version that they say, or that version is in force no more; "" if they hold.

    Args:
        config_dir: the configuration in force.
        known: the configuration that came with the code, whose log goes before what another folder claims.
    """
    data = load_constitution(config_dir)
    version, found, path = str(data["version"]), _meaning(data), config_dir / "constitution.yaml"
    for log, rows in _logs(config_dir, known):
        recorded = rows.get(version, {}).get("gates_sha256")
        if recorded != found and (recorded or log.parent == config_dir):
            said = f"has other gates for version {version}" if recorded else f"has no version {version}"
            return (
                f"{path} is not the constitution that it says it is: {log} {said}; "
                "restore the table, or amend it (`lofi constitution --amend`)"
            )
        if recorded and version != (latest := list(rows)[-1]):
            return f"{path} says version {version}, which {latest} has superseded ({log}); restore the table in force"
    return ""


def loosened_licences(config_dir: Path, *, known: Path) -> str:
    """Why the table of licences lets through what the constitution in force does not; "" if it is as strict or more.

    A log that does not say what a version held licences to leaves that to the log that came with the code.

    Args:
        config_dir, known: as of `unlogged_gates`.
    """
    version, now = str(load_constitution(config_dir)["version"]), licence_rules(config_dir)
    logs = _logs(config_dir, known)
    said = [(log, rows[version]) for log, rows in logs if LICENCES in rows.get(version, {})]
    latest = [(log, row) for log, rows in logs for row in list(rows.values())[-1:] if LICENCES in row]
    for log, row in said or latest[-1:]:
        if faults := _loosened(row[LICENCES], now):
            return (
                f"{config_dir / TABLE} {'; '.join(faults)}, as version {row['version']} of the constitution has it "
                f"({log}); restore the rows, or amend it (`lofi constitution --amend`)"
            )
    return ""


def _logs(config_dir: Path, known: Path) -> list[tuple[Path, dict[str, Mapping[str, Any]]]]:
    """The log of a configuration and the one that came with the code, each with its rows by version, oldest first."""
    logs = dict.fromkeys((config_dir / AMENDMENTS, known / AMENDMENTS))
    return [(log, {row["version"]: row for row in read_json(log, default=[])}) for log in logs]


def _loosened(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> list[str]:
    verbs = {DENIED: "no longer denies", ATTRIBUTION: "no longer asks for a name under"}
    gone = {rule: sorted(set(before[rule]) - set(now[rule])) for rule in verbs}
    return [f"{verbs[rule]} {named(names)}" for rule, names in gone.items() if names]


def unversioned_amendments(root: Path) -> list[str]:
    """Changes of the constitution's text or gates without a version of their own in the amendment log."""
    version = str(load_constitution(root / "config")["version"])
    faults = []
    if f"**Version**: {version}" not in (root / TEXT).read_text(encoding="utf-8"):
        faults.append(f"{TEXT} does not say version {version}")
    row = {row["version"]: row for row in _log(root)}.get(version)
    if row is None:
        return [*faults, f"config/{AMENDMENTS} has no row for version {version}"]
    for key, value in constitution_hashes(root).items():
        if row.get(key) != value:
            faults.append(
                f"{key.removesuffix('_sha256')} changed since version {version}: raise the version and log why"
            )
    loosened = loosened_licences(root / "config", known=root / "config")
    return [*faults, loosened] if loosened else faults


def amend(root: Path, *, rationale: str, today: date) -> dict[str, Any]:
    """Log the version that text and table say, with what they are now; docs/gates.md is written anew.

    Args:
        rationale: why it was changed, for the record.
        today: the version must be dated today in the text.
    Returns:
        The row that was added to `config/amendments.json`.
    Raises:
        ConstitutionError: text and table say different versions, the version is on record or does not follow the last
            one, the date is another, nothing was changed, or there is no rationale.
    """
    version, amended = _said(root)
    log = _log(root)
    if not rationale.strip():
        raise ConstitutionError("an amendment needs its rationale (Governance, 1): say why")
    if any(row["version"] == version for row in log):
        raise ConstitutionError(
            f"version {version} is on record and stays as it is: raise it in {TEXT} and config/constitution.yaml "
            f"(after {log[-1]['version']}: {', '.join(_successors(log[-1]['version']))})"
        )
    if log and version not in _successors(log[-1]["version"]):
        follows = ", ".join(_successors(log[-1]["version"]))
        raise ConstitutionError(f"{TEXT}: version {version} does not follow {log[-1]['version']}: {follows}")
    if amended != today.isoformat():
        raise ConstitutionError(f"{TEXT}: Last Amended is {amended}, must be {today.isoformat()}")
    rules = {**constitution_hashes(root), LICENCES: licence_rules(root / "config")}
    if log and all(log[-1].get(key) == value for key, value in rules.items()):
        raise ConstitutionError(f"neither text, gates nor licences changed since version {log[-1]['version']}")
    row = {"version": version, "date": amended, "rationale": rationale.strip(), **rules}
    write_json(root / "config" / AMENDMENTS, [*log, row])
    write_text(root / "docs" / "gates.md", gates_page(root / "config"))
    return row


def _log(root: Path) -> list[dict[str, Any]]:
    return list(read_json(root / "config" / AMENDMENTS, default=[]))


def _said(root: Path) -> tuple[str, str]:
    """(version, day of the last amendment), as the text says them."""
    found = _IN_FORCE.search((root / TEXT).read_text(encoding="utf-8"))
    if not found:
        raise ConstitutionError(
            f"{TEXT}: no line '**Version**: X.Y.Z | **Ratified**: date | **Last Amended**: date'; restore it"
        )
    table = str(load_constitution(root / "config")["version"])
    if found[1] != table:
        raise ConstitutionError(
            f"{TEXT} says version {found[1]}, config/constitution.yaml {table}: both must be raised"
        )
    return found[1], found[2]


def _successors(version: str) -> list[str]:
    """PATCH, MINOR and MAJOR after a version."""
    found = _VERSION.fullmatch(version)
    if not found:
        raise ConstitutionError(f"config/{AMENDMENTS}: {version!r} is no version X.Y.Z; restore the log")
    major, minor, patch = map(int, found.groups())
    return [f"{major}.{minor}.{patch + 1}", f"{major}.{minor + 1}.0", f"{major + 1}.0.0"]
