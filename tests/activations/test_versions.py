from __future__ import annotations

import numpy as np
import pytest

from nait_store.activations import changes as changes_module
from nait_store.activations.versions import ActivationSets
from nait_store.errors import (
    ConflictError,
    CorruptChunkError,
    IncompatibleError,
    InvalidInputError,
    NotFoundError,
)
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import Feature, HookPoint
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record


def _segment(location: Location, ids: list[str], text: str = "same", name: str = "pool") -> SegmentRecord:
    rows = [fake_row(i, n, {"text": text + i}) for n, i in enumerate(ids)]
    return build_segment(location, name, rows, {Feature.MEAN: np.ones((len(ids), 2, 8), np.float32)})


@pytest.fixture
def sets(location: Location) -> ActivationSets:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool"))
    return sets


def _commit(sets: ActivationSets, *segments: SegmentRecord, **options: object) -> list[str]:
    return sets.commit("pool", segments, ingest_ids=(new_ulid(),), **options).sample_ids()  # type: ignore[arg-type]


def test_a_set_has_no_version_before_the_first_commit(sets: ActivationSets) -> None:
    assert sets.names() == []
    assert sets.numbers("pool") == []
    with pytest.raises(NotFoundError, match="has no version yet"):
        sets.open("pool")


def test_each_commit_is_a_version_and_earlier_ones_stay(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]), message="first")
    _commit(sets, _segment(location, ["c"]))
    assert sets.names() == ["pool"]
    assert [m.number for m in sets.manifests("pool")] == [1, 2]
    assert [m.parent for m in sets.manifests("pool")] == [None, 1]
    assert sets.manifests("pool")[0].message == "first"
    assert sets.open("pool@1").sample_ids() == ["a", "b"]
    assert sets.open("pool").sample_ids() == ["a", "b", "c"]
    assert sets.open("set:pool@2").n_samples == 3
    assert sets.open("pool").reference == "pool@2"


def test_committing_the_same_segments_again_changes_nothing(location: Location, sets: ActivationSets) -> None:
    segment = _segment(location, ["a"])
    _commit(sets, segment)
    version = sets.commit("pool", [segment], ingest_ids=())
    assert version.reference == "pool@1"
    assert sets.numbers("pool") == [1]


