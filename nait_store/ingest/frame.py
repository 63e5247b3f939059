"""What every ingest does, wherever its samples are captured: look what is there, plan, and commit in the end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nait_store.activations.versions import ActivationSets, SetVersion, require_same_identity
from nait_store.activations.writer import RejectedSample
from nait_store.errors import IngestInterrupted, InvalidInputError
from nait_store.ingest.adoption import (
    AbandonedIngest,
    changed_sources,
    commit_abandoned,
    find_abandoned,
    find_sources,
    still_abandoned,
)
from nait_store.ingest.capture_source import Measurement
from nait_store.ingest.coverage import coverage_of, narrower_than
from nait_store.ingest.journal import REJECTS_FILE, IngestJournal
from nait_store.ingest.probe import estimate_size, require_space
from nait_store.ingest.rejects import RejectLog
from nait_store.ingest.requests import EstimateListener, IngestReport, IngestRequest
from nait_store.ingest.sample_stream import SampleStream
from nait_store.progress import ProgressEvent, ProgressListener
from nait_store.refs import Kind, check_name
from nait_store.schemas.activation_set import IngestPlan, SegmentRecord, SetRecord, SourceFile
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid

T = TypeVar("T")


@dataclass(frozen=True)
class IngestOutset:
    """What an ingest found before it captures anything.

    Attributes
    ----------
    sources
        Its input.
    wanted
        ``set.json``, as it is or will be.
    version
        The set's latest version, if it has one.
    stream
        The samples that have to be captured.
    n_records
        Records of the input, where that is cheap to tell.
    """

    sources: tuple[SourceFile, ...]
    wanted: SetRecord
    version: SetVersion | None
    stream: SampleStream
    n_records: int | None

    @property
    def expected_rows(self) -> int | None:
        """Samples that will probably be captured."""
        return None if self.n_records is None else max(1, self.n_records - self.stream.n_known)


class IngestFrame(ABC):
    """One ingest; what is left to those that derive from it is to capture the samples and to write the segments.

    Parameters
    ----------
    location
        The store's root.
    measured
        What is measured, and how.
    request
        What to ingest.
    progress
        Told samples, tokens and bytes so far.
    announce
        Told what is expected, before anything is captured.
    """

    def __init__(
        self,
        location: Location,
        measured: Measurement,
        request: IngestRequest,
        progress: ProgressListener,
        announce: EstimateListener,
    ) -> None:
        self.rejects = RejectLog()
        self._location = location
        self._measured = measured
        self._request = request
        self._progress = progress
        self._announce = announce
        self._features = tuple(Feature(f) for f in request.features)
        self._sets = ActivationSets(location)
        self._warnings: list[str] = []
        self._n_tokens = 0
        self._began = time.monotonic()
        self._adopted: list[AbandonedIngest] = []
        self._n_flushed = 0
        self._stopping = False

    @abstractmethod
    def _measure(self, outset: IngestOutset) -> IngestReport:
        """Capture what the stream yields, write it, and commit."""

    def carry_out(self) -> IngestReport:
        """Run the ingest; results and errors as of :func:`nait_store.ingest.job.ingest`."""
        try:
            check_name(self._request.set_name, Kind.SET)
            self._location.require_writable()
            if not self._request.features or (self._request.limit is not None and self._request.limit < 1):
                raise InvalidInputError(
                    "an ingest needs at least one feature, and a limit of at least 1 where there is one"
                )
            return self._measure(self._set_out())
        except KeyboardInterrupt:
            raise self._stopped_at_once() from None
        finally:
            self.rejects.close()

    def _set_out(self) -> IngestOutset:
        name = self._request.set_name
        sources = tuple(self._request.opened or find_sources(self._sets, name, self._request.sources))
        wanted = self._set_record()
        existing = self._sets.record(name)
        if existing is not None:
            require_same_identity(existing, wanted)
        version = self._sets.open(name) if self._sets.numbers(name) else None
        self._adopted, warnings = find_abandoned(
            self._sets,
            name,
            features=self._features,
            layers=self._measured.layers,
            capture_id=wanted.capture_id,
        )
        self._warnings += warnings + changed_sources(self._adopted, sources)
        stream = self._open_stream(sources, version)
        estimate = estimate_size(self._location, self._measured, self._request, [source.uri for source in sources])
        self._announce(estimate)
        require_space(estimate, stream.n_set_samples, self._location.url)
        return IngestOutset(sources, wanted, version, stream, estimate.n_records)

    def _stopped_at_once(self) -> IngestInterrupted:
        """Say what the last Ctrl-C left, where nothing was committed."""
        kept = self._n_flushed + sum(ingest.n_samples for ingest in self._adopted)
        if not kept:
            return IngestInterrupted(
                "interrupted before anything was captured; the store is as it was",
                next_step="run the same command again",
            )
        return IngestInterrupted(
            f"stopped at once; {kept:,} samples are flushed and kept",
            next_step="run the same command again: it commits what is in no version yet, and goes on from there",
        )

    def _insist(self, work: Callable[[], T]) -> T:
        """Do what has to be done after Ctrl-C as well: the first one has it done again, the second one ends it."""
        try:
            return work()
        except KeyboardInterrupt:
            if self._stopping:
                raise
            self._stopping = True
            return work()

    def _set_record(self) -> SetRecord:
        identity = self._measured.identity
        return SetRecord(
            name=self._request.set_name,
            capture_id=identity.capture_id,
            identity=identity,
            n_neurons=self._measured.n_neurons,
            n_model_layers=self._measured.n_model_layers,
            provenance=current_provenance(),
        )

    def _open_stream(self, sources: Sequence[SourceFile], version: SetVersion | None) -> SampleStream:
        layers = self._measured.layers
        held = coverage_of(
            self._sets, self._request.set_name, version, self._adopted, features=self._features, layers=layers
        )
        self._warnings += narrower_than(version, self._features, layers)
        return SampleStream(sources, self._request, held.known, held.covers, held.describe, self.rejects)

    def _plan(self, outset: IngestOutset, dtype: StoredDtype) -> IngestPlan:
        wanted = outset.wanted
        return IngestPlan(
            ingest_id=new_ulid(),
            set_name=wanted.name,
            capture_id=wanted.capture_id,
            sources=outset.sources,
            features=self._features,
            layers=tuple(self._measured.layers),
            dtype=dtype,
            identity=wanted.identity,
            n_neurons=wanted.n_neurons,
            n_model_layers=wanted.n_model_layers,
            command=self._request.command,
            provenance=current_provenance(),
        )

    def _known_dtype(self, version: SetVersion | None) -> StoredDtype | None:
        """What to store as, where that does not depend on the samples: as asked for, or as the set does."""
        if self._request.dtype is not None:
            return StoredDtype(self._request.dtype)
        if version is not None and version.refs:
            return version.segment(version.refs[-1]).record.arrays[0].dtype
        return None

    def _acknowledge(self, journal: IngestJournal, wanted: SetRecord, record: SegmentRecord) -> None:
        """Record a flushed segment: from here on its samples are never lost."""
        self._sets.create(wanted)
        journal.acknowledge(record)
        self._n_flushed += record.n_rows

    def _reject_stored(self, rejected: Sequence[RejectedSample]) -> None:
        for sample in rejected:
            self.rejects.add_sample(sample.sample_id, sample.source_uri, sample.source_index, sample.reason)

    def _show(self, outset: IngestOutset, n_done: int, size_bytes: int) -> None:
        stream, n_records = outset.stream, outset.n_records
        n_skipped = stream.n_known + stream.n_duplicates + len(self.rejects)
        self._progress(
            ProgressEvent(
                stage="capture",
                done=n_done,
                total=None if n_records is None else max(n_done, n_records - n_skipped),
                tokens=self._n_tokens,
                bytes_done=size_bytes,
                elapsed_seconds=time.monotonic() - self._began,
            )
        )

    def _commit(
        self, journal: IngestJournal | None, segments: Sequence[SegmentRecord], outset: IngestOutset
    ) -> IngestReport:
        if self._stopping and not segments and not self._adopted:
            raise KeyboardInterrupt
        report = self._insist(lambda: self._commit_once(journal, segments, outset))
        if self._stopping:
            raise self._interrupted(report)
        return report

    def _interrupted(self, report: IngestReport) -> IngestInterrupted:
        n_held = self._sets.open(report.set_ref).n_samples
        earlier = f" and {report.resumed_samples:,} of earlier runs" if report.resumed_samples else ""
        return IngestInterrupted(
            f"interrupted; {report.set_ref} holds {n_held:,} samples, with the {report.n_added:,} "
            f"that were captured now{earlier}",
            next_step="run the same command again: it goes on from there",
        )

    def _commit_once(
        self, journal: IngestJournal | None, segments: Sequence[SegmentRecord], outset: IngestOutset
    ) -> IngestReport:
        name, stream, version = self._request.set_name, outset.stream, outset.version
        adopted = still_abandoned(self._sets, name, self._adopted)
        if not segments and not adopted and version is None:
            self._write_rejects(None)
            raise InvalidInputError(
                f"none of the {stream.n_read + len(self.rejects):,} records can be used; "
                f"the first: {self._first_reason()}",
                next_step="see 'nait-store ingest --help' for the layouts that are detected, or name fields with --map",
            )
        rejects_path = self._write_rejects(journal)
        if segments or adopted:
            self._sets.create(self._set_record())  # a gc that died may have taken that of a set without versions
            version = commit_abandoned(
                self._sets,
                name,
                adopted,
                segments=segments,
                ingest_ids=[journal.ingest_id] if journal else [],
                message=self._request.message,
            )
        assert version is not None
        if journal is not None:
            journal.finish(version.number)
        return IngestReport(
            set_ref=version.reference,
            n_added=sum(record.n_rows for record in segments),
            n_known=stream.n_known,
            n_duplicates=stream.n_duplicates,
            n_rejected=len(self.rejects),
            rejected=self.rejects.first,
            rejects_path=rejects_path,
            n_tokens=self._n_tokens,
            n_truncated=sum(record.n_truncated for record in segments),
            bytes_written=sum(record.size_bytes for record in segments),
            elapsed_seconds=time.monotonic() - self._began,
            resumed_samples=sum(ingest.n_samples for ingest in adopted),
            usage=self._measured.usage,
            warnings=tuple(dict.fromkeys([*self._measured.warnings, *self._warnings])),
        )

    def _write_rejects(self, journal: IngestJournal | None) -> str | None:
        if self._request.rejects_path is None and journal is None:
            return None  # an ingest that added nothing leaves nothing in the store
        ingest_id = journal.ingest_id if journal else ""
        default = f"{layout.ingest_folder(self._request.set_name, ingest_id)}/{REJECTS_FILE}"
        return self.rejects.write(self._location, default, self._request.rejects_path)

    def _first_reason(self) -> str:
        first = self.rejects.first
        return f"{first[0].where}: {first[0].reason}" if first else "there are none"
