"""The controls that a selection is doubted with: length-matched, embedding, fused with other columns."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nait_store
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_set, fake_identity
from tests.selection.choices import PROFILES, Pool, build_pool, combined

Built = tuple[nait_store.Store, Pool]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_pool(tmp_path_factory.mktemp("controls"))


def ids(selection: Any) -> list[str]:
    return selection.rows.column("sample_id").to_pylist()


def by_chance(names: Any, seed: int) -> list[str]:
    return sorted(names, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).hexdigest())


def last_layer(store: nait_store.Store, name: str) -> dict[str, np.ndarray]:
    """Sample id → mean of the last layer, [J] float64."""
    found = {}
    for segment in store.sets.open(name).segments:
        arrays = segment.read(Feature.MEAN).astype(np.float64)[:, -1]
        found |= dict(zip(segment.samples(["sample_id"]).column(0).to_pylist(), arrays, strict=True))
    return found


def cosines(store: nait_store.Store, in_domain: list[np.ndarray]) -> dict[str, float]:
    centroid = np.mean(in_domain, axis=0)
    centroid /= np.linalg.norm(centroid)
    return {one: float(v @ centroid / np.linalg.norm(v)) for one, v in last_layer(store, "pool").items()}


@settings(max_examples=12, deadline=None)
@given(
    names=st.sampled_from([["math"], ["math", "code"]]),
    top=st.integers(1, 60),
    seed=st.integers(0, 3),
    group=st.sampled_from([{}, {"quota": "source=code:10%"}, {"per": "source"}]),
)
def test_length_matched_has_the_lengths_of_alignment_and_chance_decides(
    built: Built, names: list[str], top: int, seed: int, group: dict[str, str]
) -> None:
    store, pool = built
    options: dict[str, Any] = {"profile": names, "top": top, **group}
    reference = ids(store.select("pool", **options))
    selection = store.select("pool", strategy="length-matched", seed=seed, **options)
    chosen = ids(selection)
    n_tokens = dict(zip(pool.ids, pool.n_tokens, strict=True))
    of_source = dict(zip(pool.ids, pool.sources, strict=True))
    named = {"code"} if "quota" in group else set(pool.sources)

    lengths = sorted(n_tokens[one] for one in reference)
    edges = {lengths[math.ceil(k * len(lengths) / 20) - 1] for k in range(1, 20)}

    def stratum(one: str) -> tuple[int, str | None] | None:
        source = of_source[one] if group and of_source[one] in named else None
        within = lengths[0] <= n_tokens[one] <= lengths[-1]
        return (sum(n_tokens[one] > edge for edge in edges), source) if within else None

    wanted = Counter(stratum(one) for one in reference)
    assert Counter(stratum(one) for one in chosen) == wanted
    expected = {
        one for key, n in wanted.items() for one in by_chance([i for i in pool.ids if stratum(i) == key], seed)[:n]
    }
    assert chosen == by_chance(expected, seed)
    assert ids(store.select("pool", strategy="length-matched", seed=seed, **options)) == chosen
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == chosen


def test_embedding_is_the_cosine_to_the_centroid_of_a_set(built: Built) -> None:
    store, _ = built
    selection = store.select("pool", strategy="embedding", in_domain="of-math", top=90)
    expected = cosines(store, list(last_layer(store, "of-math").values()))
    assert ids(selection) == sorted(expected, key=lambda one: (-expected[one], one))
    scores = selection.rows.column("score").to_pylist()
    assert np.allclose(scores, [expected[one] for one in ids(selection)], atol=1e-6)
    rerun = store.sql(selection.query).arrow()
    assert rerun.column("sample_id").to_pylist() == ids(selection)
    assert np.allclose(rerun.column("score").to_numpy(), scores, atol=1e-6)


def test_embedding_takes_the_samples_that_the_profile_was_built_from(built: Built) -> None:
    store, pool = built
    store.profiles.build("drawn", source="pool", where="n_tokens > 8", limit=6, seed=3)
    drawn = by_chance(pool.ids[pool.n_tokens > 8], 3)[:6]
    vectors = last_layer(store, "pool")
    expected = cosines(store, [vectors[one] for one in drawn])
    selection = store.select("pool", profile="drawn", strategy="embedding", where="source = 'code'", top=5)
    candidates = pool.ids[pool.sources == "code"]
    assert ids(selection) == sorted(candidates, key=lambda one: (-expected[one], one))[:5]
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == ids(selection)


@pytest.mark.parametrize("kind", ["minmax", "rank"])
@pytest.mark.parametrize("combine", [None, "sum", "rrf"])
def test_columns_are_fused_on_one_scale(built: Built, kind: str, combine: str | None) -> None:
    store, pool = built
    names = ["math"] if combine is None else list(PROFILES)
    _, scores, _ = combined(pool, names, [1.0] * len(names), combine or "one")

    def scaled(values: np.ndarray) -> np.ndarray:
        if kind == "minmax":
            return (values - values.min()) / (values.max() - values.min())
        return np.array([(values < value).sum() for value in values]) / (len(values) - 1)

    fused = scaled(scores) + 0.5 * scaled(pool.n_tokens.astype(float)) - 0.25 * scaled(np.arange(90.0))
    selection = store.select(
        "pool", profile=names, combine=combine, fuse={"n_tokens": 0.5, "source_index": -0.25}, fuse_by=kind, top=40
    )
    assert ids(selection) == [pool.ids[i] for i in pool.order([(-s,) for s in fused])[:40]]
    assert np.allclose(selection.rows.column("score").to_numpy(), np.sort(fused)[::-1][:40])
    assert store.sql(selection.query).arrow().column("sample_id").to_pylist() == ids(selection)


def test_controls_are_recorded_and_make_the_selection_again(built: Built) -> None:
    store, _ = built
    for name, options in {
        "matched": {"profile": "math", "strategy": "length-matched", "seed": 5, "top": 20},
        "embedded": {"strategy": "embedding", "in_domain": "of-math", "top": 7},
        "fused": {"profile": "math:2", "fuse": ["n_tokens:1"], "fuse_by": "rank", "top": 9},
    }.items():
        first = store.select("pool", **options)
        saved = store.selections.save(name, first)
        assert store.select_again(saved.reference).rows.equals(first.rows)
        assert store.selections.open(name).selection().request.recorded() == first.request.recorded()
    with pytest.raises(InvalidInputError, match="selection:embedded@1"):
        store.sets.delete("of-math")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strategy": "embedding"}, "none were named"),
        ({"strategy": "embedding", "profile": ["math", "code"]}, "one centroid"),
        ({"strategy": "embedding", "profile": "math", "in_domain": "of-math"}, "one centroid"),
        ({"profile": "math", "in_domain": "of-math"}, "for --strategy embedding"),
        ({"strategy": "length-matched"}, "none was named"),
        ({"profile": ["math", "code"], "fuse": {"n_tokens": 1}}, "a union of several profiles has none"),
        ({"strategy": "random", "fuse": {"n_tokens": 1}}, "a random order has none"),
        ({"profile": "math", "fuse": ["n_tokens"]}, "not COLUMN:WEIGHT"),
        ({"profile": "math", "fuse": ["n_tokens:0"]}, "not COLUMN:WEIGHT"),
        ({"profile": "math", "fuse": ["n_tokens:1", "n_tokens:2"]}, "twice"),
        ({"profile": "math", "fuse_by": "rank"}, "for --fuse"),
        ({"profile": "math", "fuse": ["n_tokens:1"], "fuse_by": "log"}, "not a scale"),
        ({"profile": "math", "fuse": ["quality:1"]}, r"7 of 90 candidates have no number in quality"),
        ({"profile": "math", "fuse": ["source:1"]}, "source"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, built: Built, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        built[0].select("pool", **options)


def test_an_unknown_column_to_fuse_is_named(built: Built) -> None:
    with pytest.raises(NotFoundError, match="n_token"):
        built[0].select("pool", profile="math", fuse={"n_token": 1})


def test_sets_of_different_models_are_not_compared(built: Built) -> None:
    store, _ = built
    build_set(store.location, "foreign", 5, identity=fake_identity("another-model"))
    with pytest.raises(IncompatibleError, match="cannot be compared"):
        store.select("pool", strategy="embedding", in_domain="foreign")
