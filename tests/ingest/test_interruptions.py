"""Ctrl-C, full disks, errors in mid-ingest, and several ingests at once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nait_store.activations.verify import Severity, verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.activations.writer import SegmentWriter
from nait_store.errors import ConflictError, IngestInterrupted, InvalidInputError, NaitStoreError, StorageError
from nait_store.ingest.adoption import find_abandoned
from nait_store.ingest.background import BackgroundWriter
from nait_store.ingest.job import ingest
from nait_store.ingest.journal import IngestJournal
from nait_store.ingest.requests import FlushPolicy, IngestReport, IngestRequest
from nait_store.schemas.activation_set import Heartbeat, IngestOutcome, IngestPlan
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.heartbeat import is_alive
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid, now
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import fake_identity

_N = 40


def _write(path: Path, first: int = 0, n: int = _N) -> str:
    lines = [json.dumps({"id": f"r{i}", "instruction": f"do {i}", "output": "x"}) for i in range(first, first + n)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _write(tmp_path / "pool.jsonl")


def _ingest(location: Location, source: str, capture: FakeCapture | None = None, **options: Any) -> IngestReport:
    options = {"flush": FlushPolicy(rows=8), "id_field": "id"} | options
    return ingest(location, capture or FakeCapture(batch_samples=4), IngestRequest((source,), "pool", **options))


def _flushed_rows(location: Location) -> int:
    paths = [path for path, _ in location.walk("activations/pool/ingests") if "/flushed/" in path]
    return sum(json.loads(location.read_bytes(path))["n_rows"] for path in paths)


def _read_outcomes(location: Location) -> list[IngestOutcome]:
    paths = [path for path, _ in location.walk("activations/pool/ingests") if path.endswith("/outcome.json")]
    return [IngestOutcome.from_json_bytes(location.read_bytes(path), path) for path in paths]


def _outcomes(location: Location) -> list[int | None]:
    return [outcome.version for outcome in _read_outcomes(location)]


def _die(location: Location, source: str, at: int) -> None:
    """Leave what an ingest leaves that is killed when it has flushed ``at`` samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActivationSets, "commit", _interrupt)
        with pytest.raises(IngestInterrupted, match="stopped at once"):
            _ingest(location, source, limit=at)


def _interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def _sample_ids(location: Location) -> list[str]:
    return sorted(ActivationSets(location).open("pool").sample_ids())


def _healthy(location: Location, n: int = _N) -> bool:
    sets = ActivationSets(location)
    errors = [f for f in verify_set(sets, "pool") if f.severity is Severity.ERROR]
    assert errors == []
    assert _sample_ids(location) == sorted(f"r{i}" for i in range(n))
    return True


def _raise_at(n_samples: int, error: BaseException) -> FakeCapture:
    def on_batch(n_captured: int) -> None:
        if n_captured >= n_samples:
            raise error

    return FakeCapture(batch_samples=4, on_batch=on_batch)


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [4, 20, 36])
def test_ctrl_c_commits_what_was_captured_and_the_same_command_goes_on(
    location: Location, source: str, at: int
) -> None:
    with pytest.raises(IngestInterrupted, match=f"pool@1 holds {at} samples, with the {at} .*captured now") as caught:
        _ingest(location, source, _raise_at(at, KeyboardInterrupt()))
    assert caught.value.exit_code == 130
    assert caught.value.next_step is not None
    assert "run the same command again" in caught.value.next_step
    assert _healthy(location, at)
    assert _outcomes(location) == [1]

    capture = FakeCapture(batch_samples=4)
    report = _ingest(location, source, capture)
    assert capture.n_captured == _N - at
    assert (report.set_ref, report.n_added, report.n_known, report.resumed_samples) == ("pool@2", _N - at, at, 0)
    assert _healthy(location)


