"""The input of an ingest: read, understood, and rid of what is known already."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from nait_store.activations.sample_keys import KnownSample, KnownSamples, content_key, sample_key
from nait_store.capture.conversations import Sample, make_sample
from nait_store.capture.readers import read_records
from nait_store.capture.source_records import RejectedRecord, SourceRecord, place, printable
from nait_store.errors import ConflictError, IncompatibleError, InvalidInputError
from nait_store.ingest.rejects import RejectLog
from nait_store.ingest.requests import IngestRequest
from nait_store.schemas.record import SourceFile

_BATCH_RECORDS = 256
# content key, index of the source, position in it: 32 bytes an id, whatever the record's size
_SEEN = struct.Struct("<16sIq")


class SampleStream:
    """Reads the sources once and yields the samples that have to be captured.

    Parameters
    ----------
    sources
        Inputs, in order.
    request
        How to understand records and what to do about bad ones.
    known
        Samples that the set holds.
    covers
        Of each segment of ``known``: whether it stores all that is asked for.
    describe
        Where a known sample came from, for messages.
    rejects
        Told what is left out.

    Attributes
    ----------
    n_read
        Records that could be read.
    n_known, n_duplicates
        Samples skipped because the set has them, or because they came before.
    """

    def __init__(
        self,
        sources: Sequence[SourceFile],
        request: IngestRequest,
        known: KnownSamples,
        covers: Sequence[bool],
        describe: Callable[[KnownSample], str],
        rejects: RejectLog,
    ) -> None:
        self._sources = sources
        self._request = request
        self._known = known
        self._covers = covers
        self._describe = describe
        self._rejects = rejects
        self._seen: dict[bytes, bytes] = {}
        self.n_read = 0
        self.n_known = 0
        self.n_duplicates = 0

    @property
    def n_set_samples(self) -> int:
        """Samples that the set holds, interrupted ingests' included."""
        return len(self._known)

    def batches(self) -> Iterator[list[Sample]]:
        """Yield new samples, up to 256 at a time.

        Raises
        ------
        InvalidInputError
            A record cannot be read or used, under ``on_error="stop"``.
        ConflictError
            An id stands for two contents, within the input or against the set, under ``on_error="stop"``.
        IncompatibleError
            The set holds a sample without some of the features or layers that are asked for.
        """
        batch: list[tuple[SourceRecord, Sample]] = []
        for number, record, sample in self._samples():
            self.n_read += 1
            if sample is None or not self._is_wanted(sample) or not self._is_first(record, sample, number):
                continue
            batch.append((record, sample))
            if self._request.limit is not None and len(self._seen) >= self._request.limit:
                yield self._without_known(batch)
                return
            if len(batch) >= _BATCH_RECORDS:
                yield self._without_known(batch)
                batch = []
        if batch:
            yield self._without_known(batch)

    def _samples(self) -> Iterator[tuple[int, SourceRecord, Sample | None]]:
        """Yield number of the source, record and what it means; None where it cannot be used."""
        if self._request.given is not None:
            for sample in self._request.given.read():
                yield 0, SourceRecord({}, sample.source_uri, sample.source_index, None, sample.record_json), sample
            return
        for number, source in enumerate(self._sources):
            for record in read_records(source.uri, on_error=self._request.on_error, rejects=self._rejects.add_record):
                yield number, record, self._understand(record)

    def _understand(self, record: SourceRecord) -> Sample | None:
        try:
            return make_sample(record, field_map=self._request.field_map, id_field=self._request.id_field)
        except InvalidInputError as error:
            if self._request.on_error == "stop":
                raise
            self._reject(record, error.what.removeprefix(f"{record.where}: "), None)
            return None

    def _is_wanted(self, sample: Sample) -> bool:
        return self._request.only is None or sample.sample_id in self._request.only

    def _is_first(self, record: SourceRecord, sample: Sample, source_number: int) -> bool:
        key, content = sample_key(sample.sample_id), content_key(sample.content_hash)
        earlier = self._seen.get(key)
        if earlier is None:
            self._seen[key] = _SEEN.pack(content, source_number, record.source_index)
            return True
        earlier_content, number, index = _SEEN.unpack(earlier)
        if earlier_content == content:
            self.n_duplicates += 1
        else:
            self._contradicts(record, sample, place(self._sources[number].uri, index, None))
        return False

    def _without_known(self, batch: Sequence[tuple[SourceRecord, Sample]]) -> list[Sample]:
        fresh = []
        for (record, sample), known in zip(
            batch, self._known.find([sample.sample_id for _, sample in batch]), strict=True
        ):
            if known is None:
                fresh.append(sample)
            elif known.content != content_key(sample.content_hash):
                self._contradicts(
                    record, sample, f"set {self._request.set_name!r}, captured from {self._describe(known)}"
                )
            elif not self._covers[known.source]:
                raise IncompatibleError(
                    f"set {self._request.set_name!r} holds sample {sample.sample_id!r} ({record.where}) without all "
                    "of the features and layers that are asked for",
                    next_step="ask for those that 'nait-store sets show' lists, or ingest into a set of another name",
                )
            else:
                self.n_known += 1
        return fresh

    def _contradicts(self, record: SourceRecord, sample: Sample, elsewhere: str) -> None:
        if self._request.on_error == "skip":
            reason = f"the id {sample.sample_id!r} stands for another text already ({elsewhere})"
            self._reject(record, reason, sample.sample_id)
            return
        raise ConflictError(
            f"the id {sample.sample_id!r} stands for two different texts: {record.where} and {elsewhere}",
            next_step="correct the ids, or pass --on-error skip to keep the first of each",
        )

    def _reject(self, record: SourceRecord, reason: str, sample_id: str | None) -> None:
        raw = printable(record.record_json or "")
        if sample_id is None:
            self._rejects.add_record(RejectedRecord(record.source_uri, record.source_index, record.line, reason, raw))
        else:
            self._rejects.add_sample(
                sample_id, record.source_uri, record.source_index, reason, raw=raw, line=record.line
            )
