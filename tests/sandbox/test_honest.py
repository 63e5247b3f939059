"""Ordinary queries give in the sandbox what they give without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nait_store
from nait_store.errors import ForbiddenError, IncompatibleError, InvalidInputError, LimitExceededError, NotFoundError
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.registry.recipes import RECIPES, choose_recipe
from nait_store.store.facade import Store
from nait_store.testing.stores import build_set, fake_identity

Bench = Any  # of conftest.py, which importlib mode cannot import
QUERIES = {
    "top": "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY score DESC LIMIT 5",
    "natural": "SELECT sample_id, instruction, score FROM alignment('pool', 'math') JOIN samples('pool') "
    "USING (sample_id) ORDER BY score DESC LIMIT 5",
    "per_domain": "SELECT domain, sample_id FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) "
    "QUALIFY row_number() OVER (PARTITION BY domain ORDER BY score DESC) <= 2 ORDER BY ALL",
    "with_ctes": "WITH a AS (FROM alignment('pool', 'math')), b AS (SELECT avg(score) AS mean FROM a) "
    "SELECT count(*) FROM a, b WHERE score > mean",
    "recursive": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n * 2 FROM r WHERE n < 100) SELECT list(n) FROM r",
    "windows": "SELECT sample_id, percent_rank() OVER w, lag(score) OVER w, ntile(4) OVER w FROM "
    "alignment('pool', 'math') WINDOW w AS (ORDER BY score) ORDER BY ALL",
    "aggregates": "SELECT count(*), sum(n_tokens), round(corr(score, n_tokens), 9), quantile_cont(score, [0.1, 0.9]), "
    "round(stddev(score), 9), histogram(domain) FROM alignment('pool', 'math') JOIN samples('pool') USING (row_id)",
    "grouping_sets": "SELECT domain, truncated, count(*) FROM samples('pool') "
    "GROUP BY CUBE (domain, truncated) ORDER BY ALL",
    "json": "SELECT record->>'$.domain' AS d, json_extract(record, '$.instruction') FROM samples('pool') ORDER BY ALL",
    "texts": "SELECT upper(domain), regexp_extract(sample_id, '[0-9]+'), string_split(instruction, ' ')[1], "
    "format('{}-{}', domain, n_tokens) FROM samples('pool') ORDER BY sample_id LIMIT 3",
    "lists": "SELECT list_transform(range(5), lambda x: x * 2), list_sum([1, 2]), [1, 2, 3][1:2], "
    "list_aggregate([1.0, 2.0], 'stddev_samp'), flatten([[1], [2]]), array_to_string(['a', 'b'], '-')",
    "structs": "SELECT {'a': 1, 'b': 'x'} AS s, struct_extract(s, 'a'), struct_pack(c := 2), "
    "map {'k': 1}['k'], unnest([1, 2])",
    "dates": "SELECT date_trunc('month', DATE '2026-03-17'), DATE '2026-03-17' + INTERVAL 3 DAYS, "
    "strftime(TIMESTAMP '2026-03-17 12:00', '%H'), EXTRACT(year FROM DATE '2026-03-17')",
    "sets": "SELECT sample_id FROM samples('pool') EXCEPT SELECT sample_id FROM samples('pool') WHERE domain = 'code' "
    "ORDER BY ALL",
    "anti_join": "SELECT count(*) FROM samples('pool@1') ANTI JOIN alignment('pool', 'math') USING (sample_id)",
    "all_profiles": "SELECT profile, count(*) FROM alignment_all('pool') GROUP BY ALL",
    "layers": "SELECT layer, round(avg(projection), 3) FROM alignment_layers('pool', 'math') GROUP BY ALL ORDER BY ALL",
    "names_from_a_query": "SELECT p.reference, count(*) FROM profiles p, alignment('pool', p.reference) GROUP BY ALL",
    "all_samples": "SELECT activation_set, count(*) FROM all_samples GROUP BY ALL",
    "selected_samples": "SELECT count(*) FROM selected_samples",
    "metadata": "SELECT activation_set, n_samples, n_segments FROM activation_sets",
    "metadata_joined": "SELECT s.activation_set, p.reference FROM activation_sets s JOIN profiles p "
    "ON p.capture_id = s.capture_id AND list_contains(s.features, p.feature) ORDER BY ALL",
    "layers_of_profiles": "SELECT layer, sign_margin FROM profile_layers WHERE reference = 'math@1' ORDER BY layer",
    "neuron": "FROM neuron('pool', 1, 3) ORDER BY ALL LIMIT 3",
    "activation": "FROM activation('pool', 0) ORDER BY sample_id LIMIT 2",
    "top_neurons": "FROM top_neurons('pool', 's000003', k := 3) ORDER BY ALL",
    "similar": "FROM similar('pool', 's000003', k := 3) ORDER BY ALL",
    "profile_similarity": "FROM profile_similarity() ORDER BY ALL",
    "types_without_an_arrow_form": "SELECT INTERVAL 3 DAYS, 5::BIGNUM, '101'::BIT, [INTERVAL 1 DAY], 1::UHUGEINT",
    "described": "DESCRIBE SELECT sample_id, score FROM alignment('pool', 'math')",
    "summarized": "SUMMARIZE SELECT domain, truncated FROM samples('pool')",
    "pivoted": "FROM (PIVOT (SELECT domain, truncated, 1 AS one FROM samples('pool')) ON domain IN ('code', 'maths') "
    "USING sum(one)) ORDER BY ALL",
    "sampled": "SELECT count(*) FROM samples('pool') USING SAMPLE 100%",
    "computed_name": "SELECT count(*) FROM samples('po' || 'ol')",
    "nothing": "SELECT sample_id, score FROM alignment('pool', 'math') WHERE false",
    "huge_sum": "SELECT sum(n_tokens) AS total, typeof(sum(n_tokens)) FROM samples('pool')",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_an_ordinary_query_gives_what_it_gives_without_the_sandbox(bench: Bench, query: str) -> None:
    plain, sandboxed = bench.store.sql(query), bench.sql(query)
    assert sandboxed.columns == plain.columns
    assert sandboxed.arrow().schema.types == plain.arrow().schema.types
    assert repr(sandboxed.fetchall()) == repr(plain.fetchall())
    assert sandboxed.warnings == plain.warnings


@pytest.mark.parametrize(
    ("query", "params"),
    [
        (
            "SELECT count(*) FROM alignment($set, $profile) WHERE score < $most",
            {"set": "pool", "profile": "math", "most": 1},
        ),
        ("SELECT count(*) FROM samples(?) WHERE domain = ?", ["pool", "code"]),
        ("SELECT count(*) FROM samples($1)", ["pool@1"]),
    ],
)
def test_parameters(bench: Bench, query: str, params: Any) -> None:
    assert bench.sql(query, params).fetchall() == bench.store.sql(query, params).fetchall()


@pytest.mark.parametrize("params", ["text", {"other": 1}, []], ids=["text", "other", "none"])
def test_parameters_that_do_not_match_are_refused_alike(bench: Bench, params: Any) -> None:
    with pytest.raises(InvalidInputError) as plain:
        bench.store.sql("SELECT $name", params)
    with pytest.raises(InvalidInputError) as sandboxed:
        bench.sql("SELECT $name", params)
    assert str(sandboxed.value) == str(plain.value)


def test_tables_and_files_of_the_caller(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("sample_id,label\ns000001,good\n", encoding="utf-8")
    given = {"labels": str(path), "extra": {"label": ["good"], "weight": np.array([0.5], np.float16)}}
    query = "SELECT domain, weight FROM samples('pool') JOIN labels USING (sample_id) JOIN extra USING (label)"
    assert bench.sql(query, tables=given).fetchall() == [("code", 0.5)]


def test_a_file_is_read_as_a_table_and_not_by_its_path(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(ForbiddenError, match="may not read '/"):
        bench.sql(f"FROM '{path}'", tables={"labels": str(path)})


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("FROM samples('pol')", NotFoundError),
        ("FROM alignment('pool', 'mth')", NotFoundError),
        ("SELECT scor FROM alignment('pool', 'math')", NotFoundError),
        ("SELECT CAST(domain AS INTEGER) FROM samples('pool') WHERE sample_id = 's000001'", InvalidInputError),
        ("SELECT 1 +", InvalidInputError),
        ("SELECT error('mine')", InvalidInputError),
    ],
)
def test_slips_are_told_alike(bench: Bench, query: str, error: type[Exception]) -> None:
    with pytest.raises(error) as plain:
        bench.store.sql(query)
    with pytest.raises(error) as sandboxed:
        bench.sql(query)
    assert str(sandboxed.value) == str(plain.value)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of its own: ``pool@1`` and ``math@1``, of which nothing is scored."""
    store = nait_store.open(str(tmp_path / "a 'strange' [folder]*"), create=True)
    build_set(store.location, "pool", 30, 2, 8, n_segments=2, user_fields={"domain": ["maths", "code", "chat"] * 10})
    _build(store, "math")
    return store


