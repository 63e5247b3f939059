"""Segments of a set written anew and put in the place of the old ones, as a new version: compaction, conversion.

Old versions keep reading the old segments until gc takes both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.assembly import SegmentAssembly
from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction_plan import Merge
from nait_store.activations.reader import read_segment_record
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, NaitStoreError, StorageError
from nait_store.progress import ProgressEvent, ProgressListener
from nait_store.schemas.activation_set import Operation, SegmentRecord, SegmentRef
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import CarriedRows, carry_over, sidecar_records
from nait_store.scoring.sidecar_files import delete_sidecar


@dataclass(frozen=True)
class RewritePlan:
    """What becomes of which segments.

    Attributes
    ----------
    operation, details
        For the history; the stage that progress is told of is the operation's name.
    command
        What to run again where somebody else came first.
    merges
        Old segments, and the rows that each new one is made of.
    size_bytes
        About the bytes of the new segments.
    assemble
        Makes one of them.
    same_numbers
        Whether rows keep their stored numbers, and with them their scores.
    """

    operation: Operation
    command: str
    merges: Sequence[Merge]
    size_bytes: int
    assemble: Callable[[Merge], SegmentAssembly]
    same_numbers: bool
    details: Mapping[str, Any]


class Rewriting:
    """New segments being written, and the change that puts them in the place of the old ones.

    Parameters
    ----------
    sets, version
        The store's sets, and what is rewritten.
    plan
        What becomes of which segments.
    progress
        Told rows and bytes written.

    Attributes
    ----------
    n_bytes
        Of the segments written so far.
    """

    def __init__(
        self, sets: ActivationSets, version: SetVersion, plan: RewritePlan, progress: ProgressListener
    ) -> None:
        self.n_bytes = 0
        self._sets = sets
        self._location = sets.location
        self._version = version
        self._plan = plan
        self._merges = plan.merges
        self._progress = progress
        self._assemblies: list[SegmentAssembly] = []
        self._records: list[SegmentRecord | None] = []
        self._sidecars: list[SidecarRecord] = []

    @property
    def n_scores(self) -> int:
        """Sidecars written."""
        return len(self._sidecars)

    def write(self) -> None:
        """Write the new segments and their scores; nothing refers to them yet."""
        known = self._carried_scores()
        self._require_room(known)
        written = self._listener()
        for merge in self._merges:
            if not merge.n_rows:
                self._records.append(None)
                continue
            assembly = self._plan.assemble(merge)
            self._assemblies.append(assembly)
            record = assembly.write(written)
            self._records.append(record)
            self.n_bytes += record.size_bytes
            carried = [
                CarriedRows(source.reader.record_sha256, source.rows) for source in merge.sources if len(source.rows)
            ]
            self._sidecars += carry_over(self._location, carried, record, known)

    def run(self, message: str) -> SetVersion:
        """Write everything and commit it; where that fails, what was written is deleted."""
        try:
            self.write()
        except BaseException:
            self.discard()
            raise
        return self.commit(message)

    def commit(self, message: str) -> SetVersion:
        """Put the new segments in the place of the old ones, on top of whatever happened meanwhile."""

        def propose(current: SetVersion | None, next_ordinal: int) -> Change:
            return self._change(current, next_ordinal, message)

        try:
            version = self._sets.advance(self._version.name, propose)
        except ConflictError:
            self.discard()
            raise
        except BaseException:
            self._discard_unless_committed()
            raise
        assert version is not None
        return version

    def discard(self) -> None:
        """Delete what was written, as far as that is possible; gc finds the rest."""
        with contextlib.suppress(NaitStoreError):
            for sidecar in self._sidecars:
                delete_sidecar(self._location, sidecar.key)
        for assembly in self._assemblies:
            with contextlib.suppress(NaitStoreError):
                assembly.discard()

    def _carried_scores(self) -> list[SidecarRecord]:
        """Sidecars of the segments that are replaced, where the new ones have the same numbers."""
        if not self._plan.same_numbers:
            return []
        wanted = {source.reader.record_sha256 for merge in self._merges for source in merge.sources}
        return [record for record in sidecar_records(self._location) if record.segment_sha256 in wanted]

    def _discard_unless_committed(self) -> None:
        # Over a network a commit may still arrive after its error did: then only gc, much later, can tell.
        if not self._location.is_local:
            return
        name, ours = self._version.name, {assembly.segment_id for assembly in self._assemblies}
        try:
            later = [n for n in self._sets.log.listing(name).documents if n > self._version.number]
            found = {ref.segment_id for n in later for ref in self._sets.manifest(name, n).segments}
        except NaitStoreError:
            return
        if not ours & found:
            self.discard()

    def _change(self, current: SetVersion | None, next_ordinal: int, message: str) -> Change:
        refs = {ref.ordinal: ref for ref in current.refs} if current is not None else {}
        hidden = dict(current.tombstones()) if current is not None else {}
        added: list[SegmentRef] = []
        for merge, record in zip(self._merges, self._records, strict=True):
            gone: list[NDArray[np.int64]] = []  # rows of the new segment that were hidden since
            start = 0
            for source in merge.sources:
                ref = source.reader.ref
                assert ref is not None
                if current is None or refs.pop(ref.ordinal, None) != ref:
                    raise self._superseded(ref)
                rows = self._hidden_since(current, ref, source.rows)
                hidden.pop(ref.ordinal, None)
                gone.append(start + rows)
                start += len(source.rows)
            if record is None:
                continue
            ordinal = next_ordinal + len(added)
            added.append(
                SegmentRef(
                    segment_id=record.segment_id, ordinal=ordinal, n_rows=record.n_rows, record_sha256=record.digest()
                )
            )
            if any(map(len, gone)):
                hidden[ordinal] = np.concatenate(gone)
        assert current is not None
        everything = (*(refs[ordinal] for ordinal in sorted(refs)), *added)
        return Change(
            operation=self._plan.operation,
            contents=self._contents(current, everything),
            message=message,
            details={
                "segments": sum(len(merge.sources) for merge in self._merges),
                "into": len(added),
                "dropped_rows": sum(merge.n_dropped for merge in self._merges),
                **self._plan.details,
            },
            refs=everything,
            tombstones={ordinal: hidden[ordinal] for ordinal in sorted(hidden)},
        )

    def _hidden_since(self, current: SetVersion, ref: SegmentRef, taken: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the rows that were taken, by position, the current version hides."""
        visible = current.visible_mask(ref)
        mask = np.ones(ref.n_rows, dtype=bool) if visible is None else visible
        still = mask[taken]
        if np.count_nonzero(still) != np.count_nonzero(mask):
            raise ConflictError(
                f"samples that had been deleted from set {self._version.name!r} came back while it was rewritten",
                next_step=f"run '{self._plan.command}' again",
            )
        return np.flatnonzero(~still).astype(np.int64)

    def _contents(self, current: SetVersion, refs: Sequence[SegmentRef]) -> Contents:
        if not refs:
            return Contents(current.features, current.layers)
        known = {record.segment_id: record for record in self._records if record is not None}
        known.update({segment.segment_id: segment.record for segment in self._version.segments})
        records = [
            known.get(ref.segment_id) or read_segment_record(self._location, self._version.name, ref) for ref in refs
        ]
        return Contents.of(records)

    def _superseded(self, ref: SegmentRef) -> ConflictError:
        name = self._version.name
        return ConflictError(
            f"segment {ref.segment_id} is no longer part of set {name!r}: the set was purged, repaired, compacted, "
            "converted or restored meanwhile",
            next_step=f"run '{self._plan.command}' again",
        )

    def _require_room(self, sidecars: Sequence[SidecarRecord]) -> None:
        free_bytes = self._location.free_bytes()
        needed_bytes = self._plan.size_bytes + sum(record.size_bytes for record in sidecars)
        if free_bytes is not None and needed_bytes > free_bytes:
            raise StorageError(
                f"the new segments of set {self._version.name!r} take about {needed_bytes / 1e9:,.1f} GB, and "
                f"{self._location.url} has {free_bytes / 1e9:,.1f} GB free",
                next_step="free some space: the old segments can go only when no version needs them ('nait-store gc')",
            )

    def _listener(self) -> Callable[[int], None]:
        began = time.monotonic()
        total_bytes = self._plan.size_bytes
        n_rows = sum(merge.n_rows for merge in self._merges)
        done_bytes = 0

        def written(n_bytes: int) -> None:
            nonlocal done_bytes
            done_bytes += n_bytes
            done = min(n_rows, n_rows * done_bytes // max(1, total_bytes))
            self._progress(
                ProgressEvent(
                    self._plan.operation.value,
                    done,
                    n_rows,
                    bytes_done=done_bytes,
                    bytes_total=total_bytes,
                    elapsed_seconds=time.monotonic() - began,
                )
            )

        return written
