"""Ingest and score on a real Ray cluster, some of whose processes are killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import nait_store
from nait_store.activations.set_version import SetVersion
from nait_store.cli.main import main
from nait_store.cluster.ingesting import ingest_on
from nait_store.cluster.ray_cluster import RayCluster
from nait_store.cluster.scoring import ensure_scores_on
from nait_store.errors import (
    CorruptChunkError,
    IngestInterrupted,
    NaitStoreError,
    StorageError,
)
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestReport, IngestRequest
from nait_store.progress import ProgressEvent, ignore_progress
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.store.facade import Store
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_set
from nait_store.testing.worker_faults import KillOnce

N_LAYERS, N_NEURONS = 3, 8


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return nait_store.open(str(tmp_path / "store"), create=True)


# --- scores ---------------------------------------------------------------------------------------------------------


def _pool(store: Store, n_segments: int = 6, n_rows: int = 40) -> SetVersion:
    for i in range(n_segments):
        build_set(store.location, "pool", n_rows, seed=i, first=i * n_rows, n_layers=N_LAYERS, n_neurons=N_NEURONS)
    return store.sets.open("pool")


def _target(seed: int, metric: Metric = Metric.DOT) -> ScoringTarget:
    directions = np.random.default_rng(seed).standard_normal((N_LAYERS, N_NEURONS)).astype(np.float32)
    return ScoringTarget(directions, None, tuple(range(N_LAYERS)), Feature.MEAN, metric)


def _scores(store: Store, version: SetVersion, target: ScoringTarget) -> np.ndarray:
    sidecars = ScoreSidecars(store.location)
    tables = [sidecars.read(segment, target, ["score"]) for segment in version.segments]
    return np.concatenate([table.column("score").to_numpy() for table in tables])


def _small_groups(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    monkeypatch.setattr("nait_store.cluster.scoring._SMALLEST_GROUP_BYTES", size_bytes)


def test_scores_equal_those_of_this_process(
    cluster: RayCluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _pool(store)
    targets = [_target(1), _target(2, Metric.COSINE)]
    _small_groups(monkeypatch, 1)
    work = ensure_scores_on(cluster, store.location, version, targets)
    there = [_scores(store, version, target) for target in targets]
    assert (work.n_computed, work.n_cached) == (12, 0)
    assert work.bytes_read == 6 * 40 * N_LAYERS * N_NEURONS * 2  # each chunk once for both
    store.score_cache.prune(everything=True)
    ensure_scores(store.location, version, targets)
    for target, found in zip(targets, there, strict=True):
        np.testing.assert_array_equal(found, _scores(store, version, target))


def test_only_missing_scores_are_computed(cluster: RayCluster, store: Store) -> None:
    version = _pool(store)
    ensure_scores(store.location, version, [_target(1)])
    events: list[ProgressEvent] = []
    work = ensure_scores_on(cluster, store.location, version, [_target(1), _target(2)], events.append)
    assert (work.n_computed, work.n_cached) == (6, 6)
    assert (events[-1].stage, events[-1].done, events[-1].total) == ("score", 240, 240)
    assert events[-1].bytes_done == work.bytes_read


def test_a_killed_task_changes_no_score(
    cluster: RayCluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _pool(store)
    _small_groups(monkeypatch, 2 * 40 * N_LAYERS * N_NEURONS * 2)  # two segments a task
    monkeypatch.setattr("nait_store.cluster.scoring._GROUPS_PER_CPU", 1)
    fault = KillOnce(str(tmp_path), at=80, times=2)  # in the second segment, once the first one's scores are kept
    work = ensure_scores_on(cluster, store.location, version, [_target(1)], watch=_AtRows(fault))
    assert len(fault.victims) == 2
    assert os.getpid() not in fault.victims
    assert work.n_computed == 6
    found = _scores(store, version, _target(1))
    directions = _target(1).directions.astype(np.float64)
    expected = np.concatenate(
        [
            np.einsum("nlj,lj->n", segment.read(Feature.MEAN, slice(None)).astype(np.float64), directions)
            for segment in version.segments
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_a_task_raises_is_raised_here(cluster: RayCluster, store: Store) -> None:
    version = _pool(store, n_segments=2)
    victim = next(Path(store.url).glob("activations/pool/segments/*/segment.json"))
    victim.unlink()
    with pytest.raises(CorruptChunkError, match=r"segment\.json is missing"):
        ensure_scores_on(cluster, store.location, version, [_target(1)])


def test_a_task_whose_process_always_dies_is_an_error(
    cluster: RayCluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _pool(store, n_segments=3)  # one task; each attempt gets one segment further
    monkeypatch.setattr("nait_store.cluster.scoring._RETRIES", 1)
    fault = KillOnce(str(tmp_path), times=9)
    with pytest.raises(StorageError, match="died 2 times") as caught:
        ensure_scores_on(cluster, store.location, version, [_target(1)], watch=_AtRows(fault))
    assert "run the command again" in str(caught.value.next_step)


@dataclass(frozen=True)
class _AtRows:
    """Tells a fault how many rows are done."""

    fault: KillOnce

    def __call__(self, event: ProgressEvent) -> None:
        self.fault(event.done)


# --- ingest ---------------------------------------------------------------------------------------------------------

N_SAMPLES = 400


def _pool_file(folder: Path, n: int = N_SAMPLES, **extra: str) -> str:
    records = [{"id": f"r{i}", "instruction": f"do {i} {'word ' * (i % 9)}", "output": "x"} for i in range(n)]
    lines = [json.dumps(record) for record in records] + list(extra.values())
    path = folder / "pool.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _ingest(
    cluster: RayCluster,
    store: Store,
    source: str,
    capture: FakeCapture | None = None,
    *,
    n_workers: int = 2,
    rows: int = 16,
    progress: Callable[[ProgressEvent], None] = ignore_progress,
    **options: Any,
) -> IngestReport:
    request = IngestRequest((source,), "pool", id_field="id", flush=FlushPolicy(rows=rows), **options)
    opener = functools.partial(_same, capture or FakeCapture(batch_samples=4))
    return ingest_on(cluster, store.location, opener, request, progress, n_workers=n_workers)


def _same(capture: FakeCapture) -> FakeCapture:
    return capture


def _vectors(store: Store, reference: str = "pool") -> dict[str, np.ndarray]:
    """Sample id → what is stored for it, [L, J]; an id that is stored twice is an error."""
    version = store.sets.open(reference)
    found: dict[str, np.ndarray] = {}
    for ordinal, segment in enumerate(version.segments):
        hidden = set(version.tombstones().get(ordinal, np.empty(0)).tolist())
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        for row, sample_id in enumerate(ids):
            if row not in hidden:
                assert sample_id not in found
                found[sample_id] = np.array(segment.read(Feature.MEAN, slice(row, row + 1))[0])
    return found


def _expected(n: int = N_SAMPLES) -> dict[str, np.ndarray]:
    capture = FakeCapture()
    return {
        f"r{i}": np.stack([capture.vector(f"r{i}", Feature.MEAN, layer) for layer in capture.layers]).astype(np.float16)
        for i in range(n)
    }


def _require_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for sample_id, vector in expected.items():
        np.testing.assert_array_equal(found[sample_id], vector)


def test_an_ingest_stores_what_one_process_would(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    report = _ingest(cluster, store, _pool_file(tmp_path), progress=events.append)
    assert (report.set_ref, report.n_added, report.n_rejected) == ("pool@1", N_SAMPLES, 0)
    assert report.usage.device == "2 Ray workers (cpu)"
    assert report.warnings == ()
    _require_equal(_vectors(store), _expected())
    assert (events[-1].stage, events[-1].done, events[-1].total) == ("capture", N_SAMPLES, N_SAMPLES)
    assert store.verify().ok


def _with_profile(store: Store) -> ScoringTarget:
    build_set(store.location, "maths", 20, first=900, mean=np.ones(8, np.float32))
    return store.profiles.build("math", source="maths")[0].target()


def test_workers_score_what_they_write(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    target = _with_profile(store)
    report = _ingest(cluster, store, _pool_file(tmp_path))
    assert (report.scored_with, report.warnings) == (("math@1",), ())
    assert ensure_scores(store.location, store.sets.open("pool"), [target]).n_computed == 0


def test_workers_keep_projections_in_the_place_of_activations(
    cluster: RayCluster, store: Store, tmp_path: Path
) -> None:
    target = _with_profile(store)
    report = _ingest(cluster, store, _pool_file(tmp_path, 60), keep_features="none")
    assert (report.n_added, report.keeps_features) == (60, False)
    found = dict(store.sql("SELECT sample_id, score FROM alignment('pool', 'math')").fetchall())
    capture = FakeCapture()
    for i in range(60):
        vectors = [capture.vector(f"r{i}", Feature.MEAN, layer).astype(np.float64) for layer in capture.layers]
        terms = [v @ d / np.linalg.norm(v) for v, d in zip(vectors, target.directions.astype(np.float64), strict=True)]
        assert found[f"r{i}"] == pytest.approx(sum(terms), abs=1e-5)


def test_killed_workers_change_nothing(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    # both die after some of their segments were flushed, and while one is open
    fault = KillOnce(str(tmp_path), at=72, times=2)
    report = _ingest(cluster, store, _pool_file(tmp_path), FakeCapture(batch_samples=4, on_batch=fault))
    assert len(fault.victims) == 2
    assert (report.set_ref, report.n_added) == ("pool@1", N_SAMPLES)
    assert any("2 workers died" in warning for warning in report.warnings)
    _require_equal(_vectors(store), _expected())
    version = store.sets.open("pool")
    assert sum(ref.n_rows for ref in version.refs) == N_SAMPLES  # not even hidden rows are there twice


def test_a_worker_that_dies_before_the_dtype_is_known_is_replaced(
    cluster: RayCluster, store: Store, tmp_path: Path
) -> None:
    fault = KillOnce(str(tmp_path))
    capture = FakeCapture(batch_samples=4, on_batch=fault, scale=20_000.0)
    report = _ingest(cluster, store, _pool_file(tmp_path, 40), capture, n_workers=1)
    assert len(fault.victims) == 1
    assert report.n_added == 40
    arrays = [array for segment in store.sets.open("pool").segments for array in segment.record.arrays]
    assert {array.dtype for array in arrays} == {StoredDtype.BFLOAT16}
    assert any("bfloat16" in warning for warning in report.warnings)


def test_samples_that_kill_every_worker_are_named(
    cluster: RayCluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = KillOnce(str(tmp_path), times=99)
    source = _pool_file(tmp_path, 8)
    monkeypatch.setattr("nait_store.cluster.ingesting._DEATHS_PER_CHUNK", 2)
    with pytest.raises(StorageError, match="2 workers died over the 8 samples") as caught:
        _ingest(cluster, store, source, FakeCapture(on_batch=fault), n_workers=1)
    assert "pool.jsonl" in caught.value.what
    assert store.sets.names() == []


def test_rejected_samples_are_reported_once(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    empty = json.dumps({"id": "e1", "instruction": "<empty>", "output": ""})
    source = _pool_file(
        tmp_path, 100, empty=empty, broken="{", again=json.dumps({"id": "r1", "instruction": "no", "output": "x"})
    )
    fault = KillOnce(str(tmp_path), at=36)
    capture = FakeCapture(batch_samples=4, on_batch=fault, poison={"r3": float("nan")})
    report = _ingest(cluster, store, source, capture, n_workers=1, on_error="skip", dtype=StoredDtype.FLOAT16)
    assert len(fault.victims) == 1
    assert (report.n_added, report.n_rejected) == (99, 4)
    assert sorted(r.sample_id or "" for r in report.rejected) == ["", "e1", "r1", "r3"]
    assert "r3" not in _vectors(store)


def test_what_a_worker_raises_is_raised_here_and_what_was_acknowledged_is_kept(
    cluster: RayCluster, store: Store, tmp_path: Path
) -> None:
    source = _pool_file(tmp_path)
    capture = FakeCapture(batch_samples=4, on_batch=_FailAt(120))
    with pytest.raises(StorageError, match="the disk is full"):
        _ingest(cluster, store, source, capture, n_workers=1)
    assert store.sets.names() == []
    report = ingest(store.location, FakeCapture(), IngestRequest((source,), "pool", id_field="id"))  # in this process
    assert report.resumed_samples >= 16
    assert report.n_added + report.resumed_samples == N_SAMPLES
    _require_equal(_vectors(store), _expected())


def test_known_samples_are_not_captured_again(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    ingest(store.location, FakeCapture(), IngestRequest((_pool_file(tmp_path, 90),), "pool", id_field="id"))
    report = _ingest(cluster, store, _pool_file(tmp_path, 100), n_workers=1)
    assert (report.n_known, report.n_added, report.set_ref) == (90, 10, "pool@2")
    again = _ingest(cluster, store, _pool_file(tmp_path, 100), n_workers=1)
    assert (again.n_known, again.n_added, again.set_ref) == (100, 0, "pool@2")
    _require_equal(_vectors(store), _expected(100))


def test_ctrl_c_commits_what_was_captured(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    source = _pool_file(tmp_path)

    def interrupt(event: ProgressEvent) -> None:
        if event.done and not interrupted:
            interrupted.append(event.done)
            raise KeyboardInterrupt

    interrupted: list[int] = []
    capture = FakeCapture(batch_samples=4, seconds_per_batch=0.05)
    with pytest.raises(IngestInterrupted, match="pool@1 holds"):
        _ingest(cluster, store, source, capture, progress=interrupt)
    n_kept = len(_vectors(store))
    assert interrupted[0] <= n_kept < N_SAMPLES
    report = ingest(store.location, FakeCapture(), IngestRequest((source,), "pool", id_field="id"))  # in this process
    assert (report.n_known, report.n_added) == (n_kept, N_SAMPLES - n_kept)
    _require_equal(_vectors(store), _expected())


def test_a_model_that_cannot_be_loaded_is_an_error(cluster: RayCluster, store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NaitStoreError, match="empty"):
        store.ingest(_pool_file(tmp_path, 3), set="pool", model=str(tmp_path / "empty"), ray="auto", ray_workers=1)


@dataclass(frozen=True)
class _FailAt:
    n_captured: int

    def __call__(self, n_captured: int) -> None:
        if n_captured >= self.n_captured:
            raise StorageError("the disk is full")


# --- from outside ---------------------------------------------------------------------------------------------------


def test_a_real_model_gives_the_numbers_of_one_process(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nait_store.testing.tiny_models import save_tiny_model

    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "model")
    _pool_file(tmp_path, 60)
    for name, options in {"there": ["--ray", "auto", "--ray-workers", "1"], "here": []}.items():
        command = ["ingest", "pool.jsonl", "--set", "pool", "--model", "model", "--id-field", "id"]
        assert main(["--store", name, "init"]) == 0
        assert main(["--store", name, *command, "--compute-dtype", "float32", "--dtype", "float32", *options]) == 0
        assert main(["--store", name, "profile", "build", "math", "--from", "pool"]) == 0
    capsys.readouterr()
    assert main(["--store", "there", "score", "pool", "math", "--ray", "auto", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["work"]["n_computed"] >= 1
    there, here = nait_store.open("there"), nait_store.open("here")
    expected = _vectors(here)
    found = _vectors(there)
    assert sorted(found) == sorted(expected)
    for sample_id, vector in expected.items():
        np.testing.assert_allclose(found[sample_id], vector, rtol=1e-4, atol=1e-6)
    query = "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY sample_id"
    scores = [np.array([row[1] for row in store.sql(query).fetchall()]) for store in (there, here)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)


_DRIVER = """
import functools, os, signal, sys
from pathlib import Path
import nait_store
from nait_store.cli.main import main
from nait_store.cluster.ingesting import ingest_on
from nait_store.cluster.ray_cluster import ray_cluster
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.small_cluster import patience

