"""Combined profiles within a store: what they need is protected, and whoever asks is told."""

from __future__ import annotations

import numpy as np
import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.capture import Feature
from nait_store.store.dependents import Dependents
from tests.store.gc_stores import NO_GRACE, collect


@pytest.fixture
def store(store: nait_store.Store) -> nait_store.Store:
    """With the profiles math, code and chat."""
    store.profiles.build("math", source="maths", method="mean")
    store.profiles.build("code", source="pool", where="kind = 'code'", method="mean")
    store.profiles.build("chat", source="pool", where="kind = 'chat'", method="mean")
    return store


def test_parts_are_given_with_or_without_weights(store: nait_store.Store) -> None:
    one, created = store.profiles.combine("both", {"math": 1.0, "code@1": 0.5}, without=["chat"])
    other, created_again = store.profiles.combine("both", ["math@1", "code:0.5"], without=["chat@1"])
    assert (one.reference, other.reference, created, created_again) == ("both@1", "both@1", True, False)


def test_it_scores_as_numpy_does(store: nait_store.Store) -> None:
    profile, _ = store.profiles.combine("both", {"math": 1.0, "code": 0.5}, metric="dot")
    version = store.sets.open("pool")
    stored = version.segments[0].read(Feature.MEAN).astype(np.float64)  # [n, L, J]
    expected = np.einsum("nlj,lj->n", stored, profile.directions().astype(np.float64))
    ids = version.segments[0].samples(["sample_id"]).column(0).to_pylist()
    scores = store.sql("SELECT sample_id, score FROM alignment('pool', 'both')").fetchall()
    assert dict(scores) == pytest.approx(dict(zip(ids, expected, strict=True)), rel=1e-4, abs=1e-5)


def test_unknown_parts_suggest_near_names(store: nait_store.Store) -> None:
    for parts, options in (
        ({"mth": 1.0}, {}),
        ({"math": 1.0}, {"without": ["mth"]}),
        ({"math": 1.0}, {"offset": "mth"}),
    ):
        with pytest.raises(NotFoundError) as caught:
            store.profiles.combine("both", parts, **options)  # type: ignore[arg-type]
        assert "'math'" in str(caught.value.next_step)


def test_parts_know_who_was_combined_from_them(store: nait_store.Store) -> None:
    store.profiles.combine("both", {"math": 1.0, "code": 0.5}, without=["chat"])
    every = Dependents(store)
    assert [str(one) for one in every.of(Kind.PROFILE, "math", 1)] == ["profile:both@1 (was combined from it)"]
    assert [str(one) for one in every.of(Kind.PROFILE, "chat", 1)] == ["profile:both@1 (was made orthogonal to it)"]
    with pytest.raises(InvalidInputError, match="profile:both@1"):
        store.profiles.delete("math")
    store.profiles.delete("both")
    store.profiles.delete("math")


def test_versions_of_one_profile_may_go_together(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", limit=16, method="mean")
    store.profiles.combine("math", {"math@1": 1.0, "math@2": 1.0})
    with pytest.raises(InvalidInputError, match="profile:math@3"):
        store.profiles.delete("math@1")
    assert len(store.profiles.delete("math").deleted) == 3


def test_gc_keeps_the_parts_and_their_sets(store: nait_store.Store) -> None:
    store.profiles.combine("a-sum", {"math": 1.0, "code": 0.5})  # read before what it needs, and after
    store.profiles.combine("z-sum", {"a-sum": 1.0}, without=["chat"])
    for name in ("math", "code", "chat", "a-sum"):
        store.profiles.delete(name, force=True)
    store.sets.delete("maths", force=True)
    report = collect(store, grace=NO_GRACE)
    assert report.garbage == ()
    held = {one.what: one.reason for one in report.held}
    assert held["math@1"] == "profile:a-sum@1 was combined from it"
    assert held["a-sum@1"] == "profile:z-sum@1 was combined from it"
    assert held["maths@1"] == "profile:math@1 was built from it"
    for name in ("chat", "a-sum", "math"):
        store.profiles.undelete(name)
    assert store.profiles.open("a-sum").directions().shape == (2, 8)


def test_gc_takes_the_parts_of_what_is_gone(store: nait_store.Store) -> None:
    store.profiles.combine("sum", {"math": 1.0, "code": 0.5})
    store.profiles.delete("sum")
    store.profiles.delete("math")
    collect(store, grace=NO_GRACE)
    assert store.profiles.registry.log.listing("math").collected == (1,)


def test_purge_names_what_was_combined_from_what_it_touched(store: nait_store.Store) -> None:
    store.profiles.combine("sum", {"math": 1.0, "code": 0.5})
    store.profiles.combine("more", {"sum": 1.0}, without=["math"])
    store.profiles.combine("clean", {"math": 2.0})
    sample = store.sql("SELECT sample_id FROM samples('pool') WHERE kind = 'code' LIMIT 1").fetchone()
    assert sample is not None
    report = store.purge("pool", ids=[sample[0]])
    (told,) = [one for one in report.remains if one.startswith("profiles built when")]
    assert "profile:sum@1" in told
    assert "profile:more@1" in told
    assert "profile:clean@1" not in told


def test_it_is_found_and_listed_by_its_parts(store: nait_store.Store) -> None:
    store.profiles.combine("sum", {"math": 1.0, "code": -0.5}, without=["chat"])
    (found,) = store.profiles.search("math@1 without")
    assert (found.reference, found.made_from) == ("sum@1", "1 × math@1 - 0.5 × code@1, without chat@1")
    row = store.sql("SELECT parts, method, n_samples FROM profiles WHERE profile = 'sum'").fetchone()
    assert row == (["math@1", "code@1", "chat@1"], "combined", None)
    assert store.profiles.history("sum")[0].what.endswith("without chat@1")
    diff = store.profiles.diff("math", "sum")
    assert "sum@1 was made from" in diff.unknown
    assert len(diff.cosines) == 2
