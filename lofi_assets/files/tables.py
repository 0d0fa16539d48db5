"""Parquet tables: written whole, read as plain columns."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.files.writing import StoreError, atomic_path, linked_to

if TYPE_CHECKING:
    import pandas as pd


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet, atomically. Same rows, same bytes: no index, no time stamps."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def _not_parquet(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: not a Parquet table ({error}); remove it, the next run writes it anew")


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a Parquet table; none if the file is absent.

    Raises:
        StoreError: the file is not Parquet, or a link that leads nowhere.
    """
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names)
    except FileNotFoundError:
        linked_to(path)
        return []
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error


def read_columns(path: Path, *columns: str) -> list[dict[str, Any]]:
    """Rows of a Parquet table with a few of its columns, since others may hold megabytes; empty if the file is absent.

    Raises:
        StoreError: as `table_columns`; a table with rows lacks one of the columns.
    """
    present = table_columns(path)
    if not present:
        return []
    if missing := sorted(set(columns) - set(present)):
        raise StoreError(f"{path}: lacks {', '.join(missing)}; materialise its asset again")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns)).to_pylist()
        return rows
    except (pa.ArrowException, OSError) as error:
        raise _not_parquet(path, error) from error
