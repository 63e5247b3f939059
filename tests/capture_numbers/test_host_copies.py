"""Copies beside the computation: what waits for what, told by a device that is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture.batch_runner import BatchRunner
from nait_store.capture.batches import BatchLimits
from nait_store.capture.hook_points import resolve_hooks
from nait_store.capture.host_copies import HostCopies
from nait_store.capture.layouts import Layout
from nait_store.capture.taps import TappedDecoder
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.testing.tiny_models import INTERMEDIATE_SIZE, tiny_model
from nait_store.testing.token_samples import random_samples

MEAN = (Feature.MEAN,)


class FakeStreams:
    """Streams and events of a CPU: nothing is queued, but what is asked for is written down."""

    Stream = torch.cpu.Stream
    stream = staticmethod(torch.cpu.stream)
    current_stream = staticmethod(torch.cpu.current_stream)

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, device: torch.device) -> FakeStreams:
        return self

    def Event(self) -> FakeEvent:  # noqa: N802
        return FakeEvent(self.log)


class FakeEvent:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def record(self, stream: Any) -> None:
        self._log.append("launched")

    def synchronize(self) -> None:
        self._log.append("waited for")


def _runner(streams: Callable[[torch.device], Any], *, token_budget: int = 20) -> BatchRunner:
    plan = resolve_hooks(tiny_model("llama"), HookPoint.MLP)
    copies = HostCopies(streams)
    tapped = TappedDecoder(plan, width=INTERMEDIATE_SIZE, pad_token_id=0, device="cpu", copies=copies)
    limits = BatchLimits(token_budget=token_budget, max_samples=8, layout=Layout.RIGHT)
    return BatchRunner(tapped, MEAN, limits, device="cpu", shrunk=lambda _budget, _why: None)


def test_the_next_batch_is_launched_before_the_last_one_is_waited_for() -> None:
    streams = FakeStreams()
    windows = [random_samples([10, 10, 9, 9]), random_samples([8, 8])]
    assert sum(1 for _ in _runner(streams).run(windows)) == 3
    assert streams.log == ["launched", "launched", "waited for", "launched", "waited for", "waited for"]


def test_a_device_that_computes_at_once_gives_each_batch_before_the_next_one_is_planned() -> None:
    running = _runner(lambda _device: None).run(iter([random_samples([10, 10, 9, 9])]))
    assert [sample.n_tokens for sample in next(running).samples] == [10, 10]


def test_overlapped_numbers_are_those_of_plain_copies() -> None:
    samples = random_samples([10, 7, 7, 3, 2, 1])
    plain = {s.sample.sample_id: row for s, row in _rows(_runner(lambda _device: None), samples)}
    overlapped = {s.sample.sample_id: row for s, row in _rows(_runner(FakeStreams()), samples)}
    assert plain.keys() == overlapped.keys()
    for sample_id, row in plain.items():
        np.testing.assert_array_equal(overlapped[sample_id], row)


def _rows(runner: BatchRunner, samples: Any) -> list[tuple[Any, Any]]:
    return [
        (sample, row)
        for batch in runner.run([samples])
        for sample, row in zip(batch.samples, batch.features[Feature.MEAN], strict=True)
    ]


def test_a_batch_that_fits_once_the_one_before_is_done_is_not_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = FakeStreams()
    runner = _runner(streams)
    real = TappedDecoder.launch

    def while_alone(self: TappedDecoder, *arguments: Any) -> Any:
        if streams.log.count("launched") > streams.log.count("waited for"):
            raise MemoryError
        return real(self, *arguments)

    monkeypatch.setattr(TappedDecoder, "launch", while_alone)
    batches = list(runner.run([random_samples([10, 10, 9, 9, 8, 8])]))
    assert [len(batch.samples) for batch in batches] == [2, 2, 2]
    assert runner.limits.token_budget == 20


def test_a_batch_that_never_fits_is_halved_and_every_sample_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = _runner(FakeStreams())
    real = TappedDecoder.launch

    def small(self: TappedDecoder, layout: Layout, token_ids: Any, *rest: Any) -> Any:
        if len(token_ids) > 1:
            raise MemoryError
        return real(self, layout, token_ids, *rest)

    monkeypatch.setattr(TappedDecoder, "launch", small)
    captured = [sample.sample.sample_id for batch in runner.run([random_samples([9] * 5)]) for sample in batch.samples]
    assert sorted(captured) == [f"s{i}" for i in range(5)]
