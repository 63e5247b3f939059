"""Tiny models and adapters saved to folders, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nait_store.testing.tiny_adapters import save_tiny_adapter
from nait_store.testing.tiny_models import save_tiny_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, wide enough for bitsandbytes' blocks."""
    return save_tiny_model(tmp_path_factory.mktemp("base") / "llama", hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return save_tiny_adapter(tmp_path_factory.mktemp("adapters") / "lora", base)
