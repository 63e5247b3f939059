from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nait_store.activations.changes import Change, Contents
from nait_store.activations.compaction import compact
from nait_store.activations.replacement import replace_segment
from nait_store.activations.rewriting import Rewriting
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, CorruptChunkError, NotFoundError, ReadOnlyError, StorageError
from nait_store.progress import ProgressEvent
from nait_store.schemas.activation_set import Operation, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.storage import heartbeat, layout
from nait_store.storage.heartbeat import job
from nait_store.storage.location import Location
from nait_store.testing.sample_digests import sample_digests
from nait_store.testing.scores import random_target
from nait_store.testing.stores import build_segment, build_set, fake_row, fake_set_record

L, J = 3, 19


def segment(
    location: Location,
    ids: list[str],
    *,
    fields: list[dict[str, Any]] | None = None,
    features: tuple[Feature, ...] = (Feature.MEAN,),
    dtype: StoredDtype = StoredDtype.FLOAT16,
    chunk_rows: int | None = None,
    layers: tuple[int, ...] = (0, 1, 2),
) -> SegmentRecord:
    """A segment of samples with these ids, its numbers a function of the first."""
    rng = np.random.default_rng([ord(c) for c in ids[0]])
    rows = [fake_row(i, n, None if fields is None else fields[n]) for n, i in enumerate(ids)]
    arrays = {f: rng.standard_normal((len(ids), len(layers), J), dtype=np.float32) for f in features}
    return build_segment(location, "pool", rows, arrays, dtype=dtype, chunk_rows=chunk_rows, layers=layers)


on_disk = pytest.mark.parametrize("location", ["local"], indirect=True)


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """In memory, which is quick; on the disk where a test is about bytes."""
    kind = getattr(request, "param", "memory")
    return Location(str(tmp_path / "store") if kind == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def sets(location: Location) -> ActivationSets:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=L, n_neurons=J))
    return sets


def append(sets: ActivationSets, *segments: SegmentRecord) -> SetVersion:
    version = None
    for record in segments:
        version = sets.commit("pool", [record], ingest_ids=())
    assert version is not None
    return version


def small(sets: ActivationSets, n: int, first: int = 0, **options: Any) -> SetVersion:
    """Commit ``n`` segments of five samples each."""
    return append(
        sets,
        *(segment(sets.location, [f"s{5 * k + i:04d}" for i in range(5)], **options) for k in range(first, first + n)),
    )


def hide(sets: ActivationSets, *sample_ids: str) -> SetVersion:
    """Commit a version without these samples."""

    def propose(current: SetVersion | None, next_ordinal: int) -> Change:
        assert current is not None
        hidden = {}
        for reader in current.segments:
            ids = reader.samples(["sample_id"]).column("sample_id").to_pylist()
            rows = [row for row, sample_id in enumerate(ids) if sample_id in sample_ids]
            if rows:
                hidden[reader.ordinal] = np.array(rows, np.int64)
        return Change(Operation.DELETE_SAMPLES, Contents(current.features, current.layers), hidden=hidden)

    version = sets.advance("pool", propose)
    assert version is not None
    return version


def restore(sets: ActivationSets, number: int) -> SetVersion:
    """Commit a version equal to an old one."""
    old = sets.version("pool", number)
    change = Change(
        Operation.RESTORE, Contents(old.features, old.layers), refs=old.refs, tombstones=dict(old.tombstones())
    )
    version = sets.advance("pool", lambda current, next_ordinal: change)
    assert version is not None
    return version


