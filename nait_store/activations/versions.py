"""All activation sets of a store: opening versions, and committing new ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from nait_store.activations.appending import KnownKeys, additions_of, append_change
from nait_store.activations.changes import Change, manifest_of
from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.redirects import Redirects
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.set_version import SetVersion
from nait_store.errors import AlreadyExistsError, ConflictError, IncompatibleError, NotFoundError
from nait_store.refs import Kind, Reference, check_name, parse_reference
from nait_store.schemas.activation_set import Operation, SegmentRecord, SegmentRef, SetManifest, SetRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.versions import VersionLog, VersionNumbers

__all__ = ["ActivationSets", "SetVersion"]

_ATTEMPTS_BESIDE_GC = 2
_QUICK_SECONDS = 60.0

Propose = Callable[[SetVersion | None, int], Change | None]
"""Given the current version (None at first) and the next ordinal, the change to commit, or None for none."""


class ActivationSets:
    """The activation sets of a store.

    Parameters
    ----------
    location
        The store's root.
    verify
        Hash every file that is read through the versions it opens.

    Attributes
    ----------
    location
        As given.
    log
        The documents of their versions, and the aliases and tags.
    """

    def __init__(self, location: Location, *, verify: bool = False) -> None:
        self.location = location
        self._verify = verify
        self.log = VersionLog(location, Kind.SET, SetManifest)
        self._keys = KnownKeys(location)
        self._redirects: dict[str, Redirects] = {}

    def names(self) -> list[str]:
        """Sorted names of the sets that have a version."""
        return self.log.names()

    def numbers(self, name: str) -> list[int]:
        """Ascending version numbers of a set; empty where there is none of this name."""
        return self.log.numbers(name)

    def open(self, reference: Reference | str) -> SetVersion:
        """Open a version.

        Parameters
        ----------
        reference
            ``pool`` for the latest version, ``pool@3``.

        Raises
        ------
        NotFoundError
            Unknown set or version; near names are suggested.
        CorruptChunkError, FormatError
            A document is missing or damaged.
        """
        parsed = parse_reference(reference, Kind.SET) if isinstance(reference, str) else reference
        return self._open(parsed.name, self.resolve(parsed))

    def resolve(self, reference: Reference) -> int:
        """Turn a reference into the number of a version that exists; errors as for :meth:`open`."""
        try:
            return self.log.resolve(reference)
        except NotFoundError:
            if self.log.listing(reference.name).last or self.record(reference.name) is None:
                raise
        raise NotFoundError(
            f"set {reference.name!r} in {self.location.url} has no version yet",
            next_step="an ingest began and has not committed: wait for it, or run the same ingest again",
        )

    def record(self, name: str) -> SetRecord | None:
        """Read ``set.json``; None where there is no set of this name."""
        path = layout.set_record(check_name(name, Kind.SET))
        try:
            return SetRecord.from_json_bytes(self.location.read_bytes(path), self.location.url_of(path))
        except NotFoundError:
            return None

    def create(self, record: SetRecord) -> SetRecord:
        """Create a set, or confirm that the existing one measures the same thing.

        Returns
        -------
        SetRecord
            The stored record.

        Raises
        ------
        IncompatibleError
            The name is taken by a set of another capture identity; each differing field is named.
        """
        try:
            self.location.create_bytes(layout.set_record(record.name), record.to_json_bytes())
        except AlreadyExistsError:
            existing = self.record(record.name)
            assert existing is not None
            require_same_identity(existing, record)
            return existing
        return record

    def manifests(self, name: str) -> list[SetManifest]:
        """Read every version's document, oldest first."""
        return [self.log.read(name, number) for number in self.numbers(name)]

    def manifest(self, name: str, number: int) -> SetManifest:
        """Read one version's document."""
        return self.log.read(name, number)

    def commit(
        self,
        name: str,
        segments: Sequence[SegmentRecord],
        *,
        ingest_ids: Sequence[str],
        message: str = "",
        yielding: Collection[str] = (),
        operation: Operation = Operation.INGEST,
    ) -> SetVersion:
        """Make segments part of the set's next version.

        Where another writer commits first, the commit is rebased on that version. A sample that is there already,
        or in two of the segments, is kept once: the later row is tombstoned. Segments that a version refers to
        already, and those that would bring nothing new, are skipped; if none is left the latest version is returned.

        Parameters
        ----------
        name
            An existing set.
        segments
            Whole segments of this set.
        ingest_ids
            Ingests that wrote them.
        message
            Free text for the history.
        yielding
            Ids of segments whose rows are tombstoned, instead of refused, where the set holds other content
            under the same sample id.
        operation
            For the history.

        Raises
        ------
        ConflictError
            A sample id stands for two contents; or other writers kept winning for five minutes.
        """
        redirects = self.redirects(name)
        records = [self._replacement(redirects, record) for record in segments]
        yielding = {new.segment_id for new, old in zip(records, segments, strict=True) if old.segment_id in yielding}
        additions = additions_of(records, yielding, redirects.blank_rows)

        def append(current: SetVersion | None, next_ordinal: int) -> Change | None:
            return append_change(
                self.location,
                name,
                self._keys,
                current,
                next_ordinal,
                additions,
                operation=operation,
                ingest_ids=ingest_ids,
                message=message,
            )

        version = self.advance(name, append)
        if version is None:
            raise NotFoundError(f"set {name!r} has no version and there is nothing to commit")
        return version

    def advance(self, name: str, propose: Propose) -> SetVersion | None:
        """Commit the next version of a set; where another writer comes first, propose again on top of that.

        Parameters
        ----------
        name
            An existing set.
        propose
            Says what the next version does to the current one. Called again after each lost race, so it must
            depend on its arguments alone.

        Returns
        -------
        SetVersion or None
            The version committed; where nothing was proposed, the current one, if any.

        Raises
        ------
        ConflictError
            Other writers kept winning for five minutes; or gc took what the change was made of.
        """
        current: SetVersion | None = None
        collected: tuple[int, ...] = ()
        looked_at = 0.0

        def manifest(numbers: VersionNumbers) -> SetManifest | None:
            nonlocal current, collected
            collected = numbers.collected
            current = None if numbers.latest is None else self._open(name, numbers.latest)
            next_ordinal = self._next_ordinal(name, current, numbers)
            change = propose(current, next_ordinal)
            if change is None:
                return None
            return manifest_of(self.location, name, current, numbers.last + 1, next_ordinal, change)

        def lost(late: SetManifest) -> None:
            nonlocal looked_at
            looked_at = time.time()
            written = late.tombstones
            if written is not None and (current is None or written != current.manifest.tombstones):
                self.location.delete(f"{layout.item_folder(Kind.SET, name)}/{written.path}")

        for attempt in range(_ATTEMPTS_BESIDE_GC):
            looked_at = time.time()  # which goes on while the machine sleeps
            committed = self.log.commit_next(name, manifest, lost)
            if committed is None:
                return current
            quick = time.time() - looked_at < _QUICK_SECONDS
            unmarked = not attempt and quick and self.log.listing(name).collected == collected
            version = self._committed(name, committed)
            if version is not None and (unmarked or self._is_whole(version)):
                return version
            # Versions were deleted and collected between our look and our commit. gc marks what it takes, looks at the
            # versions and then deletes; we commit and then look for marks: one of the two sees the other.
            self.log.delete(name, committed.number, "gc took what it refers to before it was committed")
        raise ConflictError(
            f"gc took what the next version of set {name!r} would refer to", next_step="run the same command again"
        )

    def visible_keys(self, version: SetVersion) -> list[SegmentKeys]:
        """Keys of the visible samples of every segment of a version, in the order of its ``refs``."""
        return self._keys.visible(version)

    def keys(self, reader: SegmentReader) -> SegmentKeys:
        """Keys of a segment's samples, blank rows included; read once."""
        return self._keys.of(reader.segment_id, lambda: reader)

    def segment_keys(self, version: SetVersion, ref: SegmentRef) -> SegmentKeys:
        """Keys of all rows of a version's segment, hidden ones included; read once."""
        return self._keys.of(ref.segment_id, lambda: version.segment(ref))

    def redirects(self, name: str) -> Redirects:
        """Replacements of the set's segments, as they are now."""
        if name not in self._redirects:
            self._redirects[name] = Redirects(self.location, name)
        self._redirects[name].refresh()
        return self._redirects[name]

    def version(self, name: str, number: int) -> SetVersion:
        """Open a version by number, also one that was deleted and is not collected."""
        return self._open(name, number)

    def _replacement(self, redirects: Redirects, record: SegmentRecord) -> SegmentRecord:
        ref = SegmentRef(segment_id=record.segment_id, ordinal=0, n_rows=record.n_rows, record_sha256=record.digest())
        last = redirects.follow(ref)
        return record if last is ref else read_segment_record(self.location, record.set_name, last)

    def _committed(self, name: str, manifest: SetManifest) -> SetVersion | None:
        try:
            return self._version_of(name, manifest)
        except NotFoundError:  # its base, or the set
            if self.record(name) is None:
                raise
            return None

    def _is_whole(self, version: SetVersion) -> bool:
        """Whether what a version refers to is there."""
        paths = [f"{layout.segment_folder(version.name, ref.segment_id)}/{SEGMENT_FILE}" for ref in version.refs]
        if version.manifest.tombstones is not None:
            paths.append(f"{layout.item_folder(Kind.SET, version.name)}/{version.manifest.tombstones.path}")
        return all(self.location.is_file(path) for path in paths)

    def _next_ordinal(self, name: str, current: SetVersion | None, numbers: VersionNumbers) -> int:
        """Lowest ordinal never used: deleted versions may have used more than the latest visible one."""
        used = current.manifest.next_ordinal if current else 0
        highest = max(numbers.documents, default=None)
        if highest is not None and highest != numbers.latest:
            used = max(used, self.log.read(name, highest).next_ordinal)
        return used

    def _open(self, name: str, number: int) -> SetVersion:
        return self._version_of(name, self.log.read(name, number))

    def _version_of(self, name: str, manifest: SetManifest) -> SetVersion:
        refs = manifest.segments
        if manifest.base is not None:
            refs = self.log.read(name, manifest.base).segments + refs
        record = self.record(name)
        if record is None:
            raise NotFoundError(
                f"{self.location.url_of(layout.set_record(name))} is missing, "
                f"so {name}@{manifest.number} cannot be read",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
        redirects = self.redirects(name)
        blank = {
            ref.ordinal: rows
            for ref in refs
            if (rows := redirects.blank_rows(ref.segment_id)) is not None and len(rows)
        }
        return SetVersion(
            self.location,
            record,
            manifest,
            redirects.follow_all(refs),
            blank=blank,
            n_redirects=len(redirects.records),
            verify=self._verify,
        )


def require_same_identity(existing: SetRecord, wanted: SetRecord) -> None:
    """Refuse to mix two capture identities in one set.

    Raises
    ------
    IncompatibleError
        Naming each field that differs.
    """
    kept, asked = existing.projections, wanted.projections
    if [one.identity for one in kept] != [one.identity for one in asked]:
        raise IncompatibleError(
            f"set {existing.name!r} keeps {_kept(existing)}, this ingest would keep {_kept(wanted)}",
            next_step="ingest into a set of another name",
        )
    same_shape = (existing.n_neurons, existing.n_model_layers) == (wanted.n_neurons, wanted.n_model_layers)
    if existing.capture_id == wanted.capture_id and same_shape:
        return
    old, new = existing.identity.model_dump(mode="json"), wanted.identity.model_dump(mode="json")
    fields = [f"{key}: {_show(old[key])} there, {_show(new[key])} here" for key in old if old[key] != new[key]]
    for key in ("n_neurons", "n_model_layers"):
        if getattr(existing, key) != getattr(wanted, key):
            fields.append(f"{key}: {getattr(existing, key)} there, {getattr(wanted, key)} here")
    raise IncompatibleError(
        f"set {existing.name!r} holds activations that were captured differently ({'; '.join(fields)})",
        next_step="capture as that set was captured, or ingest into a set of another name",
    )


def _kept(record: SetRecord) -> str:
    names = ", ".join(one.profile for one in record.projections)
    return f"projections only, on {names}" if names else "activations"


def _show(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(_show(v) for v in value.values())
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
