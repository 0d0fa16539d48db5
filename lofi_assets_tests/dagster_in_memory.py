"""What Dagster's storage in memory does again and again, done once: a fifth of the CPU time of the tests that use it.

Each instance loads 90 files of migrations to write down the number of the last one, twice. Each event and each question
opens a connection and sets two options of it; one connection, kept to one thread at a time by the storage's own lock,
gives the same answers. Storage on disk is left as it is, and so is what other processes do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import in_memory
from dagster._core.storage.sql import create_engine
from sqlalchemy.engine import Connection

_MIGRATIONS: dict[str | None, ScriptDirectory] = {}
_load = ScriptDirectory.from_config


def install() -> None:
    """Do so from now on in this process."""
    ScriptDirectory.from_config = staticmethod(_loaded_once)
    vars(in_memory)["create_engine"] = partial(create_engine, connect_args={"check_same_thread": False})
    in_memory.InMemoryEventLogStorage._connect = _one_connection  # type: ignore[method-assign, assignment]


def _loaded_once(config: Config) -> ScriptDirectory:
    place = config.get_main_option("script_location")
    if place not in _MIGRATIONS:
        _MIGRATIONS[place] = _load(config)
    return _MIGRATIONS[place]


@contextmanager
def _one_connection(storage: Any) -> Iterator[Connection]:
    with storage._db_lock:
        connection = storage._held_conn
        if not connection.info.get("foreign_keys"):
            connection.execute(sqlalchemy.text("PRAGMA foreign_keys=ON;")).close()
            connection.commit()
            connection.info["foreign_keys"] = True
        with connection.begin():
            yield connection
