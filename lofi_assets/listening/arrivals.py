"""What came in since somebody looked last: cheap enough to ask for every half a minute."""

from dataclasses import dataclass
from pathlib import Path

from lofi_assets.files.hashing import hash_of
from lofi_assets.listening.ledger import ledger_path
from lofi_assets.store import Store


@dataclass(frozen=True)
class Arrivals:
    """Finished sessions, and what people decided about tests."""

    key: str
    """Moves when either does; not when a look is taken, which the judging itself records."""
    tests: int
    finished: int


def arrivals(store: Store) -> Arrivals:
    """Of every test that has a folder. Whether lines hold is looked at when they are judged."""
    folders = sorted(path.parent for path in store.listening.glob("*/plan.json"))
    finished = {folder.name: finished_count(store, folder.name) for folder in folders}
    path = ledger_path(store)
    lines = path.read_bytes().splitlines() if path.is_file() else []
    decided = sum(b'"event":"closed"' in line or b'"event":"lifted"' in line for line in lines)
    return Arrivals(hash_of(finished, decided), len(folders), sum(finished.values()))


def sessions_folder(store: Store, test: str) -> Path:
    """Where a test's sessions lie."""
    return store.listening / test / "sessions"


def session_files(store: Store, test: str) -> list[Path]:
    """Those of every listener who came, in the order of the invitations."""
    return sorted(sessions_folder(store, test).glob("*.jsonl"))


def finished_count(store: Store, test: str) -> int:
    """Sessions whose last line says that they are finished."""
    return sum(_says_finished(path) for path in session_files(store, test))


def _says_finished(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 512))
        return b'"event":"finished"' in file.read()
