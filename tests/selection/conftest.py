"""Selections over synthetic sets, made without SQL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from nait_store.activations.versions import SetVersion
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.selection.choosing import Selection
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import parse_profiles
from nait_store.storage.location import Location


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return Location(str(tmp_path / "store") if request.param == "local" else f"memory://selection-{name}")


MakeSelection = Callable[[SetVersion, Sequence[str]], Selection]


@pytest.fixture
def make_selection() -> MakeSelection:
    def make(version: SetVersion, ids: Sequence[str], scores: Sequence[float] | None = None) -> Selection:
        values = [10.0 - i for i in range(len(ids))] if scores is None else list(scores)
        rows = pa.table(
            {"rank": list(range(1, len(ids) + 1)), "sample_id": list(ids), "score": values}, schema=SELECTION_SCHEMA
        )
        return Selection(
            rows=rows,
            request=SelectionRequest(version.reference, parse_profiles("math@1"), top=str(len(ids))),
            n_candidates=version.n_samples,
            query="SELECT 1",
        )

    return make
