"""When flash-attention is tried, and that its numbers decide; a stand-in takes the place of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers.utils
from transformers import AttentionInterface

from nait_store.capture import attention, layout_probe
from nait_store.capture.attention import can_flash, packed_attention
from nait_store.capture.hook_points import resolve_hooks
from nait_store.capture.layout_probe import choose_layout
from nait_store.capture.layouts import Layout, lay_out, padded_tokens
from nait_store.schemas.capture import HookPoint
from nait_store.testing.tiny_models import tiny_model

FAKE = "nait_store_stand_in"  # transformers looks for kernels of its own where a name has "flash" in it
Kernel = Callable[..., Any]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Kernel], None]]:
    """Let flash-attention be usable on this CPU, with a kernel of the test's."""
    monkeypatch.setattr(layout_probe, "can_flash", lambda _model, _device: True)
    monkeypatch.setattr(layout_probe, "FLASH_ATTENTION", FAKE)
    yield lambda function: AttentionInterface.register(FAKE, function)
    AttentionInterface._global_mapping.pop(FAKE, None)


def chosen(model: Any) -> Layout:
    return choose_layout(resolve_hooks(model, HookPoint.RESIDUAL), model, pad_token_id=3, device="cpu")


def test_a_kernel_that_gives_the_numbers_of_batch_size_1_is_taken_and_stays(kernel: Callable[[Kernel], None]) -> None:
    seen: list[list[int]] = []

    def flash(*arguments: Any, cu_seq_lens_q: torch.Tensor, max_length_q: int, **others: Any) -> Any:
        seen.append(cu_seq_lens_q.tolist())
        assert cu_seq_lens_q.dtype == torch.int32
        assert isinstance(max_length_q, int)
        return packed_attention(*arguments, cu_seq_lens_q=cu_seq_lens_q, **others)

    kernel(flash)
    model = tiny_model("llama").bfloat16()
    assert chosen(model) is Layout.FLASH
    assert model.config._attn_implementation == FAKE
    assert seen
    assert all(bounds[:2] == [0, 19] for bounds in seen)


def leaky(*arguments: Any, cu_seq_lens_q: torch.Tensor, **others: Any) -> Any:
    return packed_attention(*arguments, cu_seq_lens_q=cu_seq_lens_q[[0, -1]], **others)


def broken(*_arguments: Any, **_others: Any) -> Any:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


@pytest.mark.parametrize("function", [leaky, broken])
def test_a_kernel_that_does_not_is_not_taken(kernel: Callable[[Kernel], None], function: Kernel) -> None:
    kernel(function)
    model = tiny_model("llama").bfloat16()
    before = model.config._attn_implementation
    assert chosen(model) is Layout.RIGHT
    assert model.config._attn_implementation == before


def test_kernels_that_cannot_be_loaded_are_not_taken(
    kernel: Callable[[Kernel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_probe, "FLASH_ATTENTION", "flash_attention_2")  # which is not installed here
    assert chosen(tiny_model("llama").bfloat16()) is Layout.RIGHT


def test_a_model_whose_code_cannot_be_packed_is_not_flashed(kernel: Callable[[Kernel], None]) -> None:
    kernel(packed_attention)
    assert chosen(tiny_model("falcon").bfloat16()) in (Layout.RIGHT, Layout.RIGHT_MASKED)


def test_without_a_stand_in_a_model_is_not_flashed(
    kernel: Callable[[Kernel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(packed_attention)
    monkeypatch.setattr(layout_probe, "small_copy", lambda _decoder: None)
    assert chosen(tiny_model("llama").bfloat16()) is Layout.RIGHT


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "supported", "expected"),
    [
        (True, "cuda:0", torch.bfloat16, True, True),
        (True, "cuda:1", torch.float16, True, True),
        (False, "cuda:0", torch.bfloat16, True, False),
        (True, "cpu", torch.bfloat16, True, False),
        (True, "cuda:0", torch.float32, True, False),
        (True, "cuda:0", torch.bfloat16, False, False),
    ],
)
def test_flash_attention_is_tried_where_package_device_dtype_and_model_allow(
    installed: bool, device: str, dtype: torch.dtype, supported: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: installed)
    model = tiny_model("llama").to(dtype)
    monkeypatch.setattr(type(model), "_supports_flash_attn", supported)
    assert can_flash(model, device) is expected
    candidates = layout_probe._candidates(model, device)
    assert (Layout.FLASH in candidates) is expected
    assert candidates[-2:] == [Layout.RIGHT, Layout.RIGHT_MASKED]


def test_its_inputs_are_packed_and_its_batches_have_no_padding() -> None:
    token_ids = [np.array([5, 6], np.int32), np.array([7], np.int32)]
    inputs = lay_out(Layout.FLASH, token_ids, pad_token_id=0, device="cpu")
    assert inputs.arguments["position_ids"].tolist() == [[0, 1, 0]]
    assert inputs.arguments["cu_seq_lens_k"].tolist() == [0, 2, 3]
    assert padded_tokens(Layout.FLASH, n_tokens=3, n_samples=2, longest=2) == 3
    assert attention.FLASH_ATTENTION == "flash_attention_2"  # the name that transformers knows it by
