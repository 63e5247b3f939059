"""Ed25519 signatures of publications: who vouches for a version, as far as keys can say.

What is signed is the whole publication but for the signatures themselves: name and number, and with the digests of its
files everything that the version consists of. So a signature cannot be put under another version.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nait_store.errors import FormatError, InvalidInputError, MissingExtraError, NotFoundError
from nait_store.schemas.record import canonical_json, document_bytes
from nait_store.schemas.sharing import Publication, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_DOMAIN = b"nait-store publication 1\n"
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_MAX_KEY_FILE_BYTES = 1 << 16
# Points of small order, without the sign bit: everybody can make signatures that these keys confirm.
_WEAK_KEYS = frozenset(
    {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    }
)
_NEEDED = "pip install 'nait-store[sign]'"


@dataclass(frozen=True)
class PublicKey:
    """A key to check signatures with.

    Attributes
    ----------
    value
        Its 32 bytes as 64 hexadecimal digits.
    comment
        What its owner wrote behind it; may be empty.
    """

    value: str
    comment: str = ""


class SigningKey:
    """A private Ed25519 key, from an OpenSSH or PEM file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        It holds no such key, or one that a passphrase protects.
    MissingExtraError
        The package cryptography is not installed.
    """

    def __init__(self, path: str) -> None:
        self._key = _read_private_key(path)
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"SigningKey({fingerprint(self.public_key)!r})"

    def sign(self, publication: Publication) -> Publication:
        """Return the publication with this key's signature."""
        statement = statement_of(publication.to_json_bytes())
        signature = Signature(public_key=self.public_key, signature=self._key.sign(statement).hex())
        return publication.model_copy(update={"signatures": (*publication.signatures, signature)})


def fingerprint(public_key: str) -> str:
    """Short name of a key: 32 hexadecimal digits of the SHA-256 of its bytes."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:32]


def statement_of(document: bytes) -> bytes:
    """What a signature is of: the document's fields but for its digest and its signatures, in canonical form.

    Raises
    ------
    FormatError
        The document is not in canonical form, so that readers could take it for different things.
    """
    fields: dict[str, Any] = json.loads(document)
    if document_bytes(fields) != document:
        raise FormatError("it is not in canonical form, which what is signed must be")
    return _DOMAIN + canonical_json({k: v for k, v in fields.items() if k not in ("_sha256", "signatures")})


def can_check() -> bool:
    """Whether signatures can be checked here: the package cryptography is installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def check_signatures(document: bytes, publication: Publication, where: str) -> None:
    """Check every signature of a publication; where cryptography is not installed, nothing is checked.

    Raises
    ------
    FormatError
        One of them is not of this publication by its key.
    """
    if not publication.signatures or not can_check():
        return
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    statement = statement_of(document)
    for signature in publication.signatures:
        try:
            if _is_weak(signature.public_key):
                raise ValueError("a key whose signatures everybody can make")
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key))
            key.verify(bytes.fromhex(signature.signature), statement)
        except (InvalidSignature, ValueError) as error:
            raise FormatError(
                f"{where} bears a signature of key {fingerprint(signature.public_key)} that is not of it: "
                "it is forged, or was put there from another version",
                next_step="do not use it; ask whoever published it",
            ) from error


def read_public_key(text: str) -> PublicKey:
    """Read a public key.

    Parameters
    ----------
    text
        ``ssh-ed25519 AAAA… comment``, PEM, 64 hexadecimal digits, or the path of a file that holds one of these.

    Raises
    ------
    InvalidInputError
        It is none of these, or a key of another kind.
    MissingExtraError
        The package cryptography is not installed.
    """
    key = _parse_public_key(text.strip())
    if _is_weak(key.value):
        raise InvalidInputError(
            "that is a key whose signatures everybody can make", next_step="ask its owner for another one"
        )
    return key


def _is_weak(public_key: str) -> bool:
    data = bytearray.fromhex(public_key)
    data[-1] &= 0x7F
    return data.hex() in _WEAK_KEYS


def _parse_public_key(given: str) -> PublicKey:
    if _HEX_KEY.fullmatch(given):
        return PublicKey(given.lower())
    if not given.startswith(("ssh-", "-----BEGIN")):
        given = _read_key_file(given).decode(errors="replace").strip()
        if _HEX_KEY.fullmatch(given):
            return PublicKey(given.lower())
    _require_cryptography("keys")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    load = serialization.load_ssh_public_key if given.startswith("ssh-") else serialization.load_pem_public_key
    if "PRIVATE KEY" in given:
        raise InvalidInputError(
            "that is a private key, which nobody else should ever see", next_step="give its public half, the .pub file"
        )
    try:
        key = load(given.encode())
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as error:
        raise InvalidInputError(
            f"that is no public key: {error}",
            next_step="give an Ed25519 key: 'ssh-keygen -t ed25519' makes one, and its .pub file is what to trust",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInputError(
            "that is a key of another kind than Ed25519", next_step="make one with 'ssh-keygen -t ed25519'"
        )
    comment = given.split(maxsplit=2)[2] if given.startswith("ssh-") and len(given.split()) > 2 else ""
    return PublicKey(key.public_bytes_raw().hex(), comment.splitlines()[0] if comment else "")


def _read_private_key(path: str) -> Ed25519PrivateKey:
    data = _read_key_file(path)
    _require_cryptography("signing")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInputError(
            f"{path} holds no private key that can be read: {error}",
            next_step="give an Ed25519 key without a passphrase: ssh-keygen -t ed25519 -N '' -f FILE",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInputError(
            f"{path} holds a key of another kind than Ed25519", next_step="make one with 'ssh-keygen -t ed25519'"
        )
    return key


def _read_key_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as handle:
            return handle.read(_MAX_KEY_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no key file {path[:200]!r}", next_step="check its path") from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read the key {path[:200]!r}: {error}", next_step="check its path") from error


def _require_cryptography(what: str) -> None:
    if not can_check():
        raise MissingExtraError(f"{what} need the package cryptography", next_step=_NEEDED)
