"""The table of licences (`config/licenses.yaml`): which permit training, and how a licence is named or linked to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_yaml
from lofi_assets.near_names import shown
from lofi_assets.sources.rights import LicenceStatus


class SourceError(LofiError, ValueError):
    """A licence file cannot be read; the message names it and the remedy."""


@dataclass(frozen=True)
class LicenceType:
    """One row of `config/licenses.yaml`."""

    id: str
    status: LicenceStatus
    why: str
    attribution: bool = False
    """The licence asks for the rights holder's name wherever the work is used."""


UNLISTED = LicenceType("", "ambiguous", "Not listed in config/licenses.yaml; non-permissive until it is clarified.")


class LicenceTable:
    """Licence types of `config/licenses.yaml`; an unlisted one is ambiguous."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._types = {
            _licence_key(name): LicenceType(row["id"], row["status"], row.get("why", ""), bool(row.get("attribution")))
            for row in rows
            for name in (row["id"], *row.get("aliases", ()))
        }

    def find(self, license_type: str) -> LicenceType:
        """The listed type that a record's words mean: an id, an alias, or the address of a Creative Commons deed."""
        return self._types.get(_licence_key(license_type), UNLISTED)

    def status(self, license_type: str) -> LicenceStatus:
        """permitted, denied or ambiguous."""
        return self.find(license_type).status


def attribution_of(text: str | None, provider: str, licence: LicenceType) -> str:
    """What the model card says of a source; the provider where the licence asks for a name and the record has none."""
    if text and text.strip():
        return " ".join(text.split())
    return f"{provider} ({licence.id})" if licence.attribution else ""


_DEED = re.compile(r"^(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/(\d\.\d)(?:/|$)")


_BETWEEN_WORDS = re.compile(r"[\s_\u002d\u2010-\u2015\u2212]+")
"""Spaces, and the hyphens and dashes that editors put in place of one."""


_DEED_IDS = {"zero": "cc0", "mark": "cc pdm"}


def _licence_key(name: str) -> str:
    name = shown(name).strip().casefold()
    if deed := _DEED.match(name):
        code, version = deed.groups()
        name = f"{_DEED_IDS.get(code, f'cc {code}')} {version}"
    return _BETWEEN_WORDS.sub(" ", name).strip()


def load_licences(config_dir: Path) -> LicenceTable:
    """Read `config/licenses.yaml`.

    Raises:
        SourceError: a row without id or with a status that does not exist.
    """
    path = config_dir / "licenses.yaml"
    try:
        rows = parse_yaml(decoded(path.read_bytes(), where=str(path)), where=str(path))
    except HandWrittenError as error:
        raise SourceError(str(error)) from error
    rows = rows["licenses"] if isinstance(rows, dict) else rows
    named: dict[str, int] = {}
    for number, row in enumerate(rows):
        if row.get("status") not in ("permitted", "denied", "ambiguous") or not row.get("id"):
            raise SourceError(f"{path}: {row}: needs an id and a status permitted, denied or ambiguous")
        for name in (row["id"], *row.get("aliases", ())):
            if (other := named.setdefault(_licence_key(name), number)) != number:
                raise SourceError(f"{path}: {name!r} is in the rows {rows[other]['id']} and {row['id']}; keep one")
    return LicenceTable(rows)
