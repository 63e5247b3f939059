"""Ray on one machine: two workers on two cores against two threads of one process, for score and for ingest.

What is left of the work when a cluster does it: tasks and reports, processes that share what one process has, one
commit at the end. Starting the cluster and its workers, and loading the model in each of them, is in neither and is
shown by itself. Both ways must give the same ids and the same numbers, within 1e-4.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nait_store
from benchmarks.harness import Options, Report, Timing, interleave, ratio, run, workspace
from benchmarks.ingest import spread_records, toy_inputs

N_WORKERS = 2
MUST = 1.3
_BYTES = 6 << 30
_SCORED = {"n_layers": 16, "n_neurons": 4096}
_N_SEGMENTS, _SEGMENT_ROWS = 16, 1024
_INGEST_ROUNDS = 3  # each loads the model in two new processes first


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, packages=("ray", "torch"), add_arguments=_arguments, argv=argv)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder of a causal language model (default: a tiny one)")
    parser.add_argument("--data", help="JSONL of instruction data, or a folder with pool.jsonl (default: made up)")
    parser.add_argument("--samples", type=int, default=2000, help="samples in a timed ingest (default 2000)")


def body(options: Options, report: Report) -> None:
    if importlib.util.find_spec("ray") is None:
        report.table("Ray", ["skipped"], [["Ray is not installed: pip install 'nait-store[ray]'"]])
        return
    with workspace(options, _BYTES) as folder, two_cores(), started(report) as cluster:
        _time_score(options, report, folder, cluster)
        _time_ingest(options, report, folder, cluster)


@contextlib.contextmanager
def two_cores() -> Iterator[None]:
    """Let this process compute with two threads, whatever the machine has."""
    import torch

    before = {"NAIT_STORE_THREADS": os.environ.get("NAIT_STORE_THREADS")}
    n_torch = torch.get_num_threads()
    os.environ["NAIT_STORE_THREADS"] = str(N_WORKERS)
    torch.set_num_threads(N_WORKERS)
    try:
        yield
    finally:
        torch.set_num_threads(n_torch)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def started(report: Report) -> Iterator[Any]:
    """A cluster of two CPUs."""
    from nait_store.cluster.ray_cluster import ray_cluster
    from nait_store.testing.small_cluster import small_cluster

    began = time.perf_counter()
    with small_cluster(N_WORKERS), ray_cluster("auto") as cluster:
        seconds = time.perf_counter() - began
        report.table("Starting a cluster", ["seconds"], [[f"{seconds:.1f}"]], "In none of the times below.")
        yield cluster


def _time_score(options: Options, report: Report, folder: Path, cluster: Any) -> None:
    from nait_store.cluster.scoring import ensure_scores_on
    from nait_store.scoring.completion import ensure_scores
    from nait_store.testing.stores import build_set

    store = nait_store.open(str(folder / "scores"), create=True)
    rows = 64 if options.toy else _SEGMENT_ROWS
    for i in range(_N_SEGMENTS):
        build_set(store.location, "pool", rows, seed=i, first=i * rows, **_SCORED)
    store.profiles.build("math", source="pool", limit=64)
    version, targets = store.sets.open("pool"), [store.profiles.open("math").target()]
    size_bytes = 2 * rows * _N_SEGMENTS * _SCORED["n_layers"] * _SCORED["n_neurons"]
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> None:
        found[name] = np.array(store.sql("SELECT score FROM alignment('pool', 'math') ORDER BY row_id").fetchall())

    ways = {
        "one process": lambda: ensure_scores(store.location, version, targets),
        "Ray": lambda: ensure_scores_on(cluster, store.location, version, targets),
    }
    timings = interleave(ways, options.rounds, before=lambda _name: store.score_cache.prune(everything=True))
    for name, way in ways.items():
        store.score_cache.prune(everything=True)
        way()
        keep(name)
    _require_close(found["Ray"], found["one process"])
    report.timings(
        f"score: {rows * _N_SEGMENTS:,} samples in {_N_SEGMENTS} segments, one profile, sidecars written",
        timings,
        reference="one process",
        work_bytes=size_bytes,
    )
    report.limit("score: Ray / one process", "≤", MUST, ratio(timings["Ray"], timings["one process"]))


def _time_ingest(options: Options, report: Report, folder: Path, cluster: Any) -> None:
    from nait_store.capture.session import CaptureSession
    from nait_store.cluster.ingesting import crew_for, ingest_with
    from nait_store.ingest.job import ingest
    from nait_store.ingest.requests import IngestRequest
    from nait_store.schemas.capture import Feature

    given = options.extra
    model, data = toy_inputs(folder)
    if given.model and given.data:
        model, data = given.model, Path(given.data)
        data = data / "pool.jsonl" if data.is_dir() else data
    part = spread_records(data, folder / "part.jsonl", 128 if options.toy else given.samples)
    request = IngestRequest((str(part),), "pool", features=(Feature.MEAN,))
    opener = functools.partial(CaptureSession.open, model, features=request.features)
    session = opener()
    seconds: dict[str, list[float]] = {"one process": [], "Ray": []}
    loading = 0.0
    rounds = 1 if options.toy else min(options.rounds, _INGEST_ROUNDS)
    n_workers = 1 if options.toy else N_WORKERS  # each takes many seconds to load torch
    for number in range(rounds):
        for name in sorted(seconds, reverse=bool(number % 2)):
            shutil.rmtree(folder / name, ignore_errors=True)
            store = nait_store.open(str(folder / name), create=True)
            with contextlib.ExitStack() as stack:
                if name == "Ray":
                    began = time.perf_counter()
                    crew = stack.enter_context(crew_for(cluster, store.location, opener, request, n_workers=n_workers))
                    crew.await_ready(n_workers)
                    loading = time.perf_counter() - began
                began = time.perf_counter()
                if name == "Ray":
                    ingest_with(crew, store.location, request)
                else:
                    ingest(store.location, session, request)
                seconds[name].append(time.perf_counter() - began)
    timings = {name: Timing(name, tuple(values)) for name, values in seconds.items()}
    _compare(folder / "Ray", folder / "one process")
    report.timings(
        f"ingest: {128 if options.toy else given.samples:,} samples",
        timings,
        reference="one process",
        note=f"Until the workers ({n_workers}) had loaded the model {loading:.1f} s passed, which are not counted.",
    )
    report.limit("ingest: Ray / one process", "≤", MUST, ratio(timings["Ray"], timings["one process"]))


def _compare(there: Path, here: Path) -> None:
    found, expected = (dict(_rows(nait_store.open(str(path)))) for path in (there, here))
    if sorted(found) != sorted(expected):
        raise RuntimeError("the cluster stored other samples than one process")
    ids = sorted(expected)
    _require_close(np.stack([found[i] for i in ids]), np.stack([expected[i] for i in ids]), 2e-3)


def _rows(store: Any) -> Iterator[tuple[str, np.ndarray]]:
    from nait_store.schemas.capture import Feature

    for segment in store.sets.open("pool").segments:
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        yield from itertools.zip_longest(ids, segment.read(Feature.MEAN).astype(np.float32))


def _require_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Compare by the largest error against the root mean square."""
    error = float(np.abs(found - expected).max() / np.sqrt(np.square(expected).mean()))
    if not error <= tolerance:
        raise RuntimeError(f"the cluster's numbers are {error:.2g} off")


if __name__ == "__main__":
    main()