def _build(store: Store, name: str, **recipe: Any) -> None:
    store.profiles.registry.build(
        name,
        store.sets.versions.open("pool"),
        recipe=choose_recipe(**recipe) if recipe else RECIPES["default"],
        rows=None,
        where=None,
        limit=None,
        seed=0,
        background=None,
    )


def test_missing_scores_are_computed_and_kept_by_the_caller(store: Store) -> None:
    query = "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY sample_id"
    found = store.sql(query, sandbox=True).fetchall()
    assert len(store.location.names("scores")) == 4  # a file and a record for each of two segments
    assert store.sql(query).fetchall() == found


def test_no_more_is_computed_than_allowed(store: Store) -> None:
    _build(store, "code", method="mean", metric="dot")
    with pytest.raises(LimitExceededError, match="2 pairs of set and profile"):
        store.sql("FROM alignment_all('pool')", sandbox=SandboxLimits(new_scores=1))
    assert store.location.names("scores") == []
    assert store.sql("FROM alignment_all('pool')", sandbox=SandboxLimits(new_scores=2)).n_rows == 60


def test_other_features_and_metrics_are_computed_as_asked(store: Store) -> None:
    query = "SELECT score FROM alignment('pool', 'math', metric := 'dot') ORDER BY row_id"
    assert store.sql(query, sandbox=True).fetchall() == store.sql(query).fetchall()