def segment_names(location: Location) -> list[str]:
    return location.names(layout.segment_folder("pool"))


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Let something happen after the new segments were written and before they are committed."""
    real = Rewriting.commit

    def commit(self: Any, message: str) -> SetVersion:
        action()
        return real(self, message)

    monkeypatch.setattr(Rewriting, "commit", commit)


@on_disk
@pytest.mark.parametrize("seed", range(8))
def test_samples_stay_bit_by_bit_what_they_were(location: Location, sets: ActivationSets, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds: list[tuple[tuple[Feature, ...], StoredDtype]] = [
        ((Feature.MEAN,), StoredDtype.FLOAT16),
        ((Feature.MEAN, Feature.DRIFT), StoredDtype.FLOAT16),
        ((Feature.MEAN,), StoredDtype.FLOAT32),
    ]
    values: list[Any] = [1, 2.5, "x", None, [1], {"a": 1}, True]
    next_id = 0
    for _ in range(int(rng.integers(3, 9))):
        features, dtype = kinds[int(rng.integers(len(kinds) if seed % 3 else 1))]
        n = int(rng.integers(1, 40))
        ids = [f"s{i:05d}" for i in range(next_id, next_id + n)]
        next_id += n
        typed = values[int(rng.integers(len(values)))]
        fields = [{"n": typed, **({"odd": i} if rng.random() < 0.5 else {})} for i in range(n)]
        append(
            sets,
            segment(
                location,
                ids,
                fields=fields,
                features=features,
                dtype=dtype,
                chunk_rows=int(rng.integers(1, n + 1)) if rng.random() < 0.7 else None,
            ),
        )
    hide(sets, *(f"s{i:05d}" for i in range(next_id) if rng.random() < 0.15))
    before = sets.open("pool")
    expected = sample_digests(before)
    report = compact(sets, "pool", target_bytes=int(rng.choice([60_000, 10**9])))
    after = sets.open("pool")
    assert after.number == before.number + (report.reference is not None)
    assert sample_digests(after) == expected
    assert after.n_samples == len(expected)
    assert len(after.refs) == report.n_segments_after
    assert sample_digests(sets.open(before.reference)) == expected


@on_disk
def test_many_segments_become_one_in_their_order(location: Location, sets: ActivationSets) -> None:
    before = small(sets, 6, chunk_rows=2)
    report = compact(sets, "pool", message="tidy up")
    after = sets.open("pool")
    assert (report.n_merged, report.n_written, report.n_segments_before, report.n_segments_after) == (6, 1, 6, 1)
    assert (report.source, report.reference) == ("pool@6", "pool@7")
    assert after.sample_ids() == before.sample_ids()
    (ref,) = after.refs
    assert ref.ordinal == 6
    assert after.manifest.operation == Operation.COMPACT
    assert after.manifest.message == "tidy up"
    assert after.manifest.details == {"segments": 6, "into": 1, "dropped_rows": 0}
    assert after.segments[0].record.replaces == tuple(ref.segment_id for ref in before.refs)
    assert after.segments[0].record.size_bytes == report.n_bytes


def test_hidden_rows_are_left_behind(location: Location, sets: ActivationSets) -> None:
    small(sets, 3)
    before = hide(sets, "s0001", "s0007", "s0014")
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert report.n_dropped_rows == 3
    assert after.tombstones() == {}
    assert after.manifest.tombstones is None
    assert sum(ref.n_rows for ref in after.refs) == 12
    assert sample_digests(after) == sample_digests(before)


def test_the_record_counts_what_is_left(location: Location, sets: ActivationSets) -> None:
    small(sets, 3)
    before = hide(sets, "s0000", "s0006")
    compact(sets, "pool")
    after = sets.open("pool")
    samples = before.samples(["n_tokens", "truncated"])
    record = after.segments[0].record
    assert record.n_tokens == sum(samples.column("n_tokens").to_pylist())
    assert record.n_truncated == sum(samples.column("truncated").to_pylist())
    stored = after.segments[0].read(Feature.MEAN).astype(np.float64)
    assert record.arrays[0].max_abs == np.abs(stored).max()


def test_segments_that_differ_stay_apart(location: Location, sets: ActivationSets) -> None:
    small(sets, 2)
    small(sets, 2, 10, dtype=StoredDtype.FLOAT32)
    small(sets, 2, 20, features=(Feature.MEAN, Feature.LAST))
    before = small(sets, 2, 30, layers=(0, 2))
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert (report.n_merged, report.n_written) == (8, 4)
    assert {len(reader.record.replaces) for reader in after.segments} == {2}
    assert (after.features, after.layers) == ((Feature.MEAN,), (0, 2)) == (before.features, before.layers)
    assert sample_digests(after) == sample_digests(before)


def test_a_segment_of_half_the_target_is_left_alone(location: Location, sets: ActivationSets) -> None:
    small(sets, 2)
    large = append(sets, segment(location, [f"t{i:04d}" for i in range(200)]))
    small(sets, 2, 2)
    compact(sets, "pool", target_bytes=large.segments[-1].record.size_bytes * 2)
    after = sets.open("pool")
    assert after.refs[0].segment_id == large.refs[-1].segment_id
    assert [ref.n_rows for ref in after.refs] == [200, 20]


def test_new_segments_stay_near_the_target(location: Location, sets: ActivationSets) -> None:
    before = small(sets, 12)
    size_bytes = max(reader.record.size_bytes for reader in before.segments)
    compact(sets, "pool", target_bytes=4 * size_bytes)
    after = sets.open("pool")
    assert [ref.n_rows for ref in after.refs] == [20, 20, 20]
    assert after.sample_ids() == before.sample_ids()


def test_a_large_segment_with_many_hidden_rows_is_written_again(location: Location, sets: ActivationSets) -> None:
    append(sets, segment(location, [f"s{i:04d}" for i in range(50)], chunk_rows=7))
    hide(sets, *(f"s{i:04d}" for i in range(10)))
    assert compact(sets, "pool", target_bytes=1000).reference is None  # a fifth is not more than a fifth
    before = hide(sets, "s0033")
    assert compact(sets, "pool", target_bytes=1000).n_dropped_rows == 11
    assert sample_digests(sets.open("pool")) == sample_digests(before)


def test_a_segment_without_visible_rows_goes(location: Location, sets: ActivationSets) -> None:
    small(sets, 1, features=(Feature.MEAN,))
    kept = append(sets, segment(location, ["other"], features=(Feature.MEAN, Feature.DRIFT)))
    hide(sets, *(f"s{i:04d}" for i in range(5)))
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert (report.n_merged, report.n_written, report.n_dropped_rows) == (1, 0, 5)
    assert [ref.segment_id for ref in after.refs] == [kept.refs[1].segment_id]
    assert after.features == (Feature.MEAN, Feature.DRIFT)


def test_a_set_without_visible_samples_becomes_empty(location: Location, sets: ActivationSets) -> None:
    small(sets, 2)
    hide(sets, *(f"s{i:04d}" for i in range(10)))
    compact(sets, "pool")
    after = sets.open("pool")
    assert (after.n_samples, after.refs, after.features) == (0, (), (Feature.MEAN,))
    assert small(sets, 1, 5).refs[0].ordinal == 2


def test_a_second_compaction_has_nothing_to_do(location: Location, sets: ActivationSets) -> None:
    small(sets, 5)
    compact(sets, "pool")
    names = segment_names(location)
    report = compact(sets, "pool")
    assert (report.reference, report.n_merged) == (None, 0)
    assert sets.numbers("pool")[-1] == 6
    assert segment_names(location) == names


def test_a_dry_run_changes_nothing(location: Location, sets: ActivationSets) -> None:
    small(sets, 5)
    before = sorted(location.walk())
    report = compact(sets, "pool", dry_run=True)
    assert (report.reference, report.n_merged, report.n_written) == (None, 5, 1)
    assert report.n_bytes > 0
    assert sorted(location.walk()) == before


def test_an_unknown_set_is_not_found(location: Location, sets: ActivationSets) -> None:
    small(sets, 1)
    with pytest.raises(NotFoundError, match="'pol'"):
        compact(sets, "pol")
    assert location.names("activations") == ["pool"]


def test_nothing_is_left_of_the_job(location: Location, sets: ActivationSets) -> None:
    small(sets, 2)
    compact(sets, "pool")
    assert location.names(layout.job_folder("pool")) == []


def test_progress_ends_with_all_rows(location: Location, sets: ActivationSets) -> None:
    small(sets, 3)
    events: list[ProgressEvent] = []
    compact(sets, "pool", progress=events.append)
    assert events[-1].stage == "compact"
    assert 0 < events[-1].done <= 15 == events[-1].total


# --- user fields -------------------------------------------------------------------------------------------------


def user_columns(version: SetVersion) -> dict[str, list[Any]]:
    table = version.segments[0].samples()
    return {name: table.column(name).to_pylist() for name in table.column_names if name.startswith("user.")}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([{"a": 1}, {"a": 2}], [{"a": 2.5}]),
        ([{"a": 1}], [{"a": "x"}, {"a": None}]),
        ([{"a": None}], [{"a": 3}]),
        ([{"z": "only here"}], [{"b": [1, 2]}, {"b": {"k": "v"}}]),
        ([{"a": True}], [{"a": 2**70}]),
        ([{"b": 1, "a": 2}], [{"b": 1, "a": 2}]),
    ],
    ids=["number", "text", "null", "absent", "huge", "same"],
)
def test_user_fields_are_what_one_ingest_would_have_made(
    location: Location, sets: ActivationSets, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    fields = first + second
    ids = [f"s{i}" for i in range(len(fields))]
    append(
        sets,
        segment(location, ids[: len(first)], fields=first),
        segment(location, ids[len(first) :], fields=second),
    )
    compact(sets, "pool")
    after = sets.open("pool")
    sets.create(fake_set_record("other", n_layers=L, n_neurons=J))
    rows = [fake_row(i, n, values) for n, (i, values) in enumerate(zip(ids, fields, strict=True))]
    whole = build_segment(location, "other", rows, {Feature.MEAN: np.ones((len(rows), L, J), np.float32)})
    expected = sets.commit("other", [whole], ingest_ids=())
    assert after.segments[0].record.user_fields == whole.user_fields
    assert user_columns(after) == user_columns(expected)
    assert after.segments[0].samples_schema().equals(expected.segments[0].samples_schema())


def test_a_field_beyond_the_columns_of_one_segment_is_found_in_its_records(
    location: Location, sets: ActivationSets
) -> None:
    many = {f"f{i:03d}": i for i in range(300)}  # 256 of them become columns
    append(sets, segment(location, ["s0"], fields=[many]), segment(location, ["s1"], fields=[{"f299": "text"}]))
    compact(sets, "pool")
    reader = sets.open("pool").segments[0]
    assert len(reader.record.user_fields) == 256
    records = [json.loads(text) for text in reader.samples(["record"]).column("record").to_pylist()]
    assert records == [many, {"f299": "text"}]


def test_sample_rows_are_written_in_bounded_groups(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nait_store.activations.sample_copies._ROW_GROUP_ROWS", 12)
    before = small(sets, 6)
    compact(sets, "pool")
    after = sets.open("pool")
    assert after.sample_ids() == before.sample_ids()
    assert after.segments[0].samples(["row_index"]).column("row_index").to_pylist() == list(range(30))


# --- scores ------------------------------------------------------------------------------------------------------


def scores_of(location: Location, version: SetVersion, target: Any) -> dict[str, tuple[float, list[float]]]:
    found = {}
    for reader in version.segments:
        table = ScoreSidecars(location).read(reader, target, ["score", "projections"]).to_pydict()
        visible = version.visible_rows(reader)
        ids = reader.samples(["sample_id"]).column("sample_id").to_pylist()
        for row, sample_id in enumerate(ids):
            if visible is None or visible[row]:
                found[sample_id] = (table["score"][row], table["projections"][row])
    return found


@on_disk
def test_scores_are_carried_over_and_none_is_computed_again(location: Location, sets: ActivationSets) -> None:
    small(sets, 4)
    before = hide(sets, "s0002", "s0011")
    targets = [
        random_target(1, layers=(0, 1, 2), n_neurons=J),
        random_target(2, layers=(1,), n_neurons=J, metric=Metric.COSINE),
    ]
    ensure_scores(location, before, targets)
    expected = [scores_of(location, before, target) for target in targets]
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert report.n_scores == 2
    assert ensure_scores(location, after, targets).n_computed == 0
    assert [scores_of(location, after, target) for target in targets] == expected


def test_scores_that_one_segment_lacks_are_computed_when_asked_for(location: Location, sets: ActivationSets) -> None:
    target = random_target(1, layers=(0, 1, 2), n_neurons=J)
    ensure_scores(location, small(sets, 2), [target])
    small(sets, 1, 2)
    assert compact(sets, "pool").n_scores == 0
    assert ensure_scores(location, sets.open("pool"), [target]).n_computed == 1


# --- with others -------------------------------------------------------------------------------------------------


def test_segments_appended_meanwhile_are_kept(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(sets, 3)
    other = ActivationSets(location)
    meanwhile(monkeypatch, lambda: small(other, 1, 7))
    compact(sets, "pool")
    after = sets.open("pool")
    assert after.number == 5
    assert sorted(after.sample_ids()) == sorted(f"s{i:04d}" for i in (*range(15), *range(35, 40)))
    assert [ref.ordinal for ref in after.refs] == [3, 4]


def test_samples_deleted_meanwhile_stay_deleted(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(sets, 3)
    hide(sets, "s0000", "s0006")
    other = ActivationSets(location)
    meanwhile(monkeypatch, lambda: hide(other, "s0003", "s0014"))
    compact(sets, "pool")
    after = sets.open("pool")
    gone = {"s0000", "s0006", "s0003", "s0014"}
    assert after.sample_ids() == [f"s{i:04d}" for i in range(15) if f"s{i:04d}" not in gone]
    assert sample_digests(after) == sample_digests(other.open("pool@5"))
    assert after.n_samples == after.manifest.n_samples == 11


def test_a_race_lost_at_the_commit_itself_is_rebased(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(sets, 3)
    other = ActivationSets(location)
    real = Rewriting._change
    n_calls = 0

    def change(self: Any, current: SetVersion | None, next_ordinal: int, message: str) -> Change:
        nonlocal n_calls
        n_calls += 1
        proposed = real(self, current, next_ordinal, message)
        if n_calls == 1:
            small(other, 1, 7)
            hide(other, "s0001")
        return proposed

    monkeypatch.setattr(Rewriting, "_change", change)
    compact(sets, "pool")
    after = sets.open("pool")
    assert n_calls == 2
    assert sample_digests(after) == sample_digests(other.open("pool@5"))
    assert after.number == 6


def refused(sets: ActivationSets, message: str) -> None:
    before = set(segment_names(sets.location))
    scores = sets.location.names(layout.SCORES)
    with pytest.raises(ConflictError, match=message) as caught:
        compact(sets, "pool")
    assert "nait-store sets compact pool" in str(caught.value)
    assert set(segment_names(sets.location)) <= before
    assert sets.location.names(layout.SCORES) == scores
    assert sets.location.names(layout.job_folder("pool")) == []


def test_a_restore_that_brings_dropped_rows_back_wins(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small(sets, 3)
    ensure_scores(location, whole, [random_target(1, layers=(0, 1, 2), n_neurons=J)])
    hide(sets, "s0001")
    meanwhile(monkeypatch, lambda: restore(ActivationSets(location), 3))
    refused(sets, "came back")
    assert sample_digests(sets.open("pool")) == sample_digests(whole)


def test_a_restore_of_other_segments_wins(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(sets, 3)
    meanwhile(monkeypatch, lambda: restore(ActivationSets(location), 2))
    refused(sets, "no longer part")
    assert sets.open("pool").n_samples == 10


def test_a_segment_replaced_meanwhile_is_not_brought_back(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = small(sets, 3)
    record = version.segments[1].record

    def purge() -> None:
        replace_segment(ActivationSets(location), "pool", record, blank_rows=np.array([2]), operation=Operation.PURGE)

    meanwhile(monkeypatch, purge)
    before = set(segment_names(location))
    with pytest.raises(ConflictError, match="no longer part"):
        compact(sets, "pool")
    assert len(set(segment_names(location)) - before) == 1  # the replacement
    assert "s0007" not in sets.open("pool").sample_ids()


def test_blank_rows_are_left_behind(location: Location, sets: ActivationSets) -> None:
    version = small(sets, 2)
    replace_segment(sets, "pool", version.segments[0].record, blank_rows=np.array([1, 4]), operation=Operation.PURGE)
    before = sets.open("pool")
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert report.n_dropped_rows == 2
    assert sample_digests(after) == sample_digests(before)
    assert after.segments[0].record.replaces == tuple(ref.segment_id for ref in before.refs)


def test_another_living_job_is_waited_for_and_then_named(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_PATIENCE_SECONDS", 0.3)
    small(sets, 2)
    with job(location, layout.job_folder("pool", "other")), pytest.raises(ConflictError, match="at work"):
        compact(sets, "pool")
    assert compact(sets, "pool").reference == "pool@3"


def test_the_heartbeat_is_there_while_segments_are_written(location: Location, sets: ActivationSets) -> None:
    small(sets, 2)
    seen: list[int] = []

    def listen(_: ProgressEvent) -> None:
        (name,) = location.names(layout.job_folder("pool"))
        seen.append(heartbeat.is_alive(location, layout.job_folder("pool", name)))

    compact(sets, "pool", progress=listen)
    assert seen
    assert all(seen)


# --- what cannot be done -----------------------------------------------------------------------------------------


@on_disk
@pytest.mark.parametrize(
    "path", ["data.zarr/mean/c/0/1/0", "data.zarr/mean_norms/c/0/0", "samples.parquet"], ids=["chunk", "norms", "rows"]
)
def test_damage_is_not_copied(location: Location, sets: ActivationSets, path: str) -> None:
    version = small(sets, 3)
    full = f"{layout.segment_folder('pool', version.refs[1].segment_id)}/{path}"
    data = bytearray(location.read_bytes(full))
    data[len(data) // 2] ^= 1
    location.write_bytes(full, bytes(data))
    before = segment_names(location)
    with pytest.raises(CorruptChunkError, match=version.refs[1].segment_id):
        compact(sets, "pool")
    assert sets.numbers("pool") == [1, 2, 3]
    assert segment_names(location) == before


def test_a_disk_without_room_is_refused_before_anything_is_written(
    location: Location, sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(sets, 3)
    before = segment_names(location)
    monkeypatch.setattr(Location, "free_bytes", lambda self: 1000)
    with pytest.raises(StorageError, match="GB free"):
        compact(sets, "pool")
    assert segment_names(location) == before


def test_ctrl_c_leaves_nothing_behind(location: Location, sets: ActivationSets) -> None:
    small(sets, 3)
    before = segment_names(location)

    def interrupt(_: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(sets, "pool", progress=interrupt)
    assert sets.numbers("pool") == [1, 2, 3]
    assert segment_names(location) == before
    assert location.names(layout.job_folder("pool")) == []


def test_a_store_that_cannot_be_written_is_refused(location: Location, sets: ActivationSets) -> None:
    small(sets, 3)
    with pytest.raises(ReadOnlyError, match="frozen"):
        compact(ActivationSets(location.read_only("frozen", "thaw it")), "pool")


def test_compaction_works_on_an_object_store(object_store: Any) -> None:
    place = Location(object_store.new_url())
    sets = ActivationSets(place)
    before = build_set(place, "pool", 12, L, J, n_segments=3)
    target = random_target(1, layers=(0, 1, 2), n_neurons=J)
    ensure_scores(place, before, [target])
    report = compact(sets, "pool")
    after = sets.open("pool")
    assert (report.n_merged, report.n_written, report.n_scores) == (3, 1, 1)
    assert sample_digests(after) == sample_digests(before)
    assert ensure_scores(place, after, [target]).n_computed == 0
