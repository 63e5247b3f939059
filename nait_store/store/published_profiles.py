"""What a shared registry holds, beside what of it is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nait_store.schemas.sharing import Publication, ReferencePolicy

if TYPE_CHECKING:
    from nait_store.registry.profiles import ProfileRegistry
    from nait_store.registry.sharing.shared_registry import SharedRegistry
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class PublishedProfile:
    """A version in a shared registry.

    Attributes
    ----------
    reference
        ``math@3``, there.
    published_by, published_at
        Who published it, and when.
    policy
        What can be had of its in-domain samples.
    size_bytes
        Of all its files.
    message
        As given to ``profile build``.
    here
        The version of this store that is the same; empty where there is none.
    signed_by
        Names of the trusted keys that signed it.
    """

    reference: str
    published_by: str
    published_at: datetime
    policy: ReferencePolicy
    size_bytes: int
    message: str
    here: str
    signed_by: tuple[str, ...] = ()


def list_published(store: Store, shared: SharedRegistry) -> list[PublishedProfile]:
    """Describe every version in a registry; see :meth:`~nait_store.store.remotes.Remotes.show`."""
    here = _references_by_record(store.profiles.registry)
    return [
        _published(publication, here, store.trust.vouch(publication, required=False))
        for name in shared.names()
        for publication in shared.publications(name)
    ]


def _references_by_record(registry: ProfileRegistry) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name in registry.names():
        for manifest in registry.manifests(name):
            found.setdefault(manifest.record_sha256, []).append(f"{name}@{manifest.number}")
    return found


def _published(
    publication: Publication, here: Mapping[str, Sequence[str]], signed_by: Sequence[str]
) -> PublishedProfile:
    same = here.get(publication.record_sha256, ())
    return PublishedProfile(
        reference=publication.spelled,
        published_by=publication.provenance.author,
        published_at=publication.provenance.created_at,
        policy=publication.reference.policy,
        size_bytes=publication.size_bytes,
        message=publication.message,
        here=publication.spelled if publication.spelled in same else next(iter(same), ""),
        signed_by=tuple(signed_by),
    )
