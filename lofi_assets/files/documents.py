"""Text and JSON that the platform writes and reads back."""

import json
import stat
from pathlib import Path
from typing import Any

from lofi_assets.errors import explanation
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_json
from lofi_assets.files.writing import StoreError, atomic_path, linked_to


def write_text(path: Path, text: str) -> bool:
    """Write UTF-8 text atomically; an identical file is left untouched. Returns whether it was written."""
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return True


def write_json(path: Path, data: object) -> bool:
    """Write indented JSON atomically (non-finite numbers are refused); returns whether the file changed."""
    return write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, default: Any = None, remedy: str = "mend or remove the file and run again") -> Any:
    """Parsed JSON, or `default` if the file is absent.

    Args:
        remedy: what a person does about a broken file.
    Raises:
        StoreError: the file is not JSON, cannot be opened, or is a link that leads nowhere; a key stands twice or a
            number is none (`hand_written`).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path}: is no file; move away what stands there and run again")
        return parse_json(decoded(path.read_bytes(), where=str(path)), where=str(path))
    except FileNotFoundError:
        linked_to(path)
        return default
    except OSError as error:
        raise StoreError(explanation(error) or f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except HandWrittenError as error:
        raise StoreError(f"{error}; {remedy}") from error
