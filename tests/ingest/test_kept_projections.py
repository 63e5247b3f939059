"""``keep_features="none"``: a set keeps the terms of its samples' scores, and no activations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestEstimate, IngestReport, IngestRequest
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SetRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.store_record import StoreRecord
from nait_store.store.dependents import Dependents
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_set

BOTH = (Feature.MEAN, Feature.DRIFT)
N_LAYERS, N_NEURONS, N_SAMPLES = 3, 8, 30
SHAPE: dict[str, Any] = {"n_layers": N_LAYERS, "n_neurons": N_NEURONS}
NAMES = ("contrast", "drift", "math", "two-layers")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    """With four profiles of different kinds, and no samples to choose from."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    made = nait_store.open(str(tmp_path / "store"), create=True)
    shift = np.ones((N_LAYERS, N_NEURONS), np.float32)
    build_set(made.location, "maths", 20, features=BOTH, first=900, mean=shift, **SHAPE)
    build_set(made.location, "general", 20, features=BOTH, first=800, seed=9, **SHAPE)
    made.profiles.build("contrast", source="maths", against="general", method="contrastive", metric="cosine")
    made.profiles.build("drift", source="maths", profile_feature="drift", feature="drift", metric="dot")
    made.profiles.build("math", source="maths")
    made.profiles.build("two-layers", source="maths", layers=[0, 2], metric="dot")
    return made


