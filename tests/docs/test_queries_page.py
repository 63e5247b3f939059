"""docs/queries.md: its store can be made, every query runs there and gives what is shown, and the figures are right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

import nait_store
from nait_store.query.functions import FUNCTIONS
from nait_store.schemas.capture import Feature
from tests.docs.pages import REPOSITORY, run
from tests.docs.worked_queries import PAGE, WorkedQuery, differ, shown_rows, worked_queries

QUERIES = worked_queries()
BY_TITLE = {query.title: query for query in QUERIES}
_PROFILES = ("math@2", "code@1", "math-paper@1")

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[nait_store.Store]:
    """The store that the page's commands make, in whose folder the tests then are, as the reader is."""
    folder = tmp_path_factory.mktemp("queries")
    run(PAGE, folder, programs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "tour")
        patch.delenv("NAIT_STORE", raising=False)
        store = nait_store.open()
        yield store
        store.session.close()


def answer(store: nait_store.Store, title: str) -> list[dict[str, Any]]:
    """The rows that the question of this title gives, by column."""
    return store.sql(BY_TITLE[title].sql).arrow().to_pylist()


@pytest.fixture(scope="module")
def pool(tour: nait_store.Store) -> dict[str, Any]:
    """pool@3 in the order of its sample ids: plain columns, and a score vector for each profile."""
    columns = ("sample_id", "domain", "n_content_tokens", "row_id", "instruction")
    rows = sorted(tour.sql(f"SELECT {', '.join(columns)} FROM samples('pool')").fetchall())
    found: dict[str, Any] = {
        name: np.array(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)
    }
    for profile in _PROFILES:
        scored = dict(tour.sql(f"SELECT sample_id, score FROM alignment('pool', '{profile}')").fetchall())
        found[profile] = np.array([scored[sample_id] for sample_id in found["sample_id"]])
    return found


def best(scores: Floats, n: int) -> set[int]:
    """Positions of the n highest."""
    return set(np.argsort(-scores, kind="stable")[:n].tolist())


def test_the_page_has_at_least_25_questions() -> None:
    assert len(QUERIES) >= 25
    assert all(query.title.endswith("?") for query in QUERIES)


@pytest.mark.parametrize("query", QUERIES, ids=[query.title for query in QUERIES])
def test_a_query_gives_what_the_page_shows(tour: nait_store.Store, query: WorkedQuery) -> None:
    actual = shown_rows(tour.sql(query.sql).arrow())
    assert not differ(query.shown, actual), "\n".join([f"{PAGE.name}:{query.line} gives", *actual])


def test_every_function_and_every_view_has_a_question() -> None:
    text = "\n".join(query.sql for query in QUERIES)
    views = ("activation_sets", "versions", "segments", "profiles", "profile_layers", "aliases", "tags", "all_samples",
             "selected_samples")  # fmt: skip
    assert [name for name in (*(f"{name}(" for name in FUNCTIONS), *views) if name not in text] == []


def test_the_readme_leads_to_the_page() -> None:
    for page in (REPOSITORY / "README.md", PAGE.parent / "README.md", PAGE.parent / "sql.md"):
        assert f"{'docs/' if page.parent == REPOSITORY else ''}queries.md)" in page.read_text(encoding="utf-8")


def test_a_difference_in_the_last_decimal_is_none() -> None:
    assert not differ(["n   score", "12  3.912"], ["n  score", "12  3.911"])
    assert differ(["n   score", "12  3.912"], ["n  score", "12  3.909"])
    assert differ(["n", "12"], ["n", "13"])
    assert differ(["file", "pool.jsonl"], ["file", "pile.jsonl"])
    assert differ(["n", "1"], ["n", "1", "2"])


