"""What gc takes, and that a dry run says so to the byte."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.tombstones import write_tombstones
from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.ingest.journal import IngestJournal
from nait_store.refs import Kind
from nait_store.schemas.activation_set import IngestPlan, Operation
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.heartbeat import BeatingHeart
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog
from nait_store.store.garbage import collection
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record
from tests.store.gc_stores import LATER, NO_GRACE, below, collect, contents, files, grown_set, put_old_file

SEGMENTS = "activations/pool/segments"


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with a set of three versions, each a segment more than the one before."""
    made = nait_store.open(url, create=True)
    grown_set(made, "pool", 3)
    return made


def plan(name: str = "pool") -> IngestPlan:
    return IngestPlan(
        ingest_id=new_ulid(),
        set_name=name,
        capture_id=fake_identity().capture_id,
        sources=(),
        features=(Feature.MEAN,),
        layers=(0, 1),
        dtype=StoredDtype.FLOAT16,
        provenance=current_provenance(),
    )


def uncommitted_segment(store: nait_store.Store, name: str = "pool") -> str:
    rows = [fake_row(f"late{i}", i) for i in range(4)]
    return build_segment(store.location, name, rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)}).segment_id


def dead_ingest(store: nait_store.Store, name: str = "pool") -> str:
    """An ingest that was killed before it flushed anything."""
    journal = IngestJournal(store.location, plan(name))
    journal.__enter__()
    BeatingHeart.__exit__(journal._heart, None, None, None)  # a thread would outlive the test
    store.location.delete(f"{layout.ingest_folder(name, journal.ingest_id)}/heartbeat.json")
    return journal.ingest_id


def kinds(report: collection.GcReport) -> list[str]:
    return [item.kind.value for item in report.garbage]


def test_what_only_a_deleted_version_had_goes(store: nait_store.Store) -> None:
    sets = store.sets.versions
    only = sets.open("pool@3").refs[-1].segment_id
    kept = {ref.segment_id for ref in sets.open("pool@2").refs}
    before = contents(store)
    sets.log.delete("pool", 3)
    report = collect(store)
    assert below(store, SEGMENTS) == kept
    assert [item.name for item in report.garbage] == [only, "3"]
    assert contents(store) == {reference: before[reference] for reference in ("pool@1", "pool@2")}


def test_a_collected_version_tells_its_story(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 3)
    collect(store)
    with pytest.raises(NotFoundError, match="pool@3 was deleted, and collected by gc"):
        store.sets.open("pool@3")
    with pytest.raises(NotFoundError, match="collected by gc"):
        store.sets.versions.log.undelete("pool", 3)


def test_a_second_run_finds_nothing(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 3)
    store.sets.versions.log.delete("pool", 1)
    collect(store)
    assert collect(store).garbage == ()


def test_documents_of_collected_versions_go_but_the_highest(store: nait_store.Store) -> None:
    for number in (1, 2, 3):
        store.sets.versions.log.delete("pool", number)
    collect(store)
    assert below(store, "activations/pool/versions") == {
        "3.json",
        *(f"{n}.{mark}.json" for n in (1, 2, 3) for mark in ("deleted", "collected")),
    }


def test_numbers_and_ordinals_go_on_after_a_collection(store: nait_store.Store) -> None:
    for number in (2, 3):
        store.sets.versions.log.delete("pool", number)
    collect(store)
    version = build_set(store.location, "pool", 5, first=900, seed=3)
    assert (version.number, [ref.ordinal for ref in version.refs]) == (4, [0, 3])


def test_a_set_without_versions_begins_anew_with_another_identity(store: nait_store.Store) -> None:
    for number in (1, 2, 3):
        store.sets.versions.log.delete("pool", number)
    report = collect(store)
    assert kinds(report)[-1] == "set"
    assert below(store, "activations/pool") >= {"versions"}
    assert not store.location.exists("activations/pool/set.json")
    other = fake_identity("other")
    version = build_set(store.location, "pool", 5, identity=other)
    assert (version.number, version.record.capture_id) == (4, other.capture_id)
    assert [item.path for item in collect(store).garbage] == ["activations/pool/versions/3.json"]
    assert store.sets.open("pool").n_samples == 5


def test_set_json_stays_while_somebody_may_commit(store: nait_store.Store) -> None:
    for number in (1, 2, 3):
        store.sets.versions.log.delete("pool", number)
    with IngestJournal(store.location, plan()) as journal:
        rows = [fake_row(f"late{i}", i) for i in range(4)]
        journal.acknowledge(build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)}))
    report = collect(store)
    assert "set" not in kinds(report)
    assert store.location.exists("activations/pool/set.json")


