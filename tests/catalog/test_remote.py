"""The index of a store on S3: few requests, kept in the user's cache folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

import nait_store
from nait_store.catalog import listing as listing_module
from nait_store.catalog.build import Catalog
from nait_store.catalog.listing import list_store
from nait_store.refs import Kind
from nait_store.schemas.capture import Feature
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.stores import build_set


@pytest.fixture(scope="module")
def url(object_store: ObjectStore) -> str:
    """Three sets, three profiles, a selection, a label of each; whoever changes something puts it back."""
    store = nait_store.open(object_store.new_url(), create=True)
    for name in ("one", "two", "three"):
        build_set(store.location, name, 6, features=(Feature.MEAN,))
        store.profiles.build(name, source=name)
    store.selections.save("best", store.select("one", strategy="random", top=2))
    store.sets.alias("one@1", "prod")
    Labels(store.location, Kind.PROFILE).put(LabelKind.ALIAS, "two", "prod", 1)
    Labels(store.location, Kind.SELECTION).put(LabelKind.TAG, "best", "paper", 1)
    return store.url


@pytest.fixture
def store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    """The same, with a cache folder of its own."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return nait_store.open(url)


@pytest.fixture
def requests(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Requests from now on, by method."""
    counted: Counter[str] = Counter()
    ask = S3FileSystem._call_s3

    async def call(fs: Any, method: str, *arguments: Any, **named: Any) -> Any:
        counted[method] += 1
        return await ask(fs, method, *arguments, **named)

    monkeypatch.setattr(S3FileSystem, "_call_s3", call)
    monkeypatch.setattr(S3FileSystem, "call_s3", sync_wrapper(call))
    return counted


def loaded(location: Location) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        Catalog(location).load_into(connection)
        return connection.sql("SELECT kind, reference, n_samples FROM versions ORDER BY ALL").fetchall()


EXPECTED = [
    ("profile", "one@1", 6),
    ("profile", "three@1", 6),
    ("profile", "two@1", 6),
    ("selection", "best@1", 2),
    ("set", "one@1", 6),
    ("set", "three@1", 6),
    ("set", "two@1", 6),
]


def test_a_look_at_three_sets_three_profiles_and_a_selection_takes_ten_listings(
    store: nait_store.Store, requests: Counter[str]
) -> None:
    found = list_store(store.location)
    assert {kind: len(found.documents[kind]) for kind in Kind} == {Kind.SET: 3, Kind.PROFILE: 3, Kind.SELECTION: 1}
    # all profiles, all selections, the names of the sets, each of these and its versions, the aliases of the first
    assert requests == {"list_objects_v2": 1 + 1 + 1 + 2 * 3 + 1, "get_object": 1}


def test_an_index_that_is_fresh_costs_that_look_alone(store: nait_store.Store, requests: Counter[str]) -> None:
    assert loaded(store.location) == EXPECTED
    requests.clear()
    assert loaded(store.location) == EXPECTED
    assert requests == {"list_objects_v2": 10, "get_object": 1}


def test_labels_of_sets_profiles_and_selections_are_found(store: nait_store.Store) -> None:
    with duckdb.connect() as connection:
        Catalog(store.location).load_into(connection)
        found = connection.sql(
            "SELECT kind, label_reference, reference FROM aliases UNION ALL SELECT kind, label_reference, reference "
            "FROM tags ORDER BY ALL"
        ).fetchall()
    assert found == [
        ("profile", "two@prod", "two@1"),
        ("selection", "best@paper", "best@1"),
        ("set", "one@prod", "one@1"),
    ]


def test_a_move_of_a_label_costs_the_look_and_its_document_alone(
    object_store: ObjectStore, requests: Counter[str]
) -> None:
    store = nait_store.open(object_store.new_url(), create=True)
    build_set(store.location, "pool", 2)
    store.sets.tag("pool@1", "paper")
    store.sets.alias("pool@1", "prod")
    loaded(store.location)
    store.sets.alias("pool@1", "old")
    requests.clear()
    loaded(store.location)
    # profiles, selections, names of sets; the set, its versions, aliases and tags; store.json and the alias
    assert requests == {"list_objects_v2": 1 + 1 + 1 + 4, "get_object": 2}


def test_more_files_than_one_page_holds_are_listed_item_by_item(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list_store(store.location)
    monkeypatch.setattr(listing_module, "_PAGE_FILES", 3)
    assert list_store(store.location) == whole


def test_it_lies_in_the_cache_folder_and_a_damaged_one_is_made_again(store: nait_store.Store, tmp_path: Path) -> None:
    path = Catalog(store.location).path_for_reading()
    assert path is not None
    assert path.parent == tmp_path / "cache" / "catalogs"
    path.write_bytes(path.read_bytes()[:-1])
    assert loaded(store.location) == EXPECTED
    assert not [name for name in store.location.names() if name.startswith("catalog")]


def test_where_the_cache_folder_cannot_be_written_the_answers_are_the_same(
    store: nait_store.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in the way").write_text("a file")
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "in the way" / "cache"))
    assert Catalog(store.location).path_for_reading() is None
    assert loaded(store.location) == EXPECTED


def test_verify_of_a_remote_store_lists_once_and_reads_every_byte(
    store: nait_store.Store, requests: Counter[str]
) -> None:
    files = list(store.location.walk())
    requests.clear()
    report = store.verify()
    assert report.findings == ()
    assert (report.n_files, report.n_bytes) == (len(files), sum(size for _, size in files))
    assert requests["list_objects_v2"] == 1
    quick = store.verify(quick=True)
    assert quick.findings == ()


def test_verify_of_a_remote_store_finds_a_flipped_bit(store: nait_store.Store) -> None:
    files = dict(store.location.walk())
    for ending in ("one/set.json", "mean/c/0/0/0", "samples.parquet", "selection.parquet"):
        path = next(path for path in files if path.endswith(ending))
        whole = store.location.read_bytes(path)
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 8
        store.location.write_bytes(path, bytes(damaged))
        assert [finding.path for finding in store.verify().errors] == [path]
        store.location.write_bytes(path, whole)
