"""Profiles from files: what is taken as it is, what is changed and said, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.registry.basis import Basis
from nait_store.registry.exported_profile import export_bytes
from nait_store.registry.imported_directions import DirectionFile, import_profile
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_recipe
from nait_store.registry.tensor_files import HEADER, TensorFormat, tensor_bytes
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Method, Metric
from nait_store.schemas.profile_export import ProfileExport
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set, fake_identity

LAYERS, NEURONS = 3, 6
RNG = np.random.default_rng(11)
VECTORS = RNG.standard_normal((LAYERS, NEURONS)).astype(np.float32)
UNIT = (VECTORS.astype(np.float64) / np.linalg.norm(VECTORS.astype(np.float64), axis=1, keepdims=True)).astype("f4")


@pytest.fixture
def registry(local: Location) -> ProfileRegistry:
    return ProfileRegistry(local)


@pytest.fixture
def like(local: Location) -> Basis:
    return Basis.of_set(build_set(local, "pool", 12, LAYERS, NEURONS, mean=np.ones(NEURONS, np.float32)))


def file_of(arrays: Mapping[str, NDArray[Any]], url: str = "f.safetensors") -> DirectionFile:
    return DirectionFile(url, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def built(registry: ProfileRegistry, local: Location, *, contrast: bool = False) -> Profile:
    shape: dict[str, Any] = {"n_layers": LAYERS, "n_neurons": NEURONS, "dtype": StoredDtype.FLOAT32}
    both = (Feature.MEAN, Feature.DRIFT)
    source = build_set(local, "maths", 20, features=both, mean=np.ones(NEURONS, np.float32), **shape)
    background = build_set(local, "behind", 20, features=both, first=500, seed=3, **shape) if contrast else None
    recipe = choose_recipe("default", method="contrastive") if contrast else choose_recipe("nait-paper")
    return registry.build("math", source, recipe=recipe, background=background, card="GSM8K")[0]


@pytest.mark.parametrize("kind", list(TensorFormat))
@pytest.mark.parametrize("contrast", [True, False])
def test_an_exported_profile_comes_back_bit_by_bit(
    registry: ProfileRegistry, local: Location, kind: TensorFormat, contrast: bool
) -> None:
    original = built(registry, local, contrast=contrast)
    file = DirectionFile(f"x.{kind}", export_bytes(original, kind))
    copy, created = import_profile(registry, "copy", file)
    assert created
    assert copy.record.directions_sha256 == original.record.directions_sha256
    assert copy.directions().tobytes() == original.directions().tobytes()
    before, after = original.offset(), copy.offset()
    assert (before is None) == (after is None) == (not contrast)
    if before is not None and after is not None:
        assert before.tobytes() == after.tobytes()
    one, other = original.record, copy.record
    for field in ("identity", "settings", "layers", "n_neurons", "model", "card"):
        assert getattr(one, field) == getattr(other, field)
    assert (other.recipe.feature, other.recipe.metric) == (one.recipe.feature, one.recipe.metric)
    assert other.warnings == ()
    # and what is exported again has the same arrays
    again, _ = import_profile(registry, "again", DirectionFile(f"x.{kind}", export_bytes(copy, kind)))
    assert again.record.directions_sha256 == one.directions_sha256


def test_where_it_is_from_is_recorded(registry: ProfileRegistry, local: Location) -> None:
    data = export_bytes(built(registry, local), TensorFormat.NPZ)
    record = import_profile(registry, "copy", DirectionFile("there/x.npz", data))[0].record
    assert record.imported is not None
    assert (record.imported.url, record.imported.format, record.imported.size_bytes) == (
        "there/x.npz",
        "npz",
        len(data),
    )
    assert record.imported.exported_from == "math@1"
    assert record.imported.told == "nait-paper: centred pca of drift, candidates' mean, dot; 20 samples of maths@1"
    assert record.made_from == "the file there/x.npz (exported from math@1)"
    assert (record.recipe.method, record.source, record.statistics) == (Method.IMPORTED, None, ())


def test_the_same_directions_make_no_second_version(registry: ProfileRegistry, local: Location) -> None:
    original = built(registry, local)
    first, second = (DirectionFile(f"x.{kind}", export_bytes(original, kind)) for kind in TensorFormat)
    assert import_profile(registry, "copy", first)[1] is True
    again, created = import_profile(registry, "copy", second)
    assert (again.reference, created) == ("copy@1", False)
    assert import_profile(registry, "copy", second, metric="cosine")[0].number == 2


def test_unit_vectors_are_kept_bit_by_bit(registry: ProfileRegistry, like: Basis) -> None:
    profile, _ = import_profile(registry, "v", file_of({"directions": UNIT}), like=like)
    assert profile.directions().tobytes() == UNIT.tobytes()
    assert profile.record.warnings == ()
    assert (profile.record.recipe.feature, profile.record.recipe.metric) == (Feature.MEAN, Metric.COSINE)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 17.0, 1e30])
def test_other_lengths_are_normalised_and_said(registry: ProfileRegistry, like: Basis, scale: float) -> None:
    scaled = VECTORS.astype(np.float64) * scale
    profile, _ = import_profile(registry, "v", file_of({"directions": scaled}), like=like)
    np.testing.assert_allclose(profile.directions(), UNIT, atol=1e-7)
    (warning,) = profile.record.warnings
    assert warning.startswith("3 of 3 directions had another length than 1 (")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_rounded_unit_vectors_are_normalised_without_a_word(registry: ProfileRegistry, like: Basis, dtype: Any) -> None:
    profile, _ = import_profile(registry, "v", file_of({"directions": UNIT.astype(dtype)}), like=like)
    assert np.linalg.norm(profile.directions().astype(np.float64), axis=1) == pytest.approx(1.0, abs=1e-5)
    assert profile.record.warnings == ()


def test_one_array_a_layer_is_put_in_order(registry: ProfileRegistry, like: Basis) -> None:
    arrays = {f"model.layers.{layer}.mlp.direction": UNIT[layer] for layer in (2, 0)}
    profile, _ = import_profile(registry, "v", file_of(arrays), like=like)
    assert profile.record.layers == (0, 2)
    assert profile.directions().tobytes() == UNIT[[0, 2]].tobytes()


def test_the_only_table_may_have_any_name(registry: ProfileRegistry, like: Basis) -> None:
    profile, _ = import_profile(registry, "v", file_of({"refusal": UNIT}), like=like)
    assert profile.record.layers == (0, 1, 2)


@pytest.mark.parametrize("given", ["argument", "array"])
def test_layers_of_the_rows_are_named_or_stored(registry: ProfileRegistry, like: Basis, given: str) -> None:
    arrays, layers = {"directions": UNIT[:2]}, [2, 0]
    if given == "array":
        arrays["layers"] = np.array(layers)
    options: dict[str, Any] = {"layers": layers} if given == "argument" else {}
    profile, _ = import_profile(registry, "v", file_of(arrays), like=like, **options)
    assert profile.record.layers == (0, 2)
    assert profile.directions().tobytes() == UNIT[[1, 0]].tobytes()


def test_a_profile_tells_as_much_as_a_set(registry: ProfileRegistry, local: Location) -> None:
    like = Basis.of_profile(built(registry, local))
    profile, _ = import_profile(registry, "v", file_of({"directions": UNIT}), like=like)
    assert profile.record.capture_id == like.identity.capture_id
    assert profile.record.model == "./fake-model"


def test_an_offset_is_taken_over(registry: ProfileRegistry, like: Basis) -> None:
    file = file_of({"directions": UNIT, "offset": VECTORS})
    profile, _ = import_profile(registry, "v", file, like=like)
    offset = profile.offset()
    assert offset is not None
    assert offset.tobytes() == VECTORS.tobytes()


def changed(value: float, layer: int = 1) -> NDArray[Any]:
    vectors = UNIT.astype(np.float64)
    vectors[layer, 2:] = value
    return vectors


REFUSED: dict[str, tuple[dict[str, NDArray[Any]], dict[str, Any], str]] = {
    "NaN": ({"directions": changed(np.nan)}, {}, "direction of layer 1 holds NaN"),
    "infinity": ({"directions": changed(np.inf)}, {}, "direction of layer 1 holds NaN, infinity"),
    "zero": ({"directions": np.zeros((LAYERS, NEURONS))}, {}, "layer 0 is zero"),
    "offset with NaN": ({"directions": UNIT, "offset": changed(np.nan)}, {}, "the offset holds NaN"),
    "offset beyond float32": ({"directions": UNIT, "offset": changed(1e300)}, {}, "the offset holds NaN"),
    "offset of another shape": ({"directions": UNIT, "offset": UNIT[:1]}, {}, r"offset has shape \[1, 6\]"),
    "width": ({"directions": UNIT[:, :5]}, {}, "directions of 5 numbers, where set:pool@1 has 6 neurons"),
    "rows": ({"directions": UNIT[:2]}, {}, "has 2 directions, and set:pool@1 3 layers"),
    "unknown layer": ({"directions": UNIT}, {"layers": [0, 1, 9]}, "layers 9, which set:pool@1"),
    "negative layer": ({"directions": UNIT, "layers": np.array([0, 1, -1])}, {}, "layers -1, which"),
    "a layer twice": ({"directions": UNIT}, {"layers": [0, 1, 1]}, "two directions for one layer"),
    "wrong count of layers": ({"directions": UNIT}, {"layers": [0, 1]}, "3 directions, but 2 layers"),
    "layers twice told": ({"directions": UNIT, "layers": np.arange(3)}, {"layers": [0, 1, 2]}, "says itself which"),
    "layers in halves": ({"directions": UNIT, "layers": np.arange(3) / 2}, {}, "'layers' is float64"),
    "layers of another count": ({"directions": UNIT, "layers": np.arange(2)}, {}, r"'layers' is int64 \[2\]"),
    "two tables": ({"a": UNIT, "b": UNIT}, {}, r"no array 'directions'.*a \[3, 6\], b \[3, 6\]"),
    "names without numbers": ({"a": UNIT[0], "b": UNIT[1]}, {}, "no array 'directions'"),
    "names with two numbers": ({"a.1.2": UNIT[0]}, {}, "no array 'directions'"),
    "different widths": ({"a1": UNIT[0], "a2": UNIT[0, :4]}, {}, "no array 'directions'"),
    "one number": ({"directions": np.array(3, np.float32)}, {}, "no array 'directions'"),
    "three axes": ({"directions": UNIT[None]}, {}, "no array 'directions'"),
    "whole numbers": ({"directions": np.ones((3, 6), np.int64)}, {}, "it has none"),
    "no feature": ({"directions": UNIT}, {"feature": "projections"}, "'projections' is not a feature"),
    "no metric": ({"directions": UNIT}, {"metric": "euclid"}, "'euclid' is not a metric"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_directions_is_refused_and_leaves_nothing(
    registry: ProfileRegistry, local: Location, like: Basis, case: str
) -> None:
    arrays, options, says = REFUSED[case]
    with pytest.raises(InvalidInputError, match=says) as caught:
        import_profile(registry, "v", file_of(arrays), like=like, **options)
    assert caught.value.next_step
    assert list(local.walk("profiles")) == []


def test_a_file_that_does_not_say_needs_a_likeness(registry: ProfileRegistry) -> None:
    with pytest.raises(InvalidInputError, match="does not say which model") as caught:
        import_profile(registry, "v", file_of({"directions": UNIT}))
    assert "--like" in str(caught.value.next_step)


def test_a_set_of_another_model_is_no_likeness(registry: ProfileRegistry, local: Location) -> None:
    file = DirectionFile("x.npz", export_bytes(built(registry, local), TensorFormat.NPZ))
    other = build_set(local, "other", 4, LAYERS, NEURONS, identity=fake_identity("other"))
    with pytest.raises(IncompatibleError, match="model_fingerprint"):
        import_profile(registry, "copy", file, like=Basis.of_set(other))


def forged(profile: Profile, arrays: Mapping[str, NDArray[Any]] | None = None, **changes: Any) -> DirectionFile:
    """An export whose text, or arrays, were changed afterwards."""
    kept = {"directions": profile.directions(), "layers": np.array(profile.record.layers)}
    record = profile.record
    fields = {name: getattr(record, name) for name in ProfileExport.model_fields if hasattr(record, name)}
    header = ProfileExport(**fields, reference="math@1", store_id=None)
    text = header.model_copy(update=changes).to_json_bytes().decode()
    return DirectionFile("x.npz", tensor_bytes(TensorFormat.NPZ, {**kept, **(arrays or {})}, text))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"export_version": 2}, "exported by a later release"),
        ({"capture_id": "0" * 32}, "capture id is not that of the identity"),
        ({"reference": "\x1b[31mmath@1"}, "reference"),
        ({"reference": "../math@1"}, "reference"),
        ({"layers": (0, -2)}, "layers"),
        ({"n_neurons": 10**9}, "has directions of 6 numbers"),
        ({"directions_sha256": "0" * 64}, "other numbers than those that were exported"),
    ],
)
def test_a_forged_text_is_refused(
    registry: ProfileRegistry, local: Location, changes: dict[str, Any], says: str
) -> None:
    original = built(registry, local)
    before = sorted(local.walk())
    with pytest.raises(InvalidInputError, match=says):
        import_profile(registry, "copy", forged(original, **changes))
    assert sorted(local.walk()) == before


def test_numbers_that_were_changed_after_the_export_are_refused(registry: ProfileRegistry, local: Location) -> None:
    original = built(registry, local)
    with pytest.raises(InvalidInputError, match="other numbers than those") as caught:
        import_profile(registry, "copy", forged(original, {"directions": -original.directions()}))
    assert HEADER in str(caught.value.next_step)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "{" * 5_000, '{"export_version":1}'])
def test_a_text_that_is_no_export_is_refused(registry: ProfileRegistry, like: Basis, text: str) -> None:
    data = tensor_bytes(TensorFormat.SAFETENSORS, {"directions": UNIT}, text)
    with pytest.raises(InvalidInputError, match=r"f\.safetensors") as caught:
        import_profile(registry, "v", DirectionFile("f.safetensors", data), like=like)
    assert caught.value.next_step


def test_what_a_stranger_says_cannot_act_on_a_terminal(registry: ProfileRegistry, local: Location) -> None:
    original = built(registry, local)
    recipe = original.record.recipe.model_copy(update={"name": "\x1b[2J" + "x" * 5_000})
    record = import_profile(registry, "copy", forged(original, recipe=recipe, model="\x07bell"))[0].record
    assert record.imported is not None
    assert record.imported.told is not None
    assert record.imported.told.isprintable()
    assert len(record.imported.told) == 300
    assert record.model == "�bell"


def test_another_feature_than_the_offset_is_of_is_refused(registry: ProfileRegistry, local: Location) -> None:
    file = DirectionFile("x.npz", export_bytes(built(registry, local, contrast=True), TensorFormat.NPZ))
    with pytest.raises(IncompatibleError, match="centres candidates on a mean of mean"):
        import_profile(registry, "copy", file, feature="drift")


def test_a_set_without_samples_tells_nothing(local: Location) -> None:
    version = build_set(local, "pool", 4, LAYERS, NEURONS)
    object.__setattr__(version, "segments", ())
    with pytest.raises(InvalidInputError, match="has no samples"):
        Basis.of_set(version)
