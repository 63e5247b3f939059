"""``all_samples`` and ``selected_samples``: over all sets, over all saved selections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.query.views import VIEWS
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set

Workbench = Any  # of conftest.py, which importlib mode cannot import


def test_all_samples_are_those_of_the_latest_versions(shared: Workbench) -> None:
    rows = shared.rows(
        "SELECT activation_set, count(*), count(DISTINCT sample_id) FROM all_samples GROUP BY ALL ORDER BY ALL"
    )
    assert rows == [("elsewhere@1", 10, 10), ("pool@2", 60, 60)]


def test_all_samples_have_their_records(shared: Workbench) -> None:
    [(record, same)] = shared.rows(
        "SELECT a.record, a.record = s.record FROM all_samples a JOIN samples('pool') s USING (sample_id) "
        "WHERE a.activation_set = 'pool@2' AND sample_id = 's000007'"
    )
    assert same
    assert "s000007" in record


def test_all_samples_follow_a_deletion_at_once(bench: Workbench) -> None:
    assert bench.rows("SELECT count(*) FROM all_samples") == [(70,)]
    bench.delete("pool", ["s000003", "s000004"])
    assert bench.rows("SELECT count(*) FROM all_samples") == [(68,)]


def test_an_empty_store_has_the_views_without_rows(empty: Workbench) -> None:
    for view in VIEWS:
        assert empty.rows(f"FROM {view}") == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_has_a_comment(shared: Workbench, view: str) -> None:
    columns = shared.rows("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = $v", {"v": view})
    assert [name for name, _ in columns] == [name for name, *_ in shared.rows(f"DESCRIBE {view}")]
    assert all(comment for _, comment in columns)
    [(comment,)] = shared.rows("SELECT comment FROM duckdb_views() WHERE view_name = $v", {"v": view})
    assert comment


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_described_types_when_it_is_filled(shared: Workbench, view: str) -> None:
    described = [row[:2] for row in shared.rows(f"DESCRIBE {view}")]
    assert [row[:2] for row in shared.rows(f"DESCRIBE SELECT * FROM {view}")] == described


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nait_store.Store]:
    """A store with two versions of 'best' and one of 'other'."""
    url = str(tmp_path_factory.mktemp("selections") / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIT_STORE_CACHE", str(Path(url).parent / "cache"))
        store = nait_store.open(url, create=True)
        build_set(Location(url), "pool", 30, 2, 8, n_segments=2)
        store.profiles.build("math", source="pool")
        for name, top in (("best", 3), ("best", 5), ("other", 2)):
            store.selections.save(name, store.select("pool", profile="math", top=top))
        yield store
        store.session.close()


def test_selected_samples_are_the_rows_of_saved_selections(store: nait_store.Store) -> None:
    rows = store.sql(
        "SELECT reference, rank, sample_id, score FROM selected_samples ORDER BY reference, rank"
    ).fetchall()
    expected = [
        (reference, *row)
        for reference in ("best@1", "best@2", "other@1")
        for row in zip(*store.selections.open(reference).rows().to_pydict().values(), strict=True)
    ]
    assert rows == expected
    assert len(rows) == 10


def test_only_the_selection_that_is_asked_for_is_read(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = type(store.selections).open
    monkeypatch.setattr(
        type(store.selections), "open", lambda self, reference: opened.append(reference) or original(self, reference)
    )
    rows = store.sql(
        "SELECT activation_set, max(rank) FROM selected_samples WHERE selection = 'best' AND version = 2 GROUP BY ALL"
    ).fetchall()
    assert rows == [("pool@1", 5)]
    assert opened == ["best@2"]


def test_many_scans_of_selected_samples_do_not_wait_for_each_other(store: nait_store.Store) -> None:
    counts = ", ".join(f"(SELECT count(*) FROM selected_samples WHERE version <> {-i})" for i in range(20))
    assert store.sql(f"SELECT {counts}").fetchall() == [(10,) * 20]


def test_selections_join_with_the_selections_view_and_samples(store: nait_store.Store) -> None:
    rows = store.sql(
        "SELECT s.reference, s.top, count(i.instruction) FROM selections s JOIN selected_samples USING (reference) "
        "JOIN samples('pool') i USING (sample_id) WHERE s.is_latest GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert rows == [("best@2", "5", 5), ("other@1", "2", 2)]
