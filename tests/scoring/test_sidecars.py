from __future__ import annotations

import errno
import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nait_store.activations.set_version import SetVersion
from nait_store.errors import CorruptChunkError, NotFoundError, ReadOnlyError, StorageError
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.schemas.scores import ScoreKey, SidecarRecord
from nait_store.scoring import completion, sidecar_files
from nait_store.scoring.completion import ensure_scores, read_scores
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.testing.faults import no_space_from, write_steps
from nait_store.testing.scores import plain_projections, random_target
from nait_store.testing.stores import build_set

COLUMNS = ("row_index", "score", "projections")


def target(seed: int = 0, **options: Any) -> ScoringTarget:
    return random_target(seed, **{"layers": (0, 1, 2), "n_neurons": 37, **options})


def files(location: Location) -> list[Path]:
    root = location.local_path("scores")
    assert root is not None
    return sorted(root.iterdir()) if root.exists() else []


def sidecar(file: Path) -> list[Path]:
    """Both files of a sidecar, as :func:`files` lists them."""
    return [file.with_suffix(".json"), file]


def file_of(location: Location, version: SetVersion, one: ScoringTarget, segment: int = 0) -> Path:
    path = location.local_path(f"scores/{ScoreSidecars.key(version.segments[segment], one).key}.parquet")
    assert path is not None
    return path


def test_scores_are_computed_once(location: Location, version: SetVersion) -> None:
    targets = [target(1), target(2, metric=Metric.COSINE), target(3, feature=Feature.DRIFT)]
    first = ensure_scores(location, version, targets)
    assert (first.n_computed, first.n_cached, first.bytes_read) == (6, 0, 2 * 300 * 3 * 37 * 2)
    again = ensure_scores(location, version, [*targets, target(4)])
    assert (again.n_computed, again.n_cached, again.bytes_read) == (2, 6, 300 * 3 * 37 * 2)
    assert len(files(location)) == 2 * 8


def test_equal_targets_are_computed_once(location: Location, version: SetVersion) -> None:
    work = ensure_scores(location, version, [target(1), target(1)])
    assert (work.n_computed, work.n_cached) == (2, 0)


def test_another_version_reuses_the_scores_of_the_segments_it_shares(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target()])
    later = build_set(location, "pool", 50, 3, 37, (Feature.MEAN, Feature.DRIFT), first=300)
    work = ensure_scores(location, later, [target()])
    assert (work.n_computed, work.n_cached) == (1, 2)


@pytest.mark.parametrize("url", ["local", "memory"])
def test_what_is_read_equals_float64(location: Location, url: str) -> None:
    place = location if url == "local" else Location("memory://sidecars-read")
    version = build_set(place, "pool", 200, 3, 37, n_segments=2, chunk_rows=30)
    one = target(metric=Metric.COSINE, offset=0.5)
    ensure_scores(place, version, [one])
    sidecars = ScoreSidecars(place)
    for segment in version.segments:
        table = sidecars.read(segment, one, ["row_index", "score", "projections"])
        exact = plain_projections(segment, one)
        assert table["row_index"].to_pylist() == list(range(100))
        assert np.abs(table["score"].to_numpy() - exact.sum(axis=1)).max() < 1e-5 * exact.sum(axis=1).std()
        np.testing.assert_allclose(np.stack(table["projections"].to_numpy()), exact, atol=1e-6)
    place.delete("")


def test_the_file_is_what_the_format_says(location: Location, version: SetVersion) -> None:
    one = target(layers=(0, 2))
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    schema = pq.read_schema(file)
    assert schema.field("row_index").type == pa.int64()
    assert schema.field("score").type == pa.float64()
    assert schema.field("projections").type.list_size == 2
    assert schema.field("projections").type.value_type == pa.float32()
    key = ScoreKey.model_validate_json(schema.metadata[b"nait_store.score_key"])
    assert file.name == f"{key.key}.parquet"
    assert key.segment_sha256 == version.refs[0].record_sha256
    assert key.directions_sha256 == one.directions_sha256


def test_columns_are_read_separately_and_in_the_order_asked(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target()])
    sidecars = ScoreSidecars(location)
    assert sidecars.read(version.segments[0], target(), ["score"]).column_names == ["score"]
    assert sidecars.read(version.segments[0], target(), ["score", "row_index"]).column_names == ["score", "row_index"]
    with pytest.raises(NotFoundError, match="no column 'rank'"):
        sidecars.read(version.segments[0], target(), ["rank"])


