from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from nait_store.storage.location import Location


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty store on each kind of filesystem that can be written."""
    return Location(str(tmp_path / "store") if request.param == "local" else f"memory://registry-{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "store"))
