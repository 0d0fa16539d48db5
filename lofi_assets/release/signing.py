"""One list of everything that a repository of a release holds, and a signature over it: who let it go.

The list is an in-toto Statement whose subject is every other file. With a key it is also signed (`constitution.dsse`).
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lofi_assets.constitution import dsse
from lofi_assets.constitution.dsse import SigningError, canonical, coded
from lofi_assets.constitution.evidence import STATEMENT
from lofi_assets.files.hand_written import parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LIST = "release.intoto.json"
"""The list's file in a repository."""
SIGNATURE = "release.dsse.json"
"""The envelope's file, where there is a key."""
PREDICATE = "urn:lofi-assets:release:1"


def listing(files: Mapping[str, str], *, release: str, key: "Ed25519PrivateKey | None") -> str:
    """The list of files, which says by whose key it is signed.

    Args:
        files: path in the repository -> sha256.
        release: what the repositories of one release have in common.
    """
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]
    predicate = {"release": release, "signer": coded(key.public_key().public_bytes_raw()) if key else ""}
    data = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return canonical(data)


@dataclass(frozen=True)
class Listed:
    """What a list says."""

    files: Mapping[str, str]
    """File -> sha256."""
    signer: "Ed25519PublicKey | None"
    """By whose key it says that it is signed; whether one trusts that key is another question."""


def read_listing(text: str) -> Listed:
    """Inverse of `listing`.

    Raises:
        SigningError: it is no list, or not one byte for byte as it was written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        data: Any = parse_json(text, where=LIST)
        if (data["_type"], data["predicateType"]) != (STATEMENT, PREDICATE) or canonical(data) != text:
            raise SigningError(f"{LIST}: was changed, or is no list of a release")
        files = {str(item["name"]): str(item["digest"]["sha256"]) for item in data["subject"]}
        raw = base64.b64decode(data["predicate"]["signer"], validate=True)
        return Listed(files, Ed25519PublicKey.from_public_bytes(raw) if raw else None)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        if isinstance(error, SigningError):
            raise
        raise SigningError(f"{LIST}: was changed, or is no list of a release ({error!r})") from error


def require_signature(text: str, *, listed: str, key: "Ed25519PublicKey") -> None:
    """Ask whether an envelope is the key's over this list.

    Raises:
        SigningError: it is not, or not one byte for byte as it was written.
    """
    dsse.require_signature(text, document=listed, key=key, name=SIGNATURE)