def test_scores_never_computed_are_not_found(location: Location, version: SetVersion) -> None:
    sidecars = ScoreSidecars(location)
    assert not sidecars.exists(version.segments[0], target())
    with pytest.raises(NotFoundError):
        sidecars.read(version.segments[0], target())


def test_row_groups_are_bounded(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_files, "_ROW_GROUP_BYTES", 1)
    version = build_set(location, "pool", 2500, 1, 4, chunk_rows=100)
    one = random_target(layers=(0,), n_neurons=4)
    ensure_scores(location, version, [one])
    metadata = pq.ParquetFile(file_of(location, version, one)).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1100, 1100, 300]
    table = ScoreSidecars(location).read(version.segments[0], one)
    np.testing.assert_allclose(
        table["score"].to_numpy(), plain_projections(version.segments[0], one).sum(axis=1), atol=1e-6
    )


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garbage(file: Path) -> None:
    file.write_bytes(b"PAR1" + b"\xff" * 2000 + b"PAR1")


def fewer_rows(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)


def other_columns(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["projections"]), file)


def no_key(file: Path) -> None:
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)


def malformed_key(file: Path) -> None:
    pq.write_table(pq.read_table(file).replace_schema_metadata({b"nait_store.score_key": b"{}"}), file)


def no_record(file: Path) -> None:
    file.with_suffix(".json").unlink()


def damaged_record(file: Path) -> None:
    record = file.with_suffix(".json")
    record.write_bytes(record.read_bytes().replace(b'"n_rows":150', b'"n_rows":151'))


def anothers_record(file: Path) -> None:
    other = next(path for path in file.parent.glob("*.json") if path.stem != file.stem)
    file.with_suffix(".json").write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        garbage,
        fewer_rows,
        other_columns,
        no_key,
        malformed_key,
        no_record,
        damaged_record,
        anothers_record,
    ],
    ids=lambda f: f.__name__,
)
def test_a_sidecar_that_cannot_be_trusted_is_written_anew_when_it_is_read(
    location: Location, version: SetVersion, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = target()
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    good = [path.read_bytes() for path in sidecar(file)]
    damage(file)
    with caplog.at_level(logging.WARNING):
        table = read_scores(ScoreSidecars(location), version.segments[0], one)
    np.testing.assert_allclose(
        table["score"].to_numpy(), plain_projections(version.segments[0], one).sum(axis=1), atol=1e-6
    )
    assert [path.read_bytes() for path in sidecar(file)] == good
    if damage is not no_record:  # which is no damage: the sidecar does not exist
        assert "computing scores again" in caplog.text
        assert file.stem in caplog.text


@pytest.mark.parametrize("damage", [truncate, garbage, fewer_rows], ids=lambda f: f.__name__)
def test_a_damaged_sidecar_is_not_found_any_more(location: Location, version: SetVersion, damage: Any) -> None:
    one = target()
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    damage(file)
    sidecars = ScoreSidecars(location)
    with pytest.raises(CorruptChunkError):
        sidecars.read(version.segments[0], one)
    assert not sidecars.exists(version.segments[0], one)
    assert not any(path.exists() for path in sidecar(file))


def test_another_keys_file_under_this_name_is_not_believed(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target(1), target(2)])
    file, other = (file_of(location, version, target(i)) for i in (1, 2))
    file.write_bytes(other.read_bytes())
    path = file.with_suffix(".json")
    record = SidecarRecord.from_json_bytes(path.read_bytes(), "the record")
    footer = hashlib.sha256(file.read_bytes()[footer_of(file).start :]).hexdigest()
    lie = {"size_bytes": file.stat().st_size, "footer_sha256": footer}
    path.write_bytes(record.model_copy(update=lie).to_json_bytes())
    with pytest.raises(CorruptChunkError, match="holds other scores than its name says"):
        ScoreSidecars(location).read(version.segments[0], target(1))


def test_the_record_holds_the_digest_of_the_file(location: Location, version: SetVersion) -> None:
    one = target(layers=(0, 2), metric=Metric.COSINE)
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    record = SidecarRecord.from_json_bytes(file.with_suffix(".json").read_bytes(), "the record")
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.size_bytes == file.stat().st_size
    footer = footer_of(file)
    assert record.footer_sha256 == hashlib.sha256(file.read_bytes()[footer.start :]).hexdigest()
    assert (record.n_rows, record.n_layers) == (150, 2)
    assert record.score_key == ScoreSidecars.key(version.segments[0], one)
    assert record.file.path == file.name


