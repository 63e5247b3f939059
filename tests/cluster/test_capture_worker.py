"""What one worker does between its calls, without Ray: it is an ordinary class."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

import nait_store
from nait_store.activations.sample_keys import sample_key
from nait_store.capture.conversations import Sample, make_sample
from nait_store.capture.source_records import SourceRecord
from nait_store.cluster.capture_worker import CaptureWorker
from nait_store.cluster.shared_store import SharedStore
from nait_store.cluster.worker_messages import WorkerOrder, WorkerReport, WorkerStart
from nait_store.errors import NotFoundError
from nait_store.ingest.requests import FlushPolicy
from nait_store.ingest.scored_profiles import ScoredProfiles
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.store.facade import Store
from nait_store.testing.fake_capture import FakeCapture

HEARTBEAT = "activations/pool/ingests/x/heartbeat.json"


def _start(dtype: StoredDtype = StoredDtype.FLOAT16, heartbeat: str = HEARTBEAT) -> WorkerStart:
    return WorkerStart(dtype, None, heartbeat, ScoredProfiles(), None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    store.location.write_bytes(HEARTBEAT, b"{}")
    return store


def _worker(store: Store, rows: int = 1000, scale: float = 1.0) -> CaptureWorker:
    worker = CaptureWorker()
    opener = functools.partial(FakeCapture, batch_samples=4, scale=scale)
    worker.open(WorkerOrder(SharedStore.of(store.location), "pool", opener, (Feature.MEAN,), FlushPolicy(rows=rows)))
    return worker


def _samples(n: int) -> list[Sample]:
    records = [{"id": f"r{i}", "instruction": f"do {i}", "output": "x"} for i in range(n)]
    return [make_sample(SourceRecord(record, "a.jsonl", i), id_field="id") for i, record in enumerate(records)]


def _until(worker: CaptureWorker, n_flushes: int = 0, n_chunks: int = 0) -> list[WorkerReport]:
    """Reports until so many flushes and chunks are answered."""
    reports: list[WorkerReport] = []
    deadline = time.monotonic() + 60
    while sum(r.n_flushes for r in reports) < n_flushes or sum(r.n_chunks for r in reports) < n_chunks:
        assert time.monotonic() < deadline
        reports.append(worker.report(0.5))
    return reports


def _ids(store: Store, reports: list[WorkerReport]) -> list[str]:
    from nait_store.activations.reader import SegmentReader

    tables = [SegmentReader(store.location, r).samples(["sample_id"]) for one in reports for r in one.segments]
    return sorted(sample_id for table in tables for sample_id in table.column("sample_id").to_pylist())


def test_a_chunk_that_overtakes_the_start_waits_for_it(store: Store) -> None:
    worker = _worker(store)
    worker.give(_samples(6))
    worker.flush()
    assert worker.report(0.1).n_captured == 0
    worker.start(_start())
    assert _ids(store, _until(worker, n_flushes=1)) == [f"r{i}" for i in range(6)]


def test_only_the_wanted_samples_of_a_chunk_are_captured(store: Store) -> None:
    worker = _worker(store)
    worker.start(_start())
    worker.give(_samples(6), frozenset({sample_key("r1"), sample_key("r4")}))
    worker.flush()
    assert _ids(store, _until(worker, n_flushes=1)) == ["r1", "r4"]


def test_a_segment_goes_on_over_chunks_until_it_is_due(store: Store) -> None:
    worker = _worker(store, rows=8)
    worker.start(_start())
    for first in (0, 6):
        worker.give(_samples(12)[first : first + 6])
    reports = _until(worker, n_chunks=2)
    worker.flush()
    reports += _until(worker, n_flushes=1)
    assert [record.n_rows for report in reports for record in report.segments] == [10, 2]
    assert sum(report.n_captured for report in reports) == 12


def test_a_probing_chunk_tells_the_dtype_and_waits(store: Store) -> None:
    worker = _worker(store, scale=20_000.0)
    worker.give(_samples(6), None, True)
    (report,) = [worker.report(30.0)]
    assert report.chosen is not None
    assert report.chosen[0] is StoredDtype.BFLOAT16
    assert report.n_chunks == 0
    worker.start(_start(StoredDtype.BFLOAT16))
    worker.flush()
    (record,) = [record for one in _until(worker, n_flushes=1) for record in one.segments]
    assert (record.n_rows, record.arrays[0].dtype) == (6, StoredDtype.BFLOAT16)


def test_a_worker_with_a_copy_of_the_store_says_so(store: Store) -> None:
    worker = _worker(store)
    worker.start(_start(heartbeat="activations/pool/ingests/y/heartbeat.json"))
    with pytest.raises(NotFoundError, match="copies of the store"):
        worker.report(30.0)


def test_a_stopped_worker_flushes_what_it_has_and_takes_no_more(store: Store) -> None:
    worker = _worker(store)
    worker.start(_start())
    worker.give(_samples(4))
    reports = _until(worker, n_chunks=1)
    worker.stop()
    worker.give(_samples(8)[4:])
    reports += _until(worker, n_flushes=1)
    assert _ids(store, reports) == ["r0", "r1", "r2", "r3"]
