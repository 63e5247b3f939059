"""``score --where`` and ``select --where``: what they give, and what they read for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.reader import SegmentReader
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set

N_ROWS, CHUNK_ROWS, N_LAYERS, N_NEURONS = 64, 8, 2, 8
CHUNK_BYTES = CHUNK_ROWS * N_NEURONS * 2
LATE = "topic = 'late'"  # the last ten: blocks 6 and 7


@pytest.fixture
def pool(folder: Path) -> nait_store.Store:
    """A set of eight blocks whose samples are sorted by topic, and a profile."""
    store = nait_store.open(str(folder / ".nait-store"), create=True)
    location = Location(str(folder / ".nait-store"))
    topics = ["early"] * (N_ROWS - 10) + ["late"] * 10
    shape: dict[str, Any] = {"n_layers": N_LAYERS, "n_neurons": N_NEURONS}
    build_set(location, "pool", N_ROWS, seed=1, chunk_rows=CHUNK_ROWS, user_fields={"topic": topics}, **shape)
    mean = np.ones((N_LAYERS, N_NEURONS), np.float32)
    build_set(location, "maths", 20, seed=3, first=1000, mean=mean, **shape)
    store.profiles.build("math", source="maths")
    store.profiles.build("math-contrast", source="maths", background="pool")
    return store


@pytest.fixture
def read_bytes(pool: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every chunk of the pool."""
    original = SegmentReader.chunk
    sizes: list[int] = []

    def noted(self: SegmentReader, *place: Any, **options: Any) -> Any:
        chunk = original(self, *place, **options)
        sizes.append(chunk.nbytes)
        return chunk

    monkeypatch.setattr(SegmentReader, "chunk", noted)
    return sizes


def exact(store: nait_store.Store, profile: str) -> dict[str, float]:
    """Cosine scores of the late samples, in plain float64."""
    (segment,) = store.sets.open("pool").segments
    V = store.profiles.open(profile).directions().astype(np.float64)
    arrays = segment.read(Feature.MEAN).astype(np.float64)[-10:]
    ids = segment.samples(["sample_id"]).column(0).to_pylist()[-10:]
    values = [sum(float(a @ v) / float(np.linalg.norm(a)) for a, v in zip(A, V, strict=True)) for A in arrays]
    return dict(zip(ids, values, strict=True))


def test_score_prints_the_scores_of_the_samples_that_pass(
    cli: Any, pool: nait_store.Store, read_bytes: list[int]
) -> None:
    run = cli("score", "pool", "math", "--where", LATE, "--json")
    assert run.code == 0, run.err
    expected = exact(pool, "math")
    assert [row["sample_id"] for row in run.json] == list(expected)
    assert np.allclose([row["math@1"] for row in run.json], list(expected.values()), atol=1e-5)


def test_score_reads_the_blocks_that_hold_them_and_no_others(
    cli: Any, pool: nait_store.Store, read_bytes: list[int], snapshot: Any, folder: Path
) -> None:
    before = snapshot(folder / ".nait-store")
    assert cli("score", "pool", "math", "--where", LATE).code == 0
    assert sum(read_bytes) == 2 * N_LAYERS * CHUNK_BYTES
    assert snapshot(folder / ".nait-store") == before


def test_several_profiles_share_the_pass(cli: Any, pool: nait_store.Store, read_bytes: list[int]) -> None:
    run = cli("score", "pool", "math", "math-contrast", "math@1", "--where", LATE, "--out", "late.csv")
    assert run.code == 0, run.err
    assert "10 rows written to" in run.out
    assert Path("late.csv").read_text().splitlines()[0] == '"sample_id","math@1","math-contrast@1"'
    assert sum(read_bytes) == 2 * N_LAYERS * CHUNK_BYTES


def test_select_reads_the_blocks_of_its_candidates_and_no_others(
    cli: Any, pool: nait_store.Store, read_bytes: list[int]
) -> None:
    run = cli("select", "--from", "pool", "--profile", "math", "--top", "4", "--where", LATE, "--json")
    assert run.code == 0, run.err
    assert sum(read_bytes) == 2 * N_LAYERS * CHUNK_BYTES
    expected = sorted(exact(pool, "math").items(), key=lambda item: (-item[1], item[0]))[:4]
    assert [row["sample_id"] for row in run.json["rows"]] == [sample_id for sample_id, _ in expected]
    assert run.json["n_candidates"] == 10


def test_the_query_of_a_selection_gives_the_same_rows(cli: Any, pool: nait_store.Store) -> None:
    for strategy in ("alignment", "lowest", "random"):
        selection = pool.select("pool", profile="math", top=5, where=LATE, strategy=strategy, seed=3)
        again = pool.sql(selection.query).arrow()
        assert again.column("sample_id").to_pylist() == selection.rows.column("sample_id").to_pylist()
        assert np.allclose(again.column("score").to_numpy(), selection.rows.column("score").to_numpy())


def test_scores_that_are_stored_are_not_computed_again(cli: Any, pool: nait_store.Store, read_bytes: list[int]) -> None:
    assert cli("score", "pool", "math").code == 0
    read_bytes.clear()
    run = cli("score", "pool", "math", "--where", LATE, "--json")
    assert np.allclose([row["math@1"] for row in run.json], list(exact(pool, "math").values()), atol=1e-5)
    read_bytes.clear()
    assert cli("select", "--from", "pool", "--profile", "math", "--where", LATE).code == 0
    assert not read_bytes


def test_a_condition_that_holds_for_none_is_an_empty_table(cli: Any, pool: nait_store.Store) -> None:
    run = cli("score", "pool", "math", "--where", "topic = 'never'", "--json")
    assert (run.code, json.loads(run.out)) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--where", "n_tokens"), 7, "not true or false"),
        (("--where", "topik = 'late'"), 3, "topic"),
        (("--where", LATE, "--device", "cuda"), 7, "--where and --device exclude each other"),
        (("--where", LATE, "--ray", "local"), 7, "--where and --ray exclude each other"),
        (("--out", "scores.csv"), 7, "--out is for what --where chooses"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: Any, pool: nait_store.Store, arguments: tuple[str, ...], code: int, says: str
) -> None:
    run = cli("score", "pool", "math", *arguments)
    assert says in run.err
    assert run.code == code
    assert "\n  → " in run.err


@pytest.mark.parametrize(
    ("device", "says"), [("cuda:99", "cannot be computed on cuda:99"), ("gpu", "are not computed on 'gpu'")]
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    cli: Any, pool: nait_store.Store, read_bytes: list[int], device: str, says: str
) -> None:
    run = cli("score", "pool", "math", "--device", device)
    assert run.code == 7
    assert says in run.err
    assert not read_bytes


def test_the_cores_are_a_device_too(cli: Any, pool: nait_store.Store) -> None:
    run = cli("score", "pool", "math", "--device", "cpu", "--json")
    assert run.json["work"]["n_computed"] == 1
