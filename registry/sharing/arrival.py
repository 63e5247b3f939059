"""The one check that everything passes that comes from elsewhere, by whatever way, before a version refers to it.

It is made of what leaves too: nothing is published that would not arrive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from nait_store.errors import CorruptChunkError, FormatError, NotFoundError
from nait_store.registry.cards.stored import read_card
from nait_store.registry.payload import PROFILE_FILE, read_arrays, size_limit_bytes
from nait_store.registry.sharing.reference_samples import (
    MAX_REFERENCE_BYTES,
    REFERENCE_FILE,
    check_reference,
    read_reference,
)
from nait_store.registry.sharing.shared_registry import SharedRegistry, from_outside
from nait_store.schemas.profile import ProfileRecord
from nait_store.schemas.record import FileDigest
from nait_store.schemas.sharing import Publication, ReferencePolicy
from nait_store.storage.digests import sha256_bytes

_MAX_FILES = 256


@dataclass(frozen=True)
class HeldFiles:
    """Files in memory, read like those of a location.

    Attributes
    ----------
    url
        Where they come from, for messages.
    contents
        Path → bytes.
    """

    url: str
    contents: Mapping[str, bytes]

    def url_of(self, path: str) -> str:
        """Name a file in a message."""
        path = path.removeprefix("/")
        return f"{self.url}: {path}" if path else self.url

    def read_bytes(self, path: str) -> bytes:
        """Read a whole file."""
        try:
            return self.contents[path.removeprefix("/")]
        except KeyError as error:
            raise NotFoundError(f"{self.url_of(path)} does not exist") from error

    def size_bytes(self, path: str) -> int:
        """Size of a file."""
        return len(self.read_bytes(path))

    def names(self, path: str = "") -> list[str]:
        """Sorted names of what lies directly in a folder."""
        prefix = f"{path}/" if path else ""
        return sorted({found[len(prefix) :].split("/")[0] for found in self.contents if found.startswith(prefix)})


def check_listing(publication: Publication, where: str) -> FileDigest:
    """Check what a publication lists, before any of it is read.

    Returns
    -------
    FileDigest
        Of ``profile.json``.

    Raises
    ------
    FormatError
        A file that no payload has, one too large, one listed twice; no ``profile.json``, or another one; a policy
        that contradicts the files.
    """
    listed: dict[str, FileDigest] = {}
    if len(publication.files) > _MAX_FILES:
        raise FormatError(f"{where} lists {len(publication.files):,} files, more than the {_MAX_FILES} allowed")
    for file in publication.files:
        limit_bytes = size_limit_bytes(file.path)
        if limit_bytes is None:
            raise FormatError(
                f"{where} lists {file.path!r}, which is no file of a profile",
                next_step="if a newer release wrote it, upgrade: pip install --upgrade nait-store",
            )
        if file.size_bytes > limit_bytes:
            raise FormatError(
                f"{where}: {file.path} has {file.size_bytes:,} bytes, more than the {limit_bytes:,} allowed"
            )
        if file.path in listed:
            raise FormatError(f"{where} lists {file.path} twice")
        listed[file.path] = file
    record = listed.get(PROFILE_FILE)
    if record is None or record.sha256 != publication.record_sha256:
        raise FormatError(f"{where} does not list the {PROFILE_FILE} that it is about")
    reference = publication.reference
    if (reference.file is None) != (reference.policy is ReferencePolicy.NONE):
        raise FormatError(f"{where}: reference samples {reference.policy.value!r} contradict the files")
    if reference.file is not None:
        if reference.file.path != REFERENCE_FILE:
            raise FormatError(f"{where}: reference samples lie in {REFERENCE_FILE}, not in {reference.file.path!r}")
        if reference.file.size_bytes > MAX_REFERENCE_BYTES:
            raise FormatError(
                f"{where}: {REFERENCE_FILE} has {reference.file.size_bytes:,} bytes, "
                f"more than the {MAX_REFERENCE_BYTES:,} allowed"
            )
    return record


def check_record(data: bytes, publication: Publication, where: str) -> ProfileRecord:
    """Check ``profile.json`` against the publication, and against itself.

    Raises
    ------
    CorruptChunkError
        Another file than that published.
    FormatError
        No valid record; NaN or infinity; other files, recipe or directions than published; a capture id that is not
        that of the identity; layers and statistics that contradict each other.
    """
    if sha256_bytes(data) != publication.record_sha256:
        raise CorruptChunkError(f"{where} differs from the SHA-256 in {publication.spelled}")
    with from_outside():
        record = ProfileRecord.from_json_bytes(data, where)
    _refuse_odd_numbers(data, where)
    published = {file.path: file for file in publication.files if file.path != PROFILE_FILE}
    if {file.path: file for file in record.files} != published or len(record.files) != len(published):
        raise FormatError(f"{where} lists other files than {publication.spelled} publishes")
    told = (publication.recipe_sha256, publication.directions_sha256)
    if (record.recipe_sha256, record.directions_sha256) != told:
        raise FormatError(f"{where} is of another recipe or other directions than {publication.spelled} says")
    if record.capture_id != record.identity.capture_id:
        raise FormatError(f"{where}: its capture id is not that of the identity that it describes")
    layers = list(record.layers)
    if not layers or layers != sorted(set(layers)) or layers[0] < 0:
        raise FormatError(f"{where}: its layers are not ascending, distinct and zero-based")
    if [each.layer for each in record.statistics] != (layers if record.source is not None else []):
        raise FormatError(f"{where}: its statistics are not of its layers")
    return record


def check_contents(publication: Publication, record: ProfileRecord, files: HeldFiles) -> None:
    """Check the numbers, the quality card, and the reference samples.

    Raises
    ------
    CorruptChunkError, FormatError
        As for :func:`~nait_store.registry.payload.read_arrays` and :func:`~nait_store.registry.cards.stored.read_card`;
        reference samples that are not what they should be.
    """
    with from_outside():
        read_arrays(files, "", record)
        read_card(files, "", record)
    if publication.reference.file is not None:
        where = files.url_of(REFERENCE_FILE)
        with from_outside():
            reference = read_reference(files.read_bytes(REFERENCE_FILE), where)
            check_reference(reference, publication.reference.policy, record, where)


def check_whole(publication: Publication, source: SharedRegistry) -> None:
    """Read a version whole, and check all of it; errors as for the checks above. Nothing is written."""
    where = f"{publication.spelled} in {source.url}"
    check_listing(publication, where)
    contents = {file.path: source.read(file) for file in publication.objects}
    files = HeldFiles(where, contents)
    check_contents(publication, check_record(contents[PROFILE_FILE], publication, files.url_of(PROFILE_FILE)), files)


def _refuse_odd_numbers(data: bytes, where: str) -> None:
    """Refuse NaN and infinity, which no writer writes, and which would poison what is computed from them."""

    def refuse(_: str) -> NoReturn:
        raise FormatError(f"{where} holds NaN or infinity")

    def finite(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    try:
        json.loads(data, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not valid JSON: {type(error).__name__}") from error
