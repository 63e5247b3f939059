"""What an attached file shows, asked by DuckDB alone: the answers of the store itself."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

import nait_store
from nait_store.catalog.rows import TABLES
from nait_store.errors import IncompatibleError
from nait_store.schemas.capture import Feature
from nait_store.store.attached_file import AttachReport
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.scores import plain_projections
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record

HOSTILE = [
    "select",
    "with space",
    'quo"te',
    "apo'strophe",
    "Text",
    "text",
    "名前 🙂",
    "new\nline",
    "record",
    "$1",
    "set_ref",
]


@dataclass
class Attached:
    """A store and a file attached to it."""

    store: nait_store.Store
    report: AttachReport

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return ask(self.report.url, sql)


def ask(path: str | Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def fill(store: nait_store.Store) -> None:
    """pool@1 (40 in 3 segments), pool@2 (60, one more field), pool@3 (57), maths, foreign."""
    location = store.location
    kinds = [("code", "chat")[i % 2] for i in range(60)]
    build_set(location, "pool", 40, n_segments=3, user_fields={"a kind": kinds[:40]})
    build_set(location, "pool", 20, seed=7, first=40, user_fields={"a kind": kinds[40:], "n": list(range(20))})
    build_set(location, "maths", 20, seed=9, first=1000)
    build_set(location, "foreign", 10, seed=4, first=2000, identity=fake_identity("another"))
    store.profiles.build("math", source="maths")
    store.profiles.build("math", source="pool@1", method="mean", metric="cosine")
    store.profiles.build("code", source="pool@1")
    store.profiles.build("strange", source="foreign")
    store.sets.delete_samples("pool", where="sample_id IN ('s000003', 's000017', 's000050')")
    store.sets.tag("pool@1", "paper")


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attached]:
    """Everything at its latest version, pool@1 by its tag and pool@2; all scores but those under code."""
    folder = tmp_path_factory.mktemp("attached [a]*'b\"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIT_STORE_CACHE", str(folder / "cache"))
        store = nait_store.open(str(folder / "store"), create=True)
        fill(store)
        for reference in ("pool", "pool@paper", "pool@2", "maths"):
            store.score(reference, "math@1", "math@2")
        store.score("maths", "code")
        sets = ["pool", "pool@paper", "pool@2", "maths", "foreign"]
        report = store.attach(str(folder / "it's a view.duckdb"), sets=sets, profiles=["math", "math@1", "c*"])
        yield Attached(store, report)


@pytest.mark.parametrize(
    ("view", "reference"),
    [
        ("pool", "pool@3"),
        ('"pool@paper"', "pool@1"),
        ('"pool@2"', "pool@2"),
        ("maths", "maths"),
        ("foreign", "foreign"),
    ],
)
def test_samples_are_those_of_the_store(attached: Attached, view: str, reference: str) -> None:
    ours = attached.store.sql(f"FROM samples('{reference}') ORDER BY sample_id")
    with duckdb.connect(attached.report.url, read_only=True) as connection:
        theirs = connection.sql(f"FROM samples.{view} ORDER BY sample_id").to_arrow_table()
    assert theirs.equals(ours.arrow())
    assert theirs.num_rows > 0


@pytest.mark.parametrize(
    ("view", "pair"),
    [
        ("pool__math", "'pool@3', 'math@2'"),
        ('"pool__math@1"', "'pool@3', 'math@1'"),
        ('"pool@paper__math"', "'pool@1', 'math@2'"),
        ('"pool@2__math@1"', "'pool@2', 'math@1'"),
        ("maths__code", "'maths', 'code'"),
    ],
)
def test_scores_are_those_of_the_store(attached: Attached, view: str, pair: str) -> None:
    ours = attached.store.sql(f"FROM alignment({pair}) ORDER BY sample_id").fetchall()
    assert attached.ask(f"SELECT * EXCLUDE (projections) FROM alignment.{view} ORDER BY sample_id") == ours
    assert len(ours) > 0


def test_one_view_has_all_scores(attached: Attached) -> None:
    pairs = attached.ask("SELECT DISTINCT activation_set, profile FROM alignment ORDER BY ALL")
    sets = ("pool@1", "pool@2", "pool@3", "maths@1")
    expected = [(s, p) for s in sets for p in ("math@1", "math@2")] + [("maths@1", "code@1")]
    assert pairs == sorted(expected)
    rows = attached.ask("FROM alignment WHERE activation_set = 'pool@3' AND profile = 'math@2' ORDER BY sample_id")
    assert rows == attached.ask("FROM alignment.pool__math ORDER BY sample_id")


def test_a_pair_of_the_view_of_everything_reads_that_pairs_files_only(attached: Attached) -> None:
    def n_scans(query: str) -> int:
        [(_, plan)] = attached.ask(f"EXPLAIN {query}")
        return int(plan.count("READ_PARQUET"))

    one = n_scans("SELECT score FROM alignment.pool__math")
    condition = "activation_set = 'pool@3' AND profile = 'math@2'"
    assert n_scans(f"SELECT score FROM alignment WHERE {condition}") == one > 0
    assert n_scans("SELECT score FROM alignment") > 2 * one


def test_projections_are_the_terms_of_each_layer(attached: Attached) -> None:
    profile = attached.store.profiles.open("math@2")
    version = attached.store.sets.open("pool@3")
    expected = {}
    for segment in version.segments:
        terms = plain_projections(segment, profile.target())
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        visible = version.visible_rows(segment)
        expected |= {i: terms[row] for row, i in enumerate(ids) if visible is None or visible[row]}
    found = dict(attached.ask("SELECT sample_id, projections FROM alignment.pool__math"))
    assert found.keys() == expected.keys()
    for sample_id, terms in expected.items():
        np.testing.assert_allclose(found[sample_id], terms, atol=1e-5)


QUERIES = [
    "SELECT sample_id, instruction, score FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) "
    "ORDER BY score DESC LIMIT 5",
    "FROM samples('pool@1') ORDER BY row_id",
    "FROM samples('pool@paper') ORDER BY row_id",
    "FROM alignment('pool@3', 'math@2') ORDER BY row_id",
    "FROM alignment('pool@paper', 'math@1') ORDER BY row_id",
    "SELECT sample_id FROM samples('pool@2') ANTI JOIN samples('pool@1') USING (sample_id) ORDER BY sample_id",
    "SELECT s.activation_set, p.reference FROM activation_sets s JOIN profiles p ON p.capture_id = s.capture_id "
    "ORDER BY ALL",
    "SELECT corr(old.score, new.score) > 0 FROM alignment('pool', 'math@1') old JOIN alignment('pool', 'math@2') new "
    "USING (row_id)",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_written_for_the_store_gives_the_same(attached: Attached, query: str) -> None:
    assert attached.ask(query) == attached.store.sql(query).fetchall()


def test_the_catalog_is_copied(attached: Attached) -> None:
    with duckdb.connect(attached.report.url, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        for table in TABLES:
            ours = attached.store.sql(f"FROM {table} ORDER BY ALL").arrow()
            assert connection.sql(f"FROM {table} ORDER BY ALL").to_arrow_table().equals(ours), table


@pytest.mark.parametrize(
    "query",
    [
        "FROM samples('pol')",
        "FROM samples('pool@9')",
        "FROM alignment('pool', 'maht')",
        "FROM alignment('foreign', 'math')",
        "FROM alignment('pool', 'code')",
    ],
)
def test_what_is_not_attached_is_an_error_and_no_empty_table(attached: Attached, query: str) -> None:
    with pytest.raises(duckdb.CatalogException, match="does not exist"):
        attached.ask(query)


def test_pairs_without_scores_are_left_out_with_the_command_that_adds_them(attached: Attached) -> None:
    missing = {one.set_ref: one.profile_refs for one in attached.report.missing}
    assert missing == {"pool@1": ("code@1",), "pool@2": ("code@1",), "pool@3": ("code@1",)}
    rows = attached.ask("FROM missing_scores ORDER BY activation_set")
    assert [row[:2] for row in rows] == [("pool@1", "code@1"), ("pool@2", "code@1"), ("pool@3", "code@1")]
    assert shlex.split(rows[0][2]) == ["nait-store", "--store", attached.store.url, "score", "pool@1", "code@1"]
    names = attached.ask("SELECT view_name FROM duckdb_views() WHERE schema_name = 'alignment'")
    assert "pool__code" not in {name for (name,) in names}


def test_the_file_says_what_it_shows(attached: Attached) -> None:
    rows = attached.ask("SELECT snapshot_id, store_url, store_id FROM snapshot")
    assert rows == [(attached.report.snapshot_id, attached.store.url, attached.store.record.store_id)]
    views = attached.ask("FROM attached_views")
    assert ("samples", "pool", "pool@3", None, 57) in views
    assert ("alignment", "pool@paper__math", "pool@1", "math@2", 40) in views
    assert len(views) == len(attached.report.views)
    for schema, name, _, _, n_rows in views:
        assert attached.ask(f'SELECT count(*) FROM {schema}."{name}"') == [(n_rows,)]


def test_every_table_view_and_column_has_a_comment(attached: Attached) -> None:
    for function, column in (("duckdb_tables", "table_name"), ("duckdb_views", "view_name")):
        names = attached.ask(f"SELECT {column}, comment FROM {function}() WHERE NOT internal")
        assert [name for name, comment in names if not comment] == []
        assert len(names) > 0
    columns = attached.ask("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal")
    assert [row for row in columns if not row[2]] == []
    assert ("pool", "a kind", "Field a kind of the records") in columns


def test_two_attached_files_keep_apart(attached: Attached, tmp_path: Path) -> None:
    other = nait_store.open(str(tmp_path / "other"), create=True)
    build_set(other.location, "pool", 4)
    url = other.attach(str(tmp_path / "other.duckdb")).url
    ours = attached.report.url.replace("'", "''")
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{ours}' AS a (READ_ONLY)")
        connection.execute(f"ATTACH '{url}' AS b (READ_ONLY)")
        connection.execute("USE b").fetchall()

        assert connection.execute("SELECT count(*) FROM samples('pool')").fetchall() == [(4,)]
        assert connection.execute("SELECT count(*) FROM a.samples.pool").fetchall() == [(57,)]
        assert connection.execute("SELECT count(*) FROM a.alignment.pool__math").fetchall() == [(57,)]
        # The macro of one would answer from the other.
        with pytest.raises(duckdb.InvalidInputException, match="USE it"):
            connection.execute("FROM a.samples('pool')").fetchall()
        connection.execute("USE a").fetchall()
        assert connection.execute("SELECT count(*) FROM samples('pool')").fetchall() == [(57,)]


def test_the_duckdb_program_of_an_older_release_reads_it(attached: Attached) -> None:
    program = shutil.which("duckdb", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None, "it comes with the development dependencies"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("v1."), "a release that reads no newer layout than its own"
    query = "SELECT count(*) FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id)"
    command = [program, "-readonly", "-csv", "-noheader", attached.report.url, query]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "57"


def small(url: str) -> nait_store.Store:
    store = nait_store.open(url, create=True)
    build_set(store.location, "pool", 12, n_segments=2)
    store.profiles.build("math", source="pool@1")
    return store


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    """A small store without scores."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return small(str(tmp_path / "store"))


