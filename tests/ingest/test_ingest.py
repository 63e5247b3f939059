from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_store.activations.verify import verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.capture.rendering import PreparedSample, UnpreparedSample
from nait_store.errors import ConflictError, IncompatibleError, InvalidInputError, NotFoundError, StorageError
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestEstimate, IngestReport, IngestRequest
from nait_store.progress import ProgressEvent
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeBatch, FakeCapture, FakeRenderer
from nait_store.testing.stores import fake_identity


def _write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def _records(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "instruction": f"do {i}", "output": f"done {i}"} for i in range(first, first + n)]


@pytest.fixture
def pool(tmp_path: Path) -> str:
    return _write(tmp_path / "pool.jsonl", _records(50))


def _ingest(location: Location, *sources: str, capture: FakeCapture | None = None, **options: Any) -> IngestReport:
    request = IngestRequest(sources, options.pop("set_name", "pool"), id_field=options.pop("id_field", "id"), **options)
    return ingest(location, capture or FakeCapture(), request)


def _files(location: Location) -> dict[str, bytes]:
    return {path: location.read_bytes(path) for path, _ in location.walk()}


def test_the_store_holds_what_was_captured(location: Location, pool: str) -> None:
    capture = FakeCapture(features=(Feature.MEAN, Feature.DRIFT), batch_samples=7)
    report = _ingest(location, pool, capture=capture, features=(Feature.MEAN, Feature.DRIFT), message="hello")
    assert (report.set_ref, report.n_added, report.n_known, report.n_rejected) == ("pool@1", 50, 0, 0)
    assert report.n_tokens == 50 * 4
    version = ActivationSets(location).open("pool")
    assert version.sample_ids() == [f"r{i}" for i in range(50)]
    assert version.manifest.message == "hello"
    for segment in version.segments:
        ids = segment.samples(["sample_id"]).column(0).to_pylist()
        for feature in capture.features:
            values = segment.read(feature)
            for row, sample_id in enumerate(ids):
                for layer in (0, 1):
                    expected = capture.vector(sample_id, feature, layer).astype(np.float16)
                    np.testing.assert_array_equal(values[row, layer], expected)
    assert report.bytes_written == sum(segment.record.size_bytes for segment in version.segments)
    assert verify_set(ActivationSets(location), "pool") == []


def test_the_same_ingest_again_captures_and_writes_nothing(location: Location, pool: str) -> None:
    _ingest(location, pool)
    before = _files(location)
    capture = FakeCapture()
    report = _ingest(location, pool, capture=capture)
    assert (report.set_ref, report.n_added, report.n_known) == ("pool@1", 0, 50)
    assert capture.n_captured == 0
    assert _files(location) == before


def test_only_what_is_new_is_captured(location: Location, pool: str, tmp_path: Path) -> None:
    _ingest(location, pool)
    capture = FakeCapture()
    report = _ingest(location, _write(tmp_path / "more.jsonl", _records(50, first=30)), capture=capture)
    assert (report.set_ref, report.n_added, report.n_known, capture.n_captured) == ("pool@2", 30, 20, 30)
    assert ActivationSets(location).open("pool").n_samples == 80


def test_exact_duplicates_collapse_and_are_counted(location: Location, tmp_path: Path) -> None:
    source = _write(tmp_path / "twice.jsonl", [*_records(5), *_records(7)])
    report = _ingest(location, source)
    assert (report.n_added, report.n_duplicates) == (7, 5)


def test_ids_are_made_of_the_content_where_none_is_named(location: Location, pool: str) -> None:
    _ingest(location, pool, id_field=None)
    ids = ActivationSets(location).open("pool").sample_ids()
    assert len(set(ids)) == 50
    assert all(len(i) == 32 for i in ids)


def test_a_limit_takes_the_first_distinct_samples(location: Location, tmp_path: Path) -> None:
    source = _write(tmp_path / "x.jsonl", [*_records(3), *_records(20)])
    assert _ingest(location, source, limit=5).n_added == 5
    assert ActivationSets(location).open("pool").sample_ids() == [f"r{i}" for i in range(5)]
    assert _ingest(location, source, limit=5).n_known == 5


