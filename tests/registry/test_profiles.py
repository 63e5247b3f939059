"""Building, versioning and opening, against NumPy on the arrays that were stored."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import CorruptChunkError, IncompatibleError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressEvent
from nait_store.refs import Kind
from nait_store.registry import profiles as profiles_module
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric, ProfileManifest
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid
from nait_store.storage.versions import VersionLog
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record

LAYERS, NEURONS = 3, 24
BOTH = (Feature.MEAN, Feature.DRIFT)
DEFAULT, PAPER, CONTRAST = (
    choose_recipe("default"),
    choose_recipe("nait-paper"),
    choose_recipe("default", method="contrastive"),
)


def in_domain(location: Location, n: int = 40, name: str = "gsm8k", **options: Any) -> SetVersion:
    mean = np.random.default_rng(99).standard_normal((LAYERS, NEURONS)).astype(np.float32)
    options = {"n_segments": 2, "chunk_rows": 7, "seed": 1, "mean": mean, "features": BOTH, **options}
    return build_set(location, name, n, LAYERS, NEURONS, **options)


def pool(location: Location, n: int = 60, **options: Any) -> SetVersion:
    options = {"n_segments": 3, "chunk_rows": 8, "seed": 2, "features": BOTH, **options}
    return build_set(location, "pool", n, LAYERS, NEURONS, first=1000, **options)


def stored(version: SetVersion, feature: Feature) -> NDArray[np.float64]:
    """Every row of a version, [n, L, J] float64."""
    return np.concatenate([segment.read(feature) for segment in version.segments]).astype(np.float64)


def normalised(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def svd_directions(rows: NDArray[np.float64], *, center: bool) -> NDArray[np.float64]:
    out = []
    for layer in range(rows.shape[1]):
        X = rows[:, layer]
        v = np.linalg.svd(X - X.mean(axis=0) if center else X, full_matrices=False)[2][0]
        out.append(v if X.mean(axis=0) @ v >= 0 else -v)
    return np.stack(out)


def test_default_build_equals_svd_of_the_stored_rows(location: Location) -> None:
    source = in_domain(location)
    profile, created = ProfileRegistry(location).build("math", source, recipe=DEFAULT)
    assert created
    expected = svd_directions(stored(source, Feature.MEAN), center=False)
    np.testing.assert_allclose(profile.directions(), expected, atol=1e-5)
    assert profile.offset() is None


def test_paper_build_equals_centred_svd_of_drift(location: Location) -> None:
    source = in_domain(location)
    profile, _ = ProfileRegistry(location).build("math", source, recipe=PAPER)
    expected = svd_directions(stored(source, Feature.DRIFT), center=True)
    np.testing.assert_allclose(profile.directions(), expected, atol=1e-5)


def test_mean_build_is_the_normalised_mean(location: Location) -> None:
    source = in_domain(location)
    profile, _ = ProfileRegistry(location).build("math", source, recipe=choose_recipe("default", method="mean"))
    np.testing.assert_allclose(profile.directions(), normalised(stored(source, Feature.MEAN).mean(axis=0)), atol=1e-6)


def test_contrastive_build_centres_candidates_on_the_background(location: Location) -> None:
    source, background = in_domain(location), pool(location)
    profile, _ = ProfileRegistry(location).build("math", source, recipe=CONTRAST, background=background)
    mean, behind = (stored(v, Feature.MEAN).mean(axis=0) for v in (source, background))
    np.testing.assert_allclose(profile.directions(), normalised(mean - behind), atol=1e-6)
    np.testing.assert_allclose(profile.offset(), behind, atol=1e-6)
    assert profile.record.background is not None
    assert profile.record.background.n_samples == 60


def test_contrastive_offset_is_of_the_candidates_feature(location: Location) -> None:
    source, background = in_domain(location), pool(location)
    recipe = choose_recipe("default", method="contrastive", profile_feature="drift", feature="mean")
    profile, _ = ProfileRegistry(location).build("math", source, recipe=recipe, background=background)
    drift = stored(source, Feature.DRIFT).mean(axis=0) - stored(background, Feature.DRIFT).mean(axis=0)
    np.testing.assert_allclose(profile.directions(), normalised(drift), atol=1e-6)
    np.testing.assert_allclose(profile.offset(), stored(background, Feature.MEAN).mean(axis=0), atol=1e-6)


def test_tombstoned_rows_take_no_part(local: Location) -> None:
    sets = ActivationSets(local)
    sets.create(fake_set_record("gsm8k", n_layers=1, n_neurons=4))
    rng = np.random.default_rng(5)
    first, second = (rng.standard_normal((4, 1, 4)).astype(np.float32) for _ in range(2))
    segments = [
        build_segment(local, "gsm8k", [fake_row(f"s{i}") for i in ids], {Feature.MEAN: X}, dtype=StoredDtype.FLOAT32)
        for ids, X in (((0, 1, 2, 3), first), ((2, 3, 4, 5), second))
    ]
    version = sets.commit("gsm8k", segments, ingest_ids=(new_ulid(),))
    profile, _ = ProfileRegistry(local).build("math", version, recipe=choose_recipe("default", method="mean"))
    visible = np.concatenate([first, second[2:]]).astype(np.float64)
    assert profile.record.source.n_samples == 6
    np.testing.assert_allclose(profile.directions(), normalised(visible.mean(axis=0)), atol=1e-6)


def test_only_the_rows_of_the_subset_take_part(location: Location) -> None:
    source = in_domain(location)
    mask = np.arange(20) % 3 == 0
    subset = {0: mask, 1: np.array([4, 9])}
    profile, _ = ProfileRegistry(location).build(
        "math", source, recipe=choose_recipe("default", method="mean"), rows=subset, where="row_index % 3 = 0"
    )
    rows = stored(source, Feature.MEAN)[[*np.flatnonzero(mask), 24, 29]]
    np.testing.assert_allclose(profile.directions(), normalised(rows.mean(axis=0)), atol=1e-6)
    assert profile.record.source.where == "row_index % 3 = 0"


def test_layers_can_be_chosen(location: Location) -> None:
    profile, _ = ProfileRegistry(location).build("math", in_domain(location), recipe=DEFAULT, layers=[2, 0])
    assert profile.record.layers == (0, 2)
    assert profile.directions().shape == (2, NEURONS)


def test_rebuild_of_the_same_inputs_is_a_no_op(location: Location) -> None:
    registry, source = ProfileRegistry(location), in_domain(location)
    first, created = registry.build("math", source, recipe=DEFAULT, limit=30, seed=4)
    again, created_again = registry.build("math", source, recipe=DEFAULT, limit=30, seed=4)
    assert (created, created_again) == (True, False)
    assert again.reference == first.reference == "math@1"
    assert len(location.names("profiles/math/payloads")) == 1


def test_each_changed_input_makes_a_version(location: Location) -> None:
    registry, source, background = ProfileRegistry(location), in_domain(location), pool(location)
    builds: list[dict[str, Any]] = [
        {"recipe": DEFAULT},
        {"recipe": PAPER},
        {"recipe": DEFAULT, "limit": 20},
        {"recipe": DEFAULT, "limit": 20, "seed": 1},
        {"recipe": DEFAULT, "layers": [0, 1]},
        {"recipe": CONTRAST, "background": background},
    ]
    numbers = [registry.build("math", source, **options)[0].number for options in builds]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert registry.build("math", source, **builds[2])[0].number == 3
    assert registry.open("math").record.parent == 5


def test_more_samples_make_a_version(location: Location) -> None:
    registry = ProfileRegistry(location)
    registry.build("math", in_domain(location), recipe=DEFAULT)
    profile, created = registry.build("math", in_domain(location, n=5, first=500), recipe=DEFAULT)
    assert created
    assert (profile.number, profile.record.source.version, profile.record.source.n_samples) == (2, 2, 45)


def test_limited_samples_do_not_depend_on_storage_order(local: Location) -> None:
    rows = [fake_row(f"s{i:03d}") for i in range(30)]
    X = np.random.default_rng(3).standard_normal((30, 2, 8)).astype(np.float32)
    chosen = []
    for name, order in (("a", np.arange(30)), ("b", np.arange(30)[::-1])):
        sets = ActivationSets(local)
        sets.create(fake_set_record(name))
        parts = [order[:11], order[11:]]
        segments = [build_segment(local, name, [rows[i] for i in part], {Feature.MEAN: X[part]}) for part in parts]
        version = sets.commit(name, segments, ingest_ids=(new_ulid(),))
        chosen.append(choose_rows(version, limit=10, seed=3))
    assert chosen[0].sample_ids_sha256 == chosen[1].sample_ids_sha256
    ranked = sorted(rows, key=lambda row: hashlib.sha256(f"3:{row.sample_id}".encode()).digest())[:10]
    expected = "\n".join(sorted(row.sample_id for row in ranked))
    assert chosen[0].sample_ids_sha256 == hashlib.sha256(expected.encode()).hexdigest()


def test_seed_changes_which_samples_are_taken(local: Location) -> None:
    source = in_domain(local)
    assert choose_rows(source, limit=10, seed=0).sample_ids_sha256 != (
        choose_rows(source, limit=10, seed=1).sample_ids_sha256
    )


def test_limit_beyond_the_set_takes_all(local: Location) -> None:
    assert choose_rows(in_domain(local), limit=10_000).n_samples == 40


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_that_leaves_nothing_is_refused(local: Location, limit: int) -> None:
    with pytest.raises(InvalidInputError, match="leaves none"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT, limit=limit)


def test_empty_subset_is_refused(local: Location) -> None:
    with pytest.raises(InvalidInputError, match="no sample of gsm8k@1"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT, rows={})


def test_opened_profile_equals_the_built_one(location: Location) -> None:
    registry, source = ProfileRegistry(location), in_domain(location)
    built, _ = registry.build("math", source, recipe=PAPER, message="first try", card="GSM8K, train")
    opened = ProfileRegistry(location).open("math@1")
    assert (opened.record, opened.manifest) == (built.record, built.manifest)
    np.testing.assert_array_equal(opened.directions(), built.directions())
    assert (opened.manifest.message, opened.record.card) == ("first try", "GSM8K, train")
    assert registry.names() == ["math"]
    assert [m.number for m in registry.manifests("math")] == [1]


def test_target_says_what_candidates_are_scored_with(location: Location) -> None:
    profile, _ = ProfileRegistry(location).build("math", in_domain(location), recipe=PAPER)
    target = profile.target()
    assert (target.feature, target.metric, target.layers) == (Feature.MEAN, Metric.DOT, (0, 1, 2))
    assert target.directions_sha256 == profile.record.directions_sha256
    assert profile.target(Metric.COSINE).metric is Metric.COSINE


def test_plain_zarr_reads_the_directions(local: Location) -> None:
    profile, _ = ProfileRegistry(local).build("math", in_domain(local), recipe=CONTRAST, background=pool(local))
    group = zarr.open_group(str(local.local_path(f"{profile.folder}/directions.zarr")), mode="r")
    for name, expected in (("directions", profile.directions()), ("offset", profile.offset())):
        array = group[name]
        assert array.metadata.dimension_names == ("layer", "neuron")
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array[...], expected)
    assert group.attrs["layers"] == [0, 1, 2]


def test_statistics_are_recorded_per_layer(location: Location) -> None:
    source = in_domain(location)
    profile, _ = ProfileRegistry(location).build("math", source, recipe=DEFAULT)
    rows, v = stored(source, Feature.MEAN), profile.directions().astype(np.float64)
    for i, found in enumerate(profile.record.statistics):
        along = rows[:, i] @ v[i]
        assert found.layer == i
        assert found.explained_variance_ratio == pytest.approx((along**2).sum() / (rows[:, i] ** 2).sum(), rel=1e-4)
        assert found.sign_margin == pytest.approx(abs(along.mean()) / along.std(), rel=1e-3)


def test_few_samples_and_unclear_directions_are_said_in_words(local: Location) -> None:
    mean = np.zeros((LAYERS, NEURONS), np.float32)
    source = in_domain(local, n=12, mean=mean, n_segments=1)
    profile, _ = ProfileRegistry(local).build("math", source, recipe=PAPER)
    text = " ".join(profile.record.warnings)
    assert "built from 12 samples" in text
    weak = in_domain(local, n=300, name="noise", mean=mean)
    profile, _ = ProfileRegistry(local).build("noise", weak, recipe=PAPER)
    text = " ".join(profile.record.warnings)
    assert "less than 10% of the variance in all 3 layers" in text
    assert "coin toss" in text


def test_clear_profile_has_no_warnings(local: Location) -> None:
    mean = 3 * np.ones((LAYERS, NEURONS), np.float32)
    profile, _ = ProfileRegistry(local).build("math", in_domain(local, mean=mean), recipe=DEFAULT)
    assert profile.record.warnings == ()


def test_missing_feature_names_what_is_stored(local: Location) -> None:
    with pytest.raises(NotFoundError, match=r"does not store the feature drift[\s\S]*it stores: mean"):
        ProfileRegistry(local).build("math", in_domain(local, features=[Feature.MEAN]), recipe=PAPER)


def test_missing_layer_names_what_is_stored(local: Location) -> None:
    with pytest.raises(NotFoundError, match=r"layer 7[\s\S]*0, 1, 2"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT, layers=[0, 7])


def test_background_of_another_model_is_refused(local: Location) -> None:
    source, other = in_domain(local), pool(local, identity=fake_identity("other"))
    with pytest.raises(IncompatibleError, match="model_fingerprint"):
        ProfileRegistry(local).build("math", source, recipe=CONTRAST, background=other)


def test_contrast_without_background_is_refused(local: Location) -> None:
    with pytest.raises(InvalidInputError, match="--against"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=CONTRAST)


def test_background_without_contrast_is_refused(local: Location) -> None:
    with pytest.raises(InvalidInputError, match="no use for the background"):
        ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT, background=pool(local))


def test_samples_of_one_token_have_no_drift(local: Location) -> None:
    sets = ActivationSets(local)
    sets.create(fake_set_record("short"))
    rows, zeros = [fake_row(f"s{i}") for i in range(20)], np.zeros((20, 2, 8), np.float32)
    segment = build_segment(local, "short", rows, {Feature.MEAN: zeros + 1, Feature.DRIFT: zeros})
    version = sets.commit("short", [segment], ingest_ids=(new_ulid(),))
    with pytest.raises(InvalidInputError, match=r"layer 0 of short@1: .*zero"):
        ProfileRegistry(local).build("math", version, recipe=PAPER)
    assert ProfileRegistry(local).names() == []


def test_failed_build_leaves_nothing_behind(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    source = in_domain(location)

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profiles_module.VersionLog, "commit", fail)
    with pytest.raises(KeyboardInterrupt):
        ProfileRegistry(location).build("math", source, recipe=DEFAULT)
    assert list(location.walk("profiles")) == []


def test_interrupt_right_after_the_commit_keeps_the_version(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = in_domain(location)
    commit = profiles_module.VersionLog.commit

    def commit_and_fail(*args: Any) -> None:
        commit(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(profiles_module.VersionLog, "commit", commit_and_fail)
    with pytest.raises(KeyboardInterrupt):
        ProfileRegistry(location).build("math", source, recipe=DEFAULT)
    assert ProfileRegistry(location).open("math").directions().shape == (LAYERS, NEURONS)


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300])
def test_invalid_names_are_refused(local: Location, name: str) -> None:
    with pytest.raises(InvalidInputError, match="not a valid profile name"):
        ProfileRegistry(local).build(name, in_domain(local), recipe=DEFAULT)


def test_unknown_profile_suggests_near_names(local: Location) -> None:
    registry = ProfileRegistry(local)
    registry.build("math", in_domain(local), recipe=DEFAULT)
    with pytest.raises(NotFoundError, match="did you mean 'math'"):
        registry.open("maths")
    with pytest.raises(NotFoundError, match="math@1"):
        registry.open("math@9")


def test_concurrent_builds_get_versions_of_their_own(local: Location) -> None:
    source = in_domain(local)
    barrier = threading.Barrier(6)
    built: list[tuple[Profile, bool]] = []

    def build(limit: int) -> None:
        barrier.wait()
        built.append(ProfileRegistry(local).build("math", source, recipe=DEFAULT, limit=limit))

    threads = [threading.Thread(target=build, args=(20 + i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(profile.number for profile, _ in built) == [1, 2, 3, 4, 5, 6]
    for profile, _ in built:
        opened = ProfileRegistry(local).open(profile.reference)
        assert opened.record.source.limit == profile.record.source.limit


def test_concurrent_equal_builds_make_one_version(local: Location) -> None:
    source = in_domain(local)
    barrier = threading.Barrier(6)
    built: list[tuple[Profile, bool]] = []

    def build() -> None:
        barrier.wait()
        built.append(ProfileRegistry(local).build("math", source, recipe=DEFAULT))

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {profile.reference for profile, _ in built} == {"math@1"}
    assert sum(created for _, created in built) == 1
    assert len(local.names("profiles/math/payloads")) == 1


def test_background_is_streamed_chunk_by_chunk(local: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    source, background = in_domain(local), pool(local)

    def forbid(*args: object, **kwargs: object) -> None:
        raise AssertionError("a whole feature was read")

    monkeypatch.setattr(SegmentReader, "read", forbid)
    heard: list[ProgressEvent] = []
    ProfileRegistry(local).build("math", source, recipe=CONTRAST, background=background, progress=heard.append)
    heard = [event for event in heard if event.stage == "profile"]
    assert [(event.done, event.total) for event in heard] == [(1, 3), (2, 3), (3, 3)]


def test_same_samples_in_another_set_are_the_same_inputs(local: Location) -> None:
    registry = ProfileRegistry(local)
    registry.build("math", in_domain(local), recipe=DEFAULT)
    assert registry.build("math", in_domain(local, name="copy"), recipe=DEFAULT)[1] is False


def test_manifest_commits_the_record_by_digest(local: Location) -> None:
    profile, _ = ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT)
    data = local.read_bytes(f"{profile.folder}/profile.json")
    manifest = VersionLog(local, Kind.PROFILE, ProfileManifest).read("math", 1)
    assert manifest.record_sha256 == hashlib.sha256(data).hexdigest()
    assert json.loads(data)["recipe_sha256"] == manifest.recipe_sha256


def test_lost_profile_record_is_corruption(local: Location) -> None:
    profile, _ = ProfileRegistry(local).build("math", in_domain(local), recipe=DEFAULT)
    path = local.local_path(f"{layout.payload_folder(Kind.PROFILE, 'math', profile.manifest.payload)}/profile.json")
    Path(str(path)).unlink()
    with pytest.raises(CorruptChunkError, match="is missing"):
        ProfileRegistry(local).open("math")
