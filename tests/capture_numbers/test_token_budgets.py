"""The token budget: what stops its trial, what it chooses, and that it is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from nait_store.capture import token_budgets
from nait_store.capture.session import CaptureSession
from nait_store.capture.taps import TappedDecoder
from nait_store.capture.token_budgets import BudgetMemory, FoundBudget, find_token_budget
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.testing.token_samples import random_samples

MEAN = (Feature.MEAN,)


@dataclass
class Machine:
    """A device with a fixed cost per batch, a cost per token until it is busy, and so much memory."""

    seconds_per_batch: float = 0.0
    seconds_per_token: float = 1e-6
    n_tokens_that_fit: int = 1 << 30
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError("CUDA out of memory"))
    now: float = 0.0
    tried: list[int] = field(default_factory=list)

    def run(self, n_tokens: int) -> None:
        self.tried.append(n_tokens)
        if n_tokens > self.n_tokens_that_fit:
            raise self.error
        self.now += self.seconds_per_batch + n_tokens * self.seconds_per_token

    def find(self, largest: int = 1 << 20) -> FoundBudget:
        return find_token_budget(self.run, device="cpu", largest=largest, clock=lambda: self.now)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """What the trial reads of the machine's memory."""
    state = {"peak": 0, "free": 1 << 40}
    monkeypatch.setattr(token_budgets, "peak_memory_bytes", lambda device: state["peak"])
    monkeypatch.setattr(token_budgets, "free_memory_bytes", lambda device: state["free"])
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return state


def test_where_larger_batches_gain_nothing_the_smallest_is_taken() -> None:
    found = Machine(seconds_per_batch=0.0).find()
    assert (found.token_budget, found.stopped_by) == (512, "time")
    assert [trial.token_budget for trial in found.trials] == [512, 1024, 2048]


def test_doubling_goes_on_while_the_time_per_token_falls() -> None:
    # 1 + 4096/b: within 3 % of the best only when 4096/b is small
    found = Machine(seconds_per_batch=4096e-6).find()
    assert found.stopped_by == "time"
    per_token = {trial.token_budget: 1 + 4096 / trial.token_budget for trial in found.trials}
    best = min(per_token.values())
    assert found.token_budget == min(budget for budget, value in per_token.items() if value <= 1.03 * best)
    assert found.token_budget >= 65536


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_running_out_of_memory_ends_the_trial_with_what_fitted(error: Exception) -> None:
    found = Machine(seconds_per_batch=1.0, n_tokens_that_fit=5000, error=error).find()
    assert (found.token_budget, found.stopped_by) == (4096, "memory")


def test_a_first_batch_that_does_not_fit_is_halved_until_one_does() -> None:
    machine = Machine(seconds_per_batch=1.0, n_tokens_that_fit=100)
    found = machine.find()
    assert (found.token_budget, found.stopped_by) == (64, "memory")
    assert machine.tried == [512, 256, 128, 64, 64]


def test_where_nothing_fits_one_token_is_left() -> None:
    assert Machine(n_tokens_that_fit=0).find() == FoundBudget(1, (), "memory")


def test_a_batch_that_is_expected_not_to_fit_is_not_tried(memory: dict[str, int]) -> None:
    machine = Machine(seconds_per_batch=1.0)
    bytes_per_token = 1000
    real = machine.run

    def run(n_tokens: int) -> None:
        memory["peak"] = max(memory["peak"], n_tokens * bytes_per_token)
        real(n_tokens)

    machine.run = run  # type: ignore[method-assign]
    memory["free"] = 5000 * bytes_per_token
    found = machine.find()
    assert (found.token_budget, found.stopped_by) == (4096, "memory")
    assert max(machine.tried) == 4096


def test_a_slow_model_is_not_tried_for_longer_than_a_minute() -> None:
    machine = Machine(seconds_per_token=1 / 100, seconds_per_batch=20)
    found = machine.find()
    assert (found.token_budget, found.stopped_by) == (512, "patience")
    assert machine.now < 120


def test_a_batch_full_of_results_is_the_largest() -> None:
    found = Machine(seconds_per_batch=1.0).find(largest=1500)
    assert (found.token_budget, found.stopped_by) == (1024, "results")


def test_other_errors_of_a_trial_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        Machine(n_tokens_that_fit=0, error=RuntimeError("shapes cannot be multiplied")).find()


def test_a_budget_is_remembered_by_what_decides_it() -> None:
    one, other = BudgetMemory({"model": "a", "device": "cpu"}), BudgetMemory({"model": "b", "device": "cpu"})
    assert one.recall() is None
    one.keep(2048)
    assert (one.recall(), other.recall()) == (2048, None)
    assert json.loads(one.path.read_text())["decided_by"] == {"model": "a", "device": "cpu"}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"token_budget": 0}', '{"token_budget": "9"}', '{"token_budget": true}']
)
def test_a_damaged_memory_is_no_memory(content: str) -> None:
    memory = BudgetMemory({"model": "a"})
    memory.path.parent.mkdir(parents=True)
    memory.path.write_text(content)
    assert memory.recall() is None


def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "file"))
    BudgetMemory({"model": "a"}).keep(2048)


def test_a_session_tries_once_and_remembers(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = TappedDecoder.launch

    def record(self: Any, layout: Any, token_ids: Any, *rest: Any) -> Any:
        sizes.append(sum(map(len, token_ids)))
        return real(self, layout, token_ids, *rest)

    monkeypatch.setattr(TappedDecoder, "launch", record)
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget="auto") as session:
        budget = session.usage.token_budget
        assert session.environment.token_budget == budget
        assert len(list(session.capture(random_samples([9, 8])))) == 1
    assert {480, 960} <= set(sizes)  # whole samples of the model's 96 tokens
    assert budget in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
    sizes.clear()
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget="auto") as session:
        assert session.usage.token_budget == budget
    assert max(sizes) < 480
    with CaptureSession.open(model_folder("qwen2"), features=MEAN, token_budget="auto"):
        assert 480 in sizes


def test_memory_that_runs_out_later_is_remembered_too(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nait_store.capture.session.find_token_budget", lambda *_, **__: FoundBudget(4096, (), "time"))
    real = TappedDecoder.launch

    def small_memory(self: Any, layout: Any, token_ids: Any, *rest: Any) -> Any:
        if sum(map(len, token_ids)) > 100:
            raise MemoryError
        return real(self, layout, token_ids, *rest)

    samples = random_samples([40] * 6)
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget="auto") as session:
        monkeypatch.setattr(TappedDecoder, "launch", small_memory)
        captured = [sample.sample.sample_id for batch in session.capture(samples) for sample in batch.samples]
        left = session.usage.token_budget
    assert sorted(captured) == [f"s{i}" for i in range(6)]
    monkeypatch.setattr(TappedDecoder, "launch", real)
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget="auto") as session:
        assert session.usage.token_budget == left < 4096


@pytest.mark.parametrize("token_budget", [0, -3, "plenty"])
def test_a_budget_that_is_none_is_refused(model_folder: Callable[[str], str], token_budget: int | str) -> None:
    with pytest.raises(InvalidInputError, match="budget"):
        CaptureSession.open(model_folder("llama"), features=MEAN, token_budget=token_budget)