def test_many_small_segments_are_one_version(location: Location, pool: str) -> None:
    report = _ingest(location, pool, capture=FakeCapture(batch_samples=5), flush=FlushPolicy(rows=10))
    version = ActivationSets(location).open("pool")
    assert report.set_ref == "pool@1"
    assert [ref.n_rows for ref in version.refs] == [10] * 5
    assert version.sample_ids() == [f"r{i}" for i in range(50)]
    assert verify_set(ActivationSets(location), "pool") == []


def test_progress_and_estimate_are_told(location: Location, pool: str) -> None:
    events: list[ProgressEvent] = []
    estimates: list[IngestEstimate] = []
    request = IngestRequest((pool,), "pool", id_field="id")
    ingest(location, FakeCapture(), request, events.append, estimates.append)
    assert [e.done for e in events] == [8, 16, 24, 32, 40, 48, 50]
    assert {e.total for e in events} == {50}
    assert events[-1].tokens == 200
    assert len(estimates) == 1
    assert estimates[0].n_records == 50
    assert estimates[0].sample_bytes == 2 * (8 * 2 + 4)
    assert (estimates[0].free_bytes is None) == (not location.is_local)


def test_an_ingest_that_cannot_fit_is_refused_before_it_begins(
    location: Location, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Location, "free_bytes", lambda self: 1000)
    with pytest.raises(StorageError, match=r"50 samples of 0\.00 MiB take about"):
        _ingest(location, pool)
    assert _files(location) == {}
    monkeypatch.undo()
    _ingest(location, pool)
    monkeypatch.setattr(Location, "free_bytes", lambda self: 1000)
    assert _ingest(location, pool).n_known == 50


# --- what cannot be used ---------------------------------------------------------------------------------------


def _bad_line_7(tmp_path: Path) -> str:
    lines = [json.dumps(record) for record in _records(10)]
    lines[6] = '{"id": "r6", "instruction": "do'
    path = tmp_path / "broken.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("filled", [False, True])
def test_a_broken_line_stops_the_ingest_and_leaves_the_store_as_it_was(
    location: Location, tmp_path: Path, pool: str, filled: bool
) -> None:
    if filled:
        _ingest(location, pool)
    before = _files(location)
    with pytest.raises(InvalidInputError, match=r"broken\.jsonl:7"):
        _ingest(location, _bad_line_7(tmp_path))
    assert _files(location) == before


