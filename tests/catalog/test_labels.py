"""Aliases and tags in the index: what they name now, what became of it, and labels that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog, CatalogState
from nait_store.catalog.listing import list_store
from nait_store.refs import Kind
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "store"
    store = nait_store.open(str(folder), create=True)
    for first in (0, 10, 20):
        build_set(store.location, "pool", 10, first=first, seed=first)
    store.profiles.build("math", source="pool@1")
    store.selections.save("best", store.select("pool", strategy="random", top=2))
    return folder


@pytest.fixture
def location(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NAIT_STORE_AUTHOR", "me@laptop")
    return Location(str(shutil.copytree(original, tmp_path / "store")))


@pytest.fixture
def labels(location: Location) -> Labels:
    return Labels(location, Kind.SET)


def ask(location: Location, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        return connection.sql(query).fetchall()


def named(location: Location) -> dict[str, str]:
    return dict(ask(location, "SELECT label_reference, reference FROM aliases ORDER BY ALL"))


def problems(location: Location) -> tuple[str, ...]:
    with duckdb.connect() as connection:
        return Catalog(location).load_into(connection).problems


def test_an_alias_is_what_its_latest_move_says(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 1, "first try")
    labels.put(LabelKind.ALIAS, "pool", "prod", 3, "more data")
    [row] = ask(location, "SELECT * EXCLUDE created_at FROM aliases")
    assert row == ("set", "pool", "prod", 3, "pool@3", "pool@prod", False, 2, "more data", "me@laptop")
    assert ask(location, "SELECT abs(epoch(created_at) - epoch(now())) < 3600 FROM aliases") == [(True,)]


def test_a_tag_is_where_it_was_put(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.TAG, "pool", "paper", 2, "table 2")
    assert ask(location, "SELECT * EXCLUDE created_at FROM tags") == [
        ("set", "pool", "paper", 2, "pool@2", "pool@paper", False, "table 2", "me@laptop")
    ]
    assert ask(location, "FROM aliases") == []


def test_profiles_and_selections_have_labels_too(location: Location) -> None:
    for kind, name in ((Kind.PROFILE, "math"), (Kind.SELECTION, "best")):
        Labels(location, kind).put(LabelKind.ALIAS, name, "prod", 1)
        Labels(location, kind).put(LabelKind.TAG, name, "paper", 1)
    for table in ("aliases", "tags"):
        found = ask(location, f"SELECT kind, name, reference, is_deleted FROM {table} ORDER BY ALL")
        assert found == [("profile", "math", "math@1", False), ("selection", "best", "best@1", False)]


def test_a_label_that_was_taken_away_has_no_row(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    labels.put(LabelKind.TAG, "pool", "paper", 1)
    labels.remove(LabelKind.ALIAS, "pool", "prod")
    labels.remove(LabelKind.TAG, "pool", "paper")
    assert ask(location, "SELECT name FROM aliases UNION ALL SELECT name FROM tags") == []


def test_every_move_makes_a_loaded_index_stale(location: Location, labels: Labels) -> None:
    with duckdb.connect() as connection:
        catalog = Catalog(location)
        state: CatalogState | None = None
        seen = []
        for number in (1, 2, None, 2):
            if number is None:
                labels.remove(LabelKind.ALIAS, "pool", "prod")
            else:
                labels.put(LabelKind.ALIAS, "pool", "prod", number)
            changed = catalog.load_into(connection, state)
            assert changed != state
            state = changed
            seen.append(connection.sql("SELECT version, n_moves FROM aliases").fetchall())
        assert seen == [[(1, 1)], [(2, 2)], [], [(2, 4)]]
        assert catalog.load_into(connection, state) is state


def test_a_label_of_a_deleted_version_is_shown_as_such_until_the_version_is_back(
    location: Location, labels: Labels
) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    labels.put(LabelKind.ALIAS, "pool", "old", 1)
    query = "SELECT alias, is_deleted FROM aliases ORDER BY 1"
    log = ActivationSets(location).log
    assert ask(location, query) == [("old", False), ("prod", False)]
    log.delete("pool", 2)
    assert ask(location, query) == [("old", False), ("prod", True)]
    log.undelete("pool", 2)
    assert ask(location, query) == [("old", False), ("prod", False)]
    log.delete("pool", 2)
    log.collect("pool", 2)
    assert ask(location, query) == [("old", False), ("prod", True)]


def test_labels_of_a_set_that_was_deleted_altogether_are_shown(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    for number in (1, 2, 3):
        ActivationSets(location).log.delete("pool", number)
    assert ask(location, "SELECT reference, is_deleted FROM aliases") == [("pool@2", True)]


def test_only_labels_that_moved_are_read_again(
    location: Location, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    labels.put(LabelKind.TAG, "pool", "paper", 1)
    labels.put(LabelKind.TAG, "pool", "gone", 1)
    labels.remove(LabelKind.TAG, "pool", "gone")
    named(location)
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    read: list[str] = []
    read_bytes = Location.read_bytes

    def spy(self: Location, path: str) -> bytes:
        read.append(path)
        return read_bytes(self, path)

    monkeypatch.setattr(Location, "read_bytes", spy)
    assert named(location) == {"pool@prod": "pool@2"}
    assert [path for path in read if path != "store.json"] == ["activations/pool/aliases/prod/2.json"]


def test_a_damaged_move_costs_its_own_row_and_is_named_by_every_look(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "old", 1)
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    good = location.read_bytes("activations/pool/aliases/prod/2.json")
    location.write_bytes("activations/pool/aliases/prod/2.json", b"{ broken")
    for _ in range(2):
        [problem] = problems(location)
        assert problem.startswith("alias 'prod' of set 'pool' is left out of the catalog: ")
        assert named(location) == {"pool@old": "pool@1"}
    location.write_bytes("activations/pool/aliases/prod/2.json", good)
    assert problems(location) == ()
    assert named(location) == {"pool@old": "pool@1", "pool@prod": "pool@2"}


def test_a_move_that_a_repair_could_not_save_leaves_the_index(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    assert named(location) == {"pool@prod": "pool@2"}
    index = {name: location.read_bytes(name) for name in ("catalog.duckdb", "catalog.duckdb.json")}
    location.write_bytes("activations/pool/aliases/prod/1.json", b"{ broken")
    assert nait_store.open(location.url).repair().ok
    for name, data in index.items():  # as somebody else's cache folder still has it
        location.write_bytes(name, data)
    assert named(location) == {}


def test_stray_files_beside_labels_are_passed_over(location: Location, labels: Labels) -> None:
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    before = list_store(location)
    for path in (
        "aliases/.DS_Store",
        "aliases/prod/notes.txt",
        "aliases/empty/readme",
        "tags",
        "aliases/prod/sub/9.json",
    ):
        location.write_bytes(f"activations/pool/{path}", b"")
    assert list_store(location) == before
    assert named(location) == {"pool@prod": "pool@1"}


def test_a_store_in_memory_shows_its_labels() -> None:
    store = nait_store.open("memory://catalog-labels", create=True)
    build_set(store.location, "pool", 2)
    store.sets.alias("pool@1", "prod")
    assert named(store.location) == {"pool@prod": "pool@1"}
    store.location.delete("")
