"""Batches by token budget, memory that runs out, and what a session records and warns about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nait_store.capture import batches
from nait_store.capture.batches import BatchLimits, max_samples_for, plan_batches
from nait_store.capture.conversations import Sample
from nait_store.capture.layouts import Layout
from nait_store.capture.rendering import PreparedSample
from nait_store.capture.session import CaptureSession
from nait_store.capture.taps import TappedDecoder
from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.schemas.capture import MEASURED_FEATURES, Feature
from nait_store.testing.token_samples import by_sample_id, random_samples, sample_of_tokens

MEAN = (Feature.MEAN,)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_every_sample_once_within_the_limits(layout: Layout, seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 200, 300).tolist()
    limits = BatchLimits(512, 20, layout, (64,))
    planned = plan_batches(lengths, limits)
    assert sorted(index for batch in planned for index in batch) == list(range(len(lengths)))
    for batch in planned:
        sizes = [lengths[index] for index in batch]
        tokens = sum(sizes) if layout in (Layout.PACKED, Layout.FLASH) else max(sizes) * len(sizes)
        assert len(batch) == 1 or tokens <= limits.token_budget
        assert len(batch) <= (1 if layout is Layout.SINGLE else limits.max_samples)
        assert len({size <= 64 for size in sizes}) == 1


def test_a_sample_longer_than_the_budget_goes_alone() -> None:
    planned = plan_batches([5, 1000, 5], BatchLimits(100, 10, Layout.PACKED))
    assert planned == [[1], [0, 2]]


def test_results_of_a_batch_stay_within_their_bytes() -> None:
    assert max_samples_for(2, 32, 11008) * 2 * 32 * 11008 * 4 <= 256 << 20
    assert max_samples_for(1, 10**6, 10**6) == 1


def test_samples_are_pulled_a_window_at_a_time(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW_SAMPLES", 4)
    pulled = 0

    def source() -> Iterator[PreparedSample]:
        nonlocal pulled
        for sample in random_samples([9] * 10):
            pulled += 1
            yield sample

    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        stream = session.capture(source())
        next(stream)
        assert pulled == 4
        assert sum(len(batch.samples) for batch in stream) == 6


def test_windows_grow_so_that_the_first_forward_pass_waits_for_few_samples() -> None:
    (sample,) = random_samples([3])
    assert [len(window) for window in batches.windows([sample] * 8000)] == [512, 1024, 2048, 4096, 320]


def test_a_window_of_long_texts_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WINDOW_CHARACTERS", 100)
    text = Sample("s", "0" * 64, "made-up", 0, "x" * 60, {}, ())
    sample = PreparedSample(text, np.zeros(1, np.int32), ((0, 1),), 1, truncated=False)
    assert [len(window) for window in batches.windows([sample] * 5)] == [2, 2, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_running_out_of_memory_halves_the_budget_and_goes_on(
    error: Exception, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = random_samples([40, 30, 20, 10, 10, 5, 5, 5, 2, 1])
    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        expected = by_sample_id(session.capture(samples))
    sizes: list[int] = []
    real = TappedDecoder.launch

    def small_memory(self: Any, layout: Layout, token_ids: Any, *rest: Any) -> Any:
        n_tokens = sum(map(len, token_ids))
        if n_tokens > 45:
            raise error
        sizes.append(n_tokens)
        return real(self, layout, token_ids, *rest)

    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        monkeypatch.setattr(TappedDecoder, "launch", small_memory)
        actual = by_sample_id(session.capture(samples))
    assert sum(sizes) == 128
    assert any("token budget is now" in warning for warning in session.warnings)
    assert actual.keys() == expected.keys()
    for sample_id, features in actual.items():
        np.testing.assert_allclose(features[Feature.MEAN], expected[sample_id][Feature.MEAN], rtol=1e-4, atol=1e-5)


def test_one_sample_beyond_the_memory_is_left_out_and_the_others_are_captured(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TappedDecoder.launch

    def small_memory(self: Any, layout: Layout, token_ids: Any, *rest: Any) -> Any:
        if sum(map(len, token_ids)) > 25:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.")
        return real(self, layout, token_ids, *rest)

    samples = random_samples([40, 30, 20, 10, 5, 5])
    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        monkeypatch.setattr(TappedDecoder, "launch", small_memory)
        captured = [sample.sample.sample_id for batch in session.capture(samples) for sample in batch.samples]
        assert sorted(captured) == ["s2", "s3", "s4", "s5"]
        assert [item.sample_id for item in session.unfit] == ["s0", "s1"]
        assert "its 40 tokens are too much for the memory of cpu: DefaultCPUAllocator" in session.unfit[0].reason


def test_memory_that_holds_no_sample_at_all_is_an_error_with_a_way_out(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_arguments: Any) -> Any:
        raise MemoryError

    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        monkeypatch.setattr(TappedDecoder, "launch", no_memory)
        with pytest.raises(NaitStoreError, match="32 samples in a row did not fit") as caught:
            list(session.capture(random_samples([9] * 40)))
    assert "--max-length" in str(caught.value)


def test_usage_names_layout_budget_and_peak_memory(model_folder: Callable[[str], str]) -> None:
    with CaptureSession.open(model_folder("llama"), features=MEAN, token_budget=77) as session:
        usage = session.usage
    assert (usage.device, usage.layout, usage.token_budget) == ("cpu", "packed", 77)
    assert usage.peak_memory_bytes > 100 << 20  # torch alone takes more


def test_other_runtime_errors_are_not_taken_for_memory(
    model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        monkeypatch.setattr(TappedDecoder, "launch", broken)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            list(session.capture(random_samples([9, 8])))


@pytest.mark.parametrize(("edge", "named"), [(0, "first"), (-1, "last")])
def test_samples_that_all_begin_or_end_alike_are_warned_about(
    edge: int, named: str, model_folder: Callable[[str], str]
) -> None:
    samples = []
    for number in range(9):
        tokens = [10 + number, 30, 50 + number]
        tokens[edge] = 7
        samples.append(sample_of_tokens(f"s{number}", tokens))
    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        list(session.capture(samples))
    assert [named in warning for warning in session.warnings] == [True]


def test_samples_with_edges_of_their_own_are_not_warned_about(model_folder: Callable[[str], str]) -> None:
    with CaptureSession.open(model_folder("llama"), features=MEAN) as session:
        list(session.capture(random_samples([5] * 20)))
    assert session.warnings == []


def test_a_session_records_how_it_captures(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("llama")
    with CaptureSession.open(folder, features=MEAN, max_length_tokens=50, token_budget=99) as session:
        assert session.settings.max_length_tokens == 50
        assert session.settings.compute_dtype == "float32"
        assert session.environment.batch_layout == "packed"
        assert session.environment.token_budget == 99
        assert session.environment.model_source == folder
        assert session.renderer.max_length_tokens == 50


def test_identity_depends_on_the_hook_but_not_on_features_or_budget(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("llama")
    ids = []
    for options in ({}, {"token_budget": 7}, {"hook_path": "mlp.gate_proj"}):
        with CaptureSession.open(folder, features=MEAN, **options) as session:
            ids.append(session.identity.capture_id)
    with CaptureSession.open(folder, features=MEASURED_FEATURES) as session:
        ids.append(session.identity.capture_id)
    assert ids[0] == ids[1] == ids[3] != ids[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ()}, "no feature"),
        ({"token_budget": 0}, "holds no sample"),
        ({"max_length_tokens": 97}, "more than the model's 96 positions"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], message: str, model_folder: Callable[[str], str]
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CaptureSession.open(model_folder("llama"), **{"features": MEAN, **options})


def test_samples_ending_in_the_padding_token_are_no_reason_to_warn(
    model_folder: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    with CaptureSession.open(model_folder("bloom"), features=MEAN) as session:
        list(session.capture([sample_of_tokens("s", [5, 6, 2])]))
    assert "attention_mask" not in capfd.readouterr().err
