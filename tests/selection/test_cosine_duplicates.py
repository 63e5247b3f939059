"""Duplicates by activations: against float64 cosines of every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import nait_store
from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import ActivationSets
from nait_store.errors import CorruptChunkError, IncompatibleError, InvalidInputError
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.selection.redundancy import pruning, vector_duplicates
from nait_store.testing.stores import build_segment, build_set, fake_row, fake_set_record

N = 120
WIDTHS = (8, 300)  # of the latter vectors there are sketches


@pytest.fixture(scope="module", params=WIDTHS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> nait_store.Store:
    """Two segments of samples, half of them near another one by up to some tenths, one of zeros."""
    store = nait_store.open(str(tmp_path_factory.mktemp("cosine")), create=True)
    rng = np.random.default_rng(2)
    A = rng.standard_normal((N, 2, request.param), dtype=np.float32)
    for i in range(1, N, 2):
        noise = rng.standard_normal(A[i].shape, dtype=np.float32)
        A[i] = rng.uniform(0.5, 2) * (A[rng.integers(i)] + rng.choice([0, 0.1, 0.25, 0.3, 0.35, 0.5]) * noise)
    A[4, 1] = 0
    ActivationSets(store.location).create(fake_set_record("pool", n_layers=2, n_neurons=request.param))
    for begin in (0, N // 2):
        rows = [fake_row(f"s{i:03d}", i) for i in range(begin, begin + N // 2)]
        arrays = {Feature.MEAN: A[begin : begin + N // 2]}
        segment = build_segment(store.location, "pool", rows, arrays, dtype=StoredDtype.FLOAT16, chunk_rows=16)
        ActivationSets(store.location).commit("pool", [segment], ingest_ids=())
    store.profiles.build("math", source="pool", where="source_index < 40", quality_card=False)
    return store


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_LEAST_MORE", 1)
        patch.setattr(vector_duplicates, "_ROWS_AT_ONCE", 7)
        patch.setattr(vector_duplicates, "_KEPT_AT_ONCE", 16)
        yield


def units(store: nait_store.Store) -> dict[str, NDArray[np.float64]]:
    """Last layers as stored, scaled to length 1, by sample id."""
    found = {}
    for segment in store.sets.open("pool").segments:
        last = segment.read(Feature.MEAN)[:, -1].astype(np.float64)
        for sample_id, one in zip(segment.samples(["sample_id"]).column(0).to_pylist(), last, strict=True):
            found[sample_id] = one / (np.linalg.norm(one) or 1.0)
    return found


def kept(order: Sequence[str], of: dict[str, NDArray[np.float64]], threshold: float) -> list[str]:
    left: list[str] = []
    for one in order:
        if not any(float(of[one] @ of[other]) >= threshold for other in left):
            left.append(one)
    return left


@pytest.mark.parametrize("threshold", [0.7, 0.92, 0.95, 0.99999])
def test_the_better_ranked_of_two_near_directions_stays(store: nait_store.Store, threshold: float) -> None:
    order = store.select("pool", profile="math", top="100%").rows.column("sample_id").to_pylist()
    of = units(store)
    left = kept(order, of, threshold)
    assert len(left) < N
    for top in (10, len(left)):
        selection = store.select("pool", profile="math", top=top, drop_duplicates=f"cosine:{threshold}")
        assert selection.rows.column("sample_id").to_pylist() == left[:top]
        gone = [one for one in order[: order.index(left[top - 1])] if one not in left]
        assert selection.duplicates.column("sample_id").to_pylist() == gone
        for row in selection.duplicates.to_pylist():
            assert row["kind"] == "cosine"
            assert row["duplicate_of"] in left
            assert row["similarity"] == pytest.approx(float(of[row["sample_id"]] @ of[row["duplicate_of"]]), abs=1e-6)


def test_a_vector_of_zeros_is_like_no_other(store: nait_store.Store) -> None:
    selection = store.select("pool", profile="math", top="100%", drop_duplicates="cosine:0.5")
    assert "s004" in selection.rows.column("sample_id").to_pylist()


def test_rules_apply_one_after_the_other(store: nait_store.Store) -> None:
    ids = [f"s{i:03d}" for i in range(N)]
    rules = ["cosine:0.9", "exact"]  # the texts are all different
    selection = store.select("pool", strategy="random", seed=3, top="100%", drop_duplicates=rules)
    assert selection.request.drop_duplicates == ("exact", "cosine:0.9")
    order = store.select("pool", strategy="random", seed=3, top="100%").rows.column("sample_id").to_pylist()
    assert sorted(order) == ids
    assert selection.rows.column("sample_id").to_pylist() == kept(order, units(store), 0.9)
    store.selections.save("unique", selection)
    assert store.selections.verify("unique").identical


@pytest.mark.parametrize("rule", ["cosine:0.2", "cosine:1.5", "cosine:inf"])
def test_a_threshold_that_is_no_near_cosine_is_refused(store: nait_store.Store, rule: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not from 0\.5 to 1"):
        store.select("pool", profile="math", drop_duplicates=rule)


def test_numbers_that_are_none_are_told_of(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentReader, "values", lambda reader, *_: np.full((1, reader.record.n_neurons), np.nan))
    with pytest.raises(CorruptChunkError, match="NaN or infinity"):
        store.select("pool", profile="math", top=5, drop_duplicates="cosine")


def test_a_set_without_mean_activations_is_refused(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    build_set(store.location, "pool", 6, features=(Feature.DRIFT,))
    with pytest.raises(IncompatibleError, match="does not store the mean of activations that --drop-duplicates cosine"):
        store.select("pool", strategy="random", top=2, drop_duplicates="cosine")
