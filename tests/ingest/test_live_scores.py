"""An ingest leaves the scores that the first query would have computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nait_store.activations import chunks
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import IncompatibleError, NotFoundError, StorageError
from nait_store.ingest import scored_profiles
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestReport, IngestRequest
from nait_store.refs import Kind
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.layer_plans import LayerPlan
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.storage import layout
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_set, fake_identity

BOTH = (Feature.MEAN, Feature.DRIFT)
SHIFT = np.ones((2, 8), np.float32)
COLUMNS = ("row_index", "score", "projections")


def build(location: Location, name: str, source: SetVersion, recipe: str = "default", **choices: Any) -> Profile:
    options = {key: choices.pop(key) for key in ("background", "layers") if key in choices}
    return ProfileRegistry(location).build(name, source, recipe=choose_recipe(recipe, **choices), **options)[0]


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "store"))


@pytest.fixture
def maths(location: Location) -> SetVersion:
    return build_set(location, "maths", 20, features=BOTH, first=900, mean=SHIFT)


@pytest.fixture
def profiles(location: Location, maths: SetVersion) -> list[Profile]:
    """One of each kind that applies, and one of another model that does not."""
    general = build_set(location, "general", 20, features=BOTH, first=800, seed=9)
    foreign = build_set(location, "foreign", 20, first=700, mean=SHIFT, identity=fake_identity("other"))
    build(location, "foreign", foreign)
    return [
        build(location, "contrast", maths, method="contrastive", metric="cosine", background=general),
        build(location, "drift", maths, profile_feature="drift", feature="drift", metric="dot"),
        build(location, "math", maths),
        build(location, "one-layer", maths, layers=[1]),
        build(location, "paper", maths, recipe="nait-paper"),
    ]


def run(
    location: Location, tmp_path: Path, *, n: int = 30, capture: FakeCapture | None = None, **options: Any
) -> IngestReport:
    source = tmp_path / "pool.jsonl"
    records = [{"id": f"r{i}", "instruction": f"do {i}", "output": f"done {i}"} for i in range(n)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    features = options.setdefault("features", (Feature.MEAN,))
    options.setdefault("flush", FlushPolicy(rows=12))
    request = IngestRequest((str(source),), "pool", id_field="id", **options)
    return ingest(location, capture or FakeCapture(features=features, batch_samples=5), request)


def sidecars(location: Location, version: SetVersion, profiles: list[Profile]) -> list[pa.Table]:
    kept = ScoreSidecars(location, in_memory=False)
    return [kept.read(segment, one.target(), COLUMNS) for segment in version.segments for one in profiles]


def scores_there(location: Location) -> list[str]:
    return [name for name in location.names(layout.SCORES) if name.endswith(".json")]


@pytest.mark.parametrize("dtype", StoredDtype)
def test_sidecars_are_those_of_a_scan(
    location: Location, tmp_path: Path, profiles: list[Profile], dtype: StoredDtype
) -> None:
    report = run(location, tmp_path, features=BOTH, dtype=dtype)
    assert report.scored_with == ("contrast@1", "drift@1", "math@1", "one-layer@1", "paper@1")
    assert report.warnings == ()
    version = ActivationSets(location).open("pool")
    targets = [profile.target() for profile in profiles]
    work = ensure_scores(location, version, targets)
    assert (work.n_computed, work.bytes_read) == (0, 0)
    names, found = scores_there(location), sidecars(location, version, profiles)
    assert len(names) == len(version.segments) * len(profiles)
    location.delete(layout.SCORES)
    ensure_scores(location, version, targets)
    assert scores_there(location) == names
    for mine, scanned in zip(found, sidecars(location, version, profiles), strict=True):
        assert mine.equals(scanned)


def test_a_layer_subset_scores_what_reads_no_other_layer(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    report = run(location, tmp_path, capture=FakeCapture(layers=(1,)))
    assert report.scored_with == ("one-layer@1",)
    work = ensure_scores(location, ActivationSets(location).open("pool"), [profiles[3].target()])
    assert work.n_computed == 0


def test_a_profile_of_a_feature_that_is_not_stored_is_left_out(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    assert "drift@1" not in run(location, tmp_path).scored_with


def test_only_named_profiles_are_scored(location: Location, tmp_path: Path, profiles: list[Profile]) -> None:
    report = run(location, tmp_path, score_with=("paper", "math@1", "math"))
    assert report.scored_with == ("math@1", "paper@1")
    assert len(scores_there(location)) == 2 * len(ActivationSets(location).open("pool").refs)


def test_nothing_is_scored_for_an_empty_choice(location: Location, tmp_path: Path, profiles: list[Profile]) -> None:
    assert run(location, tmp_path, score_with=()).scored_with == ()
    assert not scores_there(location)


def test_a_named_profile_that_does_not_apply_is_an_error_before_any_capture(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    capture = FakeCapture()
    with pytest.raises(IncompatibleError, match="foreign@1 does not apply to set pool"):
        run(location, tmp_path, capture=capture, score_with=("math", "foreign"))
    assert capture.n_captured == 0


def test_an_unknown_name_is_an_error(location: Location, tmp_path: Path, profiles: list[Profile]) -> None:
    with pytest.raises(NotFoundError, match="mth"):
        run(location, tmp_path, score_with=("mth",))


def test_a_named_profile_that_fits_with_reservation_is_scored_with_a_warning(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    capture = FakeCapture()
    capture.settings = capture.settings.model_copy(update={"max_length_tokens": 64})
    report = run(location, tmp_path, capture=capture, score_with=("math",))
    assert report.scored_with == ("math@1",)
    assert "max_length_tokens: 128 (profile), 64 (set)" in report.warnings[0]


def test_of_several_versions_the_latest_and_those_under_an_alias_are_scored(
    location: Location, tmp_path: Path, maths: SetVersion
) -> None:
    for metric, feature in (("dot", "mean"), ("cosine", "mean"), ("dot", "drift")):
        build(location, "math", maths, metric=metric, profile_feature=feature, feature="mean")
    Labels(location, Kind.PROFILE).put(LabelKind.ALIAS, "math", "prod", 1)
    assert run(location, tmp_path).scored_with == ("math@1", "math@3")


def test_of_too_many_profiles_the_last_built_are_scored(
    location: Location, tmp_path: Path, profiles: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_profiles, "MOST_PROFILES", 2)
    report = run(location, tmp_path, features=BOTH)
    assert report.scored_with == ("one-layer@1", "paper@1")
    assert "5 profiles apply to set pool; the 2 that were built last" in report.warnings[0]


def test_a_damaged_profile_is_left_out_with_a_warning(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    location.delete(f"{profiles[2].folder}/profile.json")
    location.delete(f"{profiles[4].folder}/directions.zarr")
    report = run(location, tmp_path, features=BOTH)
    assert report.scored_with == ("contrast@1", "drift@1", "one-layer@1")
    assert [text.partition(" was not scored")[0] for text in report.warnings] == ["profile math", "profile paper@1"]


def test_sidecars_that_cannot_be_written_cost_nothing_else(
    location: Location, tmp_path: Path, profiles: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ScoreSidecars, "write", fail)
        report = run(location, tmp_path)
    assert (report.n_added, report.scored_with) == (30, ())
    assert report.warnings == ("not all scores were kept, the first query computes what is missing: the disk is full",)
    version = ActivationSets(location).open("pool")
    assert ensure_scores(location, version, [profiles[2].target()]).n_computed == len(version.refs)


def test_arithmetic_that_fails_costs_nothing_else(
    location: Location, tmp_path: Path, profiles: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(LayerPlan, "score", fail)
    report = run(location, tmp_path)
    assert (report.n_added, report.scored_with) == (30, ())
    assert "MemoryError: no more" in report.warnings[0]


def test_an_ingest_that_adds_nothing_scores_nothing(
    location: Location, tmp_path: Path, profiles: list[Profile]
) -> None:
    run(location, tmp_path, score_with=())
    assert run(location, tmp_path).scored_with == ()
    assert not scores_there(location)


def test_a_segment_is_flushed_before_its_scores_take_too_much_memory(
    location: Location, tmp_path: Path, profiles: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_CHUNK_BYTES", 10 * 8 * 2)  # blocks of ten samples
    each = 8 + 4 * 2  # bytes of a sample's scores under math
    run(location, tmp_path, score_with=("math",), flush=FlushPolicy(rows=1000, score_bytes=15 * each))
    version = ActivationSets(location).open("pool")
    assert [segment.n_rows for segment in version.segments] == [20, 10]
