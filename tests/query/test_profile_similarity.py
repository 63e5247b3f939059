"""``profile_similarity``: cosines between the directions of profiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.registry.profiles import Profile
from nait_store.registry.recipes import RECIPES

Workbench = Any  # of conftest.py, which importlib mode cannot import


def cosines(first: Profile, second: Profile) -> dict[int | None, float]:
    """By layer, and of the whole under None, in float64."""
    a, b = first.directions().astype(np.float64), second.directions().astype(np.float64)
    found: dict[int | None, float] = {}
    for layer in sorted(set(first.record.layers) & set(second.record.layers)):
        v, w = a[first.record.layers.index(layer)], b[second.record.layers.index(layer)]
        found[layer] = float(v @ w / np.linalg.norm(v) / np.linalg.norm(w))
    found[None] = float(np.mean(list(found.values())))
    return found


def similarities(rows: list[tuple[Any, ...]]) -> dict[tuple[str, str, int | None], float]:
    found = {(a, b, layer): cosine for a, b, layer, cosine in rows}
    assert len(found) == len(rows)
    return found


def of_layers(bench: Workbench, name: str, layers: list[int]) -> Profile:
    """Build a profile that has some layers only."""
    built: Profile = bench.registry.build(name, bench.sets.open("pool"), recipe=RECIPES["default"], layers=layers)[0]
    return built


def expected(bench: Workbench, *pairs: tuple[str, str]) -> Any:
    return pytest.approx(
        {
            (a, b, layer): value
            for a, b in pairs
            for layer, value in cosines(bench.registry.open(a), bench.registry.open(b)).items()
        },
        abs=1e-12,
    )


def test_named_profiles_are_compared_each_with_each_once(shared: Workbench) -> None:
    rows = shared.rows("FROM profile_similarity(['math@prod', 'code', 'math', 'code@1'])")
    pairs = [("code@1", "math@1"), ("code@1", "math@2"), ("math@1", "math@2")]
    assert similarities(rows) == expected(shared, *pairs)


def test_without_names_the_latest_of_every_profile_is_compared(bench: Workbench) -> None:
    bench.profile("another", "pool@1", method="mean")
    rows = bench.rows("FROM profile_similarity()")
    pairs = [("another@1", "code@1"), ("another@1", "math@2"), ("code@1", "math@2")]
    assert similarities(rows) == expected(bench, *pairs)


def test_profiles_of_one_direction_have_cosine_one(bench: Workbench) -> None:
    bench.profile("twin", "pool@1", method="mean", metric="cosine")
    rows = bench.rows("SELECT layer, cosine FROM profile_similarity(['code', 'twin']) ORDER BY layer NULLS LAST")
    assert [layer for layer, _ in rows] == [0, 1, None]
    assert [value for _, value in rows] == pytest.approx([1.0] * 3, abs=1e-12)
    assert max(value for _, value in rows) <= 1.0


def test_profiles_of_other_models_are_compared_among_themselves(bench: Workbench) -> None:
    bench.profile("far", "elsewhere")
    bench.profile("farther", "elsewhere", method="mean")
    rows = bench.rows("FROM profile_similarity()")
    assert similarities(rows) == expected(bench, ("code@1", "math@2"), ("far@1", "farther@1"))


def test_naming_profiles_of_different_models_is_an_error(bench: Workbench) -> None:
    bench.profile("far", "elsewhere")
    with pytest.raises(IncompatibleError, match="profile:code@1 and profile:far@1 cannot be") as caught:
        bench.sql("FROM profile_similarity(['math', 'far', 'code'])")
    assert "model_fingerprint" in str(caught.value)


def test_only_layers_in_common_count(bench: Workbench) -> None:
    of_layers(bench, "first", [0])
    of_layers(bench, "second", [1])
    rows = bench.rows("FROM profile_similarity()")
    pairs = [("code@1", "first@1"), ("code@1", "math@2"), ("code@1", "second@1"), ("first@1", "math@2")]
    assert similarities(rows) == expected(bench, *pairs, ("math@2", "second@1"))
    with pytest.raises(IncompatibleError, match="profiles first@1 and second@1 have no layer in common"):
        bench.sql("FROM profile_similarity(['first', 'code', 'second'])")


@pytest.mark.parametrize(("held_bytes", "at_once"), [(1, 512), (1 << 30, 1)])
def test_the_answer_does_not_depend_on_how_much_is_held_at_a_time(
    shared: Workbench, monkeypatch: pytest.MonkeyPatch, held_bytes: int, at_once: int
) -> None:
    monkeypatch.setattr("nait_store.query.features.profile_similarity._HELD_BYTES", held_bytes)
    monkeypatch.setattr("nait_store.query.features.profile_similarity._AT_ONCE", at_once)
    rows = shared.rows("FROM profile_similarity(['math@1', 'math@2', 'code'])")
    pairs = [("code@1", "math@1"), ("code@1", "math@2"), ("math@1", "math@2")]
    assert similarities(rows) == expected(shared, *pairs)


@pytest.mark.parametrize(
    ("condition", "n_rows"),
    [
        ("layer IS NULL", 3),
        ("layer = 1", 3),
        ("layer IS NOT NULL", 6),
        ("profile_a = 'code@1'", 6),
        ("profile_a = 'code@1' AND profile_b = 'math@2' AND layer IS NULL", 1),
        ("'math@1' IN (profile_a, profile_b)", 6),
        ("profile_b = 'nobody'", 0),
        ("cosine < 0", 1),
    ],
)
def test_conditions_choose_among_the_rows(shared: Workbench, condition: str, n_rows: int) -> None:
    call = "profile_similarity(['math@1', 'math@2', 'code'])"
    chosen = shared.rows(f"FROM {call} WHERE {condition}")
    every = shared.rows(f"SELECT *, {condition} FROM {call}")
    assert similarities(chosen) == pytest.approx(similarities([row[:4] for row in every if row[4]]), abs=1e-12)
    assert len(chosen) == n_rows


def test_directions_are_read_of_the_profiles_that_a_condition_names_alone(
    shared: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    read = Profile.read_directions

    def counting(self: Profile) -> Any:
        opened.append(self.reference)
        return read(self)

    monkeypatch.setattr(Profile, "read_directions", counting)
    call = "profile_similarity(['math@1', 'math@2', 'code'])"
    shared.rows(f"SELECT cosine FROM {call} WHERE profile_a = 'code@1' AND profile_b = 'math@2'")
    assert opened == ["code@1", "math@2"]
    opened.clear()
    assert shared.rows(f"SELECT count(*), count(layer) FROM {call}") == [(9, 6)]
    assert opened == []


def test_no_activations_are_read(shared: Workbench) -> None:
    shared.events.clear()
    assert shared.session.explain("FROM profile_similarity()").size_bytes == 0
    shared.rows("FROM profile_similarity()")
    assert shared.events == []


def test_less_than_two_profiles_leave_nothing_to_compare(empty: Workbench) -> None:
    assert empty.rows("FROM profile_similarity()") == []


@pytest.mark.parametrize("names", ["'math'", "['math', 'math@2']"])
def test_a_single_name_is_refused(shared: Workbench, names: str) -> None:
    with pytest.raises(InvalidInputError, match="only math@2 is named"):
        shared.sql(f"FROM profile_similarity({names})")


def test_an_unknown_name_is_an_error(shared: Workbench) -> None:
    with pytest.raises(NotFoundError, match="'mat'"):
        shared.sql("FROM profile_similarity(['mat', 'code'])")