@pytest.mark.parametrize("filled", [False, True])
def test_ctrl_c_before_anything_was_captured_leaves_nothing(
    location: Location, source: str, tmp_path: Path, filled: bool
) -> None:
    if filled:
        _ingest(location, _write(tmp_path / "other.jsonl", first=100))
    before = [path for path, _ in location.walk()]
    with pytest.raises(IngestInterrupted, match="before anything was captured; the store is as it was"):
        _ingest(location, source, _raise_at(0, KeyboardInterrupt()))
    assert [path for path, _ in location.walk()] == before


def test_a_real_signal_in_the_middle_of_writing_is_met(tmp_path: Path, source: str) -> None:
    location = Location(str(tmp_path / "store"))
    capture = FakeCapture(batch_samples=4, seconds_per_batch=0.02)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(IngestInterrupted):
        _ingest(location, source, capture)
    timer.join()
    assert _healthy(location, capture.n_captured)
    assert _ingest(location, source).n_added == _N - capture.n_captured
    assert _healthy(location)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_during_the_commit_lets_it_finish(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    real = ActivationSets.commit
    calls = []

    def interrupt_once(self: ActivationSets, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1 and when == "before":
            raise KeyboardInterrupt
        version = real(self, *args, **options)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return version

    monkeypatch.setattr(ActivationSets, "commit", interrupt_once)
    with pytest.raises(IngestInterrupted, match=f"pool@1 holds {_N} samples"):
        _ingest(location, source)
    assert len(calls) == 2
    assert _outcomes(location) == [1]
    assert _healthy(location)


def test_a_second_ctrl_c_during_the_commit_loses_nothing(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActivationSets, "commit", _interrupt)
    with pytest.raises(IngestInterrupted, match=f"stopped at once; {_N} samples are flushed and kept"):
        _ingest(location, source)
    monkeypatch.undo()
    capture = FakeCapture()
    report = _ingest(location, source, capture)
    assert (report.set_ref, capture.n_captured, report.resumed_samples) == ("pool@1", 0, _N)
    assert _healthy(location)


def test_a_second_ctrl_c_does_not_wait_for_what_is_being_written(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = threading.Event()  # set: writing goes on
    writing = threading.Event()
    real = SegmentWriter.close

    def wait(self: SegmentWriter) -> Any:
        if len(acknowledged) >= 2:
            writing.set()
            assert writes.wait(30)
        acknowledged.append(1)
        return real(self)

    def second_ctrl_c(self: BackgroundWriter) -> None:
        assert writing.wait(30)
        raise KeyboardInterrupt

    acknowledged: list[int] = []
    monkeypatch.setattr(SegmentWriter, "close", wait)
    monkeypatch.setattr(BackgroundWriter, "finish", second_ctrl_c)
    monkeypatch.setattr("nait_store.ingest.probe.PROBE_SAMPLES", 4)
    try:
        with pytest.raises(IngestInterrupted, match="stopped at once; 16 samples are flushed and kept"):
            _ingest(location, source, _raise_at(24, KeyboardInterrupt()))
    finally:
        writes.set()
    for thread in threading.enumerate():
        if thread.name == "segment-writer":
            thread.join(30)
    monkeypatch.undo()
    report = _ingest(location, source)
    assert (report.n_added, report.resumed_samples) == (_N - 16, 16)
    assert _healthy(location)


def test_ctrl_c_commits_what_an_earlier_ingest_had_flushed_too(location: Location, source: str) -> None:
    _die(location, source, 12)
    with pytest.raises(IngestInterrupted, match=r"holds 16 samples, with the 4 .*captured now and 12 of earlier"):
        _ingest(location, source, _raise_at(4, KeyboardInterrupt()))
    assert _healthy(location, 16)
    assert _outcomes(location) == [1, 1]
    report = _ingest(location, source)
    assert (report.n_added, report.resumed_samples) == (24, 0)


def test_rejects_are_written_before_the_outcome_that_holds_their_digest(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = FakeCapture(batch_samples=4, poison={"r3": float("nan")})
    order: list[str] = []
    for name in ("write_bytes", "create_bytes"):
        real = getattr(Location, name)

        def write(self: Location, path: str, data: Any, real: Any = real) -> None:
            order.append(path.rsplit("/", 1)[-1])
            real(self, path, data)

        monkeypatch.setattr(Location, name, write)
    _ingest(location, source, capture)
    assert order.index("rejects.jsonl") < order.index("outcome.json")
    (outcome,) = _read_outcomes(location)
    (path,) = [path for path, _ in location.walk() if path.endswith("/rejects.jsonl")]
    assert outcome.rejects is not None
    assert outcome.rejects.path == "rejects.jsonl"
    assert outcome.rejects.sha256 == hashlib.sha256(location.read_bytes(path)).hexdigest()
    assert json.loads(location.read_bytes(path))["sample_id"] == "r3"


# --- errors ----------------------------------------------------------------------------------------------------


def test_an_error_before_the_first_flush_leaves_no_file(location: Location, source: str) -> None:
    with pytest.raises(InvalidInputError, match="bad record"):
        _ingest(location, source, _raise_at(20, InvalidInputError("bad record")), flush=FlushPolicy())
    assert list(location.walk()) == []


def test_an_error_later_keeps_what_was_flushed_and_commits_nothing(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nait_store.ingest.probe.PROBE_SAMPLES", 4)
    error = InvalidInputError("bad record")
    with pytest.raises(InvalidInputError, match="bad record"):
        _ingest(location, source, _raise_at(36, error))
    assert ActivationSets(location).names() == []
    kept = _flushed_rows(location)
    assert kept % 8 == 0
    report = _ingest(location, source)
    assert (report.resumed_samples, report.n_added) == (kept, _N - kept)
    assert _healthy(location)


# --- several at once -------------------------------------------------------------------------------------------


def test_concurrent_ingests_into_one_set_all_succeed(location: Location, tmp_path: Path) -> None:
    sources = [_write(tmp_path / f"{k}.jsonl", first=20 * k) for k in range(4)]  # each overlaps its neighbours
    results: list[IngestReport | BaseException] = []
    barrier = threading.Barrier(4)

    def run(source: str) -> None:
        barrier.wait()
        try:
            results.append(_ingest(location, source, FakeCapture(batch_samples=4, seconds_per_batch=0.005)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r for r in results if isinstance(r, BaseException)] == []
    assert _healthy(location, 100)


def test_concurrent_ingests_that_contradict_each_other_are_told(location: Location, tmp_path: Path) -> None:
    ours = _write(tmp_path / "ours.jsonl", n=8)
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(json.dumps({"id": "r3", "instruction": "something else", "output": "y"}) + "\n")

    def meanwhile(n_captured: int) -> None:
        if n_captured == 4:
            _ingest(location, str(theirs))

    with pytest.raises(ConflictError, match="'r3' has one text"):
        _ingest(location, ours, FakeCapture(batch_samples=4, on_batch=meanwhile))
    assert ActivationSets(location).open("pool").sample_ids() == ["r3"]
    # what was flushed is adopted, but for the sample that contradicts
    more = _write(tmp_path / "more.jsonl", first=8, n=2)
    _ingest(location, more)
    sets = ActivationSets(location)
    assert sorted(sets.open("pool").sample_ids()) == sorted(f"r{i}" for i in range(10))
    assert sets.open("pool").samples(["sample_id", "record"]).num_rows == 10


# --- who is alive ----------------------------------------------------------------------------------------------


def _plan() -> IngestPlan:
    return IngestPlan(
        ingest_id=new_ulid(),
        set_name="pool",
        capture_id=fake_identity().capture_id,
        sources=(),
        features=(Feature.MEAN,),
        layers=(0, 1),
        dtype=StoredDtype.FLOAT16,
        provenance=current_provenance(),
    )


def _beat(location: Location, *, age_seconds: float, host: str, pid: int) -> bool:
    beat = Heartbeat(at=now() - timedelta(seconds=age_seconds), host=host, pid=pid)
    location.write_bytes("ingests/x/heartbeat.json", beat.to_json_bytes())
    return is_alive(location, "ingests/x")


def test_whether_an_ingest_is_alive(location: Location) -> None:
    here, dead_pid = socket.gethostname(), 2**22 + 1
    assert _beat(location, age_seconds=1, host=here, pid=os.getpid())
    assert not _beat(location, age_seconds=1, host=here, pid=dead_pid)
    assert _beat(location, age_seconds=1, host="elsewhere", pid=dead_pid)
    assert not _beat(location, age_seconds=61, host="elsewhere", pid=1)
    assert not _beat(location, age_seconds=61, host=here, pid=os.getpid())
    location.write_bytes("ingests/x/heartbeat.json", b"{")
    assert not is_alive(location, "ingests/x")
    assert not is_alive(location, "ingests/never")


def test_a_live_ingest_is_not_robbed(location: Location, source: str) -> None:
    def look(n_captured: int) -> None:
        if n_captured == 36:
            for _ in range(6000):  # the writer runs beside us
                if _flushed_rows(location) >= 8:
                    break
                time.sleep(0.01)
            found, _ = find_abandoned(
                ActivationSets(location),
                "pool",
                features=[Feature.MEAN],
                layers=[0, 1],
                capture_id=fake_identity().capture_id,
            )
            seen.append((_flushed_rows(location) >= 8, found))

    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nait_store.ingest.probe.PROBE_SAMPLES", 4)
        _ingest(location, source, FakeCapture(batch_samples=4, on_batch=look))
    assert seen == [(True, [])]


def test_the_heartbeat_is_renewed_while_the_ingest_lives(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nait_store.storage.heartbeat.HEARTBEAT_SECONDS", 0.01)
    plan = _plan()
    path = f"activations/pool/ingests/{plan.ingest_id}/heartbeat.json"
    with IngestJournal(location, plan):
        first = location.read_bytes(path)
        deadline = time.monotonic() + 5
        while location.read_bytes(path) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert location.read_bytes(path) != first
    assert list(location.walk()) == []


def test_a_dead_ingest_of_other_features_is_left_alone(location: Location, source: str) -> None:
    _die(location, source, 36)
    both = (Feature.MEAN, Feature.DRIFT)
    capture = FakeCapture(batch_samples=4, features=both)
    report = _ingest(location, source, capture, features=both)
    assert (report.n_added, report.resumed_samples) == (_N, 0)
    assert ActivationSets(location).open("pool").features == both


def test_a_damaged_segment_of_a_dead_ingest_is_named_and_captured_again(location: Location, source: str) -> None:
    _die(location, source, 36)
    (path, *_) = [path for path, _ in location.walk() if path.endswith("segment.json")]
    location.write_bytes(path, b"damaged")
    report = _ingest(location, source)
    assert any("cannot be used" in warning and path in warning for warning in report.warnings)
    assert report.n_added == 4 + 8
    assert _sample_ids(location) == sorted(f"r{i}" for i in range(_N))


def test_errors_of_the_writer_thread_reach_the_caller(
    location: Location, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise StorageError("the disk is on fire")

    monkeypatch.setattr("nait_store.ingest.segment_sink.SegmentWriter.append", fail)
    with pytest.raises(NaitStoreError, match="on fire"):
        _ingest(location, source)
    assert threading.active_count() == 1 or not any(t.name == "segment-writer" for t in threading.enumerate())
    assert list(location.walk()) == []


def test_memory_is_bounded_however_many_samples_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr("nait_store.ingest.probe.PROBE_SAMPLES", 4)

    def peak(n: int) -> int:
        source = _write(tmp_path / f"{n}.jsonl", n=n)
        capture = FakeCapture(n_neurons=65_536, batch_samples=4)
        tracemalloc.start()
        _ingest(Location(str(tmp_path / f"store{n}")), source, capture, flush=FlushPolicy(rows=64))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(8)
    # 64 MiB more of activations pass through; how full the queue of batches gets is a matter of timing
    assert peak(192) < peak(64) + 16_000_000
