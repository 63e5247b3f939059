from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from nait_store.storage.location import Location


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location(str(tmp_path / "store"))
    return Location(f"memory://{uuid.uuid4().hex}")