def test_a_set_that_never_had_a_version_goes(store: nait_store.Store) -> None:
    store.sets.versions.create(fake_set_record("typo"))
    dead_ingest(store, "typo")
    assert collect(store, after=timedelta(minutes=30)).garbage == ()
    assert kinds(collect(store)) == ["ingest", "set"]


def test_tombstones_of_collected_versions_go(store: nait_store.Store) -> None:
    sets = store.sets.versions

    def hide(row: int) -> None:
        sets.advance(
            "pool",
            lambda current, _: Change(
                operation=Operation.DELETE_SAMPLES,
                contents=Contents(current.features, current.layers),  # type: ignore[union-attr]
                hidden={0: np.array([row])},
            ),
        )

    hide(1)
    hide(2)
    hide(3)
    before = contents(store)
    assert len(below(store, "activations/pool/tombstones")) == 3
    sets.log.delete("pool", 5)
    report = collect(store)
    assert kinds(report).count("tombstones") == 1
    assert len(below(store, "activations/pool/tombstones")) == 2
    del before["pool@5"]
    assert contents(store) == before


def test_orphans_of_every_kind_go(store: nait_store.Store) -> None:
    """Segments whole and unfinished, tombstones, payloads, dead ingests and jobs, scores, unfinished files."""
    kept = files(store)
    whole = uncommitted_segment(store)
    unfinished = uncommitted_segment(store)
    store.location.delete(f"{SEGMENTS}/{unfinished}/segment.json")
    write_tombstones(store.location, "pool", {0: np.array([1])})
    dead = dead_ingest(store)
    store.location.write_bytes(f"{layout.job_folder('pool', new_ulid())}/heartbeat.json", b"{}")
    put_old_file(store, f"{layout.payload_folder(Kind.PROFILE, 'math', new_ulid())}/profile.json")
    put_old_file(store, f"{layout.payload_folder(Kind.SELECTION, 'best', new_ulid())}/selection.parquet")
    put_old_file(store, layout.score_sidecar("a" * 64))
    put_old_file(store, layout.score_record("b" * 64))
    put_old_file(store, "activations/pool/versions/.tmp-17-0123456789ab")
    put_old_file(store, ".tmp-17-0123456789ab")
    report = collect(store)
    assert sorted(kinds(report)) == sorted(
        ["segment"] * 2 + ["tombstones", "ingest", "job"] + ["payload"] * 2 + ["scores"] * 2 + ["unfinished file"] * 2
    )
    assert {whole, unfinished, dead} <= {item.name for item in report.garbage}
    assert files(store) == kept


def test_the_journal_goes_with_the_version_it_made(store: nait_store.Store) -> None:
    with IngestJournal(store.location, plan()) as journal:
        rows = [fake_row(f"late{i}", i) for i in range(4)]
        record = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)})
        journal.acknowledge(record)
        version = store.sets.versions.commit("pool", [record], ingest_ids=[journal.ingest_id])
        journal.finish(version.number)
    assert collect(store).garbage == ()
    store.sets.versions.log.delete("pool", version.number)
    assert kinds(collect(store)) == ["segment", "ingest", "version"]


def test_an_ingest_that_died_after_its_commit_protects_nothing_more_than_its_version(store: nait_store.Store) -> None:
    with IngestJournal(store.location, plan()) as journal:
        rows = [fake_row(f"late{i}", i) for i in range(4)]
        record = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)})
        journal.acknowledge(record)
        version = store.sets.versions.commit("pool", [record], ingest_ids=[journal.ingest_id])
    assert collect(store).garbage == ()
    store.sets.versions.log.delete("pool", version.number)
    assert kinds(collect(store)) == ["segment", "ingest", "version"]


def test_scores_go_with_their_segment_and_with_their_directions(store: nait_store.Store) -> None:
    store.profiles.build("math", source="pool@1")
    store.profiles.build("other", source="pool@2")
    store.score("pool@3", "math", "other")
    n_scores = len(below(store, "scores"))
    assert n_scores == 2 * 3 * 2  # profiles, segments, files
    assert collect(store).garbage == ()
    store.sets.versions.log.delete("pool", 3)
    report = collect(store)
    assert [item.reason for item in report.garbage if item.kind == "scores"] == ["its segment is collected"] * 2
    store.profiles.registry.log.delete("other", 1)
    report = collect(store)
    assert [item.reason for item in report.garbage if item.kind == "scores"] == ["no profile has its directions"] * 2
    assert len(below(store, "scores")) == n_scores - 8


