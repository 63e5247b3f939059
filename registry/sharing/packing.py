"""A profile version put together for its way: its document and files, checked as they will be on arrival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nait_store.errors import CorruptChunkError
from nait_store.registry.payload import MAX_RECORD_BYTES, PROFILE_FILE, read_limited
from nait_store.registry.profiles import Profile
from nait_store.registry.sharing.arrival import HeldFiles, check_contents, check_listing, check_record
from nait_store.registry.sharing.reference_samples import REFERENCE_FILE
from nait_store.registry.sharing.signatures import SigningKey
from nait_store.schemas.record import FileDigest
from nait_store.schemas.sharing import Publication, ReferencePolicy, SharedReference
from nait_store.schemas.store_record import SOURCELESS_FEATURE
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance


@dataclass(frozen=True)
class PackedProfile:
    """A version that is ready to go.

    Attributes
    ----------
    publication
        Its document.
    contents
        Path → bytes, of all its files.
    """

    publication: Publication
    contents: Mapping[str, bytes]


def pack(
    location: Location,
    profile: Profile,
    name: str,
    number: int,
    policy: ReferencePolicy,
    reference: bytes | None,
    *,
    key: SigningKey | None = None,
) -> PackedProfile:
    """Put a version together.

    Parameters
    ----------
    location
        Root of the store that has it.
    profile
        The version.
    name, number
        What it is to be called.
    policy, reference
        What travels of its in-domain samples.
    key
        Signs the publication.

    Raises
    ------
    CorruptChunkError, FormatError
        The store's own files are damaged.
    """
    contents = read_payload(location, profile)
    record, manifest = profile.record, profile.manifest
    if reference is not None:
        contents[REFERENCE_FILE] = reference
    publication = Publication(
        name=name,
        number=number,
        record_sha256=manifest.record_sha256,
        recipe_sha256=record.recipe_sha256,
        directions_sha256=record.directions_sha256,
        files=(_digest_of(PROFILE_FILE, contents[PROFILE_FILE]), *record.files),
        reference=SharedReference(
            policy=policy, file=None if reference is None else _digest_of(REFERENCE_FILE, reference)
        ),
        message=manifest.message,
        reader_features=(SOURCELESS_FEATURE,) if record.source is None else (),
        provenance=current_provenance(),
    )
    files = HeldFiles(location.url_of(profile.folder), contents)
    check_listing(publication, files.url)
    check_record(contents[PROFILE_FILE], publication, files.url_of(PROFILE_FILE))
    check_contents(publication, record, files)
    return PackedProfile(publication if key is None else key.sign(publication), contents)


def read_payload(location: Location, profile: Profile) -> dict[str, bytes]:
    """Read every file of a payload; CorruptChunkError where one is not what was written."""
    folder = profile.folder
    contents = {PROFILE_FILE: read_limited(location, f"{folder}/{PROFILE_FILE}", MAX_RECORD_BYTES)}
    for file in profile.record.files:
        data = read_limited(location, f"{folder}/{file.path}", file.size_bytes)
        if sha256_bytes(data) != file.sha256:
            raise CorruptChunkError(
                f"{location.url_of(folder)}/{file.path} differs from its recorded SHA-256: nothing was pushed",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
        contents[file.path] = data
    return contents


def _digest_of(path: str, data: bytes) -> FileDigest:
    return FileDigest(path=path, size_bytes=len(data), sha256=sha256_bytes(data))