def test_the_auc_is_the_share_of_pairs_in_the_right_order(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    found = answer(tour, "How well does each profile tell each kind from the rest?")
    assert [row["profile"] for row in found] == sorted(_PROFILES)
    for row in found:
        scores = pool[row["profile"]]
        for domain in ("maths", "code", "translation", "chat"):
            own, rest = scores[pool["domain"] == domain], scores[pool["domain"] != domain]
            above = np.sign(own[:, None] - rest[None, :])
            assert row[domain] == pytest.approx(((above + 1) / 2).mean(), abs=5.1e-4)


def test_the_overlap_is_that_of_two_sets_of_ids(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    n = -(-len(pool["sample_id"]) // 10)
    for row in answer(tour, "How much do the best of two profiles overlap?"):
        one, other = best(pool[row["profile"]], n), best(pool[row["other"]], n)
        assert row["n_both"] == len(one & other)
        assert row["jaccard"] == pytest.approx(len(one & other) / len(one | other), abs=5.1e-4)


def test_the_correlation_with_length_is_pearsons(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    for row in answer(tour, "Does the profile merely like long samples?"):
        those = np.full(len(pool["domain"]), True) if row["domain"] == "all" else pool["domain"] == row["domain"]
        scores, lengths = pool["math@2"][those], pool["n_content_tokens"][those]
        assert row["with_length"] == pytest.approx(np.corrcoef(scores, lengths)[0, 1], abs=5.1e-3)
        assert row["score_per_100_tokens"] == pytest.approx(100 * np.polyfit(lengths, scores, 1)[0], abs=5.1e-3)


def test_without_length_scores_are_moved_along_the_line_of_their_kind(
    tour: nait_store.Store, pool: dict[str, Any]
) -> None:
    lengths, moved = pool["n_content_tokens"], pool["math@2"].copy()
    for domain in np.unique(pool["domain"]):
        those = pool["domain"] == domain
        slope = np.polyfit(lengths[those], moved[those], 1)[0]
        moved[those] -= slope * (lengths[those] - lengths[those].mean())
    first = np.argsort(-moved)[:6]
    found = answer(tour, "Who is best once length is taken out?")
    assert [row["length"] for row in found] == lengths[first].tolist()
    assert [row["by_score"] for row in found] == rankdata(-pool["math@2"], method="ordinal")[first].tolist()
    assert [row["at_mean_length"] for row in found] == pytest.approx(moved[first].tolist(), abs=5.1e-4)


def test_the_agreement_with_ratings_is_spearmans(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    lines = Path("ratings.csv").read_text(encoding="utf-8").splitlines()[1:]
    ratings = {sample_id.strip('"'): int(rating) for sample_id, rating in (line.split(",") for line in lines)}
    found = {row["domain"]: row for row in answer(tour, "Does the score agree with my own ratings?")}
    for domain in ("maths", "code"):
        pairs = [
            (score, ratings[sample_id])
            for sample_id, kind, score in zip(pool["sample_id"], pool["domain"], pool["math@2"], strict=True)
            if kind == domain and sample_id in ratings
        ]
        assert found[domain]["n"] == len(pairs)
        assert found[domain]["rank_correlation"] == pytest.approx(spearmanr(pairs).statistic, abs=5.1e-3)


def test_places_are_shared_out_by_the_largest_remainder(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    names, counts = np.unique(pool["domain"], return_counts=True)
    exact = dict(zip(names.tolist(), (200 * counts / counts.sum()).tolist(), strict=True))
    wanted = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: exact[name] % 1, reverse=True)[: 200 - sum(wanted.values())]:
        wanted[name] += 1
    found = answer(tour, "How do I share out 200 places exactly?")
    assert {row["domain"]: row["wanted"] for row in found} == wanted
    assert sum(row["wanted"] for row in found) == 200


def test_quotas_are_filled_with_the_best_of_each_kind(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    found = answer(tour, "How do I fill fixed quotas?")
    for domain, wanted in (("maths", 120), ("code", 60), ("chat", 20)):
        own = pool["domain"] == domain
        expected = pool["sample_id"][own][np.argsort(-pool["math@2"][own])[:wanted]]
        assert {row["sample_id"] for row in found if row["domain"] == domain} == set(expected.tolist())


def test_the_budget_of_tokens_is_used_up_and_not_exceeded(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    tokens, n = 0, 0
    for at in np.argsort(-pool["math@2"]):
        if tokens + pool["n_content_tokens"][at] > 20_000:
            break
        tokens, n = tokens + int(pool["n_content_tokens"][at]), n + 1
    [row] = answer(tour, "How far down the ranking does a budget of tokens reach?")
    assert (row["n"], row["tokens"]) == (n, tokens)


def test_mixes_are_those_of_their_definitions(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    scores = np.stack([pool["math@2"], pool["code@1"]])
    z = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, ddof=1, keepdims=True)
    fused = sum(1 / (60 + rankdata(-of_one, method="min")) for of_one in scores)
    found = {row["domain"]: row for row in answer(tour, "What serves two profiles at once?")}
    for column, mixed in (("sum_z", z.sum(axis=0)), ("least_z", z.min(axis=0)), ("rrf", fused)):
        chosen = pool["domain"][list(best(mixed, 200))].tolist()
        assert {name: row[f"best_by_{column}"] for name, row in found.items()} == {n: chosen.count(n) for n in found}


def test_layers_are_left_out_of_the_arrays_themselves(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    parts = projections(tour, pool)  # [n, L]
    whole = parts.sum(axis=1)
    n = -(-len(whole) // 10)
    for row in answer(tour, "What is the ranking without one of the layers?"):
        without = whole - parts[:, row["without_layer"]]
        assert row["rank_correlation"] == pytest.approx(spearmanr(whole, without).statistic, abs=6e-4)
        assert (row["n_best"], row["n_kept"]) == (n, len(best(whole, n) & best(without, n)))


def test_the_distance_of_a_layer_is_cohens_d(tour: nait_store.Store, pool: dict[str, Any]) -> None:
    parts, maths = projections(tour, pool), pool["domain"] == "maths"
    for row in answer(tour, "Which layers tell maths from the rest?"):
        own, rest = parts[maths, row["layer"]], parts[~maths, row["layer"]]
        pooled = np.sqrt((own.var(ddof=1) + rest.var(ddof=1)) / 2)
        assert row["distance"] == pytest.approx((own.mean() - rest.mean()) / pooled, abs=0.051)


def projections(store: nait_store.Store, pool: dict[str, Any]) -> Floats:
    """Cosine of every sample and math@2, layer by layer, in float64: [n, L]."""
    directions = store.profiles.open("math@2").directions().astype(np.float64)  # [L, J]
    ids: list[str] = []
    parts = []
    for segment in store.sets.open("pool").segments:
        array = segment.read(Feature.MEAN, slice(0, segment.n_rows)).astype(np.float64)  # [n, L, J]
        parts.append(np.einsum("nlj,lj->nl", array, directions) / np.linalg.norm(array, axis=2))
        ids += segment.samples(["sample_id"]).column("sample_id").to_pylist()
    place = {sample_id: at for at, sample_id in enumerate(ids)}
    return np.concatenate(parts)[[place[sample_id] for sample_id in pool["sample_id"]]]
