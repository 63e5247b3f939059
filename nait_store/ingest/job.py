"""One ingest from its input to the committed version."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from nait_store.activations.versions import ActivationSets, SetVersion, require_same_identity
from nait_store.errors import IngestInterrupted, InvalidInputError
from nait_store.ingest.adoption import (
    AbandonedIngest,
    changed_sources,
    commit_abandoned,
    find_abandoned,
    find_sources,
    still_abandoned,
)
from nait_store.ingest.background import BackgroundWriter
from nait_store.ingest.capture_source import Captured, CaptureSource
from nait_store.ingest.captured_stream import CapturedStream
from nait_store.ingest.coverage import coverage_of, narrower_than
from nait_store.ingest.interruptions import interrupted, stopped_at_once
from nait_store.ingest.journal import REJECTS_FILE, IngestJournal
from nait_store.ingest.kept_projections import KeptProjections, kept_projections
from nait_store.ingest.live_scores import LiveScores
from nait_store.ingest.outset import IngestOutset
from nait_store.ingest.probe import choose_dtype, draining, estimate_size, hold_back, require_space
from nait_store.ingest.projected_capture import ProjectedCapture
from nait_store.ingest.rejects import RejectLog
from nait_store.ingest.requests import (
    EstimateListener,
    IngestReport,
    IngestRequest,
    ignore_estimate,
)
from nait_store.ingest.sample_stream import SampleStream
from nait_store.ingest.scored_profiles import ScoredProfiles, candidates_of, chosen_profiles
from nait_store.ingest.segment_sink import SegmentSink
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import Kind, check_name
from nait_store.registry.compatibility import Candidates
from nait_store.schemas.activation_set import IngestPlan, Projection, SegmentRecord, SetRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import SourceFile
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid

__all__ = ["CaptureSource", "IngestReport", "IngestRequest", "ingest"]

T = TypeVar("T")


def ingest(
    location: Location,
    capture: CaptureSource,
    request: IngestRequest,
    progress: ProgressListener = ignore_progress,
    announce: EstimateListener = ignore_estimate,
) -> IngestReport:
    """Capture the samples that a set does not hold yet and append them as its next version.

    Running the same request again adds nothing; running it after a crash goes on from the last flushed segment.
    Ctrl-C stops it in good order: what was captured by then is flushed and committed. A second Ctrl-C stops it at
    once, and what was flushed is kept for the next run. Several ingests may run into one set at once.

    Parameters
    ----------
    location
        The store's root.
    capture
        An open capture session.
    request
        What to ingest.
    progress
        Told after each batch: samples, tokens and bytes so far.
    announce
        Told what is expected, before anything is captured.

    Returns
    -------
    IngestReport
        What was done; ``set_ref`` names the version that holds everything.

    Raises
    ------
    InvalidInputError
        The set's name, or a record under ``on_error="stop"``, or all records. Nothing is committed; segments that
        were flushed by then are kept for the next run.
    NotFoundError
        A source does not exist. What interrupted ingests had captured from it is committed, and the message says so.
        A profile that is to be scored does not exist.
    ConflictError
        A sample id stands for two contents.
    IncompatibleError
        The set was captured differently, or lacks features or layers of samples that it holds. A profile that was
        named means nothing on the samples.
    StorageError
        The disk cannot hold what is expected, or was full; what was flushed is kept.
    IngestInterrupted
        Ctrl-C; says which version holds what was captured.
    """
    return IngestJob(location, capture, request, progress, announce).carry_out()


class IngestJob:
    """One ingest; see :func:`ingest` for the parameters, the result and the errors.

    Everything before and after the capture is the same wherever it runs; what captures elsewhere than in this process
    derives from this class.
    """

    def __init__(
        self,
        location: Location,
        capture: CaptureSource,
        request: IngestRequest,
        progress: ProgressListener,
        announce: EstimateListener,
    ) -> None:
        self.rejects = RejectLog()
        self._location = location
        self._capture = capture
        self._request = request
        self._progress = progress
        self._announce = announce
        self._features = tuple(Feature(f) for f in request.features)
        self._sets = ActivationSets(location)
        self._warnings: list[str] = []
        self._began = time.monotonic()
        self._adopted: list[AbandonedIngest] = []
        self._n_flushed = 0
        self._sink: SegmentSink | None = None
        self._kept: KeptProjections | None = None
        self._profiles: ScoredProfiles | None = None
        self._scores_lost: str | None = None
        self._stopping = False

    def carry_out(self) -> IngestReport:
        """Run it, once."""
        request = self._request
        try:
            check_name(request.set_name, Kind.SET)
            self._location.require_writable()
            if not request.features or (request.limit is not None and request.limit < 1):
                raise InvalidInputError(
                    "an ingest needs at least one feature, and a limit of at least 1 where there is one"
                )
            return self._measure(self._set_out())
        except KeyboardInterrupt:
            raise self.stopped_at_once() from None
        finally:
            self.rejects.close()

    def _set_out(self) -> IngestOutset:
        name = self._request.set_name
        sources = self._request.opened or find_sources(self._sets, name, self._request.sources)
        existing = self._sets.record(name)
        if existing is not None:
            shape = {"n_neurons": existing.n_neurons, "projections": existing.projections}
            require_same_identity(existing, self._set_record().model_copy(update=shape))
        self._project(existing)
        wanted = self._set_record()
        if existing is not None:
            require_same_identity(existing, wanted)
        if self._request.score_with is not None:  # a profile that does not apply is told before any capture
            self._scored_profiles()
        version = self._sets.open(name) if self._sets.numbers(name) else None
        self._adopted, warnings = find_abandoned(
            self._sets,
            name,
            features=self._features,
            layers=self._capture.layers,
            capture_id=wanted.capture_id,
        )
        self._warnings += warnings + changed_sources(self._adopted, sources)
        stream = self._open_stream(sources, version)
        estimate = estimate_size(self._location, self._capture, self._request, [source.uri for source in sources])
        self._announce(estimate)
        require_space(estimate, stream.n_set_samples, self._location.url)
        return IngestOutset(sources, wanted, version, stream, estimate.n_records)

    def _measure(self, outset: IngestOutset) -> IngestReport:
        """Capture what the stream yields, write it, and commit."""
        captured = CapturedStream(
            self._capture,
            outset.stream,
            self.rejects,
            n_records=outset.n_records,
            progress=self._progress,
            n_written_bytes=lambda: self._sink.size_bytes if self._sink else 0,
            began=self._began,
        )
        with captured:
            held, ended_early = hold_back(iter(captured))
            if ended_early:
                self._stop(captured)
            if not held:
                return self._commit(None, [], outset, captured.n_tokens)
            journal = IngestJournal(self._location, self._plan(outset, self._dtype(held, outset)))
            with contextlib.ExitStack() as life:
                self._insist(lambda: life.enter_context(journal))
                segments = self._write(journal, outset, held, captured)
                return self._commit(journal, segments, outset, captured.n_tokens)

    def _project(self, existing: SetRecord | None) -> None:
        """Where the set keeps no activations: from here on, projections are what is captured."""
        kept = kept_projections(self._location, self._request, existing, self._candidates())
        if kept is None:
            return
        self._capture = ProjectedCapture(self._capture, kept.targets)
        self._features = (Feature.PROJECTIONS,)
        self._request = replace(self._request, features=self._features, dtype=StoredDtype.FLOAT32, score_with=())
        self._kept = kept
        self._warnings += kept.warnings

    @property
    def _projections(self) -> tuple[Projection, ...]:
        return self._kept.columns if self._kept is not None else ()

    def stopped_at_once(self) -> IngestInterrupted:
        """Say what the last Ctrl-C left, where nothing was committed."""
        return stopped_at_once(self._n_flushed + sum(ingest.n_samples for ingest in self._adopted))

    def _stop(self, captured: CapturedStream) -> None:
        """Note the first Ctrl-C: what is captured is written and committed, and nothing more is read."""
        self._stopping = True
        captured.stop_reading()

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
        identity = self._capture.identity
        return SetRecord(
            name=self._request.set_name,
            capture_id=identity.capture_id,
            identity=identity,
            n_neurons=self._capture.n_neurons,
            n_model_layers=self._capture.n_model_layers,
            projections=self._projections,
            provenance=current_provenance(),
        )

    def _open_stream(self, sources: Sequence[SourceFile], version: SetVersion | None) -> SampleStream:
        layers = self._capture.layers
        held = coverage_of(
            self._sets, self._request.set_name, version, self._adopted, features=self._features, layers=layers
        )
        self._warnings += narrower_than(version, self._features, layers)
        return SampleStream(sources, self._request, held.known, held.covers, held.describe, self.rejects)

    def _dtype(self, held: Sequence[Captured], outset: IngestOutset) -> StoredDtype:
        known = outset.known_dtype(self._request.dtype)
        if known is not None:
            return known
        dtype, warning = choose_dtype(held, self._features)
        if warning is not None:
            self._warnings.append(warning)
        return dtype

    def _plan(self, outset: IngestOutset, dtype: StoredDtype) -> IngestPlan:
        wanted = outset.wanted
        return IngestPlan(
            ingest_id=new_ulid(),
            set_name=wanted.name,
            capture_id=wanted.capture_id,
            sources=tuple(outset.sources),
            features=self._features,
            layers=tuple(self._capture.layers),
            dtype=dtype,
            identity=wanted.identity,
            n_neurons=wanted.n_neurons,
            n_model_layers=wanted.n_model_layers,
            projections=self._projections,
            command=self._request.command,
            choices=self._request.choices,
            provenance=current_provenance(),
        )

    def _acknowledge(self, journal: IngestJournal, wanted: SetRecord, record: SegmentRecord) -> None:
        """Record a flushed segment: from here on its samples are never lost."""
        self._sets.create(wanted)
        journal.acknowledge(record)
        self._n_flushed += record.n_rows

    def _write(
        self, journal: IngestJournal, outset: IngestOutset, held: list[Captured], captured: CapturedStream
    ) -> list[SegmentRecord]:
        scores = LiveScores.of(self._location, self._scored_profiles())
        self._sink = sink = SegmentSink(
            self._location,
            outset.wanted.name,
            self._capture,
            features=self._features,
            dtype=journal.plan.dtype,
            policy=self._request.flush,
            flushed=lambda record: self._acknowledge(journal, outset.wanted, record),
            expected_rows=outset.expected_rows,
            scores=scores,
            projections=self._projections,
        )
        writer = BackgroundWriter(sink, self.rejects.add_unstored)
        try:
            try:
                for batch in draining(held, () if self._stopping else captured):
                    writer.put(batch)
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._stop(captured)
            self._insist(writer.finish)
            self._scores_lost = scores.warning if scores is not None else None
        except KeyboardInterrupt:
            writer.abandon()
            raise
        except BaseException:
            writer.abort()
            raise
        return sink.segments

    def _candidates(self) -> Candidates:
        return candidates_of(self._capture, self._request.set_name, self._features)

    def _scored_profiles(self) -> ScoredProfiles:
        """What the samples are scored against; looked up when it is first needed."""
        if self._profiles is None:
            self._profiles = chosen_profiles(self._location, self._request.score_with, self._candidates())
            self._warnings += self._profiles.warnings
        return self._profiles

    def _scored_with(self) -> tuple[str, ...]:
        """The profiles whose scores of all the samples are there."""
        if self._projections:
            return tuple(one.profile for one in self._projections)
        return self._profiles.references if self._profiles is not None and self._scores_lost is None else ()

    def _commit(
        self, journal: IngestJournal | None, segments: Sequence[SegmentRecord], outset: IngestOutset, n_tokens: int
    ) -> IngestReport:
        if self._stopping and not segments and not self._adopted:
            raise KeyboardInterrupt
        report = self._insist(lambda: self._commit_once(journal, segments, outset, n_tokens))
        if self._stopping:
            raise interrupted(self._sets.open(report.set_ref).n_samples, report)
        return report

    def _commit_once(
        self, journal: IngestJournal | None, segments: Sequence[SegmentRecord], outset: IngestOutset, n_tokens: int
    ) -> IngestReport:
        name, stream, version = self._request.set_name, outset.stream, outset.version
        adopted = still_abandoned(self._sets, name, self._adopted)
        if not segments and not adopted and version is None:
            self._write_rejects(None)
            raise InvalidInputError(
                f"none of the {stream.n_read + len(self.rejects):,} records can be used; "
                f"the first: {self.rejects.first_reason}",
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
        lost = [self._scores_lost] if self._scores_lost is not None else []
        return IngestReport(
            set_ref=version.reference,
            n_added=sum(record.n_rows for record in segments),
            n_known=stream.n_known,
            n_duplicates=stream.n_duplicates,
            n_rejected=len(self.rejects),
            rejected=self.rejects.first,
            rejects_path=rejects_path,
            n_tokens=n_tokens,
            n_truncated=sum(record.n_truncated for record in segments),
            bytes_written=sum(record.size_bytes for record in segments),
            elapsed_seconds=time.monotonic() - self._began,
            resumed_samples=sum(ingest.n_samples for ingest in adopted),
            usage=self._capture.usage,
            warnings=tuple(dict.fromkeys([*self._capture.warnings, *self._warnings, *lost])),
            scored_with=self._scored_with() if segments else (),
            keeps_features=not self._projections,
        )

    def _write_rejects(self, journal: IngestJournal | None) -> str | None:
        if self._request.rejects_path is None and journal is None:
            return None  # an ingest that added nothing leaves nothing in the store
        ingest_id = journal.ingest_id if journal else ""
        default = f"{layout.ingest_folder(self._request.set_name, ingest_id)}/{REJECTS_FILE}"
        return self.rejects.write(self._location, default, self._request.rejects_path)
