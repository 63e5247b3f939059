"""Tiny models saved to folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from nait_store.testing.tiny_models import save_tiny_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the folder of a tiny model, made on first need."""

    @cache
    def folder(architecture: str) -> str:
        return str(save_tiny_model(tmp_path_factory.mktemp(architecture), architecture))

    return folder


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Save a tiny model with a configuration of its own."""

    def save(architecture: str, **overrides: Any) -> str:
        return str(save_tiny_model(tmp_path_factory.mktemp(architecture), architecture, **overrides))

    return save
