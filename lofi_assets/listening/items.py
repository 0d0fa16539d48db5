"""What the excerpts of a test are: on the server alone.

listening/<test>/key.json    readable by its owner only
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.listening.errors import ListeningError
from lofi_assets.store import Store

Truth = Literal["ai", "real"]


@dataclass(frozen=True, kw_only=True, config=STORED)
class Item:
    """One excerpt."""

    truth: Truth
    source: str
    """The recording that it is an excerpt of, relative to the data root where it lies there."""
    style_id: str
    sha256: str
    """Of its file."""
    obvious: bool = False
    """Made plainly artificial, as a control."""
    condition: str = ""
    """Of a comparison of tiers: which one, the reference, or an anchor."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TestKey:
    """The excerpts of a test, and the key that its sessions are signed with."""

    __test__ = False

    mac_key: str
    """32 random bytes in hexadecimal."""
    items: Mapping[str, Item]
    """By random id, which is also the name of the file."""

    @classmethod
    def read(cls, store: Store, test: str) -> "TestKey":
        """The key of a test.

        Raises:
            ListeningError: absent, broken, or of another version.
        """
        path = key_path(store, test)
        try:
            found = read_typed(path, cls, remedy="restore it from a copy, or close the test and open another")
        except StoreError as error:
            raise ListeningError(str(error)) from error
        if found is None:
            raise ListeningError(f"{path}: is gone; restore it from a copy, or close the test and open another")
        return found

    def write(self, folder: Path) -> None:
        """Put into a test's folder, for its owner alone."""
        path = folder / "key.json"
        path.touch(mode=0o600)
        write_typed(path, self)

    @property
    def signing(self) -> bytes:
        return bytes.fromhex(self.mac_key)


def key_path(store: Store, test: str) -> Path:
    """Where a test's key lies."""
    return store.listening / test / "key.json"


def audio_path(folder: Path, item: str) -> Path:
    """Where an excerpt lies in its test's folder."""
    return folder / "audio" / f"{item}.wav"


def random_id() -> str:
    """64 random bits, of no seed."""
    return secrets.token_hex(8)