def test_nothing_is_computed_for_a_slip(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.sql("SELECT scor FROM alignment('pool', 'math')", sandbox=True)
    assert store.location.names("scores") == []


def test_what_was_committed_meanwhile_is_seen(store: Store) -> None:
    query = "SELECT (SELECT count(*) FROM samples('pool')), (SELECT max(version) FROM versions WHERE kind = 'set')"
    assert store.sql(query, sandbox=True).fetchall() == [(30, 1)]
    build_set(store.location, "pool", 5, 2, 8, first=30, user_fields={"domain": ["code"] * 5})
    assert store.sql(query, sandbox=True).fetchall() == [(35, 2)]


def test_a_profile_that_means_nothing_on_a_set_is_refused(store: Store) -> None:
    build_set(store.location, "elsewhere", 5, 2, 8, identity=fake_identity("another-model"))
    with pytest.raises(IncompatibleError):
        store.sql("FROM alignment('elsewhere', 'math')", sandbox=True)


def test_scores_that_cannot_be_kept_are_an_error(store: Store) -> None:
    frozen = Store(store.location.read_only("it is frozen", "thaw it"), store.record)
    with pytest.raises(InvalidInputError, match="cannot be kept in the store"):
        frozen.sql("FROM alignment('pool', 'math')", sandbox=True)
    assert frozen.sql("FROM samples('pool')", sandbox=True).n_rows == 30


def test_a_set_that_is_a_link_to_another_disk_is_read(store: Store, tmp_path: Path) -> None:
    root = store.location.local_path("activations/pool")
    assert root is not None
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    assert store.sql("FROM samples('pool')", sandbox=True).n_rows == 30


def test_a_store_in_memory_is_refused() -> None:
    store = nait_store.open("memory://sandboxed", create=True)
    with pytest.raises(InvalidInputError, match="lives in this process alone"):
        store.sql("SELECT 1", sandbox=True)


@pytest.mark.parametrize("sandbox", ["yes", 10, None])
def test_limits_are_limits(bench: Bench, sandbox: Any) -> None:
    with pytest.raises(InvalidInputError, match="sandbox is"):
        bench.store.sql("SELECT 1", sandbox=sandbox)


def test_a_large_answer_comes_whole(bench: Bench) -> None:
    table = bench.sql("SELECT range AS a FROM range(500000)", limits=SandboxLimits(output_bytes=16 << 20)).arrow()
    assert table.equals(pa.table({"a": range(500_000)}))
