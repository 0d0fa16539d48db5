"""What no published file may say: folders of this machine, its users, and ids of tracks.

What belongs here: which names are private, and who refuses or counts files that say one. What does not: how they are
found (`private_search.py`), who writes files without them.
"""

import contextlib
import getpass
import json
import socket
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from lofi_assets.dataset.versions import DatasetError
from lofi_assets.release.files import ReleaseError
from lofi_assets.release.private_search import VOCABULARIES, WORD, PrivateNames, private_in, search
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import PACKAGE, Store
from lofi_assets.training.trained_on import TrainedOn, trained_dataset

SHARED_ACCOUNTS = frozenset(
    {
        *("root", "admin", "administrator", "user", "users", "ubuntu", "debian", "nobody", "ec2-user", "vagrant"),
        *("runner", "build", "builder", "docker", "service", "jenkins", "gitlab", "github", "dagster", "lofi"),
        *("default", "python", "model", "music", "localhost"),
    }
)
"""Accounts that say nothing of a person, and words that are found in every release."""
SHORTEST = 4
"""Characters from which on a whole word is looked for: three letters occur in weights by chance."""
_EVERYWHERE = frozenset({"/", "/tmp", "/var/tmp", "/usr", "/opt", "/srv", "/app", "/data", "/mnt"})
"""Folders that every machine may have, and that a text may name as an example."""


def private_names(store: Store, tracks: Iterable[str]) -> PrivateNames:
    """Those of this process, this machine and this data root."""
    folders = {store.root, PACKAGE.parent, Path.cwd(), Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix)}
    paths = {str(path) for folder in folders for path in (folder.absolute(), folder.resolve())} - _EVERYWHERE
    paths |= {json.dumps(path)[1:-1] for path in paths}
    return PrivateNames(
        folders=tuple(sorted(paths, key=lambda path: (-len(path), path))),
        people=frozenset(name for name in _people() if len(name) > 3 and name.casefold() not in SHARED_ACCOUNTS),
        tracks=frozenset(tracks),
    )


def known_tracks(store: Store, checkpoint: str) -> set[str]:
    """Ids of what a checkpoint was trained on and validated with, and of every raw file."""
    trained = TrainedOn.read(store.checkpoints / checkpoint) if checkpoint else TrainedOn(())
    own = {track.track_id for track in trained.tracks} | trained.train
    return own | {row.track_id for row in read_inventory(store)}


def _people() -> Iterator[str]:
    with contextlib.suppress(KeyError, OSError):  # a container's user may have no name
        yield getpass.getuser()
    yield Path.home().name
    host = socket.gethostname()
    yield host
    yield host.partition(".")[0]


def refuse_private(files: Iterable[tuple[str, Path]], names: PrivateNames) -> None:
    """Search files that are to be published.

    Args:
        files: name in the release, and where it lies.
    Raises:
        ReleaseError: one says a private name; each file with what was found in it.
    """
    found = {name: faults for name, path in files if (faults := private_in(path, names, name=Path(name).name))}
    if found:
        said = "; ".join(f"{name} names {', '.join(faults[:3])}" for name, faults in list(found.items())[:10])
        raise ReleaseError(
            f"not released: {said}. A published file says no folder of this machine, no user and no track; mend what "
            "writes it, or the text that a person wrote"
        )


def private_strings(folder: Path, names: PrivateNames, *, words: Collection[str], public: str) -> list[str]:
    """`FILE: what it says`, a line per find, sorted; every file below the folder is read once.

    Args:
        words: user names and ids of tracks, found as whole words beside what `names` has.
        public: text that is published on purpose; a word of it, such as `lofi`, tells nothing. Nor does one of letters
            alone that a vocabulary has; one with digits or signs is looked for in vocabularies too.
    """
    known = set(WORD.findall(public))
    searched = replace(names, words=frozenset(word for word in words if len(word) >= SHORTEST) - known)
    found: list[str] = []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda path: path.name not in VOCABULARIES):  # what they know goes for the others
        told = search(file, searched, strict=True)
        if file.name in VOCABULARIES:
            common = frozenset(word for word in told.words if word.isalpha())
            told, searched = replace(told, words=told.words - common), replace(searched, words=searched.words - common)
        found += [f"{file.relative_to(folder).as_posix()}: {said}" for said in told.all]
    return sorted(found)


def user_name() -> set[str]:
    """The user of this process; none in a container whose user has no entry."""
    try:
        return {getpass.getuser()}
    except (KeyError, OSError):
        return set()


def track_ids(store: Store) -> set[str]:
    """Every id of a track that is known here."""
    found = {row.track_id for row in read_inventory(store)}
    with contextlib.suppress(DatasetError):
        found |= {track.track_id for track in trained_dataset(store).tracks}
    return found
