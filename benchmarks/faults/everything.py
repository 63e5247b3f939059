"""A small store with one of everything that a store can hold, for faults to be tried on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import nait_store
from nait_store.ingest.journal import IngestJournal
from nait_store.schemas.activation_set import IngestPlan
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage import layout
from nait_store.storage.heartbeat import BeatingHeart
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_segment, fake_identity, fake_row


def build_everything(url: str, inputs: Path) -> nait_store.Store:
    """Build the store.

    It has sets with several versions, tombstones, labels, deleted versions, redirects of a purge, a compaction, ingest
    journals with rejects, an ingest that was killed, a segment that nobody refers to, a dead job, profiles, score
    sidecars, saved selections and a catalog.

    Parameters
    ----------
    url
        Where; there must be nothing.
    inputs
        Folder for the files that are ingested.
    """
    store = nait_store.open(url, create=True)
    features = (Feature.MEAN, Feature.DRIFT)
    capture = FakeCapture(features=features)
    for first in (0, 20, 40):  # each brings ten samples that are there already, and two that are rejected
        path = _records(inputs / f"pool-{first}.jsonl", range(first, first + 30))
        store.ingest(path, set="pool", model="fake", capture=capture, on_error="skip", features=features)
    store.ingest(
        _records(inputs / "maths.jsonl", range(100, 140)), set="maths", model="fake", capture=capture, on_error="skip"
    )
    store.sets.delete_samples("pool", ids=_ids(store, "pool", 2), message="of no use")
    store.sets.tag("pool@1", "first", reason="in the paper")
    store.sets.alias("pool@3", "prod")
    store.sets.alias("pool@2", "prod")
    store.sets.describe("pool@2", "to be checked")
    store.sets.describe("pool@2", "checked")
    store.profiles.build("math", source="maths")
    store.profiles.build("math", source="maths", method="mean")
    store.profiles.build("contrast", source="maths", against="pool")
    store.score("pool", "math", "contrast")
    store.score("pool@2", "math@1")
    store.selections.save("best", store.select("pool", profile="math", top=10))
    store.selections.save("chance", store.select("maths", strategy="random", top=5))
    store.purge("pool", ids=_ids(store, "pool", 1))
    store.sets.compact("pool")
    store.sets.delete("pool@4", force=True)
    store.score("pool", "math")
    _leave_unfinished_work(store)
    store.sql("SELECT count(*) FROM versions").fetchall()
    return nait_store.open(url)


def _records(path: Path, numbers: range) -> str:
    lines = [json.dumps({"instruction": f"What is {n} times {n}?", "output": str(n * n)}) for n in numbers]
    lines += [json.dumps({"instruction": "<empty>", "output": str(n)}) for n in numbers[:2]]
    path.write_text("\n".join([*lines, "{ not JSON", ""]))
    return str(path)


def _ids(store: nait_store.Store, name: str, n: int) -> list[str]:
    return sorted(store.sets.open(name).sample_ids())[:n]


def _leave_unfinished_work(store: nait_store.Store) -> None:
    """What a killed ingest, a killed writer and a killed compaction leave."""
    arrays = {Feature.MEAN: np.ones((4, 2, 8), np.float32)}
    rows = [fake_row(f"waiting-{i}", i) for i in range(4)]
    acknowledged = build_segment(store.location, "pool", rows, arrays)
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
    with IngestJournal(store.location, plan) as journal:
        journal.acknowledge(acknowledged)
    build_segment(store.location, "pool", rows, arrays)
    with BeatingHeart(store.location, layout.job_folder("maths", new_ulid())):
        pass
