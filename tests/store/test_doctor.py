"""What doctor says of a store in which things lie unfinished or out of sight."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import nait_store
import nait_store.store.doctor
from nait_store.ingest.journal import IngestJournal
from nait_store.refs import Kind
from nait_store.schemas.activation_set import IngestPlan
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import ProfileManifest
from nait_store.storage import layout
from nait_store.storage.heartbeat import BeatingHeart
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.versions import VersionLog
from nait_store.store.doctor import Check
from nait_store.testing.stores import build_segment, fake_identity, fake_row


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"torch": "9.9", "devices": [], "threads": 1})
    monkeypatch.setattr(nait_store.store.doctor, "_ASK_TORCH", f"print({answer!r})")


def said(store: nait_store.Store, topic: str) -> list[Check]:
    report = store.doctor()
    assert report.ok
    return [check for check in report.checks if check.topic == topic]


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
    return IngestJournal(store.location, plan)


def test_a_tidy_store_has_no_leftovers(store: nait_store.Store) -> None:
    topics = {check.topic for check in store.doctor().checks}
    assert not topics & {"ingests", "jobs", "deleted", "unfinished", "garbage"}


def test_samples_of_an_unfinished_ingest_are_counted(store: nait_store.Store) -> None:
    arrays = {Feature.MEAN: np.ones((3, 2, 8), np.float32)}
    with journal(store) as unfinished:
        (check,) = said(store, "ingests")
        assert (check.state, check.text) == ("ok", "1 ingest into pool at work")
        for part in range(2):
            rows = [fake_row(f"waiting-{part}-{i}") for i in range(3)]
            unfinished.acknowledge(build_segment(store.location, "pool", rows, arrays))
    (check,) = said(store, "ingests")
    assert check.state == "note"
    assert check.text == "1 ingest into pool ended early: 6 samples are kept and not in a version"
    assert "--set pool" in check.advice


def test_a_dead_job_is_mentioned(store: nait_store.Store) -> None:
    folder = layout.job_folder("pool", new_ulid())
    with BeatingHeart(store.location, folder):
        assert said(store, "jobs") == []
    store.location.write_bytes(f"{folder}/heartbeat.json", b"{}")
    assert [check.text for check in said(store, "jobs")] == ["1 job of pool (compaction, purge or repair) killed"]


def test_deleted_versions_are_named(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    VersionLog(store.location, Kind.PROFILE, ProfileManifest).delete("math", 1)
    store.sets.versions.log.delete("pool", 1)
    (check,) = said(store, "deleted")
    assert check.text == "2 deleted versions can be brought back: pool@1, profile:math@1"
    store.sets.versions.log.collect("pool", 1)
    (check,) = said(store, "deleted")
    assert check.text == "1 deleted version can be brought back: profile:math@1"


def test_old_unfinished_files_are_counted(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    for name, age_seconds in (("old", 7200), ("new", 60)):
        path = tmp_path / "store" / f".tmp-{name}"
        path.write_bytes(bytes(1_500_000))
        os.utime(path, (time.time() - age_seconds,) * 2)
    (check,) = said(store, "unfinished")
    assert check.text == "1 unfinished file of writers that were killed, 1.5 MB"


def test_what_gc_would_free_is_told(tmp_path: Path) -> None:
    store = nait_store.open(str(tmp_path / "store"), create=True)
    path = tmp_path / "store" / ".tmp-old"
    path.write_bytes(bytes(2_000_000))
    long_ago = time.time() - 30 * 86400
    os.utime(path, (long_ago, long_ago))
    (check,) = said(store, "garbage")
    assert (check.text, check.advice) == ("gc would free 2.0 MB", "run 'nait-store gc'")
