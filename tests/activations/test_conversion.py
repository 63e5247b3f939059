"""``convert``: the same samples in another dtype, as a new version, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nait_store
from nait_store.activations.conversion import convert
from nait_store.activations.replacement import replace_segment
from nait_store.activations.rewriting import Rewriting
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, CorruptChunkError, InvalidInputError, NotFoundError, StorageError
from nait_store.progress import ProgressEvent
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.samples import SAMPLE_FIELDS
from nait_store.scoring.completion import ensure_scores
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.testing.faults import no_space_from, write_steps
from nait_store.testing.sample_digests import sample_digests
from nait_store.testing.scores import random_target
from nait_store.testing.stores import build_set

FEATURES = (Feature.MEAN, Feature.DRIFT)


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return nait_store.open(str(tmp_path / "store"), create=True).location


@pytest.fixture
def sets(location: Location) -> ActivationSets:
    return ActivationSets(location)


def rounded(values: np.ndarray, dtype: StoredDtype) -> np.ndarray:
    """What a dtype makes of values [..., J], by other means than the code under test."""
    exact = values.astype(np.float32)
    match dtype:
        case StoredDtype.BFLOAT16:
            return torch.from_numpy(exact).bfloat16().float().numpy()
        case StoredDtype.INT8:
            scales = np.abs(exact).max(axis=-1, keepdims=True) / np.float32(127)
            return np.rint(exact / scales) * scales
        case StoredDtype.FLOAT16:
            return exact.astype(np.float16).astype(np.float32)
    return exact


def contents(version: SetVersion) -> dict[str, Any]:
    """Everything that a conversion keeps."""
    columns = [field.name for field in SAMPLE_FIELDS if field.name != "row_index"]
    return {row["sample_id"]: row for row in version.samples(columns).select(columns).to_pylist()}


@pytest.mark.parametrize("source", StoredDtype)
@pytest.mark.parametrize("target", StoredDtype)
def test_values_are_those_that_were_stored_rounded_once(
    sets: ActivationSets, location: Location, source: StoredDtype, target: StoredDtype
) -> None:
    before = build_set(location, "pool", 23, 2, 9, FEATURES, n_segments=2, dtype=source, chunk_rows=5)
    report = convert(sets, "pool", target)
    after = sets.open("pool")
    assert report.n_converted == (0 if source is target else 2)
    assert after.sample_ids() == before.sample_ids()
    assert contents(after) == contents(before)
    for old, new in zip(before.segments, after.segments, strict=True):
        for array in new.record.arrays:
            assert array.dtype is target
            stored = new.read(array.feature)
            np.testing.assert_array_equal(stored, rounded(old.read(array.feature), target))
            lengths = np.linalg.norm(stored.astype(np.float64), axis=2)
            np.testing.assert_allclose(new.norms(array.feature), lengths, rtol=1e-6)
            assert array.max_abs == np.abs(stored).max()
    assert nait_store.open(location.url).verify().ok


def test_the_version_tells_what_was_done(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 8, n_segments=2)
    report = convert(sets, "pool", StoredDtype.INT8, message="smaller")
    after = sets.open("pool")
    assert (report.source, report.reference) == ("pool@1", "pool@2")
    assert (after.manifest.operation, after.manifest.message) == (Operation.CONVERT, "smaller")
    assert after.manifest.details == {"segments": 2, "into": 2, "dropped_rows": 0, "dtype": "int8"}
    assert report.n_bytes == sum(segment.record.size_bytes for segment in after.segments)
    assert [segment.record.replaces for segment in after.segments] == [
        (ref.segment_id,) for ref in sets.open("pool@1").refs
    ]


def test_a_second_conversion_has_nothing_to_do(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 8)
    convert(sets, "pool", StoredDtype.INT8)
    report = convert(sets, "pool", StoredDtype.INT8)
    assert (report.reference, report.n_converted) == (None, 0)
    assert sets.numbers("pool")[-1] == 2


def test_segments_of_the_dtype_stay_as_they_are(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 4, dtype=StoredDtype.INT8)
    before = build_set(location, "pool", 4, first=4)
    assert convert(sets, "pool", StoredDtype.INT8).n_converted == 1
    after = sets.open("pool")
    assert after.refs[0] == before.refs[0]
    assert after.refs[1].ordinal == 2


def test_hidden_rows_are_left_behind(location: Location) -> None:
    store = nait_store.open(location.url)
    build_set(location, "pool", 12, n_segments=2, chunk_rows=4)
    store.sets.delete_samples("pool", ids=["s000001", "s000007"])
    before = store.sets.open("pool")
    report = store.sets.convert("pool", "bfloat16")
    after = store.sets.open("pool")
    assert report.n_dropped_rows == 2
    assert after.tombstones() == {}
    assert after.sample_ids() == before.sample_ids()


def test_older_versions_keep_their_numbers(sets: ActivationSets, location: Location) -> None:
    before = sample_digests(build_set(location, "pool", 8))
    convert(sets, "pool", StoredDtype.INT8)
    assert sample_digests(sets.open("pool@1")) == before


def test_scores_are_computed_from_the_new_numbers(sets: ActivationSets, location: Location) -> None:
    target = random_target(1)
    ensure_scores(location, build_set(location, "pool", 8), [target])
    convert(sets, "pool", StoredDtype.INT8)
    assert ensure_scores(location, sets.open("pool"), [target]).n_computed == 1


def test_a_value_beyond_the_dtype_is_told_before_anything_is_written(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 4, dtype=StoredDtype.BFLOAT16, mean=np.float32(1e5))
    before = sorted(location.walk())
    with pytest.raises(InvalidInputError, match="beyond the range of float16"):
        convert(sets, "pool", StoredDtype.FLOAT16)
    assert [file for file in sorted(location.walk()) if "/jobs/" not in file[0]] == before


def test_a_dry_run_changes_nothing_and_tells_the_size(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 40, 2, 64)
    before = sorted(location.walk())
    report = convert(sets, "pool", StoredDtype.INT8, dry_run=True)
    assert sorted(location.walk()) == before
    assert report.reference is None
    assert abs(convert(sets, "pool", StoredDtype.INT8).n_bytes - report.n_bytes) < 0.2 * report.n_bytes


def test_an_unknown_set_is_not_found(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 4)
    with pytest.raises(NotFoundError, match="'pol'"):
        convert(sets, "pol", StoredDtype.INT8)


def test_a_damaged_chunk_is_not_converted(sets: ActivationSets, location: Location) -> None:
    segment = build_set(location, "pool", 9, chunk_rows=4).segments[0]
    path = f"{layout.segment_folder('pool', segment.segment_id)}/data.zarr/mean/c/1/0/0"
    data = bytearray(location.read_bytes(path))
    data[5] ^= 1
    location.write_bytes(path, bytes(data))
    with pytest.raises(CorruptChunkError):
        convert(sets, "pool", StoredDtype.INT8)
    assert location.names(layout.segment_folder("pool")) == [segment.segment_id]


def test_samples_deleted_meanwhile_stay_deleted(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    store = nait_store.open(location.url)
    build_set(location, "pool", 9, n_segments=2)
    real = Rewriting.commit

    def commit(self: Any, message: str) -> SetVersion:
        store.sets.delete_samples("pool", ids=["s000002"])
        return real(self, message)

    monkeypatch.setattr(Rewriting, "commit", commit)
    store.sets.convert("pool", "int8")
    assert "s000002" not in store.sets.open("pool").sample_ids()
    assert store.sets.open("pool").n_samples == 8


def test_a_segment_replaced_meanwhile_is_not_brought_back(
    sets: ActivationSets, location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = build_set(location, "pool", 9).segments[0].record
    real = Rewriting.commit

    def commit(self: Any, message: str) -> SetVersion:
        replace_segment(sets, "pool", record, blank_rows=np.array([2]), operation=Operation.PURGE)
        return real(self, message)

    monkeypatch.setattr(Rewriting, "commit", commit)
    with pytest.raises(ConflictError, match="no longer part") as caught:
        convert(sets, "pool", StoredDtype.INT8)
    assert "nait-store sets convert pool --dtype int8" in str(caught.value)
    assert "s000002" not in sets.open("pool").sample_ids()


def test_a_full_disk_at_any_step_leaves_the_set_as_it_was(sets: ActivationSets, location: Location) -> None:
    before = sample_digests(build_set(location, "pool", 6, chunk_rows=4))
    convert(sets, "pool", StoredDtype.BFLOAT16)  # so that the store's record is written already
    expected = sample_digests(sets.open("pool"))
    with write_steps(location.url) as steps:
        convert(sets, "pool", StoredDtype.FLOAT16)
    store = nait_store.open(location.url)
    store.sets.delete("pool@3", force=True)
    commit = next(step.number for step in steps if "/versions/" in step.path)
    # The next run takes some steps more or less, as its threads meet: the last one before the commit is left out.
    for number in range(0, commit - 3, max(1, commit // 12)):
        with write_steps(location.url, before=no_space_from(number)), pytest.raises(StorageError):
            convert(sets, "pool", StoredDtype.FLOAT16)
        assert sample_digests(sets.open("pool")) == expected
    assert sample_digests(sets.open("pool@1")) == before
    assert convert(sets, "pool", StoredDtype.FLOAT16).reference == "pool@4"
    assert store.verify().errors == ()


def test_progress_ends_with_all_rows(sets: ActivationSets, location: Location) -> None:
    build_set(location, "pool", 90, 2, 512, n_segments=3)
    events: list[ProgressEvent] = []
    convert(sets, "pool", StoredDtype.INT8, progress=events.append)
    assert events[-1].stage == "convert"
    assert 0 < events[-1].done <= 90 == events[-1].total
