"""Profiles of weighted samples through the store: where weights come from, and what keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.profiles import Profile
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_set

N = 24
QUALITY = [1 + i % 5 for i in range(N)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> nait_store.Store:
    """A set whose samples have a quality, some of them more than that."""
    store = nait_store.open(str(tmp_path_factory.mktemp("weighted") / "store"), create=True)
    fields = {
        "quality": QUALITY,
        "named": [f"n{i}" for i in range(N)],
        "seldom": [None if i == 3 else 1.5 for i in range(N)],
    }
    build_set(store.location, "maths", N, user_fields=fields)
    return store


@pytest.fixture
def ids(made: nait_store.Store) -> list[str]:
    return choose_rows(made.sets.open("maths")).sample_ids()


def build(store: nait_store.Store, **options: Any) -> Profile:
    return store.profiles.build("math", source="maths", method="mean", quality_card=False, **options)[0]


def weighted_mean(store: nait_store.Store, weights: list[float]) -> Any:
    X = choose_rows(store.sets.open("maths")).gather(Feature.MEAN, 0).astype(np.float64)
    mean = np.average(X, axis=0, weights=weights)
    return mean / np.linalg.norm(mean)


def test_a_column_weighs(made: nait_store.Store) -> None:
    profile = build(made, weights="quality")
    assert np.abs(profile.directions()[0] - weighted_mean(made, QUALITY)).max() < 1e-6
    assert profile.record.made_from == f"{N} samples of maths@1, weighted by quality"
    assert profile.record.parameters["weights"] == "quality"


def test_an_expression_weighs(made: nait_store.Store) -> None:
    profile = build(made, weights="quality * 2 + length(named)")
    expected = [2 * quality + len(f"n{i}") for i, quality in enumerate(QUALITY)]
    assert np.abs(profile.directions()[0] - weighted_mean(made, expected)).max() < 1e-6


def test_only_chosen_samples_need_a_weight(made: nait_store.Store) -> None:
    assert build(made, weights="seldom", where="seldom IS NOT NULL").record.source.n_samples == N - 1  # type: ignore[union-attr]
    with pytest.raises(InvalidInputError, match="1 in-domain sample has no weight by seldom"):
        build(made, weights="seldom")


@pytest.mark.parametrize(
    ("weights", "error", "says"),
    [
        ("named", InvalidInputError, "is of type VARCHAR, not a number"),
        ("quality > 2", InvalidInputError, "is of type BOOLEAN"),
        ("qualty", NotFoundError, "qualty"),
        ("quality, 1", InvalidInputError, "the weight 'quality, 1' is not one SQL expression"),
        ("$1", InvalidInputError, "has a parameter"),
        ("quality - 1", InvalidInputError, "not above 0 by quality - 1"),
        ("CASE WHEN quality > 4 THEN 'nan'::DOUBLE ELSE 1 END", InvalidInputError, "not a finite number"),
    ],
)
def test_slips_in_an_expression(made: nait_store.Store, weights: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build(made, weights=weights)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_weighs(made: nait_store.Store, ids: list[str], tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"weights.{kind}"
    rows = list(zip([*ids, "another"], [*QUALITY, 7], strict=True))
    if kind == "csv":
        file.write_text("sample_id,weight\n" + "".join(f"{i},{w}\n" for i, w in rows))
    elif kind == "jsonl":
        file.write_text("".join(f'{{"sample_id": "{i}", "weight": {w}}}\n' for i, w in rows))
    else:
        pq.write_table(pa.table({"sample_id": [i for i, _ in rows], "weight": [w for _, w in rows]}), file)
    profile, _ = made.profiles.build(kind, source="maths", method="mean", quality_card=False, weights_file=str(file))
    assert np.abs(profile.directions()[0] - weighted_mean(made, QUALITY)).max() < 1e-6
    source = profile.record.source
    assert source is not None
    assert source.weights is not None
    assert source.weights.file is not None
    assert source.weights.file.uri.endswith(file.name)
    assert source.weights.file.size_bytes == file.stat().st_size


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("sample_id,wight\na,1\n", NotFoundError, "has no weight"),
        ("weight\n1\n", NotFoundError, "has no sample_id"),
        ("sample_id,weight\na,1\na,2\n", InvalidInputError, "sample a has another weight above"),
        ("sample_id,weight\na,heavy\n", InvalidInputError, "its weight is 'heavy', not a number"),
        ("sample_id,weight\na,1\n", InvalidInputError, f"{N} in-domain samples have no weight in .*w.csv"),
    ],
)
def test_slips_in_a_file(made: nait_store.Store, tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(error, match=says):
        build(made, weights_file=str(tmp_path / "w.csv"))


def test_a_missing_file(made: nait_store.Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        build(made, weights_file=str(tmp_path / "nothing.csv"))


def test_both_are_too_much(made: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="not from both"):
        build(made, weights="quality", weights_file="w.csv")


def test_a_card_that_is_measured_later_weighs_as_the_build_did(made: nait_store.Store) -> None:
    options: dict[str, Any] = {"source": "maths", "weights": "quality * quality"}
    with_card, _ = made.profiles.build("carded", **options)
    without, _ = made.profiles.build("bare", quality_card=False, **options)
    stored, later = made.profiles.card(with_card.reference), made.profiles.card(without.reference)
    assert stored.quality == later.quality
    plain, _ = made.profiles.build("plain", source="maths")
    assert made.profiles.card(plain.reference).quality != later.quality


def test_diff_and_list_tell_weights(made: nait_store.Store) -> None:
    made.profiles.build("told", source="maths", quality_card=False)
    made.profiles.build("told", source="maths", quality_card=False, weights="quality")
    settings = made.profiles.diff("told@1", "told@2").settings
    assert settings["samples count as"][0] is None
    assert settings["from"][1].endswith("weighted by quality")
    assert made.profiles.list()[-1].made_from.endswith("weighted by quality")


def test_lineage_leads_to_the_file(made: nait_store.Store, ids: list[str], tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("sample_id,weight\n" + "".join(f"{i},2\n" for i in ids))
    profile, _ = made.profiles.build("filed", source="maths", quality_card=False, weights_file=str(tmp_path / "w.csv"))
    lineage = made.lineage(f"profile:{profile.reference}")
    assert [edge.relation for edge in lineage.edges if "w.csv" in str(edge)] == ["weighted by"]
