"""Copies of a model that share the batches: numbers, order, memory, errors, and the end of the threads."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture import replica_workers
from nait_store.capture.batch_runner import BatchRunner
from nait_store.capture.devices import choose_devices
from nait_store.capture.host_copies import HostCopies
from nait_store.capture.layouts import Layout
from nait_store.capture.replicas import ReplicatedSession
from nait_store.capture.session import CaptureSession
from nait_store.capture.taps import TappedDecoder
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.testing.token_samples import by_sample_id, random_samples

MEAN = (Feature.MEAN,)
LENGTHS = [30, 25, 20, 20, 10, 10, 7, 5, 3, 2, 1, 1]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("capture-")] == []
    assert torch.get_num_threads() == n_threads


@pytest.fixture
def pair(model_folder: Callable[[str], str]) -> Iterator[ReplicatedSession]:
    with ReplicatedSession.open(model_folder("llama"), features=MEAN, devices="cpu,cpu", token_budget=30) as session:
        yield session


def test_two_copies_give_the_numbers_identity_and_order_of_one(
    pair: ReplicatedSession, model_folder: Callable[[str], str]
) -> None:
    samples = random_samples(LENGTHS)
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget=30) as single:
        expected = list(single.capture(samples))
    assert pair.identity == single.identity
    assert pair.settings == single.settings
    actual = list(pair.capture(samples))
    assert [[s.sample.sample_id for s in batch.samples] for batch in actual] == [
        [s.sample.sample_id for s in batch.samples] for batch in expected
    ]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.features[Feature.MEAN], other.features[Feature.MEAN], rtol=1e-4, atol=1e-6)


def test_usage_tells_each_copys_share(pair: ReplicatedSession) -> None:
    assert len(list(pair.capture(random_samples(LENGTHS)))) > 2
    usage = pair.usage
    assert (usage.device, usage.token_budget) == ("cpu, cpu", 30)
    assert pair.environment.device == "cpu, cpu"
    assert [share.device for share in usage.devices] == ["cpu", "cpu"]
    assert sum(share.n_samples for share in usage.devices) == len(LENGTHS)
    assert sum(share.n_tokens for share in usage.devices) == sum(LENGTHS)


def test_both_copies_work_at_once(pair: ReplicatedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    real = TappedDecoder.launch

    def meet(self: TappedDecoder, *arguments: Any) -> Any:
        both.wait(60)  # breaks if one thread gets every batch
        return real(self, *arguments)

    monkeypatch.setattr(TappedDecoder, "launch", meet)
    assert sum(len(batch.samples) for batch in pair.capture(random_samples([30] * 8))) == 8


def test_batches_launched_ahead_come_in_order_too(pair: ReplicatedSession) -> None:
    for session in pair._sessions:
        session._tapped._copies = HostCopies(lambda _device: _Streams)
    ids = [s.sample.sample_id for batch in pair.capture(random_samples([30] * 40)) for s in batch.samples]
    assert ids == [f"s{i}" for i in range(40)]


class _Streams:
    Stream, Event = torch.cpu.Stream, torch.cpu.Event
    stream, current_stream = staticmethod(torch.cpu.stream), staticmethod(torch.cpu.current_stream)


@pytest.mark.parametrize("ahead", [False, True])
def test_memory_that_runs_out_costs_no_sample(
    pair: ReplicatedSession, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    real = TappedDecoder.launch

    def small_memory(self: TappedDecoder, layout: Layout, token_ids: Any, *rest: Any) -> Any:
        if sum(map(len, token_ids)) > 21:
            raise MemoryError
        return real(self, layout, token_ids, *rest)

    if ahead:
        for session in pair._sessions:
            session._tapped._copies = HostCopies(lambda _device: _Streams)
    expected = by_sample_id(pair.capture(random_samples(LENGTHS)))
    monkeypatch.setattr(TappedDecoder, "launch", small_memory)
    actual = by_sample_id(pair.capture(random_samples(LENGTHS)))
    assert sorted(actual) == sorted(set(expected) - {"s0", "s1"})
    assert [item.sample_id for item in pair.unfit] == ["s0", "s1"]
    for sample_id, features in actual.items():
        np.testing.assert_allclose(features[Feature.MEAN], expected[sample_id][Feature.MEAN], rtol=1e-4, atol=1e-6)
    assert any("token budget is now" in warning for warning in pair.warnings)


def test_an_error_on_one_device_ends_the_capture_with_its_traceback(
    pair: ReplicatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TappedDecoder, "launch", _break_down)
    with pytest.raises(RuntimeError, match="device-side assert") as caught:
        list(pair.capture(random_samples([30] * 20)))
    assert "_break_down" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def _break_down(*_: object) -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_capture_that_is_left_early_leaves_no_thread(pair: ReplicatedSession) -> None:
    batches = pair.capture(random_samples([30] * 50))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert sum(share.n_samples for share in pair.usage.devices) < 50


def test_results_wait_in_a_bounded_queue(pair: ReplicatedSession) -> None:
    pulled = 0

    def source() -> Iterator[Any]:
        nonlocal pulled
        for sample in random_samples([30] * 3000):
            pulled += 1
            yield sample

    batches = pair.capture(source())
    next(batches)
    assert pulled == 512
    batches.close()  # type: ignore[attr-defined]


def test_copies_that_would_compute_in_different_dtypes_are_refused(pair: ReplicatedSession) -> None:
    one, other = pair._sessions
    other.settings = other.settings.model_copy(update={"compute_dtype": "float16"})
    with pytest.raises(InvalidInputError, match="different dtypes"):
        ReplicatedSession([one, other])


def test_a_budget_found_by_trial_is_found_once(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[object] = []
    monkeypatch.setattr(BatchRunner, "try_out", lambda *_arguments, **_options: trials.append(1))
    monkeypatch.setattr("nait_store.capture.token_budgets.BudgetMemory.recall", lambda _self: None)
    monkeypatch.setattr("nait_store.capture.token_budgets.BudgetMemory.keep", lambda _self, _budget: None)
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget="auto"):
        alone = len(trials)
    trials.clear()
    with ReplicatedSession.open(model_folder("llama"), features=MEAN, devices=["cpu", "cpu"], token_budget="auto"):
        assert 0 < len(trials) <= 2 * alone


@pytest.mark.parametrize(
    ("devices", "options", "message"),
    [
        ("", {}, "no device"),
        ("all,cpu", {}, "stands alone"),
        ("cuda:0,cuda", {}, "cuda:0 is named twice"),
        ("moon", {}, "'moon' is not a device"),
        ("cpu,cpu", {"device": "cpu"}, "contradicts --device"),
        ("cpu,cpu", {"device_map": "auto"}, "contradicts --device-map"),
    ],
)
def test_devices_that_make_no_sense_are_refused(devices: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ReplicatedSession.open("no-model-is-loaded", features=MEAN, devices=devices, **options)


def test_all_is_every_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_devices("all") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_devices("all") == ("cpu",)
    assert choose_devices([" cuda ", "cuda:1"]) == ("cuda:0", "cuda:1")


def test_cores_are_shared_by_the_copies_on_the_cpu(pair: ReplicatedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    with replica_workers.ReplicaWorkers(pair._sessions):
        pass
    assert sorted(given) == [3, 3, 6]
    monkeypatch.undo()