def test_scores_are_computed_when_asked_for(local: nait_store.Store, tmp_path: Path) -> None:
    first = local.attach(str(tmp_path / "a.duckdb"))
    second = local.attach(str(tmp_path / "b.duckdb"), compute=True)
    assert (len(first.missing), first.n_computed) == (1, 0)
    assert (len(second.missing), second.n_computed) == (0, 2)
    ours = local.sql("SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY ALL").fetchall()
    assert ask(second.url, "SELECT sample_id, score FROM alignment ORDER BY ALL") == ours


def test_without_any_scores_there_is_no_view_of_them(local: nait_store.Store, tmp_path: Path) -> None:
    url = local.attach(str(tmp_path / "a.duckdb")).url
    with pytest.raises(duckdb.CatalogException, match="alignment"):
        ask(url, "FROM alignment")


def test_a_store_opened_by_a_relative_path_is_found_from_anywhere(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    small("store").attach("view.duckdb", compute=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ask("../view.duckdb", "SELECT count(*) FROM samples.pool") == [(12,)]
    assert ask("../view.duckdb", "SELECT count(*) FROM alignment.pool__math") == [(12,)]


def test_fields_of_any_name_are_columns(local: nait_store.Store, tmp_path: Path) -> None:
    location = local.location
    local.sets.versions.create(fake_set_record("odd.set-1_x"))
    row = fake_row("x", 0, {name: f"value of {name}" for name in HOSTILE})
    segment = build_segment(location, "odd.set-1_x", [row], {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
    local.sets.versions.commit("odd.set-1_x", [segment], ingest_ids=())
    url = local.attach(str(tmp_path / "a.duckdb"), sets="odd.*", compute=True).url

    ours = local.sql("FROM samples('odd.set-1_x')")
    with duckdb.connect(url, read_only=True) as connection:
        assert connection.sql("FROM samples('odd.set-1_x')").to_arrow_table().equals(ours.arrow())
        assert connection.sql('FROM samples."odd.set-1_x"').columns == ours.columns
        assert connection.sql("SELECT sample_id FROM alignment('odd.set-1_x', 'math')").fetchall() == [("x",)]


def test_what_the_store_appends_later_is_not_shown(local: nait_store.Store, tmp_path: Path) -> None:
    url = local.attach(str(tmp_path / "a.duckdb"), compute=True).url
    before = ask(url, "FROM alignment ORDER BY ALL")
    build_set(local.location, "pool", 5, seed=3, first=500)
    local.sets.delete_samples("pool", ids=["s000001"])
    assert ask(url, "SELECT count(*) FROM samples.pool") == [(12,)]
    assert ask(url, "FROM alignment ORDER BY ALL") == before


def test_after_a_purge_views_fail_until_the_file_is_written_again(local: nait_store.Store, tmp_path: Path) -> None:
    url = local.attach(str(tmp_path / "a.duckdb"), compute=True).url
    local.purge("pool", ids=["s000002"])
    with pytest.raises(duckdb.IOException, match=r"samples\.parquet"):
        ask(url, "FROM samples.pool")

    again = local.attach(url, sets=["pool", "pool@1"], compute=True, overwrite=True)

    assert again.url == url
    for view in ("pool", "pool@1"):
        ids = {sample_id for (sample_id,) in ask(url, f'SELECT sample_id FROM samples."{view}"')}
        assert ids == {f"s{i:06d}" for i in range(12)} - {"s000002"}
        scored = {sample_id for (sample_id,) in ask(url, f'SELECT sample_id FROM alignment."{view}__math"')}
        assert scored == ids


def test_a_version_without_samples_has_an_empty_view_of_the_same_columns(
    local: nait_store.Store, tmp_path: Path
) -> None:
    local.sets.delete_samples("pool", where="true", allow_empty=True)
    local.sets.compact("pool")
    url = local.attach(str(tmp_path / "a.duckdb"), compute=True).url
    ours = local.sql("FROM samples('pool')")
    with duckdb.connect(url, read_only=True) as connection:
        found = connection.sql("FROM samples.pool").to_arrow_table()
    assert found.num_rows == 0
    assert found.schema.equals(ours.arrow().schema)


def test_hidden_rows_of_many_segments_are_left_out(local: nait_store.Store, tmp_path: Path) -> None:
    for i in range(18):
        build_set(local.location, "pool", 2, seed=i, first=100 + 2 * i)
    local.sets.delete_samples("pool", ids=[f"s{100 + 2 * i:06d}" for i in range(18)])
    url = local.attach(str(tmp_path / "a.duckdb"), compute=True).url
    ours = local.sql("FROM alignment('pool', 'math') ORDER BY row_id").fetchall()
    assert len(ours) == 12 + 18
    assert ask(url, "FROM alignment('pool', 'math') ORDER BY row_id") == ours


def test_a_profile_that_fits_no_set_is_refused_if_it_was_named(attached: Attached, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="strange@1 does not apply"):
        attached.store.attach(str(tmp_path / "a.duckdb"), sets="pool", profiles="strange")
    report = attached.store.attach(str(tmp_path / "a.duckdb"), sets="pool", profiles="s*")
    assert [view.name for view in report.views] == ["pool"]
    assert report.missing == ()


def test_a_store_in_a_bucket_is_read_by_url(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = small(object_store.new_url())
    store.sets.delete_samples("pool", ids=["s000004"])
    url = store.attach(str(tmp_path / "a.duckdb"), compute=True).url
    shutil.rmtree(tmp_path / "cache")
    with duckdb.connect(url, read_only=True) as connection:
        connection.register_filesystem(s3fs.S3FileSystem())  # in the place of DuckDB's httpfs
        found = connection.execute("FROM alignment('pool', 'math') ORDER BY row_id").fetchall()
        [(sql,)] = connection.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'pool'").fetchall()
    assert found == store.sql("FROM alignment('pool', 'math') ORDER BY row_id").fetchall()
    assert f"'{store.url}/activations/pool/segments/" in sql