def test_a_broken_line_is_skipped_counted_and_kept_in_the_rejects(location: Location, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    report = _ingest(location, _bad_line_7(tmp_path), on_error="skip", rejects_path=str(rejects))
    assert (report.n_added, report.n_rejected, report.rejects_path) == (9, 1, str(rejects))
    assert report.rejected[0].where.endswith("broken.jsonl:7")
    entry = json.loads(rejects.read_text())
    assert (entry["line"], entry["source_index"]) == (7, 6)
    assert entry["raw"] == '{"id": "r6", "instruction": "do'
    assert entry["reason"]


def test_rejects_lie_beside_the_ingest_where_no_file_is_named(location: Location, tmp_path: Path) -> None:
    report = _ingest(location, _bad_line_7(tmp_path), on_error="skip")
    (path,) = [path for path, _ in location.walk() if path.endswith("rejects.jsonl")]
    assert report.rejects_path == location.url_of(path)
    assert json.loads(location.read_bytes(path))["line"] == 7


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_records_without_usable_fields(location: Location, tmp_path: Path, on_error: str) -> None:
    source = _write(tmp_path / "x.jsonl", [*_records(3), {"id": "bad", "x": 1}])
    if on_error == "stop":
        with pytest.raises(InvalidInputError, match=r"x\.jsonl:4"):
            _ingest(location, source)
        assert _files(location) == {}
    else:
        report = _ingest(location, source, on_error=on_error)
        assert (report.n_added, report.n_rejected) == (3, 1)


def test_nothing_usable_at_all_is_an_error(location: Location, tmp_path: Path) -> None:
    source = _write(tmp_path / "x.jsonl", [{"id": str(i), "instruction": "<empty>", "output": "y"} for i in range(3)])
    with pytest.raises(InvalidInputError, match=r"none of the .* records can be used; the first: .*its span is empty"):
        _ingest(location, source, on_error="skip")
    assert _files(location) == {}


def test_an_empty_file_and_a_missing_one_are_errors(location: Location, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        _ingest(location, _write(tmp_path / "empty.jsonl", []))
    with pytest.raises(NotFoundError, match=r"nowhere\.jsonl"):
        _ingest(location, str(tmp_path / "nowhere.jsonl"))
    assert _files(location) == {}


def test_an_empty_span_is_rejected_and_reported_even_under_stop(location: Location, tmp_path: Path) -> None:
    records = [*_records(3), {"id": "e", "instruction": "<empty>", "output": "x"}]
    report = _ingest(location, _write(tmp_path / "x.jsonl", records))
    assert (report.n_added, report.n_rejected) == (3, 1)
    assert (report.rejected[0].sample_id, report.rejected[0].reason) == ("e", "its span is empty")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_sample_whose_activations_cannot_be_stored_is_rejected_never_the_job(
    location: Location, pool: str, value: float
) -> None:
    report = _ingest(location, pool, capture=FakeCapture(poison={"r7": value}), dtype=StoredDtype.FLOAT16)
    assert (report.n_added, report.n_rejected) == (49, 1)
    assert report.rejected[0].sample_id == "r7"
    assert "r7" not in ActivationSets(location).open("pool").sample_ids()


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_one_id_with_two_texts_in_the_input(location: Location, tmp_path: Path, on_error: str) -> None:
    records = [*_records(5), {"id": "r1", "instruction": "another", "output": "text"}]
    source = _write(tmp_path / "x.jsonl", records)
    if on_error == "stop":
        with pytest.raises(ConflictError, match=r"'r1' stands for two different texts: .*x\.jsonl:6 and .* record 1"):
            _ingest(location, source)
        assert _files(location) == {}
    else:
        report = _ingest(location, source, on_error=on_error)
        assert (report.n_added, report.n_rejected) == (5, 1)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_one_id_with_another_text_in_the_store(location: Location, pool: str, tmp_path: Path, on_error: str) -> None:
    _ingest(location, pool)
    before = _files(location)
    source = _write(tmp_path / "x.jsonl", [{"id": "r9", "instruction": "another", "output": "text"}])
    if on_error == "stop":
        with pytest.raises(
            ConflictError, match=r"'r9' .*x\.jsonl:1 and set 'pool', captured from .*pool\.jsonl, record 9"
        ):
            _ingest(location, source)
    else:
        assert _ingest(location, source, on_error=on_error).n_rejected == 1
    assert _files(location) == before


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300])
def test_hostile_set_names_are_refused(location: Location, pool: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match="not a valid set name"):
        _ingest(location, pool, set_name=name)
    assert _files(location) == {}


# --- what a set may hold ---------------------------------------------------------------------------------------


def test_a_set_of_another_model_is_refused_before_anything_is_captured(location: Location, pool: str) -> None:
    _ingest(location, pool)
    other = FakeCapture(identity=fake_identity("other"))
    with pytest.raises(IncompatibleError, match="model_fingerprint"):
        _ingest(location, pool, capture=other)
    assert other.n_captured == 0


def test_known_samples_without_the_features_asked_for_are_refused_with_advice(location: Location, pool: str) -> None:
    _ingest(location, pool)
    capture = FakeCapture(features=(Feature.MEAN, Feature.DRIFT))
    with pytest.raises(IncompatibleError, match=r"'r0' .* without all of the features") as caught:
        _ingest(location, pool, capture=capture, features=(Feature.MEAN, Feature.DRIFT))
    assert "another name" in str(caught.value)
    assert capture.n_captured == 0


