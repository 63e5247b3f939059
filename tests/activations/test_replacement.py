from __future__ import annotations

import contextlib
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.replacement import delete_replaced, replace_segment
from nait_store.activations.versions import ActivationSets
from nait_store.errors import CorruptChunkError, StorageError
from nait_store.schemas.activation_set import Operation, RedirectRecord, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.digests import check_file
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance
from nait_store.testing.faults import no_space_at, write_steps
from nait_store.testing.stores import build_set

FEATURES = (Feature.MEAN, Feature.DRIFT)


def _replace(sets: ActivationSets, record: SegmentRecord, rows: list[int]) -> SegmentRecord | None:
    replaced = replace_segment(
        sets, "pool", record, blank_rows=np.array(rows, dtype=np.int64), operation=Operation.PURGE
    )
    return None if replaced is None else replaced.new


def _only_segment(sets: ActivationSets) -> SegmentReader:
    return sets.open("pool").segments[0]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_replacement_is_the_same_segment_with_blank_rows(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 23), "rows")
    chunk_rows = data.draw(st.integers(1, n), "chunk rows")
    dtype = data.draw(st.sampled_from(list(StoredDtype)), "dtype")
    rows = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1), "blank"))
    location = Location(f"memory://{uuid.uuid4().hex}")
    version = build_set(location, "pool", n, 2, 5, FEATURES, dtype=dtype, chunk_rows=chunk_rows)
    old = version.segments[0]
    new_record = _replace(ActivationSets(location), old.record, rows)
    assert new_record is not None
    new = SegmentReader(location, new_record, verify=True)

    kept = np.ones(n, dtype=bool)
    kept[rows] = False
    for feature in FEATURES:
        assert new.read(feature)[kept].tobytes() == old.read(feature)[kept].tobytes()
        assert new.norms(feature)[kept].tobytes() == old.norms(feature)[kept].tobytes()
        assert not new.read(feature)[rows].any()
        assert not new.norms(feature)[rows].any()
    assert (
        new.samples().filter(kept).to_pylist()
        == old.samples().filter(kept).select(new.samples().column_names).to_pylist()
    )
    assert new.samples(["row_index"]).column(0).to_pylist() == list(range(n))
    for row in new.samples().filter(~kept).drop_columns(["row_index"]).to_pylist():
        assert {k: v for k, v in row.items() if v is not None} == {
            "sample_id": "",
            "content_hash": "0" * 64,
            "source_uri": "",
            "source_index": -1,
            "n_tokens": 0,
            "n_content_tokens": 0,
            "truncated": False,
            "record": "{}",
        }
    peaks = [max(0.0, *np.abs(new.read(feature).astype(np.float64)).ravel().tolist()) for feature in FEATURES]
    assert [array.max_abs for array in new_record.arrays] == peaks
    left = old.samples().filter(kept)
    assert new_record.n_tokens == sum(left.column("n_tokens").to_pylist())
    assert new_record.n_truncated == sum(left.column("truncated").to_pylist())
    for file in new_record.files:
        check_file(location, layout.segment_folder("pool", new_record.segment_id), file, hashed=True)
    same = ("n_rows", "layers", "n_neurons", "capture_id", "settings", "environment", "set_name")
    assert all(getattr(new_record, name) == getattr(old.record, name) for name in same)
    assert [a.model_copy(update={"max_abs": 0}) for a in new_record.arrays] == [
        a.model_copy(update={"max_abs": 0}) for a in old.record.arrays
    ]
    assert new_record.replaces == (old.segment_id,)


def test_every_version_sees_the_replacement_and_row_ids_stay(location: Location) -> None:
    build_set(location, "pool", 6)
    build_set(location, "pool", 6, first=6, seed=1)
    sets = ActivationSets(location)
    before = {row["sample_id"]: row["row_id"] for row in sets.open("pool@2").samples().to_pylist()}
    _replace(sets, sets.open("pool@1").segments[0].record, [1, 4])
    assert sets.open("pool@1").sample_ids() == ["s000000", "s000002", "s000003", "s000005"]
    assert sets.open("pool@1").n_samples == 4
    after = {row["sample_id"]: row["row_id"] for row in sets.open("pool@2").samples().to_pylist()}
    assert after == {i: r for i, r in before.items() if i not in ("s000001", "s000004")}


def test_a_replacement_can_be_replaced_and_blank_rows_add_up(location: Location) -> None:
    build_set(location, "pool", 8, chunk_rows=3)
    sets = ActivationSets(location)
    first = _only_segment(sets).record
    second = _replace(sets, first, [0, 5])
    assert second is not None
    delete_replaced(location, sets.redirects("pool"))
    third = _replace(sets, first, [2])  # named by what is gone
    assert third is not None
    assert third.replaces == (second.segment_id,)
    delete_replaced(location, sets.redirects("pool"))
    assert location.names(layout.segment_folder("pool")) == [third.segment_id]
    assert sets.open("pool").sample_ids() == [f"s{i:06d}" for i in (1, 3, 4, 6, 7)]
    assert ActivationSets(location).redirects("pool").blank_rows(first.segment_id).tolist() == [0, 2, 5]


def test_rows_that_are_blank_already_make_no_replacement(location: Location) -> None:
    build_set(location, "pool", 4)
    sets = ActivationSets(location)
    record = _only_segment(sets).record
    assert _replace(sets, record, [1]) is not None
    assert _replace(sets, record, [1]) is None