def test_payloads_of_deleted_profiles_and_selections_go(store: nait_store.Store) -> None:
    for seed in (0, 1):
        store.profiles.build("math", source="pool", limit=10, seed=seed)
    saved = [store.selections.save("best", store.select("pool", profile="math", top=n)) for n in (3, 4)]
    store.selections._log.delete("best", 2)
    store.profiles.registry.log.delete("math", 1)
    report = collect(store)
    assert sorted(kinds(report)) == ["payload", "payload", "version", "version"]
    assert store.profiles.open("math@2").directions().shape == (2, 8)
    assert store.selections.open("best@1").rows().equals(saved[0].rows())
    assert "2.json" in below(store, "selections/best/versions")
    assert "1.json" not in below(store, "profiles/math/versions")
    assert len(below(store, "profiles/math/payloads")) == len(below(store, "selections/best/payloads")) == 1


def test_a_dry_run_changes_nothing_and_tells_the_bytes(store: nait_store.Store) -> None:
    grown_set(store, "gone", 2, first=500)
    for name, number in (("pool", 2), ("pool", 3), ("gone", 1), ("gone", 2)):
        store.sets.versions.log.delete(name, number)
    store.profiles.build("math", source="pool@1")
    store.score("pool@1", "math")
    store.profiles.registry.log.delete("math", 1)
    uncommitted_segment(store)
    dead_ingest(store)
    put_old_file(store, f"{SEGMENTS}/{uncommitted_segment(store)}/.tmp-17-0123456789ab")
    before = files(store)
    dry = collect(store, dry_run=True)
    assert files(store) == before
    real = collect(store)
    after = files(store)
    assert real.garbage == dry.garbage
    assert dry.freed_bytes == sum(size for path, size in before.items() if path not in after) > 10_000
    assert dry.n_files == len(before.keys() - after.keys())


def test_one_set_can_be_collected_alone(store: nait_store.Store) -> None:
    grown_set(store, "other", 2, first=500)
    put_old_file(store, ".tmp-17-0123456789ab")
    for name in ("pool", "other"):
        store.sets.versions.log.delete(name, 2)
    report = collect(store, set_name="other")
    assert {item.path.split("/")[1] for item in report.garbage} == {"other"}
    with pytest.raises(NotFoundError, match="no set 'othre'"):
        collect(store, set_name="othre")


def test_a_set_that_cannot_be_judged_is_left_alone(store: nait_store.Store) -> None:
    grown_set(store, "other", 2, first=500)
    for name in ("pool", "other"):
        store.sets.versions.log.delete(name, 2)
    store.location.write_bytes("activations/pool/versions/1.json", b"{}")
    before = {path for path in files(store) if "pool" in path}
    report = collection.gc(store, grace=NO_GRACE)
    assert {path for path in files(store) if "pool" in path} == before
    assert [item.name for item in report.garbage if item.kind == "version"] == ["2"]
    assert [held.what for held in report.held] == ["set pool"]


def test_an_open_reader_gets_an_error_and_no_wrong_numbers(store: nait_store.Store) -> None:
    version = store.sets.open("pool@3")
    segment = version.segments[-1]
    segment.chunk(Feature.MEAN, 0, 0)
    store.sets.versions.log.delete("pool", 3)
    collect(store)
    with pytest.raises(CorruptChunkError, match="missing with its whole segment: gc took it"):
        segment.chunk(Feature.MEAN, 0, 0)
    with pytest.raises(CorruptChunkError, match="is missing"):
        version.segment(version.refs[-1])


def test_on_an_object_store(object_store: ObjectStore) -> None:
    store = nait_store.open(object_store.new_url(), create=True)
    grown_set(store, "pool", 3)
    before = contents(store)
    store.profiles.build("math", source="pool@1")
    store.score("pool@3", "math")
    store.sets.versions.log.delete("pool", 3)
    uncommitted_segment(store)
    all_files = files(store)
    dry = collect(store, dry_run=True)
    assert files(store) == all_files
    real = collect(store)
    left = files(store)
    assert sorted(set(kinds(real))) == ["scores", "segment", "version"]
    assert dry.garbage == real.garbage
    assert real.freed_bytes == sum(size for path, size in all_files.items() if path not in left)
    del before["pool@3"]
    assert contents(store) == before


@pytest.mark.parametrize("prepare", [lambda s: None, lambda s: s.sets.versions.log.delete("pool", 3)])
def test_nothing_is_written_to_a_store_that_is_read_only(
    store: nait_store.Store, prepare: Callable[[nait_store.Store], None]
) -> None:
    prepare(store)
    before = files(store)
    store.location = store.location.read_only("for the test", "write elsewhere")
    with pytest.raises(nait_store.ReadOnlyError):
        store.gc(grace=NO_GRACE)
    assert store.gc(grace=NO_GRACE, dry_run=True).dry_run
    assert files(store) == before


def test_version_logs_agree_that_numbers_are_used(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 3)
    collect(store, after=LATER)
    listing = VersionLog(store.location, Kind.SET, type(store.sets.open("pool").manifest)).listing("pool")
    assert (listing.visible, listing.collected, listing.last) == ((1, 2), (3,), 3)
