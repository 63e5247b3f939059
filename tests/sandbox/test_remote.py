"""Untrusted SQL over a store on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

import nait_store
from nait_store.errors import ForbiddenError
from nait_store.registry.recipes import RECIPES
from nait_store.store.facade import Store
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.stores import build_set


@pytest.fixture
def store(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = nait_store.open(object_store.new_url(), create=True)
    build_set(store.location, "pool", 20, 2, 8, n_segments=2, user_fields={"domain": ["maths", "code"] * 10})
    version = store.sets.versions.open("pool")
    store.profiles.registry.build(
        "math", version, recipe=RECIPES["default"], rows=None, where=None, limit=None, seed=0, background=None
    )
    return store


def test_a_store_on_s3_is_read(store: Store) -> None:
    query = (
        "SELECT sample_id, domain, score FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id), "
        "profiles ORDER BY score DESC"
    )
    assert store.sql(query, sandbox=True).fetchall() == store.sql(query).fetchall()


def test_other_objects_are_not_read(store: Store) -> None:
    with pytest.raises(ForbiddenError):
        store.sql(f"FROM read_text('{store.url}/store.json')", sandbox=True)