def test_of_two_replacements_at_once_neither_loses_its_rows(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_set(location, "pool", 6)
    ours, theirs = ActivationSets(location), ActivationSets(location)
    record = _only_segment(ours).record
    create = Location.create_bytes
    raced = False

    def race(self: Location, path: str, data: bytes) -> None:
        nonlocal raced
        if "/redirects/" in path and not raced:
            raced = True
            _replace(theirs, record, [3])
            delete_replaced(location, theirs.redirects("pool"))
        create(self, path, data)

    monkeypatch.setattr(Location, "create_bytes", race)
    _replace(ours, record, [1])
    monkeypatch.undo()
    delete_replaced(location, ours.redirects("pool"))
    assert ours.open("pool").sample_ids() == ["s000000", "s000002", "s000004", "s000005"]
    assert len(location.names(layout.segment_folder("pool"))) == 1


def test_a_segment_that_vanishes_under_the_reader_is_followed(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_set(location, "pool", 6)
    ours, theirs = ActivationSets(location), ActivationSets(location)
    record = _only_segment(ours).record
    read_many = Location.read_many
    raced = False

    def race(self: Location, *args: object, **options: object) -> object:
        nonlocal raced
        if not raced:
            raced = True
            _replace(theirs, record, [3])
            delete_replaced(location, theirs.redirects("pool"))
        return read_many(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Location, "read_many", race)
    _replace(ours, record, [1])
    monkeypatch.undo()
    assert ours.open("pool").sample_ids() == ["s000000", "s000002", "s000004", "s000005"]


def test_damage_is_refused_and_not_copied(location: Location) -> None:
    build_set(location, "pool", 6, chunk_rows=2)
    sets = ActivationSets(location)
    record = _only_segment(sets).record
    folder = layout.segment_folder("pool", record.segment_id)
    path = f"{folder}/data.zarr/mean/c/2/1/0"
    data = bytearray(location.read_bytes(path))
    data[5] ^= 1
    location.write_bytes(path, bytes(data))
    with pytest.raises(CorruptChunkError, match="c/2/1/0"):
        _replace(sets, record, [0])
    assert location.names(layout.segment_folder("pool")) == [record.segment_id]
    assert sets.open("pool").n_samples == 6
    assert _replace(sets, record, [0, 4, 5]) is not None  # what is not kept is not read


def test_norms_taken_again_have_the_bits_that_they_had(location: Location) -> None:
    build_set(location, "pool", 9, 3, 17, FEATURES, chunk_rows=4)
    sets = ActivationSets(location)
    old = _only_segment(sets)
    expected = {feature: old.norms(feature) for feature in FEATURES}
    replaced = replace_segment(
        sets,
        "pool",
        old.record,
        blank_rows=np.empty(0, dtype=np.int64),
        operation=Operation.REPAIR,
        recomputed_norms=FEATURES,
        even_if_blank=True,
    )
    assert replaced is not None
    for feature in FEATURES:
        assert (SegmentReader(location, replaced.new).norms(feature) == expected[feature]).all()


def test_a_user_field_of_blank_rows_alone_is_no_column_any_more(location: Location) -> None:
    fields = {"secret": [None, "x", None], "note": ["a", "b", None], "nothing": [None, None, None]}
    build_set(location, "pool", 3, user_fields=fields)
    sets = ActivationSets(location)
    new = _replace(sets, _only_segment(sets).record, [1])
    assert new is not None
    assert set(new.user_fields) == {"instruction", "output", "note", "nothing"}
    assert set(_only_segment(sets).samples_schema().names) >= {"user.note", "user.nothing"}
    assert "user.secret" not in _only_segment(sets).samples_schema().names


def test_a_full_disk_at_any_step_leaves_the_version_as_it_was(location: Location) -> None:
    build_set(location, "pool", 6, chunk_rows=3)
    sets = ActivationSets(location)
    record = _only_segment(sets).record
    point = n_failed = 0
    while True:
        with write_steps(location.url, before=no_space_at(point)) as steps, contextlib.suppress(StorageError):
            _replace(sets, record, [1])
        if len(steps) <= point:
            break
        fresh = ActivationSets(location).open("pool")
        replaced = bool(location.names("activations/pool/redirects"))
        assert fresh.n_samples == len(fresh.sample_ids()) == (5 if replaced else 6), steps[point]
        n_failed += not replaced
        if replaced:  # a step that can fail without harm
            location.delete("activations/pool/redirects")
            sets = ActivationSets(location)
        point += 1
    assert n_failed > 10


def test_a_redirect_names_a_whole_segment(location: Location) -> None:
    build_set(location, "pool", 3)
    sets = ActivationSets(location)
    record = _only_segment(sets).record
    new = _replace(sets, record, [2])
    assert new is not None
    path = f"{layout.redirects_folder('set', 'pool')}/{record.segment_id}.json"  # type: ignore[arg-type]
    redirect = RedirectRecord.from_json_bytes(location.read_bytes(path), path)
    assert (redirect.replacement, redirect.blank_rows, redirect.operation) == (new.segment_id, (2,), "purge")
    ref = sets.open("pool").refs[0]
    assert read_segment_record(location, "pool", ref) == new
    assert location.is_file(f"{layout.segment_folder('pool', new.segment_id)}/{SEGMENT_FILE}")
    assert new.provenance.author == current_provenance().author
