"""Several renames that are all done or none: a list is written first, and a killed process's list is finished first.

What belongs here: the list and its execution. What does not: what is moved where (`runs`). Imports without torch.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass as record

from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.training.checkpoints.files import CheckpointError

MOVES = "moving.json"


@record(frozen=True, kw_only=True, config=STORED)
class Moves:
    """`moving.json`: (from, to), relative to the folder that it lies in."""

    pairs: tuple[tuple[str, str], ...]


def move_all(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename each first path to its second, in order; `finish_moves` goes on with what a killed process had begun."""
    relative = tuple((os.path.relpath(source, folder), os.path.relpath(target, folder)) for source, target in pairs)
    write_typed(folder / MOVES, Moves(pairs=relative))
    finish_moves(folder)


def finish_moves(folder: Path) -> None:
    """Do what is left of a list of renames, if there is one.

    Raises:
        CheckpointError: both names of a pair are there, which no killed process leaves.
        StoreError: the list is broken.
    """
    remedy = f"compare {folder} with its archive/, put each run's files together, and remove the list"
    moves = read_typed(folder / MOVES, Moves, remedy=remedy)
    for first, second in moves.pairs if moves else ():
        source, target = folder / first, folder / second
        if not source.exists():
            continue
        if target.exists():
            raise CheckpointError(f"{folder / MOVES}: both {source} and {target} are there; {remedy}")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    (folder / MOVES).unlink(missing_ok=True)