def test_many_are_asked_for_without_opening_any(
    location: Location, version: SetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = [target(i) for i in range(20)]
    ensure_scores(location, version, targets[:15])

    def refuse(*_: Any) -> Any:
        raise AssertionError("a file was looked at by itself")

    monkeypatch.setattr(Location, "open_read", refuse)
    monkeypatch.setattr(Location, "read_bytes", refuse)
    monkeypatch.setattr(Location, "is_file", refuse)
    segment = version.segments[0]
    assert ScoreSidecars(location).existing([(segment, t) for t in targets]) == [True] * 15 + [False] * 5


def test_of_two_writers_the_first_stays(location: Location, version: SetVersion) -> None:
    segment, one = version.segments[0], target()
    first = SegmentScores(np.ones(150), np.ones((150, 3), np.float32))
    sidecars = ScoreSidecars(location)
    late = sidecars.open_writer(segment, one)
    late.append(SegmentScores(np.zeros(150), np.zeros((150, 3), np.float32)))
    sidecars.write(segment, one, first)
    late.close()
    assert sidecars.read(segment, one)["score"].to_pylist() == [1.0] * 150
    assert files(location) == sidecar(file_of(location, version, one))


def flip_a_score(file: Path) -> None:
    data = bytearray(file.read_bytes())
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(1)
    data[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 0x40
    file.write_bytes(bytes(data))


def test_a_flipped_bit_within_the_scores_is_noticed_and_mended(location: Location, version: SetVersion) -> None:
    one = target()
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    good = file.read_bytes()
    flip_a_score(file)
    sidecars = ScoreSidecars(location)
    assert sidecars.exists(version.segments[0], one)  # the metadata is whole
    with pytest.raises(CorruptChunkError, match="cannot be read"):
        sidecars.read(version.segments[0], one)
    assert not file.exists()
    assert ensure_scores(location, version, [one]).n_computed == 1
    assert file.read_bytes() == good


def footer_of(file: Path) -> range:
    size_bytes = file.stat().st_size
    return range(size_bytes - 8 - int.from_bytes(file.read_bytes()[-8:-4], "little"), size_bytes)


def test_no_flipped_bit_of_the_footer_gives_other_scores(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups: their places and lengths are what a flipped bit could exchange unnoticed."""
    monkeypatch.setattr(sidecar_files, "_ROW_GROUP_BYTES", 1)
    version = build_set(location, "pool", 2100, 1, 4, chunk_rows=500)
    one = random_target(layers=(0,), n_neurons=4)
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    whole, record = (path.read_bytes() for path in (file, file.with_suffix(".json")))
    for position in footer_of(file):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(bytes(damaged))
        file.with_suffix(".json").write_bytes(record)
        with pytest.raises(CorruptChunkError, match="differs from the digest in its record"):
            ScoreSidecars(location).read(version.segments[0], one, COLUMNS)


@pytest.mark.parametrize("damage", [truncate, garbage, flip_a_score], ids=lambda f: f.__name__)
def test_a_sidecar_of_an_earlier_release_is_believed_if_all_of_it_is_as_recorded(
    location: Location, version: SetVersion, damage: Any
) -> None:
    one = target()
    ensure_scores(location, version, [one])
    file = file_of(location, version, one)
    path = file.with_suffix(".json")
    record = SidecarRecord.from_json_bytes(path.read_bytes(), "the record")
    path.write_bytes(record.model_copy(update={"footer_sha256": None}).to_json_bytes())
    assert ScoreSidecars(location).read(version.segments[0], one).num_rows == 150
    damage(file)
    with pytest.raises(CorruptChunkError):
        ScoreSidecars(location).read(version.segments[0], one)


def test_reading_can_compute_what_is_missing_or_damaged(location: Location, version: SetVersion) -> None:
    one, segment = target(), version.segments[0]
    sidecars = ScoreSidecars(location)
    expected = plain_projections(segment, one).sum(axis=1)
    np.testing.assert_allclose(read_scores(sidecars, segment, one)["score"].to_numpy(), expected, atol=1e-6)
    flip_a_score(file_of(location, version, one))
    np.testing.assert_allclose(read_scores(sidecars, segment, one)["score"].to_numpy(), expected, atol=1e-6)
    file_of(location, version, one).unlink()
    np.testing.assert_allclose(read_scores(sidecars, segment, one)["score"].to_numpy(), expected, atol=1e-6)


def test_a_read_only_store_is_scored_into_memory(location: Location, version: SetVersion) -> None:
    closed = location.read_only("the store is from the future", "upgrade")
    sidecars = ScoreSidecars(closed)
    one = target()
    work = ensure_scores(closed, version, [one], sidecars=sidecars)
    assert work.n_computed == 2
    assert ensure_scores(closed, version, [one], sidecars=sidecars).n_computed == 0
    for segment in version.segments:
        table = sidecars.read(segment, one, COLUMNS)
        exact = plain_projections(segment, one)
        assert table["row_index"].to_pylist() == list(range(150))
        np.testing.assert_allclose(table["score"].to_numpy(), exact.sum(axis=1), atol=1e-6)
        np.testing.assert_allclose(np.stack(table["projections"].to_numpy()), exact, atol=1e-6)
    assert files(location) == []


@pytest.mark.parametrize("columns", [COLUMNS, ("projections", "score"), ("row_index",)], ids=", ".join)
def test_what_is_kept_in_memory_reads_as_from_a_disk(
    location: Location, version: SetVersion, columns: tuple[str, ...]
) -> None:
    one = target(metric=Metric.COSINE, layers=(0, 2))
    kept = ScoreSidecars(location.read_only("closed", "open it"))
    ensure_scores(location, version, [one], sidecars=kept)
    ensure_scores(location, version, [one])
    for segment in version.segments:
        found, expected = (sidecars.read(segment, one, columns) for sidecars in (kept, ScoreSidecars(location)))
        assert found.schema == expected.schema
        assert found == expected


def test_a_read_only_store_gives_what_was_kept_before(location: Location, version: SetVersion) -> None:
    ensure_scores(location, version, [target()])
    closed = location.read_only("closed", "open it")
    work = ensure_scores(closed, version, [target()])
    assert (work.n_computed, work.n_cached) == (0, 2)


def test_scores_that_nobody_could_read_are_not_computed(location: Location, version: SetVersion) -> None:
    closed = location.read_only("the store is closed", "open it")
    with pytest.raises(ReadOnlyError, match="the store is closed"):
        ensure_scores(closed, version, [target()])


def test_a_full_disk_leaves_no_file(location: Location, version: SetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        ensure_scores(location, version, [target()])
    assert "free some disk space" in str(caught.value)
    assert files(location) == []


def test_a_disk_that_is_full_at_any_step_is_told_and_leaves_no_file(location: Location, version: SetVersion) -> None:
    with write_steps(location.url) as steps:
        ensure_scores(location, version, [target()])
    location.delete("scores")
    for step in range(len(steps)):
        with (
            write_steps(location.url, before=no_space_from(step)) as taken,
            pytest.raises(StorageError, match="No space left"),
        ):
            ensure_scores(location, version, [target()])
        assert len(taken) > step
        assert [path for path in files(location) if path.name.startswith(".tmp-")] == []
        assert all(path.with_suffix(".json").exists() for path in files(location))
        location.delete("scores")


def test_interruption_keeps_whole_sidecars_only(location: Location, version: SetVersion) -> None:
    def interrupt(event: Any) -> None:
        if event.done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_scores(location, version, [target()], interrupt)
    assert files(location) == sidecar(file_of(location, version, target(), segment=0))
    work = ensure_scores(location, version, [target()])
    assert (work.n_computed, work.n_cached) == (1, 1)


def test_a_sidecar_needs_every_row(location: Location, version: SetVersion) -> None:
    some = SegmentScores(np.zeros(10), np.zeros((10, 3), np.float32))
    with pytest.raises(ValueError, match="10 of the segment's 150 rows"):
        ScoreSidecars(location).write(version.segments[0], target(), some)
    assert files(location) == []


def test_whole_scores_can_be_written(location: Location, version: SetVersion) -> None:
    rng = np.random.default_rng(0)
    given = SegmentScores(rng.standard_normal(150), rng.standard_normal((150, 3)).astype(np.float32))
    sidecars = ScoreSidecars(location)
    sidecars.write(version.segments[0], target(), given)
    found = sidecars.read(version.segments[0], target(), ["score", "projections"])
    assert np.array_equal(found["score"].to_numpy(), given.scores)
    assert np.array_equal(np.stack(found["projections"].to_numpy()), given.projections)


def test_many_targets_are_scored_in_groups(
    location: Location, version: SetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_TARGETS_AT_ONCE", 2)
    targets = [target(i) for i in range(5)]
    work = ensure_scores(location, version, targets)
    assert work.n_computed == 10
    assert work.bytes_read == 3 * 300 * 3 * 37 * 2
    assert all(ScoreSidecars(location).exists(s, t) for s in version.segments for t in targets)
