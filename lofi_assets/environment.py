"""What environment variables say: a blank one is unset, and `~` is somebody's home."""

import os
from pathlib import Path

from lofi_assets.errors import LofiError


class SettingError(LofiError, ValueError):
    """A setting says what cannot be meant; the message names the setting."""


def variable(name: str) -> str:
    """Value of an environment variable, "" where it is unset or blank."""
    return os.environ.get(name, "").strip()


def seconds(name: str, default: int) -> int:
    """The whole number of seconds, 1 or more, that an environment variable says; `default` if unset or blank.

    Raises:
        SettingError: it says something else.
    """
    value = variable(name)
    if value and not (value.isascii() and value.isdigit() and len(value) < 7 and int(value)):
        raise SettingError(f"{name}={value}: must be seconds, a whole number from 1, or blank for {default}")
    return int(value) if value else default


def folder(name: str, default: Path) -> Path:
    """The folder that an environment variable names, `default` where it is unset or blank (see `folder_at`)."""
    value = variable(name)
    return folder_at(value, name=name) if value else default


def user_cache(name: str) -> Path | None:
    """The folder of this user's cache for one purpose, below `XDG_CACHE_HOME`; None for a user without a home.

    It may not be there, nor be writable.
    """
    try:
        return folder("XDG_CACHE_HOME", Path("~/.cache").expanduser()) / "lofi_assets" / name
    except RuntimeError:  # neither HOME nor an entry in the list of users: a container with a number for a user
        return None


def folder_at(value: str, *, name: str) -> Path:
    """The absolute path of a folder as people write it: `~` is expanded, a relative one is below the working directory.

    Args:
        name: of the setting, for the error.
    Raises:
        SettingError: the home of a user who does not exist.
    """
    try:
        return Path(value).expanduser().resolve()
    except RuntimeError as error:
        raise SettingError(
            f"{name}={value}: this machine knows no home of that name; write the whole path, or leave it blank"
        ) from error
