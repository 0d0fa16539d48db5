"""DSSE envelopes over documents: who vouches for what one says (https://github.com/secure-systems-lab/dsse, 1.0.2).

Signed by Ed25519 (RFC 8032). The private key comes from the environment alone.
"""

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.environment import variable
from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEY = "LOFI_SIGNING_KEY"
"""The private key: PEM (PKCS 8), or the path of a file that holds it."""


class SigningError(LofiError, ValueError):
    """A key, a list or an envelope cannot be used; the message says which and what to do."""


def envelope(document: str, key: "Ed25519PrivateKey") -> str:
    """The envelope over a document."""
    signature = coded(key.sign(encoded(PAYLOAD_TYPE, document.encode())))
    signatures = [{"keyid": key_id(key.public_key()), "sig": signature}]
    return canonical({"payload": coded(document.encode()), "payloadType": PAYLOAD_TYPE, "signatures": signatures})


def require_signature(text: str, *, document: str, key: "Ed25519PublicKey", name: str) -> None:
    """Ask whether an envelope is the key's over this document.

    Args:
        name: of the envelope's file.

    Raises:
        SigningError: it is not, or not one byte for byte as it was written.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        data: Any = parse_json(text, where=name)
        (signature,) = data["signatures"]
        sound = (data["payload"], data["payloadType"]) == (coded(document.encode()), PAYLOAD_TYPE)
        sound = sound and signature["keyid"] == key_id(key) and canonical(data) == text
        key.verify(base64.b64decode(signature["sig"], validate=True), encoded(PAYLOAD_TYPE, document.encode()))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, InvalidSignature) as error:
        raise SigningError(f"{name}: not signed by the key {key_id(key)[:12]}, or changed since") from error
    if not sound:
        raise SigningError(f"{name}: not over what it stands beside, by the key {key_id(key)[:12]}, or changed since")


def canonical(data: object) -> str:
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


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def signed_by(key: "Ed25519PublicKey", envelope: Path, document: str) -> bool:
    """Whether a file is the key's envelope over a document; False if there is none."""
    try:
        require_signature(envelope.read_text(encoding="utf-8"), document=document, key=key, name=str(envelope))
    except (OSError, UnicodeDecodeError, SigningError):
        return False
    return True
