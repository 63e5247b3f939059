"""The record beside the index: nothing but the very file that it describes is given to DuckDB."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from nait_store.catalog import build as build_module
from nait_store.catalog.build import Catalog
from nait_store.catalog.record import read_record, record_path
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now
from nait_store.testing.stores import build_set


def store_at(folder: Path) -> Location:
    location = Location(str(folder))
    record = StoreRecord(format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now())
    location.create_bytes("store.json", record.to_json_bytes())
    build_set(location, "pool", 6)
    return location


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return Catalog(store_at(tmp_path / "store"))


@pytest.fixture
def path(catalog: Catalog) -> Path:
    path = catalog.path_for_reading()
    assert path is not None
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are given to DuckDB from now on."""
    seen: list[Path] = []
    attach = build_module._attach

    def spy(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        seen.append(path)
        attach(connection, path)

    monkeypatch.setattr(build_module, "_attach", spy)
    return seen


def load(catalog: Catalog) -> list[tuple[int, ...]]:
    with duckdb.connect() as connection:
        catalog.load_into(connection)
        return connection.sql("SELECT n_samples FROM versions").fetchall()


def test_the_record_describes_the_file(path: Path) -> None:
    record = read_record(path)
    assert record is not None
    assert record.describes(path)
    assert record.size_bytes == path.stat().st_size


def test_a_whole_index_is_read(catalog: Catalog, path: Path, opened: list[Path]) -> None:
    assert load(catalog) == [(6,)]
    assert opened == [path]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no record", "damaged record", "another store's"])
def test_any_other_file_is_never_given_to_duckdb(
    catalog: Catalog, path: Path, opened: list[Path], tmp_path: Path, damage: str
) -> None:
    data = path.read_bytes()
    record = record_path(path).read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "no record":
        record_path(path).unlink()
    elif damage == "damaged record":
        record_path(path).write_bytes(record.replace(b'"size_bytes":', b'"size_bytes":1'))
    else:
        other = Catalog(store_at(tmp_path / "other")).path_for_reading()
        assert other is not None
        shutil.copy(other, path)
        shutil.copy(record_path(other), record_path(path))
    assert load(catalog) == [(6,)]
    assert opened == []
    mended = read_record(path)
    assert mended is not None
    assert mended.describes(path)


def test_a_crash_between_file_and_record_costs_a_rebuild_only(
    catalog: Catalog, path: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nait_store.catalog import record as record_module

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    build_set(Location(str(path.parent)), "pool", 3, first=50)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "replace_local", crash)
        with pytest.raises(KeyboardInterrupt):
            catalog.path_for_reading()
    assert read_record(path) is None
    opened.clear()
    assert load(catalog) == [(6,), (9,)]
    assert opened == []


def test_a_builder_that_was_overtaken_leaves_no_record_of_another_file(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nait_store.catalog import record as record_module

    replace_local = record_module.replace_local

    def be_overtaken(target: Path, data: bytes) -> None:
        shutil.copy(path, path.with_name("theirs"))
        path.with_name("theirs").replace(path)
        replace_local(target, data)

    monkeypatch.setattr(record_module, "replace_local", be_overtaken)
    build_set(Location(str(path.parent)), "pool", 3, first=50)
    catalog.path_for_reading()
    assert read_record(path) is None
