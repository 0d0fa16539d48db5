"""Reading the files of `config/styles/`: errors that name the file, the key and what to do.

Only a file's shape is checked; what it means is in `taxonomy.py` and `presets.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_yaml


class StyleError(LofiError, ValueError):
    """The style configuration breaks a rule; the message names the file, the key and what to do."""


def read_yaml(path: Path) -> Any:
    try:
        return parse_yaml(decoded(path.read_bytes(), where=str(path)), where=str(path))
    except OSError as error:
        raise StyleError(f"{path}: cannot be read ({error.strerror}); restore it from the repository") from error
    except HandWrittenError as error:
        raise StyleError(str(error)) from error


@contextmanager
def expected_shape(path: Path, key: str, expected: str) -> Iterator[None]:
    """Turn what goes wrong on data of another shape into a StyleError that says which shape is expected."""
    try:
        yield
    except StyleError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StyleError(f"{path}: {key}: {expected} ({type(error).__name__}: {error})") from error
