"""Documents and tables as frozen dataclasses: what a stage writes, read back as what it is or refused by name.

What belongs here: the way between a dataclass and its file. What does not: the dataclasses, each of which belongs to
the module that writes the file. Entities of the data model (`records.Record`) are read in the same way; they keep
fields that they do not know, and `records.dump` writes them.

A stage's dataclass is one of `pydantic.dataclasses` with `config=STORED`. A field with a default may be absent from the
file, and the default says what an earlier version meant by leaving it out. A table cannot leave a field out of one row;
there an empty cell is an absent field. Every other field has to be there, and one that the dataclass does not know is
of another version: the file is refused as a whole, never half-read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.tables import read_columns, table_columns, write_table
from lofi_assets.files.writing import StoreError

STORED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every dataclass that is a file's content."""

_PLAIN = (str, int, float, bool, NoneType)
_FAULTS_SHOWN = 3


class Stored(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Stored)
R = TypeVar("R", bound=Stored | BaseModel)


def plain(value: Stored) -> dict[str, Any]:
    """A dataclass as it stands in JSON."""
    made: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return made


def parsed(kind: type[R], data: object, *, where: str, remedy: str) -> R:
    """JSON as a dataclass or a record.

    Args:
        where: the file, and the place in it.
        remedy: what a person does about a file of another version.
    Raises:
        StoreError: a field is absent, unknown or of another type; the message names it.
    """
    try:
        # A class can be a key whatever its instances are, which is what mypy looks at.
        value: R = _adapter(kind).validate_python(data)  # type: ignore[arg-type]
        return value
    except ValidationError as error:
        raise StoreError(f"{where}: {_faults(error)}; {remedy}") from error


def read_typed(path: Path, kind: type[R], *, remedy: str) -> R | None:
    """The content of a JSON file; None if the file is absent.

    Raises:
        StoreError: not JSON, or of another version.
    """
    data = read_json(path, remedy=remedy)
    return None if data is None else parsed(kind, data, where=str(path), remedy=remedy)


def write_typed(path: Path, value: Stored) -> bool:
    """Write a dataclass as JSON, atomically; returns whether the file changed."""
    return write_json(path, plain(value))


def read_rows(path: Path, kind: type[T], *, remedy: str, whole: bool = True) -> list[T]:
    """The rows of a Parquet table; none if the file is absent.

    Args:
        whole: `kind` has a field for every column. Otherwise only its own columns are read, since others may hold
            megabytes.
    Raises:
        StoreError: not Parquet, or of another version: a column is absent, unknown or of another type.
    """
    present = table_columns(path)
    if whole and (unknown := sorted(set(present) - {field.name for field in fields(kind)})):
        raise StoreError(f"{path}: has columns of another version ({', '.join(unknown)}); {remedy}")
    read = read_columns(path, *(field.name for field in fields(kind) if field.name in present))
    return [
        parsed_row(kind, row, where=f"{path}, row {number}", remedy=remedy) for number, row in enumerate(read, start=1)
    ]


def write_rows(path: Path, kind: type[T], rows: Sequence[T]) -> None:
    """Write a Parquet table, atomically: a column per field, as JSON text where a field is no plain value."""
    import pandas as pd

    write_table(path, pd.DataFrame([plain_row(row) for row in rows], columns=[field.name for field in fields(kind)]))


def plain_row(value: Stored) -> dict[str, Any]:
    """A dataclass as a row of a table: plain values, and JSON text where a field is none."""
    coded = _coded(type(value))
    return {
        name: json.dumps(found, sort_keys=True) if name in coded and found is not None else found
        for name, found in plain(value).items()
    }


def parsed_row(kind: type[T], row: Mapping[str, Any], *, where: str, remedy: str) -> T:
    """A row of a table as a dataclass: inverse of `plain_row`.

    Raises:
        StoreError: as `parsed`; a column holds no JSON.
    """
    coded, left_out = _coded(kind), _left_out(kind)
    try:
        data = {
            name: json.loads(value) if name in coded and value is not None else value
            for name, value in row.items()
            if value is not None or name not in left_out
        }
    except (TypeError, ValueError) as error:
        raise StoreError(f"{where}: a column holds no JSON ({error}); {remedy}") from error
    return parsed(kind, data, where=where, remedy=remedy)


@cache
def _adapter(kind: type[R]) -> TypeAdapter[R]:
    return TypeAdapter(kind)


@cache
def _coded(kind: type[Stored]) -> frozenset[str]:
    """Fields that are no plain value, which a table holds as JSON text."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if not _is_plain(hint))


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return all(_is_plain(part) for part in get_args(hint))
    return hint in _PLAIN or get_origin(hint) is Literal


@cache
def _left_out(kind: type[Stored]) -> frozenset[str]:
    """Fields that an empty cell leaves out: with a default, and never None."""
    hints = get_type_hints(kind)
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    return frozenset(name for name in optional if NoneType not in get_args(hints[name]))


def _faults(error: ValidationError) -> str:
    """The first few, each with the place in the file."""
    found = [
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg'][:1].lower()}{fault['msg'][1:]}" for fault in error.errors()
    ]
    more = f" and {len(found) - _FAULTS_SHOWN} more" if len(found) > _FAULTS_SHOWN else ""
    return f"is of another version ({'; '.join(found[:_FAULTS_SHOWN])}{more})"
