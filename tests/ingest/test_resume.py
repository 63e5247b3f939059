"""What the next ingest makes of what earlier ones left, whoever and wherever they were."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction import compact
from nait_store.activations.replacement import delete_replaced, replace_segment
from nait_store.activations.versions import ActivationSets
from nait_store.errors import IngestInterrupted, NotFoundError
from nait_store.ingest.adoption import find_abandoned
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestReport, IngestRequest
from nait_store.schemas.activation_set import Heartbeat, IngestOutcome, Operation
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.storage.provenance import now
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import fake_identity

_N = 12


def _write(path: Path, first: int = 0, n: int = _N) -> str:
    lines = [json.dumps({"id": f"r{i}", "instruction": f"do {i}", "output": "x"}) for i in range(first, first + n)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _write(tmp_path / "pool.jsonl")


def _ingest(location: Location, *sources: str, capture: FakeCapture | None = None, **options: Any) -> IngestReport:
    request = IngestRequest(sources, "pool", id_field="id", flush=FlushPolicy(rows=4), **options)
    return ingest(location, capture or FakeCapture(batch_samples=4), request)


def _die(location: Location, *sources: str, after_commit: bool = False, **options: Any) -> None:
    """Leave what an ingest leaves that is killed right before its commit, or right after it."""
    name = "nait_store.ingest.journal.write_outcome" if after_commit else "nait_store.ingest.job.commit_abandoned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(name, _interrupt)
        with pytest.raises(IngestInterrupted, match="stopped at once"):
            _ingest(location, *sources, **options)


def _interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def _ids(location: Location) -> list[str]:
    return sorted(ActivationSets(location).open("pool").sample_ids(), key=lambda i: int(i[1:]))


def _outcomes(location: Location) -> list[int | None]:
    paths = [path for path, _ in location.walk("activations/pool/ingests") if path.endswith("/outcome.json")]
    return [IngestOutcome.from_json_bytes(location.read_bytes(path), path).version for path in paths]


def _all(n: int = _N) -> list[str]:
    return [f"r{i}" for i in range(n)]


def _delete(location: Location, sample_id: str) -> None:
    """Commit a version without one sample, and one without a trace of the segments that held it."""
    sets = ActivationSets(location)
    current = sets.open("pool")
    row_id = current.samples(["sample_id"]).to_pylist()
    ordinal, row = next(divmod(r["row_id"], 1 << 40) for r in row_id if r["sample_id"] == sample_id)
    hidden = {ordinal: np.array([row], np.int64)}
    contents = Contents.of([segment.record for segment in current.segments])
    sets.advance("pool", lambda *_: Change(Operation.DELETE_SAMPLES, contents, hidden=hidden))
    compact(sets, "pool")


# --- committed, and killed before it could say so -----------------------------------------------------------------


def test_a_committed_ingest_without_an_outcome_is_not_adopted_again(location: Location, source: str) -> None:
    _die(location, source, after_commit=True)
    assert _ids(location) == _all()
    assert _outcomes(location) == []
    _delete(location, "r3")
    _ingest(location, source, limit=2)  # anything: r3 is not in it
    assert "r3" not in _ids(location)
    assert _outcomes(location) == [1]


def test_nor_where_its_version_was_deleted_since(location: Location, source: str) -> None:
    _die(location, source, after_commit=True)
    ActivationSets(location).log.delete("pool", 1)
    report = _ingest(location, source, limit=4)
    assert (report.set_ref, report.n_added, report.resumed_samples) == ("pool@2", 4, 0)
    assert sorted(_outcomes(location), key=str) == [1, 2]


def test_an_ingest_that_another_one_commits_meanwhile_is_not_committed_twice(
    location: Location, source: str, tmp_path: Path
) -> None:
    _die(location, source)
    other = _write(tmp_path / "other.jsonl", first=100, n=4)

    def meanwhile(n_captured: int) -> None:
        if n_captured == 0:
            assert _ingest(location, source).resumed_samples == _N
            _delete(location, "r3")

    report = _ingest(location, other, capture=FakeCapture(batch_samples=4, on_batch=meanwhile))
    assert (report.n_added, report.resumed_samples) == (4, 0)
    assert "r3" not in _ids(location)


# --- replaced since ------------------------------------------------------------------------------------------------


def test_a_flushed_segment_that_was_replaced_is_adopted_without_its_blank_rows(location: Location, source: str) -> None:
    _die(location, source)
    sets = ActivationSets(location)
    (abandoned,), _ = find_abandoned(
        sets, "pool", features=[Feature.MEAN], layers=[0, 1], capture_id=fake_identity().capture_id
    )
    first = abandoned.segments[0]
    replace_segment(sets, "pool", first, blank_rows=np.array([1, 2]), operation=Operation.REPAIR)
    delete_replaced(location, sets.redirects("pool"))
    capture = FakeCapture(batch_samples=4)
    report = _ingest(location, source, capture=capture)
    assert (capture.n_captured, report.n_added, report.resumed_samples) == (2, 2, _N - 2)
    assert _ids(location) == _all()
    assert report.warnings == ()
    version = ActivationSets(location).open("pool")
    assert version.n_samples == _N


# --- other hosts, other sources ------------------------------------------------------------------------------------


def _move_to(location: Location, host: str, age_seconds: float) -> None:
    """Make it look as if the ingest had run elsewhere."""
    (path,) = {path.rsplit("/", 1)[0] for path, _ in location.walk("activations/pool/ingests") if "plan" in path}
    beat = Heartbeat(at=now() - timedelta(seconds=age_seconds), host=host, pid=1)
    location.write_bytes(f"{path}/heartbeat.json", beat.to_json_bytes())


def test_an_ingest_that_died_on_another_host_is_resumed_after_a_minute(location: Location, source: str) -> None:
    _die(location, source, limit=8)
    _move_to(location, f"not-{socket.gethostname()}", 61)
    report = _ingest(location, source)
    assert (report.n_added, report.resumed_samples, report.warnings) == (4, 8, ())


def test_one_that_may_be_alive_on_another_host_keeps_what_it_has_and_the_user_is_told(
    location: Location, source: str
) -> None:
    _die(location, source, limit=8)
    _move_to(location, f"not-{socket.gethostname()}", 30)
    report = _ingest(location, source)
    assert (report.n_added, report.resumed_samples) == (_N, 0)
    assert any("another ingest into set 'pool' is running" in warning for warning in report.warnings)
    _move_to_dead(location)
    later = _ingest(location, source)  # by now it is dead, and brings nothing new
    assert (later.n_added, later.set_ref) == (0, "pool@1")
    assert _ids(location) == _all()


def _move_to_dead(location: Location) -> None:
    for path, _ in location.walk("activations/pool/ingests"):
        if path.endswith("heartbeat.json"):
            location.write_bytes(path, Heartbeat(at=now() - timedelta(days=1), host="x", pid=1).to_json_bytes())


def test_a_source_that_changed_is_said_and_both_halves_are_kept(
    location: Location, source: str, tmp_path: Path
) -> None:
    _die(location, source, limit=8)
    _write(tmp_path / "pool.jsonl", first=4, n=10)
    report = _ingest(location, source)
    assert (report.n_added, report.resumed_samples, report.n_known) == (6, 8, 4)
    assert any("pool.jsonl has changed since an interrupted ingest captured 8" in w for w in report.warnings)
    assert _ids(location) == _all(14)


@pytest.mark.parametrize("named", ["pool.jsonl", "poo?.jsonl"])
def test_what_was_captured_from_a_source_that_is_gone_is_committed_and_said(
    location: Location, tmp_path: Path, named: str
) -> None:
    source = _write(tmp_path / "pool.jsonl")
    _die(location, source, limit=8)
    Path(source).unlink()
    with pytest.raises(NotFoundError, match=r"the 8 samples that an interrupted ingest had captured .* are in pool@1"):
        _ingest(location, str(tmp_path / named))
    assert _ids(location) == _all(8)
    with pytest.raises(NotFoundError) as again:
        _ingest(location, str(tmp_path / named))
    assert "interrupted" not in str(again.value)


def test_a_wrong_name_commits_nothing(location: Location, source: str, tmp_path: Path) -> None:
    _die(location, source, limit=8)
    with pytest.raises(NotFoundError):
        _ingest(location, str(tmp_path / "typo.jsonl"))
    assert ActivationSets(location).names() == []


def test_the_facade_says_so_before_a_model_is_loaded(tmp_path: Path) -> None:
    source = _write(tmp_path / "pool.jsonl")
    store = nait_store.open(str(tmp_path / "store"), create=True)
    _die(store.location, source, limit=8)
    Path(source).unlink()
    with pytest.raises(NotFoundError, match="are in pool@1"):
        store.ingest(source, set="pool", model="./no-such-model")


# --- two at once ---------------------------------------------------------------------------------------------------


def _at_once(works: list[Callable[[], IngestReport]]) -> list[IngestReport]:
    results: list[Any] = [None] * len(works)

    def run(i: int) -> None:
        try:
            results[i] = works[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r for r in results if isinstance(r, BaseException)] == []
    return results


def test_two_live_ingests_of_the_same_samples_both_finish(location: Location, source: str) -> None:
    meeting = threading.Barrier(2, timeout=60)

    def meet(n_captured: int) -> None:
        if n_captured in (0, 8):  # both have begun; both are about to end
            meeting.wait()

    def work() -> IngestReport:
        return _ingest(location, source, capture=FakeCapture(batch_samples=4, on_batch=meet))

    first, second = _at_once([work, work])
    assert first.n_added == second.n_added == _N
    assert _ids(location) == _all()
    assert _outcomes(location) in ([1, 1], [1, 2])


def test_one_that_commits_while_another_with_the_same_samples_runs(location: Location, source: str) -> None:
    def meanwhile(n_captured: int) -> None:
        if n_captured == 4:
            assert _ingest(location, source).n_added == _N

    report = _ingest(location, source, capture=FakeCapture(batch_samples=4, on_batch=meanwhile))
    assert report.set_ref == "pool@1"  # it brought nothing that was not there
    assert _ids(location) == _all()
    assert _outcomes(location) == [1, 1]


def test_two_that_adopt_the_same_dead_ingest_commit_it_once(location: Location, source: str, tmp_path: Path) -> None:
    _die(location, source)
    meeting = threading.Barrier(2, timeout=60)
    others = [_write(tmp_path / f"{k}.jsonl", first=100 + 10 * k, n=4) for k in range(2)]

    def work(other: str) -> IngestReport:
        capture = FakeCapture(batch_samples=4, on_batch=lambda _: meeting.wait() and None)
        return _ingest(location, other, capture=capture)

    _at_once([lambda: work(others[0]), lambda: work(others[1])])
    ids = _ids(location)
    assert len(ids) == len(set(ids)) == _N + 8
