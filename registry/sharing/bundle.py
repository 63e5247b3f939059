"""A bundle: a shared registry of a few versions in one .zip, for mail and for machines without a network.

Its form is narrow on purpose. Entries are stored, not compressed, so their sizes are what they say; their names are
those of a registry and no others; nothing lies between them, so none can overlap; each is needed by a version. Nothing
is ever unpacked: files are read out of it and pass the same check as those of a bucket.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from nait_store.errors import FormatError, NotFoundError
from nait_store.refs import NAME_PATTERN, Kind
from nait_store.registry.sharing.packing import PackedProfile
from nait_store.registry.sharing.shared_registry import SharedRegistry
from nait_store.schemas.sharing import REGISTRY_FORMAT_VERSION, Publication, RegistryRecord
from nait_store.storage import layout
from nait_store.storage.provenance import new_ulid, now

MAX_BUNDLE_BYTES = (1 << 32) - (1 << 20)  # below what needs the 64-bit extension of the format
_MAX_ENTRIES = 4_096
_MAX_DIRECTORY_BYTES = 1 << 20
_END = b"PK\x05\x06"
_END_BYTES = 22
_LOCAL_BYTES = 30
_NAME = NAME_PATTERN[1:-1]
_ENTRY = re.compile(
    rf"registry\.json|profiles/{_NAME}/versions/[1-9][0-9]{{0,9}}\.json|objects/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})"
)


def write_bundle(handle: BinaryIO, profiles: Iterable[PackedProfile]) -> None:
    """Write a bundle.

    Parameters
    ----------
    handle
        Where to.
    profiles
        What goes in; files that several have are written once.
    """
    record = RegistryRecord(format_version=REGISTRY_FORMAT_VERSION, registry_id=new_ulid(), created_at=now())
    files = {layout.REGISTRY_RECORD: record.to_json_bytes()}
    for profile in profiles:
        publication = profile.publication
        for file in publication.objects:
            files[layout.registry_object(file.sha256)] = profile.contents[file.path]
        path = layout.version_document(Kind.PROFILE, publication.name, publication.number)
        files[path] = publication.to_json_bytes()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)  # with the format's first day as its date
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data)


class Bundle:
    """The files of a bundle, read like those of a location; nothing in it is believed.

    Parameters
    ----------
    handle
        The open file.
    size_bytes
        Its size.
    url
        Where it is, for messages.

    Raises
    ------
    FormatError
        It is no bundle.
    """

    def __init__(self, handle: BinaryIO, size_bytes: int, url: str) -> None:
        self.url = url
        self._check_end(handle, size_bytes)
        try:
            self._archive = zipfile.ZipFile(handle)
            entries = self._archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error, OSError) as error:
            raise self._refuse(f"it is no .zip file: {error}") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            self._check_entry(entry)
            self._entries[entry.filename] = entry
        self._check_places(entries)

    def url_of(self, path: str) -> str:
        """Name an entry in a message."""
        return f"{self.url}: {path}" if path else self.url

    def size_bytes(self, path: str) -> int:
        """Size of an entry; NotFoundError where there is none."""
        return self._entry(path).file_size

    def read_bytes(self, path: str) -> bytes:
        """Read an entry; FormatError where its checksum or header contradicts the directory."""
        entry = self._entry(path)
        try:
            with self._archive.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error, RuntimeError) as error:
            raise self._refuse(f"{path} cannot be read: {error}") from error
        if len(data) != entry.file_size:
            raise self._refuse(f"{path} has another size than the directory says")
        return data

    def names(self, path: str = "") -> list[str]:
        """Sorted names of what lies directly in a folder."""
        prefix = f"{path}/" if path else ""
        return sorted({name[len(prefix) :].split("/")[0] for name in self._entries if name.startswith(prefix)})

    def publications(self) -> list[Publication]:
        """Read every version, and make sure that nothing else lies in the bundle.

        Raises
        ------
        FormatError, NotFoundError
            ``registry.json`` or a publication is not what it should be; there is no version; an object that no
            version needs.
        """
        registry = SharedRegistry(self)
        registry.check()
        found = [publication for name in registry.names() for publication in registry.publications(name)]
        if not found:
            raise self._refuse("it holds no profile")
        needed = {layout.registry_object(file.sha256) for publication in found for file in publication.objects}
        extra = sorted(name for name in self._entries if name.startswith(f"{layout.OBJECTS}/") and name not in needed)
        if extra:
            raise self._refuse(f"it holds {extra[0]}, which no version in it needs")
        return found

    def _entry(self, path: str) -> zipfile.ZipInfo:
        try:
            return self._entries[path]
        except KeyError as error:
            raise NotFoundError(f"{self.url_of(path)} does not exist") from error

    def _check_end(self, handle: BinaryIO, size_bytes: int) -> None:
        """Look at the last 22 bytes before a library does: it would read a directory of any size."""
        if not _END_BYTES <= size_bytes <= MAX_BUNDLE_BYTES:
            raise self._refuse(f"it has {size_bytes:,} bytes, which no bundle has")
        handle.seek(size_bytes - _END_BYTES)
        end = handle.read(_END_BYTES)
        handle.seek(0)
        if end[:4] != _END:
            raise self._refuse(
                "it does not end as a bundle does: it is no .zip file, was cut off, or has something added"
            )
        disk, first_disk, here, n_entries, directory_bytes, start, _ = struct.unpack("<HHHHIIH", end[4:])
        if disk or first_disk or here != n_entries:
            raise self._refuse("it is one part of several")
        if n_entries > _MAX_ENTRIES or directory_bytes > _MAX_DIRECTORY_BYTES:
            raise self._refuse(
                f"it has {n_entries:,} entries in {directory_bytes:,} bytes, more than a bundle may have"
            )
        if start + directory_bytes + _END_BYTES != size_bytes:
            raise self._refuse("it has something between its parts")

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        shown = repr(entry.orig_filename[:120])
        if entry.orig_filename != name or _ENTRY.fullmatch(name) is None:
            raise self._refuse(f"it holds {shown}, which is no file of a registry")
        if name in self._entries:
            raise self._refuse(f"it holds {name} twice")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise self._refuse(f"{name} is a link or something else that is no file")
        if entry.flag_bits & 0x1:
            raise self._refuse(f"{name} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise self._refuse(
                f"{name} is compressed, and what it grows to cannot be trusted",
                next_step="use the file as 'nait-store export-bundle' wrote it, not packed anew",
            )

    def _check_places(self, entries: list[zipfile.ZipInfo]) -> None:
        """Entries follow one another from the first byte on, so that none lies in another, or hides between two."""
        position = 0
        for entry in sorted(entries, key=lambda each: each.header_offset):
            if entry.header_offset != position:
                raise self._refuse(f"{entry.filename} does not follow what is before it")
            position += _LOCAL_BYTES + len(entry.orig_filename.encode()) + entry.file_size
        if position != self._archive.start_dir:
            raise self._refuse("it has something between its entries and their directory")

    def _refuse(self, what: str, next_step: str | None = None) -> FormatError:
        return FormatError(f"the bundle {self.url} is refused: {what}", next_step=next_step)
