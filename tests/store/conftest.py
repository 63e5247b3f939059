"""Stores in memory and on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import nait_store
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_set


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where there is no store yet."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NAIT_STORE", raising=False)
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return str(tmp_path / "store") if request.param == "local" else f"memory://store-{name}"


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with the sets pool and maths."""
    made = nait_store.open(url, create=True)
    build_set(made.location, "pool", 30, user_fields={"kind": [("code", "chat")[i % 2] for i in range(30)]})
    build_set(made.location, "maths", 20, features=(Feature.MEAN, Feature.DRIFT), first=100, seed=1)
    return made
