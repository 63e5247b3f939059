"""Verification of an activation set: every document, file and row against its record."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from nait_store.activations.redirects import Redirects
from nait_store.activations.tombstones import Tombstones, tombstones_of
from nait_store.activations.unique_ids import RepeatedIds, VisibleRows
from nait_store.activations.verify_ingests import inspect_ingests, inspect_jobs
from nait_store.activations.verify_segments import InspectedSegments
from nait_store.activations.versions import ActivationSets
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import Kind
from nait_store.schemas.activation_set import RedirectRecord, SegmentRef, SetManifest, SetRecord, TombstoneRef
from nait_store.schemas.capture import Feature
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.verify import Finding, Inspection, Severity
from nait_store.storage.version_checks import inspect_labels, inspect_versions

__all__ = ["Finding", "SetInspection", "Severity", "verify_set"]


def verify_set(
    sets: ActivationSets,
    name: str,
    *,
    quick: bool = False,
    n_threads: int = 1,
    progress: ProgressListener = ignore_progress,
) -> list[Finding]:
    """Verify every version of a set, and every file in its folder.

    Parameters
    ----------
    sets
        The store's sets.
    name
        The set.
    quick
        Compare documents and sizes only, instead of hashing every byte.
    n_threads
        Threads that hash and read.
    progress
        Told after each file.

    Returns
    -------
    list of Finding
        Empty, or infos only, if all is well.
    """
    folder = layout.item_folder(Kind.SET, name)
    inspection = Inspection(sets.location, [folder], quick=quick, n_threads=n_threads, progress=progress)
    checks = SetInspection(inspection, name)
    checks.structure()
    inspection.compare()
    checks.contents()
    inspection.report_unlisted()
    return list(inspection.findings)


@dataclass(frozen=True)
class _Contents:
    """What a list of segments amounts to."""

    ordinals: frozenset[int]
    n_rows: int
    features: frozenset[Feature] | None
    """In common; None where a segment's record cannot be read."""
    layers: frozenset[int] | None

    def __add__(self, other: _Contents) -> _Contents:
        if not self.ordinals or not other.ordinals:
            return self if self.ordinals else other
        return _Contents(
            self.ordinals | other.ordinals,
            self.n_rows + other.n_rows,
            None if self.features is None or other.features is None else self.features & other.features,
            None if self.layers is None or other.layers is None else self.layers & other.layers,
        )