def run(
    store: nait_store.Store,
    name: str = "pool",
    *,
    n: int = N_SAMPLES,
    capture: FakeCapture | None = None,
    **options: Any,
) -> IngestReport:
    source = Path(store.url).parent / f"{n}.jsonl"
    records = [{"id": f"r{i}", "instruction": f"do {i}", "output": f"done {i}", "kind": i % 2} for i in range(n)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    options.setdefault("features", BOTH)
    options.setdefault("flush", FlushPolicy(rows=12))
    request = IngestRequest((str(source),), name, id_field="id", **options)
    session = capture or FakeCapture(N_LAYERS, N_NEURONS, features=options["features"], batch_samples=5)
    report = ingest(store.location, session, request)
    store.refresh()
    return report


def scores(store: nait_store.Store, name: str, profile: str) -> dict[str, float]:
    found = store.sql(f"SELECT sample_id, score FROM alignment('{name}', '{profile}')")
    return dict(found.fetchall())


def expected(store: nait_store.Store, profile: str, sample_id: str) -> float:
    """From the capture's own vectors, in float64, layer by layer (arXiv 2603.13201, Eq. 5)."""
    target = store.profiles.open(profile).target()
    capture = FakeCapture(N_LAYERS, N_NEURONS)
    total = 0.0
    for position, layer in enumerate(target.layers):
        vector = capture.vector(sample_id, target.feature, layer).astype(np.float64)
        if target.offset is not None:
            vector = vector - target.offset[position]
        term = float(vector @ target.directions[position].astype(np.float64))
        total += term / float(np.linalg.norm(vector)) if target.metric == "cosine" else term
    return total


def test_scores_are_those_of_the_samples(store: nait_store.Store) -> None:
    report = run(store, keep_features="none")
    assert (report.scored_with, report.keeps_features) == (tuple(f"{name}@1" for name in NAMES), False)
    for name in NAMES:
        found = scores(store, "pool", name)
        assert sorted(found) == sorted(f"r{i}" for i in range(N_SAMPLES))
        for sample_id, score in found.items():
            assert score == pytest.approx(expected(store, name, sample_id), rel=1e-5, abs=1e-5)


def test_terms_of_each_layer_are_kept(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    rows = store.sql("SELECT layer, sum(projection) FROM alignment_layers('pool', 'two-layers') GROUP BY 1 ORDER BY 1")
    kept = rows.fetchall()
    run(store, "whole", dtype=StoredDtype.FLOAT32)
    rows = store.sql("SELECT layer, sum(projection) FROM alignment_layers('whole', 'two-layers') GROUP BY 1 ORDER BY 1")
    for (layer, mine), (same, whole) in zip(kept, rows.fetchall(), strict=True):
        assert (layer, mine) == (same, pytest.approx(whole, abs=1e-4))


def test_no_activations_are_on_disk(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    [segment, *_] = ActivationSets(store.location).open("pool").segments
    assert segment.features == (Feature.PROJECTIONS,)
    assert segment.read(Feature.PROJECTIONS).shape == (segment.n_rows, N_LAYERS, len(NAMES))
    arrays = {file.path.split("/")[1] for file in segment.record.files if file.path.startswith("data.zarr/")}
    assert arrays == {"projections", "projections_norms", "zarr.json"}
    assert store.verify().ok


def test_the_expected_size_is_that_of_the_projections(store: nait_store.Store) -> None:
    heard: list[IngestEstimate] = []
    source = Path(store.url).parent / "one.jsonl"
    source.write_text(json.dumps({"instruction": "do", "output": "done"}) + "\n")
    request = IngestRequest((str(source),), "pool", features=BOTH, keep_features="none")
    ingest(store.location, FakeCapture(N_LAYERS, N_NEURONS, features=BOTH), request, announce=heard.append)
    assert heard[0].sample_bytes == N_LAYERS * (4 * len(NAMES) + 4)


def test_kept_scores_survive_the_loss_of_the_whole_cache(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    before = scores(store, "pool", "math")
    store.score_cache.prune(everything=True)
    store.refresh()
    assert scores(store, "pool", "math") == before


def test_the_same_ingest_again_needs_no_options_and_captures_nothing(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    capture = FakeCapture(N_LAYERS, N_NEURONS, features=BOTH)
    report = run(store, capture=capture)
    assert (report.n_added, report.n_known, capture.n_captured) == (0, N_SAMPLES, 0)
    assert run(store, n=N_SAMPLES + 4).n_added == 4


def test_an_ingest_that_goes_on_keeps_the_profiles_that_the_set_was_begun_with(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    store.profiles.build("later", source="maths", metric="dot")
    store.profiles.build("math", source="maths", metric="dot", limit=10)
    report = run(store, n=N_SAMPLES + 4)
    assert report.scored_with == ("math@1",)
    assert len(scores(store, "pool", "math@1")) == N_SAMPLES + 4


def test_a_later_profile_is_refused_with_the_command_that_captures_again(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math", "drift"))
    store.profiles.build("later", source="maths", metric="dot", limit=7)
    with pytest.raises(IncompatibleError) as caught:
        scores(store, "pool", "later")
    assert "keeps no activations, only projections: drift@1 (drift, dot), math@1 (mean, cosine)" in str(caught.value)
    assert "--keep-features none --score-with drift@1,math@1,later" in str(caught.value)


def test_another_metric_than_the_kept_one_is_refused(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    with pytest.raises(NotFoundError, match="keeps no activations, only projections"):
        store.sql("SELECT * FROM alignment('pool', 'math', metric := 'dot')").fetchall()


def test_the_best_of_some_samples_are_selected(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    chosen = store.select("pool", profile="math", top=3, where="kind = 1").rows.column("sample_id").to_pylist()
    odd = sorted((f"r{i}" for i in range(1, N_SAMPLES, 2)), key=lambda one: -expected(store, "math", one))
    assert chosen == odd[:3]


def test_alignment_all_gives_the_kept_profiles(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math", "drift"))
    rows = store.sql("SELECT DISTINCT profile FROM alignment_all('pool') ORDER BY 1").fetchall()
    assert [name for (name,) in rows] == ["drift@1", "math@1"]


def test_a_profile_cannot_be_built_from_projections(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    with pytest.raises(NotFoundError, match="does not store the feature mean") as caught:
        store.profiles.build("new", source="pool")
    assert "keeps projections in the place of activations" in str(caught.value)
    with pytest.raises(InvalidInputError, match="'projections' is not a feature"):
        store.profiles.build("new", source="pool", feature="projections")


def test_projections_cannot_be_converted(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    with pytest.raises(InvalidInputError, match="keeps projections in the place of activations"):
        store.sets.convert("pool", "int8")


@pytest.mark.parametrize(("first", "second"), [("none", "all"), ("all", "none")])
def test_a_set_is_of_one_kind(store: nait_store.Store, first: Any, second: Any) -> None:
    run(store, keep_features=first)
    with pytest.raises(IncompatibleError, match="ingest into a set of another name"):
        run(store, n=40, keep_features=second)


def test_other_profiles_for_later_samples_are_refused(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math", "drift"))
    with pytest.raises(IncompatibleError, match="keeps projections on drift@1, math@1 and no others"):
        run(store, n=40, score_with=("math",))
    assert run(store, n=40, score_with=("math", "drift")).n_added == 10


def test_a_profile_that_is_gone_ends_the_set(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    store.location.delete("profiles/math")
    with pytest.raises(IncompatibleError, match="and one is gone"):
        run(store, n=40)


def test_nothing_to_project_on_is_an_error(store: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="nothing of them would be kept"):
        run(store, keep_features="none", score_with=())


def test_another_dtype_is_an_error(store: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="float32, not in int8"):
        run(store, keep_features="none", dtype=StoredDtype.INT8)


def test_a_sample_without_finite_activations_is_rejected(store: nait_store.Store) -> None:
    capture = FakeCapture(N_LAYERS, N_NEURONS, features=BOTH, poison={"r7": float("nan"), "r9": float("inf")})
    report = run(store, keep_features="none", capture=capture)
    assert (report.n_added, report.n_rejected) == (N_SAMPLES - 2, 2)
    assert scores(store, "pool", "math")["r8"] == pytest.approx(expected(store, "math", "r8"), rel=1e-5)


def test_deletion_and_compaction_keep_the_scores_of_the_others(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    before = scores(store, "pool", "contrast")
    store.sets.delete_samples("pool", where="kind = 0")
    store.sets.compact("pool")
    store.score_cache.prune(everything=True)
    store.refresh()
    after = scores(store, "pool", "contrast")
    assert after == {sample_id: pytest.approx(before[sample_id]) for sample_id in after}
    assert len(after) == N_SAMPLES // 2
    [segment] = store.sets.open("pool").segments
    assert [one.profile for one in segment.record.projections] == [f"{name}@1" for name in NAMES]
    assert store.verify().ok


def test_purge_blanks_the_projections(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    before = scores(store, "pool", "math")
    store.purge("pool", ids=["r3"])
    store.refresh()
    [segment, *_] = store.sets.open("pool").segments
    assert not segment.read(Feature.PROJECTIONS, slice(3, 4)).any()
    assert segment.read(Feature.PROJECTIONS, slice(4, 5)).any()
    del before["r3"]
    assert scores(store, "pool", "math") == before
    assert store.verify().ok


def test_a_lost_chunk_is_captured_again(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math", "drift"))
    before = scores(store, "pool", "drift")
    [segment, *_] = store.sets.open("pool").segments
    chunk = next(file.path for file in segment.record.files if file.path.startswith("data.zarr/projections/c/"))
    store.location.delete(f"activations/pool/segments/{segment.segment_id}/{chunk}")
    store.location.delete("scores")
    assert not store.verify().ok
    report = nait_store.open(store.url).repair(
        sources=[str(Path(store.url).parent / f"{N_SAMPLES}.jsonl")],
        capture=FakeCapture(N_LAYERS, N_NEURONS, features=BOTH),
        id_field="id",
    )
    assert report.remaining == ()
    assert scores(nait_store.open(store.url), "pool", "drift") == pytest.approx(before, abs=1e-6)


def test_a_lost_set_record_is_made_again_with_its_projections(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    path = "activations/pool/set.json"
    kept = SetRecord.from_json_bytes(store.location.read_bytes(path), path)
    store.location.delete(path)
    nait_store.open(store.url).repair()
    found = SetRecord.from_json_bytes(store.location.read_bytes(path), path)
    assert (found.projections, found.n_neurons) == (kept.projections, len(NAMES))


def test_verify_finds_a_segment_of_other_projections(store: nait_store.Store) -> None:
    run(store, keep_features="none")
    path = "activations/pool/set.json"
    record = SetRecord.from_json_bytes(store.location.read_bytes(path), path)
    swapped = record.model_copy(update={"projections": tuple(reversed(record.projections))})
    store.location.write_bytes(path, swapped.to_json_bytes())
    problems = [finding.problem for finding in nait_store.open(store.url).verify().errors]
    assert "its projections are on other profiles than the set's" in problems


def test_a_plan_counts_the_bytes_of_the_projections(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    plan = store.explain("SELECT score FROM alignment('pool', 'math')")
    assert [(one.feature, one.size_bytes) for one in plan.passes] == [("projections", N_SAMPLES * N_LAYERS * 1 * 4)]


def test_other_programs_read_the_scores(store: nait_store.Store, tmp_path: Path) -> None:
    run(store, keep_features="none", score_with=("math",))
    report = store.attach(str(tmp_path / "out.duckdb"), sets="pool", compute=True)
    assert (report.missing, report.n_computed) == ((), len(store.sets.open("pool").refs))


def test_the_set_stands_in_the_way_of_the_deletion_of_its_profiles(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    [needs] = Dependents(store).of(Kind.PROFILE, "math", 1)
    assert str(needs) == "set:pool (keeps projections on it)"
    assert Dependents(store).of(Kind.PROFILE, "drift", 1) == []


def test_the_set_says_what_it_keeps(store: nait_store.Store) -> None:
    run(store, keep_features="none", score_with=("math",))
    details = store.sets.show("pool")
    assert (details.summary.features, details.projections) == (("projections",), ("math@1 (mean, cosine)",))
    rows = store.sql("SELECT features, projections FROM activation_sets WHERE activation_set = 'pool'").fetchall()
    assert rows == [(["projections"], ["math@1"])]


def test_older_releases_are_kept_out_of_stores_with_projections_only(store: nait_store.Store) -> None:
    def features() -> tuple[str, ...]:
        record = StoreRecord.from_json_bytes(store.location.read_bytes("store.json"), "store.json")
        assert record.reader_features == record.writer_features
        return record.reader_features

    run(store, "whole")
    assert features() == ()
    run(store, keep_features="none")
    assert features() == ("projections",)


def test_records_of_other_sets_do_not_mention_projections(store: nait_store.Store) -> None:
    run(store, "whole")
    assert b"projections" not in store.location.read_bytes("activations/whole/set.json")
    record = SetRecord.from_json_bytes(store.location.read_bytes("activations/whole/set.json"), "set.json")
    assert record.projections == ()
    [segment, *_] = store.sets.open("whole").segments
    assert b"projections" not in segment.record.to_json_bytes()
