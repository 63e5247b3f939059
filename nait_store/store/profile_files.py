"""Profiles in files of their own: written whole or not at all, read within limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.capture.sources import open_raw, reading_errors
from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind
from nait_store.registry.basis import Basis
from nait_store.registry.exported_profile import export_bytes
from nait_store.registry.imported_directions import DirectionFile
from nait_store.registry.tensor_files import MAX_FILE_BYTES, TensorFormat, tensor_format
from nait_store.selection.destination import Destination
from nait_store.storage.digests import sha256_bytes

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class ExportedProfile:
    """A profile in a file.

    Attributes
    ----------
    reference
        The version, ``math@3``.
    url, format
        Where it was written, and as what.
    size_bytes, sha256
        Of the file.
    """

    reference: str
    url: str
    format: TensorFormat
    size_bytes: int
    sha256: str


def export_profile(store: Store, profile: Profile, out: str, *, overwrite: bool) -> ExportedProfile:
    """Write a version into a file; see :meth:`~nait_store.store.profiles.Profiles.export`."""
    kind = tensor_format(out)
    destination = Destination(out, overwrite=overwrite)
    data = export_bytes(profile, kind, store.record.store_id)
    with destination.open() as stream:
        stream.write(data)
    return ExportedProfile(profile.reference, destination.url, kind, len(data), sha256_bytes(data))


def read_direction_file(source: str) -> DirectionFile:
    """Read a file that directions are to be imported from, if its name says that it is one.

    Raises
    ------
    NotFoundError
        There is none.
    InvalidInputError
        It is of another kind, or larger than 1 GiB.
    StorageError
        It could not be read.
    """
    tensor_format(source)
    with open_raw(source) as stream, reading_errors(source):
        data = stream.read(MAX_FILE_BYTES + 1)
    return DirectionFile(source, data)


def named_basis(store: Store, text: str) -> Basis:
    """What ``--like`` names: a set or a profile, with or without its kind before it.

    Raises
    ------
    NotFoundError
        There is neither.
    InvalidInputError
        There are both, or the set has no activations.
    """
    name = text.partition("@")[0]
    kinds = [kind for kind in (Kind.SET, Kind.PROFILE) if text.startswith(f"{kind}:")]
    if not kinds:
        known = {Kind.SET: store.sets.names(), Kind.PROFILE: store.profiles.names()}
        kinds = [kind for kind, names in known.items() if name in names]
        if not kinds:
            every = [one for names in known.values() for one in names]
            raise NotFoundError(
                f"there is no set or profile {name!r} in {store.url}", next_step=did_you_mean(name, every)
            )
    if len(kinds) > 1:
        raise InvalidInputError(
            f"{text!r} names a set and a profile", next_step=f"say which: 'set:{text}' or 'profile:{text}'"
        )
    if kinds == [Kind.SET]:
        return Basis.of_set(store.sets.open(text))
    return Basis.of_profile(store.profiles.open(text))
