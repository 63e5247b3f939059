"""Which versions ``attach`` takes, and the file that it writes: whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import nait_store
from nait_store.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptChunkError,
    InvalidInputError,
    NaitStoreError,
    NotFoundError,
    StorageError,
)
from nait_store.testing.stores import build_set


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nait_store.Store]:
    """pool@1, pool@2 (tagged paper), pool__a@1, pool-b@1; math@1, math@2, a__math@1; pool@2 scored under math@2."""
    folder = tmp_path_factory.mktemp("attach-file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIT_STORE_CACHE", str(folder / "cache"))
        made = nait_store.open(str(folder / "store"), create=True)
        for i, name in enumerate(("pool", "pool", "pool__a", "pool-b")):
            build_set(made.location, name, 4, seed=i, first=10 * i)
        made.profiles.build("math", source="pool-b")
        made.profiles.build("math", source="pool__a")
        made.profiles.build("a__math", source="pool__a")
        made.sets.tag("pool@2", "paper")
        made.score("pool", "math")
        yield made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "view.duckdb"


@pytest.mark.parametrize(
    ("asked", "views"),
    [
        ((), ["pool", "pool-b", "pool__a"]),
        ("pool", ["pool"]),
        ("set:pool@latest", ["pool"]),
        ("pool@paper", ["pool@paper"]),
        (["pool@1", "pool", "pool@1"], ["pool", "pool@1"]),
        ("pool*", ["pool", "pool-b", "pool__a"]),
        ("pool?[ab]", ["pool-b"]),
        ("pool@*", ["pool@1", "pool@2"]),
        ("*@2", ["pool@2"]),
        ("*@paper", ["pool@paper"]),
        ("set:*b@[1-9]", ["pool-b@1"]),
    ],
)
def test_sets_are_named_or_fit_a_pattern(store: nait_store.Store, out: Path, asked: str, views: list[str]) -> None:
    report = store.attach(str(out), sets=asked, profiles="math@2")
    assert sorted(view.name for view in report.views if view.schema == "samples") == views


def test_profiles_are_named_or_fit_a_pattern(store: nait_store.Store, out: Path) -> None:
    store.score("pool@1", "math@1", "math@2")
    report = store.attach(str(out), sets="pool@1", profiles=["math@*", "math"])
    names = [view.name for view in report.views if view.schema == "alignment"]
    assert names == ["pool@1__math@1", "pool@1__math@2", "pool@1__math"]
    with duckdb.connect(str(out), read_only=True) as connection:
        counted = connection.execute("SELECT profile, count(*) FROM alignment GROUP BY 1 ORDER BY 1").fetchall()
        assert counted == [("math@1", 4), ("math@2", 4)]
        assert connection.execute("SELECT count(*) FROM alignment('pool@1', 'math@2')").fetchall() == [(4,)]


@pytest.mark.parametrize(
    ("sets", "profiles", "says"),
    [
        ("pol", (), "did you mean 'pool'"),
        ("pool@9", (), "pool@1, pool@2"),
        ("poll*", (), "no set fits 'poll\\*'"),
        ("pool@7*", (), "no set fits"),
        ("pool", "maht", "did you mean 'math'"),
        ("pool", "x*", "no profile fits"),
    ],
)
def test_what_does_not_exist_is_refused(
    store: nait_store.Store, out: Path, sets: str, profiles: str, says: str
) -> None:
    with pytest.raises(NotFoundError, match=says):
        store.attach(str(out), sets=sets, profiles=profiles)
    assert not out.exists()


def test_pairs_whose_views_would_have_one_name_are_refused(store: nait_store.Store, out: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"would both be called alignment\.pool__a__math"):
        store.attach(str(out), sets=["pool", "pool__a"])
    store.attach(str(out), sets=["pool", "pool__a"], profiles="a__math")


def test_a_store_without_sets_has_nothing_to_attach(tmp_path: Path) -> None:
    empty = nait_store.open(str(tmp_path / "empty"), create=True)
    with pytest.raises(NotFoundError, match="there is no set"):
        empty.attach(str(tmp_path / "view.duckdb"))


def test_a_store_in_memory_is_refused(tmp_path: Path) -> None:
    memory = nait_store.open(f"memory://attach-{tmp_path.name}", create=True)
    with pytest.raises(InvalidInputError, match="lives in this process"):
        memory.attach(str(tmp_path / "view.duckdb"))


def test_an_existing_file_is_replaced_only_when_asked(store: nait_store.Store, out: Path) -> None:
    out.parent.mkdir()
    out.write_text("mine")
    with pytest.raises(AlreadyExistsError, match="--force"):
        store.attach(str(out), sets="pool")
    assert out.read_text() == "mine"
    report = store.attach(str(out), sets="pool", overwrite=True)
    assert report.size_bytes == out.stat().st_size
    assert [path.name for path in out.parent.iterdir()] == ["view.duckdb"]


def test_whoever_has_the_old_file_open_reads_on(store: nait_store.Store, out: Path) -> None:
    first = store.attach(str(out), sets="pool@1").snapshot_id
    with duckdb.connect(str(out), read_only=True) as connection:
        second = store.attach(str(out), sets="pool", overwrite=True).snapshot_id
        assert connection.execute("SELECT snapshot_id FROM snapshot").fetchall() == [(first,)]
    assert first != second
    with duckdb.connect(str(out), read_only=True) as connection:
        assert connection.execute("SELECT snapshot_id FROM snapshot").fetchall() == [(second,)]


def test_a_failure_on_the_way_leaves_what_was_there(
    store: nait_store.Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    store.attach(str(out), sets="pool")
    before = out.read_bytes()

    def fail(*_: object) -> Iterator[str]:
        raise StorageError("the disk is gone", next_step="buy another")

    monkeypatch.setattr("nait_store.query.attached.attaching.macros", fail)
    with pytest.raises(StorageError, match="the disk is gone"):
        store.attach(str(out), sets="pool", overwrite=True)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["view.duckdb"]
    assert list(aside.iterdir()) == []


@pytest.mark.parametrize("name", ["samples.duckdb", "Alignment.db", "samples", ".samples.v2.duckdb"])
def test_a_name_that_hides_the_views_is_refused(store: nait_store.Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="could not be told from the database"):
        store.attach(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["p.duckdb", "s.duckdb", "main.duckdb", "pool.duckdb", "snapshot.duckdb", "a 'b\".x"])
def test_other_names_are_fine(store: nait_store.Store, tmp_path: Path, name: str) -> None:
    store.attach(str(tmp_path / name), sets="pool")
    with duckdb.connect(str(tmp_path / name), read_only=True) as connection:
        query = "SELECT count(*) FROM samples.pool JOIN alignment('pool', 'math') USING (sample_id)"
        assert connection.execute(query).fetchall() == [(8,)]


def test_a_log_beside_the_file_is_nothing_to_write_over(store: nait_store.Store, out: Path) -> None:
    store.attach(str(out), sets="pool")
    with duckdb.connect(str(out)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a").fetchall()
        with pytest.raises(ConflictError, match=r"view\.duckdb\.wal is there"):
            store.attach(str(out), sets="pool", overwrite=True)
    with duckdb.connect(str(out), read_only=True) as connection:
        assert connection.execute("FROM mine").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [("activations/pool/segments/*/samples.parquet", CorruptChunkError), ("scores/*.parquet", StorageError)],
)
def test_a_damaged_file_of_the_store_is_named(
    store: nait_store.Store, out: Path, pattern: str, kind: type[NaitStoreError]
) -> None:
    found = {path: path.read_bytes() for path in Path(store.url).glob(pattern)}
    try:
        for path in found:
            path.write_bytes(b"no Parquet at all")
        with pytest.raises(kind, match=r"\.parquet") as caught:
            store.attach(str(out), sets="pool", profiles="math")
        assert "verify" in str(caught.value.next_step)
    finally:
        for path, data in found.items():
            path.write_bytes(data)
    assert not out.exists()
