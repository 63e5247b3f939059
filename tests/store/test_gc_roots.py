"""What gc must not take: everything that a user, a running job or another part of the store still needs."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import nait_store
from nait_store.activations.changes import Change, Contents
from nait_store.activations.versions import ActivationSets
from nait_store.ingest.journal import IngestJournal
from nait_store.refs import Kind
from nait_store.schemas.activation_set import Heartbeat, IngestPlan, Operation, RedirectRecord, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.heartbeat import job
from nait_store.storage.labels import LabelKind
from nait_store.storage.provenance import current_provenance, new_ulid, now
from nait_store.store.garbage.collection import gc
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row
from tests.store.gc_stores import LATER, NO_GRACE, below, collect, contents, files, grown_set

SEGMENTS = "activations/pool/segments"


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with a set of three versions, each a segment more than the one before."""
    made = nait_store.open(url, create=True)
    grown_set(made, "pool", 3)
    return made


def written_segment(store: nait_store.Store, name: str = "pool") -> SegmentRecord:

    rows = [fake_row(f"late{i}", i) for i in range(4)]
    return build_segment(store.location, name, rows, {Feature.MEAN: np.ones((4, 2, 8), np.float32)})


def plan(store: nait_store.Store, name: str = "pool") -> IngestPlan:
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


def test_visible_versions_stay_for_ever(store: nait_store.Store) -> None:
    before, all_files = contents(store), files(store)
    report = collect(store, grace=NO_GRACE)
    assert (report.garbage, report.held) == ((), ())
    assert contents(store) == before
    assert files(store) == all_files


def test_a_deleted_version_stays_for_the_grace_period(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 3)
    report = collect(store, after=timedelta(days=6, hours=23))
    assert report.garbage == ()
    assert [held.what for held in report.held] == ["pool@3"]
    store.sets.versions.log.undelete("pool", 3)
    assert store.sets.open("pool@3").n_samples == 18


@pytest.mark.parametrize("kind", list(LabelKind))
def test_a_label_protects_a_deleted_version(store: nait_store.Store, kind: LabelKind) -> None:
    log = store.sets.versions.log
    log.labels.put(kind, "pool", "paper", 3, "cited")
    log.delete("pool", 3)
    report = collect(store)
    assert report.garbage == ()
    assert [(held.what, held.reason) for held in report.held] == [("pool@3", f"{kind} 'paper'")]


def test_a_label_that_was_taken_away_protects_nothing(store: nait_store.Store) -> None:
    log = store.sets.versions.log
    log.labels.put(LabelKind.TAG, "pool", "paper", 3)
    log.labels.remove(LabelKind.TAG, "pool", "paper")
    log.delete("pool", 3)
    assert [item.name for item in collect(store).garbage if item.kind == "version"] == ["3"]


def test_the_source_of_a_profile_stays_even_if_deleted(store: nait_store.Store) -> None:
    store.profiles.build("math", source="pool@3")
    store.sets.versions.log.delete("pool", 3)
    report = collect(store)
    assert report.garbage == ()
    assert report.held[0].reason == "profile:math@1 was built from it"


def test_the_background_of_a_profile_stays_even_if_deleted(store: nait_store.Store) -> None:
    build_set(store.location, "maths", 20, first=500, seed=9)
    store.profiles.build("math", source="maths", against="pool@3")
    store.sets.versions.log.delete("pool", 3)
    assert collect(store).garbage == ()


def test_what_a_selection_was_made_from_stays_even_if_deleted(store: nait_store.Store) -> None:
    store.profiles.build("math", source="pool@1")
    store.selections.save("best", store.select("pool@3", profile="math", top=3))
    store.sets.versions.log.delete("pool", 3)
    store.profiles.registry.log.delete("math", 1)
    store.sets.versions.log.delete("pool", 1)
    report = collect(store)
    assert report.garbage == ()
    assert {held.what: held.reason for held in report.held} == {
        "math@1": "selection:best@1 was selected by it",
        "pool@1": "profile:math@1 was built from it",
        "pool@3": "selection:best@1 was selected from it",
    }


def test_what_only_collected_profiles_and_selections_needed_goes_in_the_same_run(store: nait_store.Store) -> None:
    store.profiles.build("math", source="pool@3")
    store.selections.save("best", store.select("pool@3", profile="math", top=3))
    store.selections._log.delete("best", 1)
    store.profiles.registry.log.delete("math", 1)
    store.sets.versions.log.delete("pool", 3)
    report = collect(store)
    assert [item.path for item in report.garbage if item.kind == "version"] == [
        "selections/best/versions/1.json",
        "profiles/math/versions/1.json",
        "activations/pool/versions/3.json",
    ]


def test_nothing_of_sets_is_collected_while_a_profile_cannot_be_read(store: nait_store.Store) -> None:
    profile, _ = store.profiles.build("math", source="pool@3")
    store.sets.versions.log.delete("pool", 3)
    store.location.write_bytes(f"{profile.folder}/profile.json", b"{}")
    report = gc(store, grace=NO_GRACE)
    assert report.garbage == ()
    assert any("cannot be read" in held.reason for held in report.held)


