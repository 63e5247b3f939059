"""What a statement would read, told before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.errors import NotFoundError
from nait_store.schemas.capture import Feature

Workbench = Any  # of conftest.py, which importlib mode cannot import


def test_missing_scores_take_one_pass_that_counts_its_bytes(bench: Workbench) -> None:
    query = "FROM alignment('pool', ['math', 'code'])"
    plan = bench.session.explain(query)
    [only] = plan.passes
    assert (only.activation_set, only.feature, only.profiles) == ("pool@2", "mean", ("math@2", "code@1"))
    assert (only.n_segments, only.n_rows, only.n_layers) == (4, 60, 2)
    assert bench.events == []
    assert bench.sidecars() == []

    bench.sql(query)

    assert bench.events[-1].bytes_done == only.size_bytes == plan.size_bytes


def test_scores_that_are_kept_take_no_pass(bench: Workbench) -> None:
    bench.sql("FROM alignment('pool@1', 'math')")
    plan = bench.session.explain("FROM alignment('pool', 'math')")
    [needed] = plan.scores
    assert (needed.n_segments, needed.n_cached_segments) == (4, 3)
    [only] = plan.passes
    assert (only.n_segments, only.n_rows) == (1, 20)


def test_segments_that_versions_share_are_counted_once(bench: Workbench) -> None:
    both = bench.session.explain("FROM alignment(['pool@1', 'pool@2'], 'math')")
    latest = bench.session.explain("FROM alignment('pool@2', 'math')")
    assert both.size_bytes == latest.size_bytes
    assert both.size_bytes == sum(s.read(Feature.MEAN).nbytes for s in bench.sets.open("pool").segments)


def test_samples_and_metadata_take_no_arrays(shared: Workbench) -> None:
    plan = shared.session.explain("SELECT count(*) FROM samples('pool'), profiles")
    assert (plan.scores, plan.passes, plan.reads, plan.size_bytes) == ((), (), (), 0)


def test_a_slip_is_found_without_running(shared: Workbench) -> None:
    with pytest.raises(NotFoundError, match="no column 'scor'"):
        shared.session.explain("SELECT scor FROM alignment('pool', 'math')")
