from __future__ import annotations

from pathlib import Path

import pytest

from nait_store.activations.set_version import SetVersion
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "store"))


@pytest.fixture
def version(location: Location) -> SetVersion:
    """Two segments of 150 rows in blocks of 64, three layers of 37 neurons, two features."""
    return build_set(location, "pool", 300, 3, 37, (Feature.MEAN, Feature.DRIFT), n_segments=2, chunk_rows=64)
