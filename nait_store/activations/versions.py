"""All activation sets of a store: opening versions, and committing new ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.set_version import SetVersion
from nait_store.activations.tombstones import merge_tombstones, write_tombstones
from nait_store.errors import AlreadyExistsError, ConflictError, IncompatibleError, NotFoundError
from nait_store.refs import Kind, Reference, check_name, parse_reference
from nait_store.schemas.activation_set import SegmentRecord, SegmentRef, SetManifest, SetRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.storage.versions import VersionLog

FULL_MANIFEST_EVERY = 100
_PATIENCE_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 0.25

__all__ = ["ActivationSets", "SetVersion"]


@dataclass(frozen=True)
class _Holding:
    keys: SegmentKeys
    """Of the visible rows."""
    opener: Callable[[], SegmentReader]


def _same(reader: SegmentReader) -> SegmentReader:
    return reader


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
    """

    def __init__(self, location: Location, *, verify: bool = False) -> None:
        self.location = location
        self._verify = verify
        self._log = VersionLog(location, Kind.SET, SetManifest)
        self._keys: dict[str, SegmentKeys] = {}  # by segment id; segments are immutable

    def names(self) -> list[str]:
        """Sorted names of the sets that have a version."""
        return self._log.names()

    def numbers(self, name: str) -> list[int]:
        """Ascending version numbers of a set; empty where there is none of this name."""
        return self._log.numbers(name)

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
        if not self.numbers(parsed.name) and self.record(parsed.name) is not None:
            raise NotFoundError(
                f"set {parsed.name!r} in {self.location.url} has no version yet",
                next_step="an ingest began and has not committed: wait for it, or run the same ingest again",
            )
        return self._open(parsed.name, self._log.resolve(parsed))

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
        return [self._log.read(name, number) for number in self.numbers(name)]

    def manifest(self, name: str, number: int) -> SetManifest:
        """Read one version's document."""
        return self._log.read(name, number)

    def commit(
        self,
        name: str,
        segments: Sequence[SegmentRecord],
        *,
        ingest_ids: Sequence[str],
        message: str = "",
        yielding: Collection[str] = (),
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

        Raises
        ------
        ConflictError
            A sample id stands for two contents; or other writers kept winning for five minutes.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = 0.005
        while True:
            current = self._latest(name)
            manifest = self._next_manifest(name, current, segments, ingest_ids, message, yielding)
            if manifest is None:
                if current is None:
                    raise NotFoundError(f"set {name!r} has no version and there is nothing to commit")
                return current
            try:
                self._log.commit(name, manifest.number, manifest)
                return self._open(name, manifest.number)
            except ConflictError:
                if manifest.tombstones is not None and (
                    current is None or manifest.tombstones != current.manifest.tombstones
                ):
                    self.location.delete(f"{layout.item_folder(Kind.SET, name)}/{manifest.tombstones.path}")
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def visible_keys(self, version: SetVersion) -> list[SegmentKeys]:
        """Keys of the visible samples of every segment of a version, in the order of its ``refs``."""
        return [holding.keys for holding in self._holdings(version)]

    def keys(self, reader: SegmentReader) -> SegmentKeys:
        """Keys of a segment's samples, read once."""
        return self._keys_of(reader.segment_id, lambda: reader)

    def _holdings(self, version: SetVersion) -> list[_Holding]:
        # without opening segments whose keys are known: a writer that lost a race must be quick
        holdings = []
        for ref in version.refs:
            opener = partial(version.segment, ref)
            keys = self._keys_of(ref.segment_id, opener)
            holdings.append(_Holding(keys.only(version.visible_mask(ref)), opener))
        return holdings

    def _keys_of(self, segment_id: str, opener: Callable[[], SegmentReader]) -> SegmentKeys:
        known = self._keys.get(segment_id)
        if known is None:
            known = self._keys[segment_id] = SegmentKeys.read(opener())
        return known

    def _latest(self, name: str) -> SetVersion | None:
        number = self._log.latest(name)
        return None if number is None else self._open(name, number)

    def _open(self, name: str, number: int) -> SetVersion:
        manifest = self._log.read(name, number)
        refs = manifest.segments
        if manifest.base is not None:
            refs = self._log.read(name, manifest.base).segments + refs
        record = self.record(name)
        if record is None:
            raise NotFoundError(
                f"{self.location.url_of(layout.set_record(name))} is missing, so {name}@{number} cannot be read",
                next_step="run 'nait-store verify' to see what else is damaged",
            )
        return SetVersion(self.location, record, manifest, refs, verify=self._verify)

    def _next_manifest(
        self,
        name: str,
        current: SetVersion | None,
        segments: Sequence[SegmentRecord],
        ingest_ids: Sequence[str],
        message: str,
        yielding: Collection[str],
    ) -> SetManifest | None:
        referenced = {ref.segment_id for ref in current.refs} if current else set()
        fresh = [record for record in segments if record.segment_id not in referenced]
        holdings = self._holdings(current) if current else []
        ordinal = current.manifest.next_ordinal if current else 0
        refs: list[SegmentRef] = []
        hidden: dict[int, NDArray[np.int64]] = {}
        for record in fresh:
            reader = SegmentReader(self.location, record)
            keys = self.keys(reader)
            repeated = self._repeated(name, reader, keys, holdings, tolerant=record.segment_id in yielding)
            if repeated.all():
                continue
            rows = np.flatnonzero(repeated)
            refs.append(
                SegmentRef(
                    segment_id=record.segment_id,
                    ordinal=ordinal,
                    n_rows=record.n_rows,
                    record_sha256=record.digest(),
                )
            )
            if len(rows):
                hidden[ordinal] = rows.astype(np.int64)
            holdings.append(_Holding(keys.only(~repeated), partial(_same, reader)))
            ordinal += 1
        if not refs:
            return None
        number = (current.number if current else 0) + 1
        base = None
        listed = tuple(refs)
        if current is not None and number % FULL_MANIFEST_EVERY:
            base = current.number if current.manifest.base is None else current.manifest.base
            if current.manifest.base is not None:
                listed = current.manifest.segments + listed
        elif current is not None:
            listed = current.refs + listed
        inherited = current.manifest.tombstones if current else None
        tombstones = inherited
        if hidden:
            earlier = current.tombstones() if current else {}
            tombstones = write_tombstones(self.location, name, merge_tombstones(earlier, hidden))
        n_new = sum(ref.n_rows for ref in refs) - sum(len(rows) for rows in hidden.values())
        return SetManifest(
            set_name=name,
            number=number,
            parent=current.number if current else None,
            operation="ingest",
            message=message,
            base=base,
            segments=listed,
            tombstones=tombstones,
            next_ordinal=ordinal,
            n_samples=(current.n_samples if current else 0) + n_new,
            ingest_ids=tuple(ingest_ids),
            provenance=current_provenance(),
        )

    def _repeated(
        self,
        name: str,
        reader: SegmentReader,
        keys: SegmentKeys,
        holdings: Sequence[_Holding],
        *,
        tolerant: bool,
    ) -> NDArray[np.bool_]:
        """Mask over a new segment's rows whose samples are there already."""
        repeated = np.zeros(reader.n_rows, dtype=bool)
        repeated[keys.rows[1:][keys.ids[1:] == keys.ids[:-1]]] = True  # a stable sort: the first row comes first
        for holding in holdings:
            other = holding.keys
            at = other.find(keys.ids)
            found = at >= 0
            differs = found & (keys.contents != other.contents[np.maximum(at, 0)]) if found.any() else found
            if differs.any() and not tolerant:
                first = int(np.flatnonzero(differs)[0])
                raise _contradiction(name, reader, int(keys.rows[first]), holding.opener(), int(other.rows[at[first]]))
            repeated[keys.rows[found]] = True
        return repeated


def require_same_identity(existing: SetRecord, wanted: SetRecord) -> None:
    """Refuse to mix two capture identities in one set.

    Raises
    ------
    IncompatibleError
        Naming each field that differs.
    """
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


def _show(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(_show(v) for v in value.values())
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text


def _contradiction(name: str, new: SegmentReader, row: int, old: SegmentReader, old_row: int) -> ConflictError:
    places = []
    for reader, index in ((old, old_row), (new, row)):
        sample = reader.samples(["sample_id", "source_uri", "source_index"]).slice(index, 1).to_pylist()[0]
        places.append(f"{sample['source_uri']} record {sample['source_index']}")
    return ConflictError(
        f"sample {sample['sample_id']!r} has one text in set {name!r} (from {places[0]}) and another in {places[1]}",
        next_step="give one of the two another id, or ingest into another set",
    )
