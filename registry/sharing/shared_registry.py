"""A registry that stores share: files under their digests, and one document a published version."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from nait_store.errors import (
    AlreadyExistsError,
    CorruptChunkError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    did_you_mean,
)
from nait_store.refs import NAME_PATTERN, Kind, Reference
from nait_store.registry.payload import read_limited
from nait_store.registry.sharing.signatures import check_signatures
from nait_store.schemas.record import FileDigest
from nait_store.schemas.sharing import KNOWN_PROFILE_FEATURES, REGISTRY_FORMAT_VERSION, Publication, RegistryRecord
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now
from nait_store.storage.readable_files import ReadableFiles

MAX_DOCUMENT_BYTES = 1 << 20
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")


@dataclass(frozen=True)
class Moved:
    """What a transfer took.

    Attributes
    ----------
    n_files, n_bytes
        Files that were not there yet, and their bytes.
    """

    n_files: int = 0
    n_bytes: int = 0


def moved_by(files: Collection[FileDigest]) -> Moved:
    """Count files."""
    return Moved(len(files), sum(file.size_bytes for file in files))


@contextlib.contextmanager
def from_outside() -> Iterator[None]:
    """Say of what arrived damaged, or is no document, what can be done about it: not to verify this store."""
    try:
        yield
    except FormatError as error:
        raise type(error)(error.what, next_step="do not use it; ask whoever published or sent it") from error


class SharedRegistry:
    """A shared registry, for reading; nothing in it is believed.

    Parameters
    ----------
    files
        Its root: a location, or what a bundle holds.

    Attributes
    ----------
    url
        Where it is.
    """

    def __init__(self, files: ReadableFiles) -> None:
        self._files = files
        self.url = files.url

    def __repr__(self) -> str:
        return f"SharedRegistry({self.url!r})"

    def check(self) -> None:
        """Make sure that there is a registry that this release reads.

        Raises
        ------
        NotFoundError
            There is none.
        FormatError, UnsupportedVersionError
            ``registry.json`` is damaged, or of a newer release.
        """
        record = self.record()
        if record is None:
            raise self._absent()
        record.check_known(self.url, writing=False)

    def record(self) -> RegistryRecord | None:
        """``registry.json``; None where there is none."""
        try:
            data = read_limited(self._files, layout.REGISTRY_RECORD, MAX_DOCUMENT_BYTES)
        except NotFoundError:
            return None
        with from_outside():
            return RegistryRecord.from_json_bytes(data, self._files.url_of(layout.REGISTRY_RECORD))

    def names(self) -> list[str]:
        """Sorted names of the profiles that have a version here."""
        found = self._files.names(layout.kind_folder(Kind.PROFILE))
        return [name for name in found if _NAME.match(name) and self.numbers(name)]

    def numbers(self, name: str) -> list[int]:
        """Ascending numbers of the versions of a profile; empty where there is none of this name."""
        return layout.numbered(self._files.names(layout.versions_folder(Kind.PROFILE, name)))

    def resolve(self, reference: Reference) -> int:
        """Turn ``math`` or ``math@3`` into the number of a version that exists.

        Raises
        ------
        NotFoundError
            Unknown profile or version.
        InvalidInputError
            An alias or tag: these stay in their store.
        """
        if reference.alias is not None:
            raise InvalidInputError(
                f"{str(reference)!r}: aliases and tags do not travel",
                next_step=f"name a version, e.g. '{reference.name}@1', or '{reference.name}' for the latest",
            )
        numbers = self.numbers(reference.name)
        if not numbers:
            self.check()
            raise NotFoundError(
                f"there is no profile {reference.name!r} in {self.url}",
                next_step=did_you_mean(reference.name, self.names()),
            )
        if reference.version is None:
            return numbers[-1]
        if reference.version not in numbers:
            shown = ", ".join(f"{reference.name}@{number}" for number in numbers[-8:])
            raise NotFoundError(
                f"profile {reference.name!r} has no version {reference.version} in {self.url}",
                next_step=f"these exist: {shown}",
            )
        return reference.version

    def find(self, name: str, number: int) -> Publication | None:
        """Read what was published under a name and number; None where nothing was.

        Raises
        ------
        FormatError
            The document is damaged, too large, about another version, or of a newer release.
        """
        path = layout.version_document(Kind.PROFILE, name, number)
        where = self._files.url_of(path)
        try:
            data = read_limited(self._files, path, MAX_DOCUMENT_BYTES)
        except NotFoundError:
            return None
        with from_outside():
            publication = Publication.from_json_bytes(data, where)
        if (publication.name, publication.number) != (name, number):
            raise FormatError(f"{where} is about {publication.spelled}, not about {name}@{number}")
        with from_outside():
            check_signatures(data, publication, where)
        unknown = sorted({*publication.reader_features} - KNOWN_PROFILE_FEATURES)
        if unknown:
            raise FormatError(
                f"{where} has features that this release does not know: {', '.join(unknown)}",
                next_step="upgrade: pip install --upgrade nait-store",
            )
        return publication

    def open(self, reference: Reference) -> Publication:
        """Read what a reference names; errors as for :meth:`resolve` and :meth:`find`."""
        number = self.resolve(reference)
        found = self.find(reference.name, number)
        if found is None:
            raise NotFoundError(f"{reference.name}@{number} has just vanished from {self.url}")
        return found

    def publications(self, name: str) -> Iterator[Publication]:
        """Read every version of a profile, oldest first."""
        for number in self.numbers(name):
            found = self.find(name, number)
            if found is not None:
                yield found

    def read(self, file: FileDigest) -> bytes:
        """Read a file by its digest, and check it.

        Raises
        ------
        CorruptChunkError
            It is missing, of another size, or of other content.
        """
        path = layout.registry_object(file.sha256)
        again = "push the profile again with --anew, from a store that has it"
        try:
            size_bytes = self._files.size_bytes(path)
            data = self._files.read_bytes(path) if size_bytes == file.size_bytes else b""
        except NotFoundError as error:
            raise CorruptChunkError(f"{self._files.url_of(path)} is missing", next_step=again) from error
        if size_bytes != file.size_bytes or len(data) != size_bytes:
            raise CorruptChunkError(
                f"{self._files.url_of(path)} has {size_bytes:,} bytes, its record says {file.size_bytes:,}",
                next_step=again,
            )
        if sha256_bytes(data) != file.sha256:
            raise CorruptChunkError(f"{self._files.url_of(path)} differs from the SHA-256 in its name", next_step=again)
        return data

    def _absent(self) -> NotFoundError | InvalidInputError:
        if layout.STORE_RECORD in self._files.names():
            return InvalidInputError(
                f"{self.url} is a store, not a registry that stores share",
                next_step="name another folder or prefix, e.g. one beside it",
            )
        return NotFoundError(
            f"there is no shared registry at {self.url}",
            next_step="check the URL; the first 'nait-store push PROFILE URL' makes one",
        )


class WritableRegistry(SharedRegistry):
    """A shared registry that versions are published in.

    Parameters
    ----------
    location
        Its root, on a filesystem with an atomic create-if-absent.
    """

    _BESIDE: ClassVar[frozenset[str]] = frozenset()
    """Files that may lie where a new registry is made."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._location = location

    def prepare(self) -> None:
        """Make the registry where there is none.

        Raises
        ------
        InvalidInputError
            Something else is there: a store, or other files.
        UnsupportedVersionError
            A newer release made it.
        ReadOnlyError, StorageError
            It cannot be written.
        """
        record = self.record() or self._create()
        record.check_known(self.url, writing=True)

    def publish(self, publication: Publication, contents: Mapping[str, bytes], *, anew: bool = False) -> Moved:
        """Write the files that are not there yet, then the document whose creation publishes the version.

        Parameters
        ----------
        publication
            What to publish.
        contents
            Path → bytes, of all its files.
        anew
            Write all files, also those that seem to be there.

        Raises
        ------
        AlreadyExistsError
            The number is taken; the files were written all the same, and are found by the next push.
        """
        moved = self.write_files(publication, contents, anew=anew)
        document = layout.version_document(Kind.PROFILE, publication.name, publication.number)
        self._location.create_bytes(document, publication.to_json_bytes())
        return moved

    def write_files(self, publication: Publication, contents: Mapping[str, bytes], *, anew: bool = False) -> Moved:
        """Write the files of a version that are not there yet, or of another size."""
        missing = self._missing(publication, anew=anew)
        for file in missing:
            self._location.write_bytes(layout.registry_object(file.sha256), contents[file.path])
        return moved_by(missing)

    def _missing(self, publication: Publication, *, anew: bool) -> list[FileDigest]:
        """Files of a version that are not there yet, or of another size; all of them if ``anew``."""
        files = {layout.registry_object(file.sha256): file for file in publication.objects}
        there = {} if anew else self._location.sizes_bytes(list(files))
        return [file for path, file in files.items() if there.get(path) != file.size_bytes]

    def _new_record(self) -> RegistryRecord:
        """``registry.json`` of a new registry, where one can be made."""
        names = {*self._location.names()} - self._BESIDE
        if layout.STORE_RECORD in names:
            raise self._absent()
        if names and layout.REGISTRY_RECORD not in names:
            raise InvalidInputError(
                f"{self.url} is a folder with other files in it, not a shared registry",
                next_step="name a new or empty folder or prefix",
            )
        return RegistryRecord(format_version=REGISTRY_FORMAT_VERSION, registry_id=new_ulid(), created_at=now())

    def _create(self) -> RegistryRecord:
        record = self._new_record()
        try:
            self._location.create_bytes(layout.REGISTRY_RECORD, record.to_json_bytes())
        except AlreadyExistsError:
            return self.record() or record
        return record
