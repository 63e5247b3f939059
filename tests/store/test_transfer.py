"""How alike two models rank the same candidates: counts, correlation and overlap against SciPy and plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

import nait_store
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.store.transfer import TransferReport
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record

OTHER = fake_identity("other")
N = 60


@pytest.fixture
def two_models(store: nait_store.Store) -> nait_store.Store:
    """Candidates of two models, of which ten are in the first set only and ten in the second; a profile of each."""
    build_set(store.location, "here", N, seed=5)
    build_set(store.location, "there", N, seed=6, first=10, identity=OTHER, n_layers=3, n_neurons=6)
    build_set(store.location, "maths-there", 20, seed=7, first=100, identity=OTHER, n_layers=3, n_neurons=6)
    store.profiles.build("math", source="maths")
    store.profiles.build("math-there", source="maths-there")
    return store


def report(store: nait_store.Store, *top: str) -> TransferReport:
    return store.transfer_report("math", "math-there", on=("here", "there"), top=top or ("10%", "30%"))


def scores(store: nait_store.Store, set_name: str, profile: str) -> dict[str, float]:
    return dict(store.sql(f"SELECT sample_id, score FROM alignment('{set_name}', '{profile}')").fetchall())


def test_only_samples_of_both_sets_are_compared(two_models: nait_store.Store) -> None:
    found = report(two_models)
    assert (found.first, found.second, found.first_set, found.second_set) == (
        "math@1", "math-there@1", "here@1", "there@1",
    )  # fmt: skip
    assert (found.n_common, found.n_only_first, found.n_only_second, found.n_changed) == (N - 10, 10, 10, 0)
    assert found.rows.num_rows == N - 10


def test_spearman_is_scipys(two_models: nait_store.Store) -> None:
    one, other = scores(two_models, "here", "math"), scores(two_models, "there", "math-there")
    common = sorted(one.keys() & other.keys())
    expected = spearmanr([one[i] for i in common], [other[i] for i in common]).statistic
    assert report(two_models).spearman == pytest.approx(expected, abs=1e-12)


def test_overlap_is_that_of_the_best_common_samples(two_models: nait_store.Store) -> None:
    one, other = scores(two_models, "here", "math"), scores(two_models, "there", "math-there")
    common = one.keys() & other.keys()
    for overlap in report(two_models, "10%", "30%", "7").overlaps:
        n = 7 if overlap.top == "7" else math.ceil(len(common) * int(overlap.top.removesuffix("%")) / 100)
        best = [set(sorted(common, key=lambda i: (-s[i], i))[:n]) for s in (one, other)]
        assert (overlap.n_best, overlap.n_common) == (n, len(best[0] & best[1]))
        assert overlap.share == len(best[0] & best[1]) / n
        assert overlap.share_by_chance == n / len(common)


def test_rows_hold_both_rankings(two_models: nait_store.Store) -> None:
    rows = report(two_models).rows.to_pylist()
    one, other = scores(two_models, "here", "math"), scores(two_models, "there", "math-there")
    assert [row["first_rank"] for row in rows] == list(range(1, N - 9))
    assert all(row["first_score"] == one[row["sample_id"]] for row in rows)
    by_second = sorted(rows, key=lambda row: row["second_rank"])
    assert [row["second_score"] for row in by_second] == sorted((other[r["sample_id"]] for r in rows), reverse=True)


def test_equal_scores_share_their_mean_rank(two_models: nait_store.Store) -> None:
    """Rows that are copies of few vectors: most scores occur several times."""
    rng = np.random.default_rng(8)
    rows = [fake_row(f"s{i:06d}", i) for i in range(10, 50)]
    vectors = rng.standard_normal((4, 3, 6), dtype=np.float32)[np.arange(40) % 4]
    sets = two_models.sets.versions
    sets.create(fake_set_record("tied", identity=OTHER, n_layers=3, n_neurons=6))
    segment = build_segment(two_models.location, "tied", rows, {Feature.MEAN: vectors}, identity=OTHER)
    sets.commit("tied", [segment], ingest_ids=())
    one, other = scores(two_models, "here", "math"), scores(two_models, "tied", "math-there")
    assert len(set(other.values())) == 4
    common = sorted(one.keys() & other.keys())
    found = two_models.transfer_report("math", "math-there", on=("here", "tied"))
    expected = spearmanr([one[i] for i in common], [other[i] for i in common]).statistic
    assert found.spearman == pytest.approx(expected, abs=1e-12)


def test_a_single_common_sample_has_no_correlation(two_models: nait_store.Store) -> None:
    build_set(two_models.location, "lone", 1, first=3, identity=OTHER, n_layers=3, n_neurons=6)
    found = two_models.transfer_report("math", "math-there", on=("here", "lone"))
    assert (found.n_common, found.spearman) == (1, None)
    assert [one.share for one in found.overlaps] == [1.0, 1.0]


def test_another_record_under_the_same_id_is_left_out(two_models: nait_store.Store) -> None:
    shape = {"identity": OTHER, "n_layers": 3, "n_neurons": 6}
    build_set(two_models.location, "edited", 15, user_fields={"note": ["new"] * 15}, **shape)
    build_set(two_models.location, "edited", N - 15, first=15, **shape)
    found = two_models.transfer_report("math", "math-there", on=("here", "edited"))
    assert (found.n_common, found.n_changed, found.n_only_first, found.n_only_second) == (N - 15, 15, 0, 0)
    assert "s000000" not in found.rows.column("sample_id").to_pylist()


def test_sets_with_nothing_but_changed_records_are_refused(two_models: nait_store.Store) -> None:
    notes = {"note": ["new"] * 15}
    build_set(two_models.location, "edited", 15, identity=OTHER, n_layers=3, n_neurons=6, user_fields=notes)
    with pytest.raises(InvalidInputError, match="15 ids stand for different records"):
        two_models.transfer_report("math", "math-there", on=("here", "edited"))


def test_sets_without_a_common_sample_are_refused(two_models: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match=r"here@1 and maths-there@1 have no sample in common"):
        two_models.transfer_report("math", "math-there", on=("here", "maths-there"))


def test_sets_the_wrong_way_round_are_told(two_models: nait_store.Store) -> None:
    with pytest.raises(IncompatibleError) as caught:
        two_models.transfer_report("math", "math-there", on=("there", "here"))
    assert caught.value.next_step == "name the sets the other way round: --on here there"


def test_a_profile_of_neither_set_is_refused_as_ever(two_models: nait_store.Store) -> None:
    with pytest.raises(IncompatibleError, match="model_fingerprint") as caught:
        two_models.transfer_report("math", "math-there", on=("here", "pool"))
    assert "other way round" not in str(caught.value)


@pytest.mark.parametrize(
    ("on", "top", "error", "says"),
    [
        (("here",), ("10%",), InvalidInputError, "1 sets were named"),
        (("here", "there", "pool"), ("10%",), InvalidInputError, "3 sets were named"),
        (("here", "their"), ("10%",), NotFoundError, "there"),
        (("here", "there"), ("0%",), InvalidInputError, "selects nothing"),
        (("here", "there"), ("101%",), InvalidInputError, "more than all"),
        (("here", "there"), ("51",), InvalidInputError, "50 candidates"),
        (("here", "there'; DROP TABLE x"), ("10%",), InvalidInputError, "not a valid set name"),
    ],
)
def test_slips(
    two_models: nait_store.Store, on: tuple[str, ...], top: tuple[str, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        two_models.transfer_report("math", "math-there", on=on, top=top)
