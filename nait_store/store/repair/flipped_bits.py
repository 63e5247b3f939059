"""Undoing a flipped bit: in a file whose digest is known there is one bit whose flip makes the digest right again.

What is found this way is, beyond doubt, what was written. The search costs a hash of the file for every bit, so it
is for documents and other small files.
"""

from __future__ import annotations

import hashlib

from nait_store.schemas.record import DIGEST_PREFIX, DIGEST_SPAN, NO_DIGEST

LARGEST_BYTES = 24 << 10


def unflip(data: bytes, sha256: str, *, only: range | None = None) -> bytes | None:
    """Find the one bit that is wrong in a file.

    Parameters
    ----------
    data
        What is there.
    sha256
        Digest of what should be.
    only
        Bytes to look at; all by default.

    Returns
    -------
    bytes or None
        The file as it was; None where more than one bit is wrong, or the file is too large to try.
    """
    places = range(len(data)) if only is None else only
    if only is None and len(data) > LARGEST_BYTES:
        return None
    wanted = bytes.fromhex(sha256)
    view = memoryview(data)
    before = hashlib.sha256(view[: places.start])
    for i in places:
        rest = view[i + 1 :]
        for bit in range(8):
            trial = before.copy()
            changed = bytes([data[i] ^ (1 << bit)])
            trial.update(changed)
            trial.update(rest)
            if trial.digest() == wanted:
                return data[:i] + changed + data[i + 1 :]
        before.update(view[i : i + 1])
    return None


def unflip_document(data: bytes) -> bytes | None:
    """Find the one bit that is wrong in a document, which holds its own digest; None where there is no such bit."""
    if len(data) < DIGEST_SPAN.stop + 2:
        return None
    if not data.startswith(DIGEST_PREFIX):
        data = DIGEST_PREFIX + data[len(DIGEST_PREFIX) :]
        return data if digest_of(data) == data[DIGEST_SPAN] else None
    held, right = data[DIGEST_SPAN], digest_of(data)
    if sum((one ^ other).bit_count() for one, other in zip(held, right, strict=True)) == 1:
        return data[: DIGEST_SPAN.start] + right + data[DIGEST_SPAN.stop :]
    try:
        wanted = held.decode("ascii")
        bytes.fromhex(wanted)
    except ValueError:
        return None
    if len(data) > LARGEST_BYTES:
        return None
    found = unflip(_undigested(data), wanted, only=range(DIGEST_SPAN.stop, len(data)))
    return None if found is None else found[: DIGEST_SPAN.start] + held + found[DIGEST_SPAN.stop :]


def digest_of(document: bytes) -> bytes:
    """The digest that a document should hold, as 64 hexadecimal digits."""
    return hashlib.sha256(_undigested(document)).hexdigest().encode()


def _undigested(document: bytes) -> bytes:
    return document[: DIGEST_SPAN.start] + NO_DIGEST + document[DIGEST_SPAN.stop :]