def test_flushed_segments_of_an_interrupted_ingest_stay(store: nait_store.Store) -> None:
    with IngestJournal(store.location, plan(store)) as journal:
        record = written_segment(store)
        journal.acknowledge(record)
    report = collect(store, grace=NO_GRACE)
    assert report.garbage == ()
    assert record.segment_id in below(store, SEGMENTS)


def test_unfinished_segments_of_a_live_ingest_stay_however_old(store: nait_store.Store) -> None:
    with IngestJournal(store.location, plan(store)) as journal:
        record = written_segment(store)
        assert collect(store, grace=NO_GRACE).garbage == ()
        journal.acknowledge(record)
    assert record.segment_id in below(store, SEGMENTS)


def test_a_live_job_holds_back_the_collection_of_its_set_only(store: nait_store.Store) -> None:
    grown_set(store, "other", 2, first=100)
    for name in ("pool", "other"):
        store.sets.versions.log.delete(name, 2)
    store.sets.versions.log.delete("pool", 3)
    with job(store.location, layout.job_folder("pool", new_ulid())):
        report = collect(store)
    assert {item.path.split("/")[1] for item in report.garbage} == {"other"}
    assert {held.what for held in report.held} == {"pool@2", "pool@3"}


def test_what_was_deleted_while_an_ingest_runs_waits_for_its_end(store: nait_store.Store) -> None:
    with IngestJournal(store.location, plan(store)):
        store.sets.versions.log.delete("pool", 3)
        report = collect(store, grace=NO_GRACE)
    assert report.garbage == ()
    assert [held.what for held in report.held] == ["pool@3"]


def test_young_orphans_stay_even_without_grace(store: nait_store.Store) -> None:
    record = written_segment(store)
    assert collect(store, after=timedelta(minutes=59), grace=NO_GRACE).garbage == ()
    assert record.segment_id in below(store, SEGMENTS)


def test_the_newer_of_name_and_file_time_decides(store: nait_store.Store) -> None:
    """A machine whose clock is slow names its segments after a time long past."""
    old_name = "01A" + new_ulid()[3:]
    store.location.write_bytes(f"{SEGMENTS}/{old_name}/samples.parquet", b"being written")
    assert collect(store, after=timedelta(minutes=1)).garbage == ()
    assert [item.name for item in collect(store).garbage] == [old_name]


def test_foreign_folders_are_left_alone(store: nait_store.Store) -> None:
    for path in (f"{SEGMENTS}/notes/readme.txt", "scores/notes.txt", "activations/pool/ingests/mine/x"):
        store.location.write_bytes(path, b"not ours")
    assert collect(store, grace=NO_GRACE).garbage == ()


def test_the_base_of_a_kept_version_keeps_its_document(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 1)
    before = contents(store)
    collect(store)
    assert {"1.json", "1.collected.json"} <= below(store, "activations/pool/versions")
    assert contents(store) == before


def test_redirects_of_kept_segments_stay(store: nait_store.Store) -> None:
    """Also in the middle of a chain, and where a later version names the replacement itself."""
    sets = store.sets.versions
    old = sets.open("pool@1").refs[0]
    names = [old.segment_id]
    for _ in range(3):
        rows = [fake_row(f"r{i}", i) for i in range(old.n_rows)]

        record = build_segment(store.location, "pool", rows, {Feature.MEAN: np.ones((old.n_rows, 2, 8), np.float32)})
        sets.redirects("pool").add(
            RedirectRecord(
                segment_id=names[-1],
                replacement=record.segment_id,
                record_sha256=record.digest(),
                n_rows=old.n_rows,
                blank_rows=(),
                operation=Operation.REPAIR,
                provenance=current_provenance(),
            )
        )
        names.append(record.segment_id)
    current = ActivationSets(store.location).open("pool")
    sets.advance(
        "pool",
        lambda _, __: Change(
            operation=Operation.COMPACT,
            contents=Contents(current.features, current.layers),
            refs=current.refs,
            tombstones=current.tombstones(),
        ),
    )
    before = contents(store)
    report = collect(store)
    assert {item.name for item in report.garbage} == set(names[:-1])
    assert {item.kind.value for item in report.garbage} == {"segment"}
    assert len(below(store, layout.redirects_folder(Kind.SET, "pool"))) == 3
    assert contents(store) == before
    for number in (1, 2, 3):
        sets.log.delete("pool", number)
    gone = [item.name for item in collect(store).garbage if item.kind == "redirect"]
    assert gone == sorted(names[:2])  # the last one still tells which rows of the replacement are blank
    assert contents(store) == {"pool@4": before["pool@4"]}


def test_another_hosts_slow_clock_does_not_make_its_ingest_dead(store: nait_store.Store) -> None:
    folder = layout.ingest_folder("pool", new_ulid())
    beat = Heartbeat(at=now() - timedelta(hours=3), host="elsewhere", pid=1)
    store.location.write_bytes(f"{folder}/heartbeat.json", beat.to_json_bytes())
    record = written_segment(store)
    assert collect(store, after=LATER, grace=NO_GRACE).garbage == ()
    assert record.segment_id in below(store, SEGMENTS)
