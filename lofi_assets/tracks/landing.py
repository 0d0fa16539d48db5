"""What people put into the data root, by the stage that reads it: so that exactly what it touches starts.

Only the state of those files is taken; large ones are not read. What is started is decided in `defs/sensors.py`.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lofi_assets.constitution.evidence import is_document
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.sources.curator_files import CuratorFiles
from lofi_assets.sources.ledger_text import ledger_path
from lofi_assets.sources.raw_files import tree_of
from lofi_assets.sources.rights import EVIDENCE
from lofi_assets.store import CHOSEN_STYLES, CONFIG_DIR, REVIEWS, STYLE_MAPPING, Store
from lofi_assets.tracks.curation import named_styles

CLOSED = (-1, 0)
"""In the place of size and time of a file that cannot be looked at: no permission, or a link to itself."""


@dataclass(frozen=True)
class Landing:
    """State of everything that people put in. Each key moves when its part appears, goes or changes."""

    library: str
    """Raw audio, licence records with their evidence, and the rules that judge both."""
    styles: str
    """Styles that people chose."""
    words: str
    """Prompts and lyrics beside audio, and reviews."""
    vocabulary: str
    """Taxonomy and presets."""
    files: int
    newest: float
    """Modification time of the newest file, seconds since the epoch."""


def landing_state(store: Store, *, config_dir: Path = CONFIG_DIR) -> Landing:
    """Large files by name, size and time; what a person writes in a minute by its content.

    Nothing that stands there is an error: what cannot be read is a state too, and the run that it starts says what is
    wrong with it.
    """
    raw, curated = _stats(tree_of(store.raw).files), CuratorFiles(store)
    sidecars = {path: key for path, key in raw.items() if curated.belongs(path)}
    rights = [path for path in tree_of(store.metadata(EVIDENCE)).files if not is_document(store, path)]
    records = _stats([ledger_path(store)], linked=True) | _stats(rights)
    reviews = _stats([store.metadata(REVIEWS)], linked=True)
    edited = _stats([store.metadata(CHOSEN_STYLES), store.metadata(STYLE_MAPPING)], linked=True)
    rules = [config_dir / "licenses.yaml", config_dir / "constitution.yaml"]
    library = {path: key for path, key in (raw | records).items() if path not in sidecars}
    return Landing(
        library=_key(store, library, [_content(path) for path in rules]),
        styles=hash_of(_chosen(store)),
        words=_key(store, sidecars | reviews),
        vocabulary=hash_of([_content(path) for path in sorted((config_dir / "styles").rglob("*.yaml"))]),
        files=len(raw) + len(records) + len(reviews) + len(edited),
        newest=max((key[1] / 1e9 for key in (raw | records | reviews | edited).values()), default=0.0),
    )


def _stats(paths: Iterable[Path], *, linked: bool = False) -> dict[Path, tuple[int, int]]:
    """Size and time of the regular files among `paths`, but one that went; `CLOSED` for one that cannot be looked at.

    Args:
        linked: whether a link is followed: a ledger may be shared, audio never.
    """
    found = {}
    for path in sorted(paths):
        try:
            if stat.S_ISREG((status := path.stat(follow_symlinks=linked)).st_mode):
                found[path] = (status.st_size, status.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            found[path] = CLOSED
    return found


def _key(store: Store, files: dict[Path, tuple[int, int]], *more: object) -> str:
    return hash_of([(store.relative(path), *key) for path, key in files.items()], *more)


def _content(path: Path) -> str:
    """sha256 of a file, or why it has none: an editor may be replacing it at this moment."""
    try:
        return sha256_file(path)
    except OSError as error:
        return str(error.strerror)


def _chosen(store: Store) -> object:
    """The choices by content: taking over an edit of `style_mapping.json`, and writing that file, change nothing."""
    try:
        return named_styles(store)
    except (LofiError, OSError) as error:
        return str(error)