def test_known_samples_without_the_layers_asked_for_are_refused(location: Location, pool: str) -> None:
    _ingest(location, pool, capture=FakeCapture(layers=(1,)))
    with pytest.raises(IncompatibleError):
        _ingest(location, pool, capture=FakeCapture())


def test_new_samples_with_fewer_features_come_with_a_warning(location: Location, pool: str, tmp_path: Path) -> None:
    capture = FakeCapture(features=(Feature.MEAN, Feature.DRIFT))
    _ingest(location, pool, capture=capture, features=(Feature.MEAN, Feature.DRIFT))
    report = _ingest(location, _write(tmp_path / "more.jsonl", _records(3, first=60)))
    assert any("stores drift for the samples it has" in warning for warning in report.warnings)


def test_large_activations_choose_bfloat16_and_say_so(location: Location, pool: str) -> None:
    report = _ingest(location, pool, capture=FakeCapture(scale=2000))
    assert any("stored as bfloat16" in warning for warning in report.warnings)
    version = ActivationSets(location).open("pool")
    assert version.segments[0].record.arrays[0].dtype is StoredDtype.BFLOAT16


def test_an_explicit_dtype_and_a_sets_own_are_kept(location: Location, pool: str, tmp_path: Path) -> None:
    report = _ingest(location, pool, capture=FakeCapture(scale=2000), dtype=StoredDtype.FLOAT16)
    assert report.warnings == ()
    _ingest(location, _write(tmp_path / "more.jsonl", _records(5, first=60)), capture=FakeCapture(scale=2000))
    version = ActivationSets(location).open("pool")
    assert {segment.record.arrays[0].dtype for segment in version.segments} == {StoredDtype.FLOAT16}


def test_the_captures_warnings_are_in_the_report(location: Location, pool: str) -> None:
    assert _ingest(location, pool, capture=FakeCapture(warnings=["all samples share t_1"])).warnings == (
        "all samples share t_1",
    )


class SmallMemory(FakeCapture):
    """Holds no sample of more than four words."""

    def capture(self, samples: Iterable[PreparedSample]) -> Iterator[FakeBatch]:
        def fitting() -> Iterator[PreparedSample]:
            for prepared in samples:
                if prepared.n_tokens > 4:
                    self.unfit.append(UnpreparedSample(prepared.sample, "too much for the memory of cpu"))
                else:
                    yield prepared

        return super().capture(fitting())


def test_samples_that_the_memory_does_not_hold_are_rejected_and_the_others_stored(
    location: Location, tmp_path: Path
) -> None:
    records = _records(20)
    records[3]["output"] = records[19]["output"] = "much too long for it"
    capture = SmallMemory()
    report = _ingest(location, _write(tmp_path / "x.jsonl", records), capture=capture)
    assert (report.n_added, report.n_rejected) == (18, 2)
    assert [(one.sample_id, one.reason) for one in report.rejected] == [
        ("r3", "too much for the memory of cpu"),
        ("r19", "too much for the memory of cpu"),
    ]
    assert report.rejects_path is not None
    other = _ingest(location, _write(tmp_path / "y.jsonl", _records(5)), capture=capture, set_name="other")
    assert other.n_rejected == 0


def test_the_report_says_how_the_model_was_run(location: Location, pool: str) -> None:
    capture = FakeCapture()
    assert _ingest(location, pool, capture=capture).usage == capture.usage


def test_samples_are_read_in_a_thread_that_ends_with_the_ingest(location: Location, pool: str) -> None:
    class Renderer(FakeRenderer):
        def prepare(self, samples: Any) -> Any:
            threads.add(threading.current_thread().name)
            return super().prepare(samples)

    threads: set[str] = set()
    _ingest(location, pool, capture=FakeCapture(renderer=Renderer()))
    assert threads == {"sample-reader"}
    assert not any(thread.name in ("sample-reader", "segment-writer") for thread in threading.enumerate())
