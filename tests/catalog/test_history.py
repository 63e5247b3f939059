"""What deletion, collection, purge and compaction do to the index, rebuilt from scratch or from an earlier one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import nait_store
from nait_store.activations.replacement import replace_segment
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.catalog.rows import TABLES
from nait_store.refs import Kind
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.profile import ProfileManifest
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now
from nait_store.storage.versions import VersionLog
from nait_store.testing.stores import build_set

Change = Callable[[Location], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "store"
    location = Location(str(folder))
    record = StoreRecord(format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now())
    location.create_bytes("store.json", record.to_json_bytes())
    for first in (0, 10, 20):
        build_set(location, "pool", 10, first=first, seed=first)
    sets = ActivationSets(location)
    for name in ("default", "nait-paper"):
        ProfileRegistry(location).build("math", sets.open("pool@1"), recipe=_on_mean(name))
    sets.log.labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    Labels(location, Kind.PROFILE).put(LabelKind.TAG, "math", "paper", 1)
    return folder


@pytest.fixture
def location(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return Location(str(shutil.copytree(original, tmp_path / "store")))


def _on_mean(name: str) -> Any:
    return RECIPES["default"].model_copy(update={"center": name == "nait-paper"})


def rows(location: Location, tmp_path: Path | None = None) -> dict[str, list[Any]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        Catalog(location, None if tmp_path is None else tmp_path / "fresh.duckdb").load_into(connection)
        return {
            table: [
                tuple(row.values()) for row in connection.sql(f"FROM {table} ORDER BY ALL").to_arrow_table().to_pylist()
            ]
            for table in TABLES
        }


def references(location: Location) -> list[str]:
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        found = connection.sql("SELECT kind || ':' || reference FROM versions ORDER BY ALL").fetchall()
    return [reference for (reference,) in found]


def samples(location: Location) -> list[tuple[str, int]]:
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        query = "SELECT reference, n_samples FROM versions WHERE kind = 'set' ORDER BY version"
        return connection.sql(query).fetchall()


def purge(location: Location, ordinal: int, blank: list[int]) -> None:
    sets = ActivationSets(location)
    record = sets.open("pool").segments[ordinal].record
    replace_segment(sets, "pool", record, blank_rows=np.array(blank, np.int64), operation=Operation.PURGE)


def delete(location: Location, *numbers: int) -> None:
    for number in numbers:
        ActivationSets(location).log.delete("pool", number)


def collect(location: Location) -> None:
    delete(location, 1)
    ActivationSets(location).log.collect("pool", 1)


def undelete(location: Location) -> None:
    delete(location, 1)
    rows(location)
    ActivationSets(location).log.undelete("pool", 1)


def delete_profile(location: Location) -> None:
    VersionLog(location, Kind.PROFILE, ProfileManifest).delete("math", 2)


def move(location: Location, *numbers: int) -> None:
    for number in numbers:
        ActivationSets(location).log.labels.put(LabelKind.ALIAS, "pool", "prod", number)


def untag(location: Location) -> None:
    Labels(location, Kind.PROFILE).remove(LabelKind.TAG, "math", "paper")


def tag_again(location: Location) -> None:
    untag(location)
    rows(location)
    Labels(location, Kind.PROFILE).put(LabelKind.TAG, "math", "paper", 2)


CHANGES: dict[str, Change] = {
    "delete the first": lambda location: delete(location, 1),
    "delete the last": lambda location: delete(location, 3),
    "delete one between": lambda location: delete(location, 2),
    "delete all": lambda location: delete(location, 1, 2, 3),
    "collect": collect,
    "undelete": undelete,
    "append": lambda location: build_set(location, "pool", 5, first=40),
    "append after a deletion": lambda location: (delete(location, 3), build_set(location, "pool", 5, first=40)),
    "purge": lambda location: purge(location, 0, [1, 2]),
    "purge twice": lambda location: (purge(location, 0, [1, 2]), purge(location, 0, [2, 5])),
    "purge and append": lambda location: (purge(location, 1, [0]), build_set(location, "pool", 5, first=40)),
    "delete a profile": delete_profile,
    "move an alias": lambda location: move(location, 2),
    "move an alias twice": lambda location: move(location, 2, 1),
    "another alias": lambda location: ActivationSets(location).log.labels.put(LabelKind.ALIAS, "pool", "old", 1),
    "take a tag away": untag,
    "tag again": tag_again,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_index_made_from_an_earlier_one_is_that_made_from_nothing(
    location: Location, tmp_path: Path, change: Change
) -> None:
    before = rows(location)
    change(location)
    after = rows(location)
    assert after == rows(location, tmp_path)
    assert (after != before) is (change is not undelete)


def test_deleted_and_collected_versions_are_left_out(location: Location) -> None:
    delete(location, 2)
    assert references(location) == ["profile:math@1", "profile:math@2", "set:pool@1", "set:pool@3"]
    delete(location, 3)
    ActivationSets(location).log.collect("pool", 3)
    delete_profile(location)
    assert references(location) == ["profile:math@1", "set:pool@1"]
    ActivationSets(location).log.undelete("pool", 2)
    assert references(location) == ["profile:math@1", "set:pool@1", "set:pool@2"]


def test_the_latest_version_is_the_latest_visible_one(location: Location) -> None:
    delete(location, 3)
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        found = connection.sql(
            "SELECT latest_version, n_versions, n_samples, n_segments FROM activation_sets"
        ).fetchall()
        assert found == [(2, 2, 20, 2)]
        assert connection.sql("SELECT reference FROM versions WHERE is_latest AND kind = 'set'").fetchall() == [
            ("pool@2",)
        ]


def test_segments_of_deleted_versions_alone_are_left_out(location: Location) -> None:
    delete(location, 3)
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        assert connection.sql("SELECT ordinal, first_version FROM segments ORDER BY 1").fetchall() == [(0, 1), (1, 2)]
    delete(location, 1)
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        assert connection.sql("SELECT ordinal, first_version FROM segments ORDER BY 1").fetchall() == [(0, 2), (1, 2)]


def test_a_purge_changes_the_counts_of_old_versions(location: Location) -> None:
    assert samples(location) == [("pool@1", 10), ("pool@2", 20), ("pool@3", 30)]
    purge(location, 0, [1, 2])
    expected = [(v.reference, v.n_samples) for v in (ActivationSets(location).open(f"pool@{n}") for n in (1, 2, 3))]
    assert samples(location) == expected == [("pool@1", 8), ("pool@2", 18), ("pool@3", 28)]
    replacement = ActivationSets(location).open("pool").refs[0].segment_id
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        assert connection.sql("SELECT segment_id FROM segments WHERE ordinal = 0").fetchall() == [(replacement,)]


def test_a_purge_of_chosen_samples_changes_the_counts_of_saved_selections(location: Location, tmp_path: Path) -> None:
    store = nait_store.open(location.url)
    store.selections.save("best", store.select("pool", profile="math", top=4))
    rows(location)
    chosen = store.selections.open("best").rows().column("sample_id").to_pylist()
    store.purge("pool", ids=chosen[:1])
    found = nait_store.open(location.url).sql("SELECT reference, n_selected FROM selections").fetchall()
    assert found == [("best@1", 3)]
    assert rows(location) == rows(location, tmp_path)