class SetInspection:
    """The part of a verification that is about one set.

    Parameters
    ----------
    inspection
        The whole; it has walked the set's folder.
    name
        The set.
    """

    def __init__(self, inspection: Inspection, name: str) -> None:
        self._inspection = inspection
        self._name = name
        self._folder = layout.item_folder(Kind.SET, name)
        self._interned: dict[SegmentRef, SegmentRef] = {}
        self._hidden: dict[str, dict[int, tuple[int, int]]] = {}  # tombstone file → ordinal → rows, highest row

    def structure(self) -> None:
        """Check documents and references, and say what is expected of every other file."""
        inspection, name = self._inspection, self._name
        self._redirects = self._read_redirects()
        self._versions = inspect_versions(
            inspection, Kind.SET, name, SetManifest, partial(_misplaced, name), self._without_copies
        )
        inspect_labels(inspection, Kind.SET, name, self._versions.numbers)
        waiting = inspect_ingests(inspection, name, self._versions)
        inspect_jobs(inspection, name)
        record = self._set_record(needed=bool(self._versions.kept or waiting))
        self._collect_ordinals()
        self._n_rows = {ref.ordinal: ref.n_rows for ref in self._interned}
        refs = [self._redirects.follow(ref) for ref in self._needed()]
        self._segments = InspectedSegments(inspection, name, record, self._redirects, refs, waiting)
        self._check_manifests()
        self._find_loose_tombstones()

    def contents(self) -> None:
        """Check what is in the files, once they are known to be what was written; nothing under ``quick``."""
        if self._inspection.quick:
            return
        keys = self._segments.read_keys()
        ordinal_of: dict[str, set[int]] = {}
        for ref in self._needed():
            ordinal_of.setdefault(self._redirects.follow(ref).segment_id, set()).add(ref.ordinal)
        by_ordinal = {o: keys[segment] for segment, ordinals in ordinal_of.items() if segment in keys for o in ordinals}
        unreadable = set().union(*ordinal_of.values()) - by_ordinal.keys()
        blank = {
            ordinal: rows
            for segment, ordinals in ordinal_of.items()
            for ordinal in ordinals
            if (rows := self._redirects.blank_rows(segment)) is not None
        }
        repeated = RepeatedIds(by_ordinal, blank)
        earlier: VisibleRows | None = None
        for number, manifest in self._versions.kept.items():
            contents = self._contents.get(number)
            hidden = self._tombstones(manifest.tombstones)
            if contents is None or hidden is None or contents.ordinals & unreadable:
                continue  # reported already
            earlier = repeated.visible(contents.ordinals, hidden, earlier)
            if earlier.n_repeated:
                path = layout.version_document(Kind.SET, self._name, number)
                self._inspection.error(path, f"{earlier.n_repeated:,} sample ids are visible more than once")

    def _set_record(self, *, needed: bool) -> SetRecord | None:
        path = layout.set_record(self._name)
        if not needed and not self._inspection.is_file(path):
            return None  # nothing but an ingest that is at its beginning
        record = self._inspection.document(path, SetRecord)
        if record is not None and record.identity.capture_id != record.capture_id:
            self._inspection.error(path, "the capture id is not that of the identity", "capture_id")
        if record is not None and record.name != self._name:
            self._inspection.error(path, f"it is the record of set {record.name!r}", "name")
        return record

    def _read_redirects(self) -> Redirects:
        folder = layout.redirects_folder(Kind.SET, self._name)
        paths = [f"{folder}/{name}" for name in self._inspection.names(folder) if name.endswith(".json")]
        records: dict[str, RedirectRecord] = {}
        for path, record in self._inspection.documents(paths, RedirectRecord):
            if record is None:
                continue
            if path != f"{folder}/{record.segment_id}.json":
                self._inspection.error(path, f"it is about segment {record.segment_id}", "segment_id")
                continue
            blank = record.blank_rows
            ascending = all(one < other for one, other in itertools.pairwise(blank))
            if not ascending or (blank and not 0 <= blank[0] <= blank[-1] < record.n_rows):
                self._inspection.error(path, "its rows are not ascending rows of the segment", "blank_rows")
                continue
            records[record.segment_id] = record
        for segment_id in list(records):
            seen, at = {segment_id}, records.get(segment_id)
            while at is not None:
                if at.replacement in seen:
                    self._inspection.error(f"{folder}/{segment_id}.json", "it leads back to itself", "replacement")
                    del records[segment_id]
                    break
                seen.add(at.replacement)
                at = records.get(at.replacement)
        return Redirects.of(self._inspection.location, self._name, records.values())

    def _without_copies(self, manifest: SetManifest) -> SetManifest:
        """Let the manifests of many versions share the references that they have in common."""
        shared = tuple(self._interned.setdefault(ref, ref) for ref in manifest.segments)
        return manifest.model_copy(update={"segments": shared})

    def _needed(self) -> Iterable[SegmentRef]:
        """The segments of every version that is kept; its base may be collected."""
        kept = self._versions.kept
        bases = {m.base for m in kept.values() if m.base is not None} - kept.keys()
        documents = [*kept.values(), *(self._versions.documents[n] for n in bases if n in self._versions.documents)]
        return dict.fromkeys(ref for manifest in documents for ref in manifest.segments)

    def _collect_ordinals(self) -> None:
        known: dict[int, SegmentRef] = {}
        next_ordinal = 0
        for number, manifest in self._versions.documents.items():
            path = layout.version_document(Kind.SET, self._name, number)
            for ref in manifest.segments:
                stands_for = self._redirects.follow(ref)
                if known.setdefault(ref.ordinal, stands_for) != stands_for:
                    other = known[ref.ordinal].segment_id
                    problem = f"ordinal {ref.ordinal} stands for two segments, {other} and {ref.segment_id}"
                    self._inspection.error(path, problem, "segments")
                if ref.ordinal >= manifest.next_ordinal:
                    problem = f"ordinal {ref.ordinal} is not below next_ordinal {manifest.next_ordinal}"
                    self._inspection.error(path, problem, "next_ordinal")
            if manifest.next_ordinal < next_ordinal:
                problem = f"an earlier version has used ordinals up to {next_ordinal - 1}"
                self._inspection.error(path, problem, "next_ordinal")
            next_ordinal = max(next_ordinal, manifest.next_ordinal)

    def _check_manifests(self) -> None:
        self._read_tombstones()
        self._contents: dict[int, _Contents] = {}
        full: dict[int, _Contents] = {}
        for number, manifest in self._versions.kept.items():
            path = layout.version_document(Kind.SET, self._name, number)
            if manifest.parent is not None and not (manifest.parent < number and self._versions.knows(manifest.parent)):
                self._inspection.error(path, f"its parent version {manifest.parent} is missing", "parent")
            contents = self._contents_of(manifest.segments)
            if manifest.base is not None:
                base = self._versions.documents.get(manifest.base)
                if base is None or base.base is not None:
                    problem = f"its base version {manifest.base} is missing or is not a full list"
                    self._inspection.error(path, problem, "base")
                    continue
                if manifest.base not in full:
                    full[manifest.base] = self._contents_of(base.segments)
                n_listed = len(base.segments) + len(manifest.segments)
                contents = full[manifest.base] + contents
            else:
                n_listed = len(manifest.segments)
            if len(contents.ordinals) != n_listed:
                self._inspection.error(path, "it refers to a segment twice", "segments")
                continue
            self._contents[number] = contents
            self._check_summary(path, manifest, contents)

    def _contents_of(self, refs: Iterable[SegmentRef]) -> _Contents:
        features: frozenset[Feature] | None = frozenset(Feature)
        layers: frozenset[int] | None = None
        ordinals, n_rows = [], 0
        for ref in refs:
            ordinals.append(ref.ordinal)
            n_rows += ref.n_rows
            record = self._segments.record(self._redirects.follow(ref))
            if record is None or features is None:
                features = None
                continue
            features &= frozenset(record.features)
            layers = frozenset(record.layers) if layers is None else layers & frozenset(record.layers)
        return _Contents(frozenset(ordinals), n_rows, features, layers if features is not None else None)

    def _check_summary(self, path: str, manifest: SetManifest, contents: _Contents) -> None:
        n_hidden = 0
        if manifest.tombstones is not None:
            hidden = self._hidden.get(manifest.tombstones.path)
            if hidden is None:
                return  # reported at the file
            for ordinal, (n, highest) in hidden.items():
                if ordinal not in contents.ordinals or highest >= self._n_rows[ordinal]:
                    problem = f"its tombstones name rows that segment {ordinal} does not have"
                    self._inspection.error(path, problem, "tombstones")
                n_hidden += n
        n_samples = contents.n_rows - n_hidden
        if n_samples != manifest.n_samples:
            problem = f"it counts {manifest.n_samples:,} samples where there are {n_samples:,}"
            self._inspection.error(path, problem, "n_samples")
        if contents.ordinals and contents.features is not None and contents.layers is not None:
            if set(manifest.features) != contents.features:
                self._inspection.error(path, "its features are not those that all its segments store", "features")
            if set(manifest.layers) != contents.layers:
                self._inspection.error(path, "its layers are not those that all its segments store", "layers")

    def _read_tombstones(self) -> None:
        needed = {
            f"{self._folder}/{m.tombstones.path}": m.tombstones
            for m in self._versions.kept.values()
            if m.tombstones is not None
        }
        for path in needed:
            if not self._inspection.exists(path):
                self._inspection.error(path, "it is missing", "tombstones")
        there = [path for path in needed if self._inspection.exists(path)]
        for path, hidden in self._parsed(there, needed):
            if hidden is not None:
                self._hidden[needed[path].path] = {o: (len(rows), int(rows[-1])) for o, rows in hidden.items()}

    def _parsed(self, paths: list[str], refs: dict[str, TombstoneRef]) -> Iterator[tuple[str, Tombstones | None]]:
        for path, data in self._inspection.read(paths):
            if data is None:
                continue
            if sha256_bytes(data) != refs[path].sha256:
                self._inspection.error(path, "it differs from its recorded SHA-256", "tombstones")
                continue
            try:
                hidden = tombstones_of(data)
            except (pa.ArrowException, KeyError, ValueError) as error:
                self._inspection.error(path, f"it cannot be read as Parquet: {error}", "tombstones")
                continue
            if sum(map(len, hidden.values())) != refs[path].n_rows or any(rows[0] < 0 for rows in hidden.values()):
                problem = f"it does not hold the {refs[path].n_rows:,} rows that the manifest says"
                self._inspection.error(path, problem, "tombstones")
                continue
            yield path, hidden

    def _tombstones(self, ref: TombstoneRef | None) -> Tombstones | None:
        """Rows of a file that was checked; None where it was found to be damaged, or is gone by now."""
        if ref is None:
            return {}
        if ref.path not in self._hidden:
            return None
        data = self._inspection.bytes_of(f"{self._folder}/{ref.path}")
        return None if data is None else tombstones_of(data)

    def _find_loose_tombstones(self) -> None:
        folder = layout.tombstone_folder(self._name)
        named = {f"{self._folder}/{m.tombstones.path}" for m in self._versions.documents.values() if m.tombstones}
        for name in self._inspection.names(folder):
            if name.endswith(".parquet") and f"{folder}/{name}" not in named:
                self._inspection.info(f"{folder}/{name}", "no version refers to these tombstones")
        self._inspection.account(f"{folder}/{name}" for name in self._inspection.names(folder))


def _misplaced(name: str, number: int, manifest: SetManifest) -> str | None:
    if (manifest.number, manifest.set_name) != (number, name):
        return "the document names another set or version"
    return None