def die(event):
    if list(Path(sys.argv[1]).glob("activations/pool/ingests/*/flushed/*.json")):
        os.kill(os.getpid(), signal.SIGKILL)

store = nait_store.open(sys.argv[1])
request = IngestRequest((sys.argv[2],), "pool", id_field="id", flush=FlushPolicy(rows=16))
opener = functools.partial(FakeCapture, batch_samples=4, seconds_per_batch=0.02)
with patience(), ray_cluster("local") as cluster:
    ingest_on(cluster, store.location, opener, request, die, n_workers=1)
"""


def test_a_killed_driver_leaves_no_process_and_what_it_had_acknowledged_is_adopted(
    store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    source = _pool_file(tmp_path)
    mark = f"NAIT_STORE_TEST_{tmp_path.name}"
    environment = {**os.environ, mark: "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _DRIVER, store.url, source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = ingest(store.location, FakeCapture(), IngestRequest((source,), "pool", id_field="id"))
    assert report.resumed_samples >= 16
    assert report.resumed_samples + report.n_added == N_SAMPLES
    _require_equal(_vectors(store), _expected())
    deadline = time.monotonic() + 60
    while (left := _bearing(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


# Ray's own agents end when they notice that their raylet did, which on a busy machine can take minutes. They hold
# neither a model nor a file of the store.
_AGENTS_OF_RAY = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def _bearing(mark: str) -> list[str]:
    """Processes other than Ray's agents that have a variable in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mark in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                command = " ".join(process.cmdline()).strip()
                if not command.startswith(_AGENTS_OF_RAY):
                    found.append(command[:200])
    return found
