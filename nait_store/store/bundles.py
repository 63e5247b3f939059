"""Bundles: profile versions in one file, for where no registry can be reached."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind, check_name
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.registry.sharing.adoption import Pulled
    from nait_store.registry.sharing.packing import PackedProfile
    from nait_store.registry.sharing.signatures import SigningKey
    from nait_store.schemas.sharing import ReferencePolicy
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class BundleReport:
    """What was written.

    Attributes
    ----------
    url
        The file.
    references
        The versions in it.
    policies
        What it holds of the in-domain samples of each.
    size_bytes
        Of the file.
    notes
        What the user should know.
    """

    url: str
    references: tuple[str, ...]
    policies: tuple[ReferencePolicy, ...]
    size_bytes: int
    notes: tuple[str, ...] = ()


def export_bundle(
    store: Store,
    references: Sequence[str],
    out: str,
    *,
    policy: ReferencePolicy | None,
    overwrite: bool,
    key: SigningKey | None,
) -> BundleReport:
    """Write versions into a bundle; see :meth:`~nait_store.store.remotes.Remotes.export_bundle`."""
    from nait_store.registry.sharing.bundle import write_bundle
    from nait_store.registry.sharing.packing import pack
    from nait_store.selection.destination import Destination, copy_into
    from nait_store.store.shared_reference import TravellingReference

    target = Destination(out, overwrite=overwrite)
    notes: list[str] = []
    packed: dict[str, PackedProfile] = {}
    for reference in references:
        profile = store.profiles.open(reference)
        travelling = TravellingReference(store, profile, policy)
        ready = pack(store.location, profile, profile.name, profile.number, *travelling.make(), key=key)
        notes += travelling.notes
        packed[profile.reference] = ready
        store.remotes.remember(profile, target.url, ready.publication)
    # Put together here first: an upload cannot go back to write an entry's size before the entry.
    with tempfile.TemporaryFile() as whole:
        write_bundle(whole, packed.values())
        size_bytes = whole.tell()
        whole.seek(0)
        with target.open() as handle:
            copy_into(whole, handle)
    return BundleReport(
        url=target.url,
        references=tuple(packed),
        policies=tuple(one.publication.reference.policy for one in packed.values()),
        size_bytes=size_bytes,
        notes=tuple(notes),
    )


def import_bundle(store: Store, file: str, *, as_name: str | None, require_signed: bool) -> list[Pulled]:
    """Take every version of a bundle; see :meth:`~nait_store.store.remotes.Remotes.import_bundle`."""
    from nait_store.registry.sharing.arrival import check_whole
    from nait_store.registry.sharing.bundle import Bundle
    from nait_store.registry.sharing.shared_registry import SharedRegistry

    if as_name is not None:
        check_name(as_name, Kind.PROFILE)
    location = Location(file)
    with location.open_read("") as handle:
        bundle = Bundle(handle, location.size_bytes(""), location.url)
        publications = bundle.publications()
        if as_name is not None and len(publications) > 1:
            raise InvalidInputError(
                f"{location.url} holds {len(publications):,} versions, which cannot all be the next one of {as_name!r}",
                next_step="import it without a name",
            )
        shared = SharedRegistry(bundle)
        adoptions = [store.remotes.adoption(shared, publication, require_signed) for publication in publications]
        for publication in publications:  # all of them before any: nothing is taken of a bundle that is not sound
            check_whole(publication, shared)
        return [one.pull() if as_name is None else one.pull_as(as_name) for one in adoptions]
