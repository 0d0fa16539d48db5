"""One list of everything that a repository of a release holds, and a signature over it: who let it go.

The list is an in-toto Statement whose subject is every other file. With a key it is also signed: a DSSE envelope
(https://github.com/secure-systems-lab/dsse, protocol 1.0.2) by Ed25519 (RFC 8032). The private key comes from the
environment alone.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.constitution.evidence import STATEMENT
from lofi_assets.environment import variable
from lofi_assets.errors import LofiError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LIST = "release.intoto.json"
"""The list's file in a repository."""
SIGNATURE = "release.dsse.json"
"""The envelope's file, where there is a key."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "urn:lofi-assets:release:1"
KEY = "LOFI_SIGNING_KEY"
"""The private key: PEM (PKCS 8), or the path of a file that holds it."""


class SigningError(LofiError, ValueError):
    """A key, a list or an envelope cannot be used; the message says which and what to do."""


def listing(files: Mapping[str, str], *, release: str, key: "Ed25519PrivateKey | None") -> str:
    """The list of files, which says by whose key it is signed.

    Args:
        files: path in the repository -> sha256.
        release: what the repositories of one release have in common.
    """
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())]
    predicate = {"release": release, "signer": _coded(key.public_key().public_bytes_raw()) if key else ""}
    data = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return _canonical(data)


def envelope(listed: str, key: "Ed25519PrivateKey") -> str:
    """The envelope over a list."""
    signature = _coded(key.sign(encoded(PAYLOAD_TYPE, listed.encode())))
    signatures = [{"keyid": key_id(key.public_key()), "sig": signature}]
    return _canonical({"payload": _coded(listed.encode()), "payloadType": PAYLOAD_TYPE, "signatures": signatures})


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
        data: Any = json.loads(text)
        if (data["_type"], data["predicateType"]) != (STATEMENT, PREDICATE) or _canonical(data) != text:
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
    from cryptography.exceptions import InvalidSignature

    try:
        data: Any = json.loads(text)
        (signature,) = data["signatures"]
        sound = (data["payload"], data["payloadType"]) == (_coded(listed.encode()), PAYLOAD_TYPE)
        sound = sound and signature["keyid"] == key_id(key) and _canonical(data) == text
        key.verify(base64.b64decode(signature["sig"], validate=True), encoded(PAYLOAD_TYPE, listed.encode()))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, InvalidSignature) as error:
        raise SigningError(f"{SIGNATURE}: not signed by the key {key_id(key)[:12]}, or changed since") from error
    if not sound:
        raise SigningError(f"{SIGNATURE}: not over {LIST} by the key {key_id(key)[:12]}, or changed since")


def _canonical(data: object) -> str:
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def public_key(path: Path) -> "Ed25519PublicKey":
    """A public key from a PEM file.

    Raises:
        SigningError: it holds none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SigningError(f"{path}: no public key in PEM ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningError(f"{path}: a key of another kind; it must be Ed25519")
    return key


def key_id(key: "Ed25519PublicKey") -> str:
    """sha256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def encoded(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def private_key() -> "Ed25519PrivateKey | None":
    """The key that the environment names, None if it names none.

    Raises:
        SigningError: it is no key; the message has nothing of it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    setting = variable(KEY)
    if not setting:
        return None
    try:
        text = setting.encode() if setting.startswith("-----BEGIN") else Path(setting).read_bytes()
        key = load_pem_private_key(text, password=None)
    except (OSError, ValueError, TypeError) as error:
        # Not the text of the setting: it may be the key.
        raise SigningError(f"{KEY} holds no private key in PEM without a password ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{KEY} holds a key of another kind; make one with: openssl genpkey -algorithm ed25519")
    return key


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
