"""Mending profiles and selections, and the labels of all kinds of items."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from typing import TypeVar

from nait_store.errors import AlreadyExistsError, FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.registry.payload import PROFILE_FILE
from nait_store.schemas.history import CollectionRecord, DeletionRecord, LabelRecord
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.record import Document, FileDigest
from nait_store.schemas.selection import SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.selection.payloads import RECORD_FILE, current_payload
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.storage.versions import VersionNumbers
from nait_store.store.repair.flipped_bits import unflip
from nait_store.store.repair.repair_log import RepairLog
from nait_store.store.repair.repaired_notes import mend_notes

D = TypeVar("D", bound=Document)
_LABEL = re.compile(r"(?P<labels>aliases|tags)/(?P<label>[^/]+)/(?P<number>[1-9][0-9]*)\.json\Z")
_AGAIN = {
    Kind.PROFILE: "build it again: nait-store profile build",
    Kind.SELECTION: "select again, and save it: nait-store select",
}


class ItemRepair:
    """Mends one profile or selection.

    Parameters
    ----------
    location, kind, name
        The store, and what to mend.
    log
        Changes files and takes notes.
    damaged
        Paths that verification named.
    """

    def __init__(self, location: Location, kind: Kind, name: str, log: RepairLog, damaged: Collection[str]) -> None:
        self._location = location
        self._kind = kind
        self._name = name
        self._log = log
        self._folder = layout.item_folder(kind, name)
        self._damaged = sorted(path for path in damaged if path.startswith(f"{self._folder}/"))

    def run(self) -> None:
        """Mend what can be; hide the versions whose data are lost."""
        numbers = VersionNumbers.of(self._location.names(layout.versions_folder(self._kind, self._name)))
        self._mend_markers(numbers)
        if self._kind is Kind.SELECTION:
            self._mend_redirects()
        for number in range(1, numbers.last + 1):
            path = layout.version_document(self._kind, self._name, number)
            if path in self._damaged and self._manifest(number) is None:
                self._mend_manifest(number)
        for number in numbers.documents:
            if number not in numbers.collected:
                self._check_payload(number)
        mend_labels(self._location, self._kind, self._name, self._log, self._damaged)
        mend_notes(self._location, self._kind, self._name, self._log, self._damaged)

    def _mend_markers(self, numbers: VersionNumbers) -> None:
        for number in numbers.deleted:
            path = layout.deletion_marker(self._kind, self._name, number)
            if path in self._damaged and self._read(path, DeletionRecord) is None:
                record = DeletionRecord(number=number, reason="(the reason was lost)", provenance=current_provenance())
                self._log.write(path, record.to_json_bytes(), "written anew: who did it, when and why is lost")
        for number in numbers.collected:
            path = layout.collection_marker(self._kind, self._name, number)
            if path in self._damaged and self._read(path, CollectionRecord) is None:
                marker = CollectionRecord(number=number, provenance=current_provenance())
                self._log.write(path, marker.to_json_bytes(), "written anew: who did it and when is lost")

    def _mend_redirects(self) -> None:
        folder = layout.redirects_folder(Kind.SELECTION, self._name)
        for path in self._damaged:
            if not path.startswith(f"{folder}/") or self._read(path, SelectionRedirect) is not None:
                continue
            found = self._unreferenced()
            if len(found) != 1:
                self._log.lose(path, "nothing tells which payload stands for this one")
                continue
            redirect = SelectionRedirect(
                payload=path.removeprefix(f"{folder}/").removesuffix(".json"),
                replacement=found[0][0],
                record_sha256=found[0][1],
                n_removed=1,
                provenance=current_provenance(),
            )
            self._log.write(path, redirect.to_json_bytes(), "made again from the payload that nothing else refers to")

    def _mend_manifest(self, number: int) -> None:
        path = layout.version_document(self._kind, self._name, number)
        found = self._unreferenced()
        if len(found) != 1:
            self._hide(number, "its document is lost")
            return
        payload, digest = found[0]
        folder = layout.payload_folder(self._kind, self._name, payload)
        record = self._read(f"{folder}/{self._record_file}", self._record_type)
        assert record is not None
        if isinstance(record, ProfileRecord):
            manifest: Document = ProfileManifest(
                name=self._name,
                number=number,
                payload=payload,
                record_sha256=digest,
                recipe_sha256=record.recipe_sha256,
                provenance=record.provenance,
            )
        else:
            manifest = SelectionManifest(
                name=self._name,
                number=number,
                payload=payload,
                record_sha256=digest,
                provenance=current_provenance(),
            )
        self._log.write(path, manifest.to_json_bytes(), "made again from the payload that nothing else refers to")

    def _check_payload(self, number: int) -> None:
        manifest = self._manifest(number)
        if manifest is None:
            return
        payload, digest = manifest.payload, manifest.record_sha256
        if isinstance(manifest, SelectionManifest):
            with contextlib.suppress(NotFoundError, FormatError):
                payload, digest = current_payload(self._location, manifest)
        folder = layout.payload_folder(self._kind, self._name, payload)
        if not any(path.startswith(f"{folder}/") for path in self._damaged):
            return
        record = self._payload_record(f"{folder}/{self._record_file}", digest)
        if record is None:
            self._hide(number, f"its {self._record_file} is lost")
            return
        lost = [file.path for file in record.files if not self._is_sound(folder, file)]
        if lost:
            self._hide(number, f"its {', '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost")

    def _payload_record(self, path: str, sha256: str) -> ProfileRecord | SelectionRecord | None:
        try:
            data = self._location.read_bytes(path)
        except NotFoundError:
            return None
        if sha256_bytes(data) != sha256:
            mended = unflip(data, sha256)
            if mended is None:
                return None
            self._log.write(path, mended, "a flipped bit was put right; its digest confirms it")
            data = mended
        return self._record_type.from_json_bytes(data, path)

    def _is_sound(self, folder: str, file: FileDigest) -> bool:
        path = f"{folder}/{file.path}"
        try:
            data = self._location.read_bytes(path)
        except NotFoundError:
            return False
        if sha256_bytes(data) == file.sha256:
            return True
        mended = unflip(data, file.sha256) if len(data) == file.size_bytes else None
        if mended is None:
            return False
        self._log.write(path, mended, "a flipped bit was put right; its digest confirms it")
        return True

    def _hide(self, number: int, why: str) -> None:
        reference = f"{self._kind}:{self._name}@{number}"
        path = layout.version_document(self._kind, self._name, number)
        deletion = DeletionRecord(number=number, reason=f"repair: {why}", provenance=current_provenance())
        collection = CollectionRecord(number=number, provenance=current_provenance())
        if not self._log.dry_run:
            for marker, record in (
                (layout.deletion_marker(self._kind, self._name, number), deletion),
                (layout.collection_marker(self._kind, self._name, number), collection),
            ):
                with contextlib.suppress(AlreadyExistsError):
                    self._location.create_bytes(marker, record.to_json_bytes())
        self._log.lose(path, f"{reference}: {why}; {_AGAIN[self._kind]}")
        names = self._location.names(layout.versions_folder(self._kind, self._name))
        if self._location.exists(path) and self._manifest(number) is None and number < VersionNumbers.of(names).last:
            self._log.delete(path, f"{reference} cannot be read")

    def _unreferenced(self) -> list[tuple[str, str]]:
        """Whole payloads that no version refers to, with the digests of their records."""
        referenced: set[str] = set()
        for number in VersionNumbers.of(self._location.names(layout.versions_folder(self._kind, self._name))).documents:
            manifest = self._manifest(number)
            if manifest is None:
                continue
            referenced.add(manifest.payload)
            if isinstance(manifest, SelectionManifest):
                with contextlib.suppress(NotFoundError, FormatError):
                    referenced.add(current_payload(self._location, manifest)[0])
        found = []
        for payload in self._location.names(f"{self._folder}/payloads"):
            path = f"{self._folder}/payloads/{payload}/{self._record_file}"
            if payload not in referenced and self._read(path, self._record_type) is not None:
                found.append((payload, sha256_bytes(self._location.read_bytes(path))))
        return found

    @property
    def _record_file(self) -> str:
        return PROFILE_FILE if self._kind is Kind.PROFILE else RECORD_FILE

    @property
    def _record_type(self) -> type[ProfileRecord] | type[SelectionRecord]:
        return ProfileRecord if self._kind is Kind.PROFILE else SelectionRecord

    def _manifest(self, number: int) -> ProfileManifest | SelectionManifest | None:
        path = layout.version_document(self._kind, self._name, number)
        if self._kind is Kind.PROFILE:
            return self._read(path, ProfileManifest)
        return self._read(path, SelectionManifest)

    def _read(self, path: str, record_type: type[D]) -> D | None:
        return _read(self._location, path, record_type)


def mend_labels(location: Location, kind: Kind, name: str, log: RepairLog, damaged: Collection[str]) -> None:
    """Write lost moves of aliases and tags anew, naming nothing, and take labels off versions that are lost."""
    folder = layout.item_folder(kind, name)
    for path in sorted(damaged):
        match = _LABEL.match(path.removeprefix(f"{folder}/"))
        if match is None:
            continue
        number, label = int(match["number"]), match["label"]
        known = _read(location, path, LabelRecord)
        if known is not None:
            if known.version is not None and _is_lost(location, kind, name, known.version):
                _take_off(location, path, known, kind, name, log)
            continue
        reason = "repair: this move was lost"
        log.write(path, _naming_nothing(label, number, reason), "written anew: the version that it named is lost")
        later = f"{folder}/{match['labels']}/{label}/{number + 1}.json"
        if not location.exists(later):
            # Indexes of the store read moves once, and know only by a new one that this one says something else now.
            if not log.dry_run:
                with contextlib.suppress(AlreadyExistsError):  # somebody set it again at once
                    location.create_bytes(later, _naming_nothing(label, number + 1, reason))
            before = _read(location, f"{folder}/{match['labels']}/{label}/{number - 1}.json", LabelRecord)
            was = f"before this move it was {name}@{before.version}; " if before and before.version else ""
            what = "alias" if match["labels"] == "aliases" else "tag"
            log.lose(path, f"{what} {label!r} names nothing now: {was}set it again")


def _take_off(location: Location, path: str, known: LabelRecord, kind: Kind, name: str, log: RepairLog) -> None:
    folder = path.rpartition("/")[0]
    if location.exists(f"{folder}/{known.number + 1}.json"):
        return
    off = _naming_nothing(known.label, known.number + 1, f"repair: {name}@{known.version} is lost")
    if not log.dry_run:
        location.create_bytes(f"{folder}/{known.number + 1}.json", off)
    log.lose(path, f"{kind} {name}@{known.label} named version {known.version}, which is lost; it names nothing now")


def _naming_nothing(label: str, number: int, reason: str) -> bytes:
    record = LabelRecord(label=label, number=number, version=None, reason=reason, provenance=current_provenance())
    return record.to_json_bytes()


def _is_lost(location: Location, kind: Kind, name: str, number: int) -> bool:
    return location.exists(layout.collection_marker(kind, name, number))


def _read(location: Location, path: str, record_type: type[D]) -> D | None:
    try:
        return record_type.from_json_bytes(location.read_bytes(path), path)
    except (NotFoundError, FormatError):
        return None
