"""How the trainer ended, in its own words, for whoever started its process; `death` is for one that left none.

The exit codes, and the file beside the run's configuration that holds the last ending. An exit code alone does not say
what to do, and standard error is in another place for each way of starting. Imports without torch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from lofi_assets.files.documents import read_json, write_json

DONE, CONFIGURATION, DIVERGED, FILES, INTERRUPTED = 0, 2, 3, 4, 75


@dataclass(frozen=True)
class Ending:
    """The end of a call that did not reach `max_steps`."""

    code: int
    message: str


def write_ending(config: Path, ending: Ending) -> None:
    """Keep how the run of `config` ended."""
    write_json(_file(config), asdict(ending))


def read_ending(config: Path) -> Ending | None:
    """How the last call ended; None while it runs, after a success, and when it was killed."""
    found = read_json(_file(config))
    return Ending(**found) if found else None


def forget_ending(config: Path) -> None:
    """Before a start: the last ending is not this one's."""
    _file(config).unlink(missing_ok=True)


def _file(config: Path) -> Path:
    return config.with_suffix(".ending.json")
