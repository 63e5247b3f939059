"""A worker works on the driver's store, or says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import nait_store
from nait_store.cluster.shared_store import SharedStore
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError


@pytest.fixture
def shared(tmp_path: Path) -> SharedStore:
    return SharedStore.of(nait_store.open(str(tmp_path / "store"), create=True).location)


def test_the_same_store_is_opened(shared: SharedStore) -> None:
    assert shared.open().url == shared.url


def test_another_store_at_the_same_place_is_refused(shared: SharedStore) -> None:
    with pytest.raises(NotFoundError, match="another store"):
        replace(shared, store_id="0" * 26).open()


def test_a_store_that_is_not_there_is_refused(shared: SharedStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot open"):
        replace(shared, url=str(tmp_path / "elsewhere")).open()


def test_another_release_is_refused(shared: SharedStore) -> None:
    with pytest.raises(IncompatibleError, match=r"runs nait-store .* the command nait-store 0 on Python 3\.8"):
        replace(shared, release="nait-store 0 on Python 3.8").open()


def test_a_copy_of_the_store_is_noticed(shared: SharedStore) -> None:
    location = shared.open()
    with pytest.raises(NotFoundError, match="copies of the store"):
        shared.require_file(location, "activations/pool/ingests/x/heartbeat.json")
    location.write_bytes("activations/pool/ingests/x/heartbeat.json", b"{}")
    shared.require_file(location, "activations/pool/ingests/x/heartbeat.json")


def test_a_store_in_memory_is_refused() -> None:
    store = nait_store.open("memory://shared-store", create=True)
    with pytest.raises(InvalidInputError, match="cannot reach it"):
        SharedStore.of(store.location)
