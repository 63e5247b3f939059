"""Two teams with a store each, and a place where a registry can be."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set


@dataclass(frozen=True)
class Teams:
    """The store of those who publish, the store of those who take, and the URL of their registry."""

    ours: nait_store.Store
    theirs: nait_store.Store
    registry: str

    @property
    def files(self) -> Location:
        """What lies in the registry."""
        return Location(self.registry)


def new_store(url: str, seed: int = 0) -> nait_store.Store:
    """A store with a set ``gsm8k`` of 20 samples."""
    store = nait_store.open(url, create=True)
    build_set(store.location, "gsm8k", 20, 2, 6, seed=seed, mean=np.ones(6, np.float32))
    return store


@pytest.fixture
def teams(tmp_path: Path) -> Teams:
    """All in folders; ours has math@1 and math@2."""
    ours = new_store(str(tmp_path / "ours"))
    ours.profiles.build("math", source="gsm8k", method="mean", message="the first", quality_card=False)
    ours.profiles.build("math", source="gsm8k", method="mean", limit=16)
    return Teams(ours, nait_store.open(str(tmp_path / "theirs"), create=True), str(tmp_path / "registry"))


@pytest.fixture(params=["local", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, teams: Teams) -> Teams:
    """The registry on each kind of filesystem."""
    if request.param == "s3":
        return Teams(teams.ours, teams.theirs, request.getfixturevalue("object_store").new_url())
    if request.param == "memory":
        return Teams(teams.ours, teams.theirs, f"memory://registry-{uuid.uuid4().hex}")
    return teams


@pytest.fixture
def digests() -> Callable[[Any], dict[str, str]]:
    """Path → digest of every file of a store or registry but the catalog, which is an index."""

    def of(place: nait_store.Store | str) -> dict[str, str]:
        location = place.location if isinstance(place, nait_store.Store) else Location(place)
        files = [*location.files(), *location.leftovers()]
        return {
            file.path: hashlib.sha256(location.read_bytes(file.path)).hexdigest()
            for file in files
            if not file.path.startswith("catalog.duckdb")
        }

    return of
