"""gc beside others: what happens in the moment before something is deleted, and between a look and a commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.history import restore
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, NotFoundError
from nait_store.ingest.journal import IngestJournal
from nait_store.schemas.activation_set import IngestPlan, Operation, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.labels import LabelKind
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog
from nait_store.store.garbage.sets import SetGarbage
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record
from tests.store.gc_stores import NO_GRACE, below, collect, contents, grown_set, problems

SEGMENTS = "activations/pool/segments"


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with a set of three versions, the last of which is deleted."""
    made = nait_store.open(url, create=True)
    grown_set(made, "pool", 3)
    made.sets.versions.log.delete("pool", 3)
    return made


def others(store: nait_store.Store) -> ActivationSets:
    """The sets as another process sees them."""
    return ActivationSets(Location(store.url))


def before_deleting(monkeypatch: pytest.MonkeyPatch, part: str, act: Callable[[], object]) -> list[str]:
    """Do something once, right before the first path with ``part`` in it is deleted; returns the paths deleted."""
    real = Location.delete
    deleted: list[str] = []

    def delete(location: Location, path: str) -> None:
        first = not deleted and part in path
        if part in path:
            deleted.append(path)
        if first:
            act()
        real(location, path)

    monkeypatch.setattr(Location, "delete", delete)
    return deleted


