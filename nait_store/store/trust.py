"""Whose signatures a store believes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nait_store.errors import AlreadyExistsError, MissingExtraError, NotFoundError, UntrustedError, did_you_mean
from nait_store.refs import check_name
from nait_store.schemas.sharing import TrustRecord
from nait_store.storage import layout
from nait_store.storage.provenance import current_provenance

if TYPE_CHECKING:
    from nait_store.schemas.sharing import Publication
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class TrustedKey:
    """A key whose signatures count.

    Attributes
    ----------
    name
        What it is called here.
    fingerprint
        32 hexadecimal digits of the SHA-256 of its bytes.
    public_key
        Its bytes as 64 hexadecimal digits.
    added_by, added_at
        Who trusted it, and when.
    """

    name: str
    fingerprint: str
    public_key: str
    added_by: str
    added_at: datetime


class Trust:
    """The keys that a store trusts.

    Parameters
    ----------
    store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, key: str, *, name: str | None = None) -> TrustedKey:
        """Trust a key.

        Parameters
        ----------
        key
            ``ssh-ed25519 AAAA… comment``, PEM, 64 hexadecimal digits, or the path of a file that holds one of these.
        name
            What to call it; by default what its owner wrote behind it, else its fingerprint.

        Raises
        ------
        InvalidInputError
            No Ed25519 public key, or no valid name.
        AlreadyExistsError
            Another key has this name.
        MissingExtraError
            The package cryptography is not installed.
        """
        from nait_store.registry.sharing.signatures import fingerprint, read_public_key

        read = read_public_key(key)
        chosen = name or re.sub(r"[^a-z0-9._-]+", "-", read.comment.lower()).strip("-._")[:64]
        chosen = check_name(chosen or fingerprint(read.value), "key")
        record = TrustRecord(name=chosen, public_key=read.value, provenance=current_provenance())
        try:
            self._store.location.create_bytes(layout.trust_record(chosen), record.to_json_bytes())
        except AlreadyExistsError as error:
            known = next((one for one in self.list() if one.name == chosen), None)
            if known is None or known.public_key != read.value:
                raise AlreadyExistsError(
                    f"another key is called {chosen!r} here",
                    next_step=f"give yours another name, or 'nait-store trust remove {chosen}' first",
                ) from error
            return known
        return _key(record)

    def remove(self, name: str) -> TrustedKey:
        """No longer trust a key; what was pulled stays. NotFoundError for an unknown name."""
        known = {one.name: one for one in self.list()}
        if check_name(name, "key") not in known:
            raise NotFoundError(f"no key is called {name!r} here", next_step=did_you_mean(name, known))
        self._store.location.delete(layout.trust_record(name))
        return known[name]

    def list(self) -> list[TrustedKey]:
        """Trusted keys, by name."""
        location = self._store.location
        paths = [f"{layout.TRUST}/{file}" for file in location.names(layout.TRUST)]
        return [_key(TrustRecord.from_json_bytes(location.read_bytes(path), location.url_of(path))) for path in paths]

    def vouch(self, publication: Publication, *, required: bool) -> Sequence[str]:
        """Names of the trusted keys that signed a publication, whose signatures were checked when it was read.

        Parameters
        ----------
        publication
            As it was read.
        required
            Whether there must be one.

        Raises
        ------
        UntrustedError
            There must be one, and there is none.
        MissingExtraError
            There must be one, and the package cryptography is not installed.
        """
        from nait_store.registry.sharing.signatures import can_check, fingerprint

        if not can_check():
            if required:
                raise MissingExtraError(
                    "checking signatures needs the package cryptography", next_step="pip install 'nait-store[sign]'"
                )
            return ()
        names = {one.public_key: one.name for one in self.list()}
        signers = [signature.public_key for signature in publication.signatures]
        trusted = tuple(dict.fromkeys(names[key] for key in signers if key in names))
        if required and not trusted:
            by = f"signed by {', '.join(fingerprint(key) for key in signers)}, whom this store does not trust"
            raise UntrustedError(
                f"{publication.spelled} is {by if signers else 'not signed'}",
                next_step="ask who published it for the public key, compare it another way, and add it with "
                "'nait-store trust add KEY'",
            )
        return trusted


def _key(record: TrustRecord) -> TrustedKey:
    from nait_store.registry.sharing.signatures import fingerprint

    by = record.provenance
    return TrustedKey(record.name, fingerprint(record.public_key), record.public_key, by.author, by.created_at)
