"""Rounds: how many, in which order, and what ends them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import timing
from benchmarks.report import Report
from benchmarks.timing import LEAST_ROUNDS, SECONDS, SLOW_ROUNDS, Timing, interleave, ratio


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; cases move its hand."""
    hand = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: hand[0])
    return hand


def taking(clock: list[float], seconds: float, calls: list[str] | None = None, name: str = "") -> Callable[[], None]:
    def case() -> None:
        clock[0] += seconds
        if calls is not None:
            calls.append(name)

    return case


def test_every_second_round_runs_in_reverse(clock: list[float]) -> None:
    calls: list[str] = []
    interleave({name: taking(clock, 1, calls, name) for name in "ab"}, 2, warmups=0)
    assert calls == ["a", "b", "b", "a"]


def test_time_that_is_up_ends_the_rounds_but_not_before_the_least(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECONDS, "1")
    assert len(interleave({"a": taking(clock, 10)}, 9)["a"].seconds) == LEAST_ROUNDS
    monkeypatch.setenv(SECONDS, "1000")
    assert len(interleave({"a": taking(clock, 10)}, 9)["a"].seconds) == 9


def test_a_slow_case_is_timed_in_the_first_rounds_only(clock: list[float]) -> None:
    times = interleave({"fast": taking(clock, 1), "slow": taking(clock, 10)}, 5, slow_seconds=5)
    assert times["fast"].seconds == (1,) * 5
    assert times["slow"].seconds == (10,) * SLOW_ROUNDS


def test_a_ratio_is_over_the_rounds_that_both_have() -> None:
    found = ratio(Timing("slow", (10.0, 20.0, 30.0)), Timing("fast", (1.0, 1.0, 1.0, 100.0)))
    assert (found.median, found.low, found.high, found.n_pairs) == (20.0, 10.0, 30.0, 3)


def test_a_table_of_fewer_rounds_says_how_many() -> None:
    report = Report("t", toy=False)
    report.timings("few", {"a": Timing("a", (1.0,) * 5)}, reference="a", note="As it is.")
    report.timings("all", {"a": Timing("a", (1.0,) * 9)}, reference="a")
    assert [table.note for table in report.tables] == ["As it is. 5 rounds.", ""]
