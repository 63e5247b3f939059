"""What verification finds, and the one walk over a store that it works from.

Every check says what a record expects of a file; what nothing expects is reported, so that no file escapes. Files that
are gone, or new, because somebody works with the store meanwhile are looked up again before they are reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from pydantic import ValidationError

from nait_store.errors import CorruptChunkError, FormatError, NotFoundError, ReadOnlyError, StorageError
from nait_store.progress import ProgressEvent, ProgressListener, ignore_progress
from nait_store.schemas.record import Document
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.fetching import FilePart
from nait_store.storage.hashing import hash_files
from nait_store.storage.location import Location

D = TypeVar("D", bound=Document)
UNLISTED = "no record lists this file"


class Severity(StrEnum):
    """``error``: data is damaged or lost. ``info``: worth knowing, nothing is lost."""

    ERROR = "error"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """Something that verification came across.

    Attributes
    ----------
    path
        File or folder, relative to the store's root.
    problem
        What is wrong with it, in words.
    severity
        Whether it matters.
    place
        What of the store that is: ``mean of layer 3, rows 0–255``; of a document, the field, or ``its digest``.
    """

    path: str
    problem: str
    severity: Severity = Severity.ERROR
    place: str = ""


@dataclass(frozen=True, slots=True)
class _Expected:
    sha256: str
    place: str
    severity: Severity


class Inspection:
    """One verification: the files that there are, what is expected of them, and what was found.

    Parameters
    ----------
    location
        The store's root.
    folders
        What to verify, relative to the root; everything by default.
    quick
        Compare sizes of payload files only, instead of hashing every byte. Documents are always read whole.
    n_threads
        Threads that hash.
    progress
        Told of files and bytes, stage ``"verify"``.

    Attributes
    ----------
    location, quick, n_threads
        As given.
    n_files, n_bytes
        Compared, and read, so far.
    """

    def __init__(
        self,
        location: Location,
        folders: Iterable[str] = ("",),
        *,
        quick: bool = False,
        n_threads: int = 1,
        progress: ProgressListener = ignore_progress,
    ) -> None:
        self.location = location
        self.quick = quick
        self.n_threads = n_threads
        self.n_files = 0
        self.n_bytes = 0
        self._found: dict[Finding, None] = {}
        self._progress = progress
        self._began = time.monotonic()
        self._sizes: dict[str, int] = {}
        for folder in folders:
            self._sizes.update(location.walk(folder))
        self._children = _children(self._sizes)
        self._accounted: set[str] = set()
        self._document_sha256: dict[str, str] = {}
        self._expected: dict[str, _Expected] = {}
        self._damaged: set[str] = set()
        self._n_bytes_total = sum(self._sizes.values())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far: errors before infos, each by path."""
        return tuple(sorted(self._found, key=lambda finding: (finding.severity != Severity.ERROR, finding.path)))

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of what lies directly in a folder."""
        return sorted(self._children.get(folder, ()))

    def is_file(self, path: str) -> bool:
        """Whether the walk came by this file."""
        return path in self._sizes

    def below(self, folder: str) -> Iterator[str]:
        """Every file in a folder and in the folders in it."""
        for name in self.names(folder):
            path = f"{folder}/{name}" if folder else name
            if path in self._sizes:
                yield path
            else:
                yield from self.below(path)

    def exists(self, path: str) -> bool:
        """Whether a file is there, now if not at the time of the walk."""
        if path not in self._sizes:
            try:
                self._sizes[path] = self.location.size_bytes(path)
            except NotFoundError:
                return False
        return True

    def error(self, path: str, problem: str, place: str = "") -> None:
        """Report damage or loss."""
        self._find(path, problem, Severity.ERROR, place)

    def info(self, path: str, problem: str, place: str = "") -> None:
        """Report something worth knowing."""
        self._find(path, problem, Severity.INFO, place)

    def is_sound(self, paths: Iterable[str]) -> bool:
        """Whether nothing is wrong with any of these files so far."""
        return self._damaged.isdisjoint(paths)

    def account(self, paths: Iterable[str]) -> None:
        """Say that it is known what these files are."""
        self._accounted.update(paths)

    def document(self, path: str, record_type: type[D]) -> D | None:
        """Read one document; None, and a finding, where it is missing or damaged."""
        if not self.exists(path):
            self.error(path, "it is missing")
            return None
        return next(self.documents([path], record_type))[1]

    def documents(
        self, paths: Iterable[str], record_type: type[D], severity: Severity = Severity.ERROR
    ) -> Iterator[tuple[str, D | None]]:
        """Read documents that the walk came by, ahead on a remote store.

        Yields
        ------
        path, document
            None for one that is damaged, which is a finding, or that is gone by now, which is none.
        """
        for path, data in self.read(paths):
            if data is None:
                yield path, None
                continue
            try:
                document = record_type.from_json_bytes(data, "it")
            except CorruptChunkError as error:
                self._find(path, error.what, severity, "its digest")
                yield path, None
            except FormatError as error:
                self._find(path, error.what, severity, _field(error))
                yield path, None
            else:
                self._document_sha256[path] = sha256_bytes(data)
                yield path, document

    def sha256_of(self, path: str) -> str | None:
        """Digest of the bytes of a document that was read and is whole."""
        return self._document_sha256.get(path)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Read small files that the walk came by, ahead on a remote store, and account for them.

        Yields
        ------
        path, data
            None where the file is gone by now or, which is a finding, cannot be read.
        """
        for path, data in self._read(list(paths)):
            self._accounted.add(path)
            self.checked(len(data) if data is not None else 0)
            yield path, data

    def bytes_of(self, path: str) -> bytes | None:
        """Read a file; None where it is gone or, which is a finding, cannot be read."""
        return next(self._read([path]))[1]

    def expect(
        self,
        path: str,
        sha256: str,
        size_bytes: int | None = None,
        *,
        place: str = "",
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Say what a record says of a file; :meth:`compare` hashes it.

        Parameters
        ----------
        path, sha256
            The file and its digest.
        size_bytes
            Its size, where the record has one.
        place
            For the finding.
        severity
            What it means if the file is missing or differs.
        """
        if path in self._accounted:
            return
        self._accounted.add(path)
        if not self.exists(path):
            self._find(path, "it is missing", severity, place)
        elif size_bytes is not None and self._sizes[path] != size_bytes:
            problem = f"it has {self._sizes[path]:,} bytes, its record says {size_bytes:,}"
            self._find(path, problem, severity, place)
        else:
            self._expected[path] = _Expected(sha256, place, severity)

    def compare(self) -> None:
        """Hash every file that something is expected of; under ``quick`` their sizes were compared already."""
        expected, self._expected = self._expected, {}
        if self.quick:
            for _ in expected:
                self.checked(0)
            return
        files = ((path, self._sizes[path]) for path in expected)
        for file in hash_files(self.location, files, self.n_threads):
            self.checked(file.size_bytes)
            known = expected[file.path]
            if file.problem or not file.sha256:
                self._find(file.path, file.problem or "it is missing", known.severity, known.place)
            elif file.sha256 != known.sha256:
                self._find(file.path, "it differs from its recorded SHA-256", known.severity, known.place)

    def report_unlisted(self) -> None:
        """Report every file that nothing is known of."""
        for path in self._sizes:
            if path not in self._accounted:
                self.info(path, UNLISTED)

    def _find(self, path: str, problem: str, severity: Severity, place: str) -> None:
        self._damaged.add(path)
        self._found[Finding(path, problem, severity, place)] = None

    def _read(self, paths: list[str]) -> Iterator[tuple[str, bytes | None]]:
        if self.location.is_local or len(paths) == 1:
            for path in paths:
                yield path, self._read_one(path)
            return
        first = 0
        while first < len(paths):
            try:
                for part, data in self.location.read_many(FilePart(p, self._sizes[p]) for p in paths[first:]):
                    first += 1
                    yield part.path, data
            except NotFoundError:
                first += 1
                yield paths[first - 1], None

    def _read_one(self, path: str) -> bytes | None:
        try:
            return self.location.read_bytes(path)
        except NotFoundError:
            return None
        except (StorageError, ReadOnlyError) as error:
            if not self.location.is_local:
                raise
            self.error(path, error.what)
            return None

    def checked(self, n_bytes: int) -> None:
        """Count a file that was compared, and the bytes that were read for it."""
        self.n_files += 1
        self.n_bytes += n_bytes
        self._progress(
            ProgressEvent(
                stage="verify",
                done=self.n_files,
                total=max(self.n_files, len(self._sizes)),
                bytes_done=self.n_bytes,
                bytes_total=None if self.quick else max(self.n_bytes, self._n_bytes_total),
                elapsed_seconds=time.monotonic() - self._began,
            )
        )


def _children(paths: Iterable[str]) -> dict[str, set[str]]:
    children: dict[str, set[str]] = {"": set()}
    for path in paths:
        child = path
        while child:
            folder, _, name = child.rpartition("/")
            known = children.get(folder)
            if known is not None:
                known.add(name)
                break
            children[folder] = {name}
            child = folder
    return children


def _field(error: FormatError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return ".".join(str(part) for part in cause.errors(include_url=False, include_input=False)[0]["loc"])
    return ""
