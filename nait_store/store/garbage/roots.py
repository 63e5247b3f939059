"""Which versions must be kept: those that exist for users, and what these are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nait_store.errors import FormatError, InvalidInputError, NaitStoreError, NotFoundError
from nait_store.refs import Kind, parse_reference
from nait_store.schemas.activation_set import SetManifest
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.record import Document
from nait_store.schemas.selection import SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.storage import layout
from nait_store.storage.backend import StoredFile
from nait_store.storage.labels import Labels
from nait_store.storage.location import Location
from nait_store.storage.versions import VersionLog, VersionNumbers
from nait_store.store.garbage.items import Ages

PAYLOAD_RECORDS = {Kind.PROFILE: "profile.json", Kind.SELECTION: "selection.json"}
_MANIFESTS: dict[Kind, type[Document]] = {
    Kind.SET: SetManifest,
    Kind.PROFILE: ProfileManifest,
    Kind.SELECTION: SelectionManifest,
}


@dataclass(frozen=True)
class Held:
    """A deleted version that gc leaves, or something that it could not judge.

    Attributes
    ----------
    what
        ``pool@3``, or a path.
    reason
        Why it stays.
    """

    what: str
    reason: str


@dataclass(frozen=True)
class Versions:
    """The ``versions/`` folder of one item.

    Attributes
    ----------
    numbers
        By what lies there.
    files
        The same, with sizes and times, by file name.
    """

    numbers: VersionNumbers
    files: Mapping[str, StoredFile]

    @classmethod
    def of(cls, location: Location, kind: Kind, name: str) -> Versions:
        """List the folder."""
        folder = layout.versions_folder(kind, name)
        files = {file.path.removeprefix(f"{folder}/"): file for file in location.files(folder)}
        return cls(VersionNumbers.of(list(files)), files)


class Roots:
    """What protects a version, from one reading of all labels, profiles and selections.

    Parameters
    ----------
    location
        The store's root.
    ages
        When a deletion is final.
    read
        Records that were read before, by path; they are immutable. Shared between readings.

    Attributes
    ----------
    unreadable
        Profiles and selections that cannot be read, so that nobody knows what they were made from.
    directions
        Digest of the directions of every profile version that is kept → the versions that have them.
    """

    def __init__(self, location: Location, ages: Ages, read: dict[str, Document] | None = None) -> None:
        self._location = location
        self._ages = ages
        self._read = {} if read is None else read
        self._labels: dict[tuple[Kind, str], dict[int, str]] = {}
        self._needed: dict[tuple[Kind, str, int], str] = {}
        self.unreadable: list[Held] = []
        self.directions: dict[str, list[str]] = {}
        for record, spelled in self._kept(Kind.SELECTION, SelectionRecord):
            for set_ref in record.set_refs:
                self._need(Kind.SET, set_ref, f"{spelled} was selected from it")
            for profile in record.profiles_with_weights:
                self._need(Kind.PROFILE, profile.reference, f"{spelled} was selected by it")
        unreadable = tuple(self.unreadable)
        n_needed = -1
        while n_needed != (n_needed := self._n_needed_profiles()):  # those that are kept keep their parts, and so on
            self.unreadable, self.directions = [*unreadable], {}
            for record, spelled in self._kept(Kind.PROFILE, ProfileRecord):
                self._add_profile(record, spelled)

    def _add_profile(self, record: ProfileRecord, spelled: str) -> None:
        self.directions.setdefault(record.directions_sha256, []).append(spelled)
        for source in (record.source, record.background):
            if source is not None:
                self._needed[Kind.SET, source.set_name, source.version] = f"{spelled} was built from it"
        for part in record.parts or ():
            self._needed[Kind.PROFILE, part.name, part.version] = f"{spelled} was combined from it"

    def _n_needed_profiles(self) -> int:
        return sum(kind is Kind.PROFILE for kind, _, _ in self._needed)

    def protection(self, kind: Kind, name: str, number: int) -> str | None:
        """Why a version is kept even though it is deleted, or too old; None where nothing needs it."""
        if (kind, name) not in self._labels:
            labels = Labels(self._location, kind).of(name)
            self._labels[kind, name] = {label.version: f"{label.kind} {label.name!r}" for label in labels}
        label = self._labels[kind, name].get(number)
        if label is not None:
            return label
        if self.unreadable and kind is not Kind.SELECTION:
            return f"{self.unreadable[0].what} cannot be read, so it is not known what it was made from"
        return self._needed.get((kind, name, number))

    def due(
        self, kind: Kind, name: str, versions: Versions, live_since: datetime | None = None
    ) -> tuple[dict[int, str], list[Held]]:
        """Deleted versions of one item that can be collected, and why; and those that cannot yet.

        Parameters
        ----------
        kind, name, versions
            The item.
        live_since
            When the oldest job began that writes to it: it may have opened what was deleted since.
        """
        log = VersionLog(self._location, kind, _MANIFESTS[kind])
        due: dict[int, str] = {}
        held: list[Held] = []
        numbers = versions.numbers
        for number in sorted({*numbers.documents} & {*numbers.deleted} - {*numbers.collected}):
            spelled = f"{name}@{number}"
            marker = log.deletion(name, number)
            if marker is None:  # brought back just now
                continue
            file = versions.files[f"{number}.deleted.json"]
            times = [marker.provenance.created_at, *([file.modified_at] if file.modified_at else [])]
            reason = f"deleted on {marker.provenance.created_at:%Y-%m-%d} by {marker.provenance.author}"
            if not self._ages.is_over(times):
                held.append(Held(spelled, f"deleted; kept until {max(times) + self._ages.grace:%Y-%m-%d %H:%M} UTC"))
            elif live_since is not None and not self._ages.is_orphan(times, live_since):
                held.append(Held(spelled, "an ingest or another job that began before the deletion is running"))
            elif (protection := self.protection(kind, name, number)) is not None:
                held.append(Held(spelled, protection))
            else:
                due[number] = f"{reason}: {marker.reason}" if marker.reason else reason
        return due, held

    def _kept(self, kind: Kind, record_type: Any) -> Iterator[tuple[Any, str]]:
        """Records of every version that is not collected, and will not be by this run."""
        log = VersionLog(self._location, kind, _MANIFESTS[kind])
        for name in log.all_names():
            spelled = f"{kind}:{name}"
            try:
                versions = Versions.of(self._location, kind, name)
                gone = {*versions.numbers.collected, *self.due(kind, name, versions)[0]}
                kept = [number for number in versions.numbers.documents if number not in gone]
                redirects = replacements(self._location, kind, name) if kept else {}
                for number in kept:
                    spelled = f"{kind}:{name}@{number}"
                    try:
                        record = self._record(log, redirects, kind, name, number, record_type)
                    except NotFoundError:
                        if number in log.listing(name).collected:  # by another gc, just now
                            continue
                        raise
                    yield record, spelled
            except NaitStoreError as error:
                self.unreadable.append(Held(spelled, error.what))

    def _record(
        self, log: VersionLog[Any], redirects: Mapping[str, str], kind: Kind, name: str, number: int, record_type: Any
    ) -> Any:
        path = layout.version_document(kind, name, number)
        manifest = self._read.get(path)
        if manifest is None:
            manifest = self._read[path] = log.read(name, number)
        payload = chain(redirects, getattr(manifest, "payload", ""))[-1]
        path = f"{layout.payload_folder(kind, name, payload)}/{PAYLOAD_RECORDS[kind]}"
        record = self._read.get(path)
        if record is None:
            data = self._location.read_bytes(path)
            record = self._read[path] = record_type.from_json_bytes(data, self._location.url_of(path))
        return record

    def _need(self, kind: Kind, text: str, why: str) -> None:
        try:
            needed = parse_reference(text, kind)
        except InvalidInputError:  # nothing of such a name can be in this store
            return
        if needed.version is not None:
            self._needed[kind, needed.name, needed.version] = why


def replacements(location: Location, kind: Kind, name: str) -> dict[str, str]:
    """Payloads of one item that others stand for, by redirect: old → new.

    Raises
    ------
    FormatError
        A redirect cannot be read.
    """
    folder = layout.redirects_folder(kind, name)
    found: dict[str, str] = {}
    for entry in location.names(folder):
        if entry.endswith(".json"):
            path = f"{folder}/{entry}"
            try:
                redirect = SelectionRedirect.from_json_bytes(location.read_bytes(path), location.url_of(path))
            except NotFoundError as error:
                raise FormatError(f"{location.url_of(path)} vanished") from error
            found[entry.removesuffix(".json")] = redirect.replacement
    return found


def chain(redirects: Mapping[str, str], payload: str) -> list[str]:
    """A payload or segment, and one after the other what stands for it; the last is what is read."""
    found = [payload]
    while (following := redirects.get(found[-1])) is not None and following not in found:
        found.append(following)
    return found