def test_a_segment_that_brings_nothing_new_makes_no_version(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    _commit(sets, _segment(location, ["b", "a"]))
    assert sets.numbers("pool") == [1]


def test_a_sample_in_two_segments_is_kept_once_the_first_one(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    version = sets.commit("pool", [_segment(location, ["b", "c"]), _segment(location, ["c", "d", "a"])], ingest_ids=())
    assert version.sample_ids() == ["a", "b", "c", "d"]
    assert version.n_samples == 4
    assert {o: rows.tolist() for o, rows in version.tombstones().items()} == {1: [0], 2: [0, 2]}
    masks = [version.visible_rows(segment) for segment in version.segments]
    assert masks[0] is None
    assert [m.tolist() for m in masks[1:] if m is not None] == [[False, True], [False, True, False]]


def test_a_sample_twice_in_one_segment_is_kept_once(location: Location, sets: ActivationSets) -> None:
    assert _commit(sets, _segment(location, ["a", "b", "a"])) == ["a", "b"]


def test_tombstones_carry_over_to_later_versions(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    _commit(sets, _segment(location, ["b", "c"]))
    assert _commit(sets, _segment(location, ["d"])) == ["a", "b", "c", "d"]
    assert _commit(sets, _segment(location, ["d", "c", "e"])) == ["a", "b", "c", "d", "e"]
    assert sets.open("pool@2").sample_ids() == ["a", "b", "c"]


def test_one_id_with_two_contents_is_a_conflict_that_names_it_and_both_places(
    location: Location, sets: ActivationSets
) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    with pytest.raises(ConflictError, match=r"sample 'b' has one text .*record 1\) and another in .* record 0"):
        _commit(sets, _segment(location, ["b"], text="other"))
    assert sets.numbers("pool") == [1]


def test_a_yielding_segment_gives_way_where_it_contradicts(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    late = _segment(location, ["b", "c"], text="other")
    assert _commit(sets, late, yielding=[late.segment_id]) == ["a", "b", "c"]


def test_ordinals_are_never_reused_and_make_row_ids(location: Location, sets: ActivationSets) -> None:
    for sample in "abc":
        _commit(sets, _segment(location, [sample]))
    version = sets.open("pool")
    assert [ref.ordinal for ref in version.refs] == [0, 1, 2]
    assert version.manifest.next_ordinal == 3
    table = version.samples(["sample_id"])
    assert table.column("row_id").to_pylist() == [o << 40 for o in range(3)]
    segment, row = version.segment_of(version.row_id(2, 0))
    assert (segment.ordinal, row) == (2, 0)
    with pytest.raises(InvalidInputError, match="has no row"):
        version.segment_of(version.row_id(3, 0))


def test_every_100th_manifest_is_full_and_the_others_hold_what_came_since(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "FULL_MANIFEST_EVERY", 4)
    segments = [_segment(location, [f"s{i}"]) for i in range(10)]
    for segment in segments:
        _commit(sets, segment)
    manifests = sets.manifests("pool")
    assert [m.base for m in manifests] == [None, 1, 1, None, 4, 4, 4, None, 8, 8]
    assert [len(m.segments) for m in manifests] == [1, 1, 2, 4, 1, 2, 3, 8, 1, 2]
    for number in range(1, 11):
        refs = sets.open(f"pool@{number}").refs
        assert [ref.segment_id for ref in refs] == [s.segment_id for s in segments[:number]]


def test_a_set_of_another_identity_is_refused_naming_the_fields(location: Location, sets: ActivationSets) -> None:
    assert sets.create(fake_set_record("pool")) == sets.record("pool")
    with pytest.raises(IncompatibleError, match=r"captured differently \(model_fingerprint: .* there, .* here\)"):
        sets.create(fake_set_record("pool", identity=fake_identity("other")))
    with pytest.raises(IncompatibleError, match="hook_point: mlp there, attn here"):
        sets.create(fake_set_record("pool", identity=fake_identity(hook_point=HookPoint.ATTN)))
    with pytest.raises(IncompatibleError, match="n_neurons: 8 there, 16 here"):
        sets.create(fake_set_record("pool", n_neurons=16))


def test_unknown_sets_and_versions_are_not_found_with_near_names(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a"]))
    with pytest.raises(NotFoundError, match="did you mean 'pool'"):
        sets.open("pol")
    with pytest.raises(NotFoundError, match="these exist: pool@1"):
        sets.open("pool@7")
    with pytest.raises(InvalidInputError):
        sets.open("../pool")


def test_what_a_version_stores_is_what_all_its_segments_store(location: Location, sets: ActivationSets) -> None:
    both = {f: np.ones((1, 2, 8), np.float32) for f in (Feature.MEAN, Feature.DRIFT)}
    _commit(sets, build_segment(location, "pool", [fake_row("a")], both))
    assert sets.open("pool").features == (Feature.MEAN, Feature.DRIFT)
    sets.open("pool").require([Feature.DRIFT], [0, 1])
    one = {Feature.MEAN: np.ones((1, 1, 8), np.float32)}
    _commit(sets, build_segment(location, "pool", [fake_row("b")], one, layers=[1]))
    version = sets.open("pool")
    assert (version.features, version.layers) == ((Feature.MEAN,), (1,))
    with pytest.raises(NotFoundError, match="it stores: mean"):
        version.require([Feature.DRIFT])
    with pytest.raises(NotFoundError, match="it stores the layers 1"):
        version.require([Feature.MEAN], [0])


def test_unknown_sample_columns_are_not_found(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a"]))
    with pytest.raises(NotFoundError, match="did you mean 'n_tokens'"):
        sets.open("pool").samples(["n_token"])


def test_damaged_documents_are_errors_that_name_them(location: Location, sets: ActivationSets) -> None:
    _commit(sets, _segment(location, ["a", "b"]))
    _commit(sets, _segment(location, ["b", "c"]))
    version = sets.open("pool")
    tombstones = version.manifest.tombstones
    assert tombstones is not None
    segment = f"activations/pool/segments/{version.refs[0].segment_id}/segment.json"
    for path, read in (
        (segment, lambda: sets.open("pool").segments),
        (f"activations/pool/{tombstones.path}", lambda: sets.open("pool").tombstones()),
    ):
        whole = location.read_bytes(path)
        location.write_bytes(path, whole.replace(b"1", b"2", 1) + b" ")
        with pytest.raises(CorruptChunkError, match="differs from the SHA-256 in the set's manifest"):
            read()
        location.delete(path)
        with pytest.raises(CorruptChunkError, match="is missing"):
            read()
        location.write_bytes(path, whole)
    assert sets.open("pool").sample_ids() == ["a", "b", "c"]


def test_the_builder_makes_what_it_says(location: Location) -> None:
    version = build_set(
        location,
        "big",
        10,
        n_layers=3,
        n_neurons=4,
        features=(Feature.MEAN, Feature.LAST),
        n_segments=3,
        user_fields={"length": list(range(10))},
        mean=np.float32(100),
    )
    assert (version.n_samples, len(version.refs), version.layers) == (10, 3, (0, 1, 2))
    assert version.sample_ids() == [f"s{i:06d}" for i in range(10)]
    assert version.segments[0].read(Feature.LAST).mean() == pytest.approx(100, abs=1)
    assert version.segments[2].samples(["user.length"]).column(0).to_pylist() == [6, 7, 8, 9]
