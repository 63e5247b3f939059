"""The index over a store's manifests: where it lies, when it is rebuilt, and that losing it loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from nait_store.activations.versions import ActivationSets
from nait_store.catalog import build as build_module
from nait_store.catalog.build import Catalog, CatalogState, definition
from nait_store.catalog.listing import list_store
from nait_store.catalog.rows import TABLES
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now
from nait_store.testing.stores import build_set

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NAIT_STORE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "store"
    store_at(str(folder))
    return folder


@pytest.fixture
def location(original: Path, tmp_path: Path) -> Location:
    return Location(str(shutil.copytree(original, tmp_path / "store")))


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def store_at(url: str) -> Location:
    location = Location(url)
    record = StoreRecord(format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now())
    location.create_bytes("store.json", record.to_json_bytes())
    build_set(location, "pool", 12, n_segments=2)
    build_set(location, "pool", 6, first=12, seed=1)
    build_set(location, "other", 5, user_fields={"topic": list("abcde")})
    build_profile(location, "math", "pool@1")
    return location


def build_profile(location: Location, name: str, source: str) -> None:
    ProfileRegistry(location).build(
        name,
        ActivationSets(location).open(source),
        recipe=RECIPES["default"],
        rows=None,
        where=None,
        limit=None,
        seed=0,
        background=None,
    )


def answers(location: Location, path: Path | None = None) -> Rows:
    """Everything that a fresh connection sees."""
    with duckdb.connect() as connection:
        Catalog(location, path).load_into(connection)
        return rows_of(connection)


def rows_of(connection: duckdb.DuckDBPyConnection) -> Rows:
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    return {
        table: sorted(
            (tuple(row.values()) for row in connection.sql(f"FROM {table}").to_arrow_table().to_pylist()), key=repr
        )
        for table in TABLES
    }


def stored_file(location: Location) -> Path:
    path = Catalog(location).path_for_reading()
    assert path is not None
    return path


def test_the_rows_say_what_the_store_holds(location: Location, connection: duckdb.DuckDBPyConnection) -> None:
    Catalog(location).load_into(connection)

    sets = connection.sql(
        "SELECT activation_set, latest_version, n_versions, n_samples, n_segments, features, layers, n_neurons "
        "FROM activation_sets ORDER BY 1"
    ).fetchall()
    assert sets == [
        ("other", 1, 1, 5, 1, ["mean"], [0, 1], 8),
        ("pool", 2, 2, 18, 3, ["mean"], [0, 1], 8),
    ]
    versions = connection.sql(
        "SELECT kind, reference, is_latest, parent, operation, n_samples FROM versions ORDER BY 1, 2"
    ).fetchall()
    assert versions == [
        ("profile", "math@1", True, None, "build", 12),
        ("set", "other@1", True, None, "ingest", 5),
        ("set", "pool@1", False, None, "ingest", 12),
        ("set", "pool@2", True, 1, "ingest", 18),
    ]
    segments = connection.sql(
        "SELECT activation_set, ordinal, first_version, n_rows, list_contains(user_fields, 'topic') FROM segments "
        "ORDER BY 1, 2"
    ).fetchall()
    assert segments == [
        ("other", 0, 1, 5, True),
        ("pool", 0, 1, 6, False),
        ("pool", 1, 1, 6, False),
        ("pool", 2, 2, 6, False),
    ]
    profiles = connection.sql(
        "SELECT profile, reference, recipe, source, n_samples, layers, metric FROM profiles"
    ).fetchall()
    assert profiles == [("math", "math@1", "default", "pool@1", 12, [0, 1], "cosine")]
    layers = connection.sql(
        "SELECT layer, explained_variance_ratio BETWEEN 0 AND 1, sign_margin >= 0 FROM profile_layers ORDER BY 1"
    ).fetchall()
    assert layers == [(0, True, True), (1, True, True)]


def test_sizes_and_tokens_are_those_of_the_segment_records(
    location: Location, connection: duckdb.DuckDBPyConnection
) -> None:
    Catalog(location).load_into(connection)
    records = [segment.record for segment in ActivationSets(location).open("pool").segments]
    found = connection.sql("SELECT n_tokens, size_bytes FROM activation_sets WHERE activation_set = 'pool'").fetchall()
    assert found == [(sum(r.n_tokens for r in records), sum(r.size_bytes for r in records))]


def test_every_table_and_column_is_commented(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(definition()).fetchall()
    assert connection.sql("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall() == [
        (table,) for table in sorted(TABLES)
    ]
    assert connection.sql("SELECT table_name FROM duckdb_tables() WHERE comment IS NULL").fetchall() == []
    query = "SELECT table_name, column_name FROM duckdb_columns() WHERE comment IS NULL AND NOT internal"
    assert connection.sql(query).fetchall() == []


def test_no_column_bears_a_keyword(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(definition()).fetchall()
    query = (
        "SELECT column_name FROM duckdb_columns() WHERE column_name IN "
        "(SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved')"
    )
    assert connection.sql(query).fetchall() == []


def test_it_lies_in_the_root_of_a_local_store(location: Location, cache: Path) -> None:
    path = stored_file(location)
    assert path == Path(location.url) / "catalog.duckdb"
    assert not cache.exists()
    assert [p.name for p in path.parent.iterdir() if "tmp" in p.name or "wal" in p.name] == []


def test_a_fresh_one_is_not_rebuilt(location: Location) -> None:
    before = stored_file(location).stat()
    after = stored_file(location).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_commit_of_any_kind_makes_it_stale(location: Location) -> None:
    first = answers(location)
    build_set(location, "pool", 3, first=50, seed=9)
    second = answers(location)
    assert len(second["segments"]) == len(first["segments"]) + 1
    build_profile(location, "math", "pool@3")
    third = answers(location)
    assert [row[2] for row in third["profiles"]] == ["math@1", "math@2"]
    assert [row[3] for row in third["profiles"]] == [False, True]


def test_a_rebuild_reads_only_what_is_new(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(location)
    build_set(location, "pool", 3, first=50, seed=9)
    read: list[str] = []
    read_bytes = Location.read_bytes

    def spy(self: Location, path: str) -> bytes:
        read.append(path)
        return read_bytes(self, path)

    monkeypatch.setattr(Location, "read_bytes", spy)
    after = answers(location)

    assert sum(path.endswith("segment.json") for path in read) == 1
    assert not [path for path in read if path.startswith(("activations/other", "profiles"))]
    stored_file(location).unlink()
    assert answers(location) == after


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garble(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 1000)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for i in range(12_288, len(data), 97):
        data[i] ^= 0xFF
    path.write_bytes(bytes(data))


def _other_database(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE catalog_info(a INTEGER)").fetchall()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _leftover_log(path: Path) -> None:
    path.with_name(path.name + ".wal").write_bytes(b"left over" * 100)


def _locked_out(path: Path) -> None:
    path.chmod(0)


DAMAGES = [_delete, _truncate, _empty, _garble, _flip, _other_database, _folder, _leftover_log, _locked_out]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_whatever_happens_to_the_file_the_answers_are_the_same(location: Location, damage: Any) -> None:
    expected = answers(location)
    damage(stored_file(location))
    assert answers(location) == expected
    assert answers(location) == expected


def test_another_stores_catalog_is_not_believed(location: Location, tmp_path: Path) -> None:
    other = store_at(str(tmp_path / "other store"))
    build_set(other, "only-there", 4)
    expected = answers(location)
    stored_file(other).replace(stored_file(location))
    assert answers(location) == expected


def test_a_new_store_at_the_same_place_has_its_own_rows(tmp_path: Path) -> None:
    url = "memory://catalog-twice"
    first = store_at(url)
    path = tmp_path / "kept.duckdb"
    answers(first, path)
    first.delete("")
    second = store_at(url)
    build_profile(second, "code", "other")
    assert [row[0] for row in answers(second, path)["profiles"]] == ["code", "math"]
    second.delete("")


def test_a_root_that_cannot_be_written_sends_it_to_the_cache_folder(location: Location, cache: Path) -> None:
    frozen = location.read_only("frozen", "thaw it")
    expected = answers(location)
    stored_file(location).unlink()
    path = Catalog(frozen).path_for_reading()
    assert path is not None
    assert path.parent == cache / "catalogs"
    assert answers(frozen) == expected
    assert not (Path(location.url) / "catalog.duckdb").exists()


def test_where_nothing_can_be_written_it_is_built_in_memory(
    location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(location)
    stored_file(location).unlink()
    blocker = tmp_path / "a file"
    blocker.write_text("in the way")
    monkeypatch.setenv("NAIT_STORE_CACHE", str(blocker / "cache"))
    frozen = location.read_only("frozen", "thaw it")
    assert Catalog(frozen).path_for_reading() is None
    assert answers(frozen) == expected


def test_a_store_in_memory_leaves_no_file(cache: Path) -> None:
    location = store_at("memory://catalog-in-memory")
    assert Catalog(location).path_for_reading() is None
    assert len(answers(location)["segments"]) == 4
    assert not cache.exists()
    location.delete("")


def test_a_disk_that_fails_during_the_build_costs_nothing(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(location)
    stored_file(location).unlink()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert answers(location) == expected
    assert [p.name for p in Path(location.url).iterdir() if "tmp" in p.name] == []


def test_no_handle_stays_open(location: Location, connection: duckdb.DuckDBPyConnection) -> None:
    catalog = Catalog(location)
    catalog.load_into(connection)
    with duckdb.connect(str(stored_file(location))) as writer:  # a reader's handle would lock this out
        writer.execute("CREATE TABLE t(a INTEGER)").fetchall()
    assert connection.sql("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall() == [("memory",)]


def test_a_loaded_connection_is_refilled_only_when_the_store_changed(
    location: Location, connection: duckdb.DuckDBPyConnection
) -> None:
    catalog = Catalog(location)
    state = catalog.load_into(connection)
    assert catalog.load_into(connection, state) is state
    build_set(location, "pool", 2, first=90)
    changed = catalog.load_into(connection, state)
    assert changed != state
    assert connection.sql("SELECT max(version) FROM versions WHERE name = 'pool'").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("profiles/math/versions/1.json", "profile math@1"),
        ("activations/pool/versions/2.json", "set 'pool'"),
        ("activations/other/set.json", "set 'other'"),
    ],
)
def test_a_damaged_document_costs_its_own_rows_only_and_is_named(
    location: Location, connection: duckdb.DuckDBPyConnection, path: str, lost: str
) -> None:
    location.write_bytes(path, b"{ broken")
    state = Catalog(location).load_into(connection)
    assert [lost in problem for problem in state.problems] == [True]
    assert connection.sql("SELECT count(*) FROM activation_sets").fetchall()[0][0] >= 1
    again = Catalog(location).load_into(connection, state)
    assert again.problems == state.problems


def test_a_mended_document_is_back_at_once(location: Location, connection: duckdb.DuckDBPyConnection) -> None:
    path = "profiles/math/versions/1.json"
    good = location.read_bytes(path)
    location.write_bytes(path, b"{ broken")
    state = Catalog(location).load_into(connection)
    location.write_bytes(path, good)
    state = Catalog(location).load_into(connection, state)
    assert state.problems == ()
    assert connection.sql("SELECT reference FROM profiles").fetchall() == [("math@1",)]


def test_a_segment_record_that_differs_from_its_digest_is_not_believed(
    location: Location, connection: duckdb.DuckDBPyConnection
) -> None:
    segment = ActivationSets(location).open("other").refs[0].segment_id
    path = f"activations/other/segments/{segment}/segment.json"
    location.write_bytes(path, location.read_bytes(path).replace(b'"n_tokens":', b'"n_tokens":1'))
    state = Catalog(location).load_into(connection)
    assert "SHA-256" in state.problems[0]


def test_a_failing_copy_leaves_the_tables_usable(
    location: Location, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_file(location)

    def fail(*args: Any) -> None:
        raise duckdb.IOException("the file went away")

    monkeypatch.setattr(build_module, "_copy", fail)
    Catalog(location).load_into(connection)
    assert rows_of(connection)["versions"] != []


def test_a_store_without_store_json_has_a_catalog_too(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    location = Location(str(tmp_path / "bare"))
    assert list_store(location).store_id == ""
    assert Catalog(location).load_into(connection) != CatalogState("")
    assert rows_of(connection) == {table: [] for table in TABLES}


def test_threads_that_build_at_once_all_get_answers(location: Location) -> None:
    expected = answers(location)
    found: list[Rows] = []

    def work() -> None:
        for _ in range(3):
            stored_file(location)
            found.append(answers(location))

    threads = [threading.Thread(target=work) for _ in range(4)]
    (Path(location.url) / "catalog.duckdb").unlink()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 12


def _build_in_process(url: str, cache: str, results: Any) -> None:
    os.environ["NAIT_STORE_CACHE"] = cache
    location = Location(url)
    found = []
    for _ in range(3):
        path = Catalog(location).path_for_reading()
        found.append((str(path), len(answers(location)["segments"])))
        if path is not None:
            path.unlink(missing_ok=True)
    results.put(found)


def test_processes_that_build_at_once_all_get_answers(location: Location, cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_build_in_process, args=(location.url, str(cache), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert [n for part in found for _, n in part] == [4] * 6