def before_collecting(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the plan and its execution."""
    real = SetGarbage.take_loose

    def take_loose(self: SetGarbage, *arguments: Any) -> Iterator[Any]:
        act()
        yield from real(self, *arguments)

    monkeypatch.setattr(SetGarbage, "take_loose", take_loose)


def segment(store: nait_store.Store, first: int = 900) -> SegmentRecord:
    rows = [fake_row(f"late{first + i}", i) for i in range(4)]
    return build_segment(Location(store.url), "pool", rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)})


def journal(store: nait_store.Store) -> IngestJournal:
    plan = IngestPlan(
        ingest_id=new_ulid(),
        set_name="pool",
        capture_id=fake_identity().capture_id,
        sources=(),
        features=(Feature.MEAN,),
        layers=(0, 1),
        dtype=StoredDtype.FLOAT16,
        provenance=current_provenance(),
    )
    return IngestJournal(Location(store.url), plan)


def test_a_version_that_is_brought_back_after_the_plan_stays(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_collecting(monkeypatch, lambda: others(store).log.undelete("pool", 3))
    assert collect(store).garbage == ()
    assert store.sets.open("pool").n_samples == 18


def test_a_version_that_is_brought_back_while_it_is_marked_stays(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = VersionLog.collect

    def collect_late(log: VersionLog[Any], name: str, number: int) -> bool:
        others(store).log.undelete(name, number)
        return real(log, name, number)

    monkeypatch.setattr(VersionLog, "collect", collect_late)
    assert collect(store).garbage == ()
    assert store.sets.open("pool@3").n_samples == 18


def test_a_version_whose_data_are_going_cannot_be_brought_back(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []

    def bring_back() -> None:
        with pytest.raises(NotFoundError, match="collected by gc") as refused:
            others(store).log.undelete("pool", 3)
        refusals.append(refused)

    before_deleting(monkeypatch, SEGMENTS, bring_back)
    collect(store)
    assert len(refusals) == 1
    assert store.sets.open("pool").number == 2


def test_a_tag_that_comes_after_the_plan_protects(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before_collecting(monkeypatch, lambda: others(store).log.labels.put(LabelKind.TAG, "pool", "paper", 3))
    assert collect(store).garbage == ()


def test_a_version_restored_after_the_plan_keeps_what_it_needs(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring() -> None:
        restore(others(store), "pool", 3, message="")

    before_collecting(monkeypatch, bring)
    collect(store)
    assert store.sets.open("pool@4").n_samples == 18
    assert len(contents(store)["pool@4"][0]) == 18


def test_a_restore_that_began_before_the_mark_keeps_what_it_needs(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc marks the version and then looks for jobs; the restore shows its heartbeat and then looks for marks."""
    real = VersionLog.collect
    running = []

    def collect_beside_a_restore(log: VersionLog[Any], name: str, number: int) -> bool:
        running.append(store_job(store))
        return real(log, name, number)

    monkeypatch.setattr(VersionLog, "collect", collect_beside_a_restore)
    n_segments = len(below(store, SEGMENTS))
    assert collect(store).garbage == ()
    assert len(below(store, SEGMENTS)) == n_segments
    sets = others(store)
    old = sets.version("pool", 3)  # as the restore does
    sets.advance(
        "pool",
        lambda _, __: Change(Operation.RESTORE, Contents(old.features, old.layers), refs=old.refs, tombstones={}),
    )
    store.location.delete(running[0])
    monkeypatch.undo()
    collect(store)
    assert len(contents(store)["pool@4"][0]) == 18


def store_job(store: nait_store.Store) -> str:
    """The heartbeat of another job."""
    from nait_store.schemas.activation_set import Heartbeat
    from nait_store.storage.provenance import now

    folder = layout.job_folder("pool", new_ulid())
    beat = Heartbeat(at=now(), host="elsewhere", pid=1)
    Location(store.url).write_bytes(f"{folder}/heartbeat.json", beat.to_json_bytes())
    return folder


def test_an_append_in_the_moment_of_a_deletion_is_whole(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_deleting(monkeypatch, SEGMENTS, lambda: build_set(Location(store.url), "pool", 5, first=700, seed=7))
    collect(store)
    assert store.sets.open("pool@4").n_samples == 17
    assert len(contents(store)["pool@4"][0]) == 17


def test_an_orphan_that_is_acknowledged_after_the_plan_stays(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = segment(store)

    def acknowledge() -> None:
        with journal(store) as interrupted:
            interrupted.acknowledge(record)

    before_collecting(monkeypatch, acknowledge)
    report = collect(store)
    assert record.segment_id not in {item.name for item in report.garbage}
    assert record.segment_id in below(store, SEGMENTS)


def test_an_orphan_that_is_committed_after_the_plan_stays(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = segment(store)
    before_collecting(monkeypatch, lambda: others(store).commit("pool", [record], ingest_ids=[]))
    collect(store)
    assert store.sets.open("pool@4").n_samples == 16
    assert len(contents(store)["pool@4"][0]) == 16


def test_two_collections_at_once_take_everything_once(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(store)
    inner = []
    segment(store)

    def other() -> None:
        inner.append(collect(nait_store.open(store.url)))

    before_deleting(monkeypatch, SEGMENTS, other)
    collect(store)
    monkeypatch.undo()
    assert len(inner) == 1
    assert collect(store).garbage == ()
    assert contents(store) == before


def test_an_append_to_what_gc_takes_meanwhile_is_made_anew(store: nait_store.Store) -> None:
    """The version that it builds on is deleted and collected between its look and its commit."""
    sets = others(store)
    record = segment(store)
    seen: list[int | None] = []

    def append(current: SetVersion | None, next_ordinal: int) -> Change:
        seen.append(current.number if current else None)
        if len(seen) == 1:
            for number in (1, 2):
                others(store).log.delete("pool", number)
            build_set_anew(store)
        from nait_store.schemas.activation_set import SegmentRef

        ref = SegmentRef(segment_id=record.segment_id, ordinal=next_ordinal, n_rows=4, record_sha256=record.digest())
        return Change(Operation.INGEST, Contents((Feature.MEAN,), (0, 1)), added=(ref,))

    def build_set_anew(store: nait_store.Store) -> None:
        from nait_store.store.garbage import collection

        collection.gc(nait_store.open(store.url), grace=NO_GRACE)
        others(store).create(fake_set_record("pool"))

    version = sets.advance("pool", append)
    assert version is not None
    assert seen == [2, None]
    assert (version.number, version.n_samples) == (5, 4)
    assert sets.numbers("pool") == [5]
    assert len(contents(store)["pool@5"][0]) == 4


def test_a_change_made_of_what_gc_takes_meanwhile_is_a_conflict(store: nait_store.Store) -> None:
    """And the versions that could not be read are out of sight."""
    sets = others(store)
    old = sets.version("pool", 3)
    taken: list[Any] = []

    def again(current: SetVersion | None, next_ordinal: int) -> Change:
        if not taken:
            taken.append(collect(nait_store.open(store.url)))
        return Change(Operation.RESTORE, Contents(old.features, old.layers), refs=old.refs, tombstones={})

    with pytest.raises(ConflictError, match="gc took"):
        sets.advance("pool", again)
    assert sets.numbers("pool") == [1, 2]


def test_an_ingest_that_begins_while_the_set_goes_gets_its_record_back(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        store.sets.versions.log.delete("pool", number)
    running = journal(store)
    sets = others(store)

    def begin() -> None:
        running.__enter__()
        sets.create(fake_set_record("pool"))  # it is still there

    before_deleting(monkeypatch, "set.json", begin)
    try:
        report = collect(store)
        assert "set" not in {item.kind.value for item in report.garbage}
        record = segment(store)
        running.acknowledge(record)
        version = sets.commit("pool", [record], ingest_ids=[running.ingest_id])
        running.finish(version.number)
    finally:
        running.__exit__(None, None, None)
    assert (version.number, version.n_samples) == (4, 4)
    assert problems(store) == []


def test_the_mark_of_a_gc_that_died_while_somebody_undeleted_goes_again(store: nait_store.Store) -> None:
    log = store.sets.versions.log
    log.collect("pool", 3)
    store.location.delete("activations/pool/versions/3.deleted.json")  # as undelete does before it looks again
    n_segments = len(below(store, SEGMENTS))
    collect(store)
    assert len(below(store, SEGMENTS)) == n_segments
    assert store.sets.open("pool@3").n_samples == 18


def test_an_ingest_commits_though_a_gc_died_with_the_record_of_its_set_deleted(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc deletes ``set.json`` of a set without versions, looks for ingests, and puts it back: here it died between."""
    store = nait_store.open(url, create=True)
    real = IngestJournal.acknowledge

    def acknowledge(self: IngestJournal, record: SegmentRecord) -> None:
        real(self, record)
        store.location.delete("activations/pool/set.json")

    monkeypatch.setattr(IngestJournal, "acknowledge", acknowledge)
    records = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in range(20)]
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    report = store.ingest(str(source), set="pool", model="fake", capture=FakeCapture())
    assert report.set_ref == "pool@1"
    assert store.sets.open("pool").n_samples == 20
