"""The ingest that is killed and starved: earlier versions, a dead ingest to adopt, several segments, rejects.

Everything here runs in forked processes: nothing may be imported late, and nothing touch a store in the parent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# what the libraries import at first use, so that the forks need not
import fsspec.implementations.local  # noqa: F401
import numpy as np
import numpy.random
import pandas  # noqa: F401
import zarr  # noqa: F401

import nait_store
import nait_store.store.facade
import nait_store.store.integrity
from benchmarks.faults.forks import STARTED, Tell, run_forked
from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.ingest import probe
from nait_store.ingest.job import ingest
from nait_store.ingest.journal import IngestJournal
from nait_store.ingest.requests import FlushPolicy, IngestReport, IngestRequest
from nait_store.schemas.activation_set import FlushRecord, SegmentRecord, SegmentRef
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture

BASE = tuple(f"b{i}" for i in range(4))
"""In pool@1 before anything is killed."""
DEAD = tuple(f"d{i}" for i in range(4))
"""Flushed by an ingest that died before it could commit."""
NEW = tuple(f"n{i}" for i in range(10))
"""For the ingest that is killed to capture."""
POISONED = "poisoned"
"""Captured each time, and rejected by the writer."""
EVERYTHING = frozenset({*BASE, *DEAD, *NEW})


@dataclass(frozen=True)
class Sources:
    """Input files of the trials."""

    base: str
    dead: str
    pool: str

    @classmethod
    def write(cls, folder: Path) -> Sources:
        """Write them."""
        records = {i: {"id": i, "instruction": f"do {i}", "output": "x"} for i in [*EVERYTHING, POISONED]}
        empty = {"id": "empty", "instruction": "<empty>", "output": "x"}
        pool = [records[i] for i in [*BASE, *NEW[:5], *DEAD, POISONED, *NEW[5:]]]
        paths = []
        for name, lines in (
            ("base", [records[i] for i in BASE]),
            ("dead", [records[i] for i in DEAD]),
            ("pool", [*pool, empty, records[NEW[0]]]),  # a reject without tokens, and a repetition
        ):
            path = folder / f"{name}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            paths.append(str(path))
        return cls(*paths)


def run_ingest(url: str, source: str) -> tuple[IngestReport, FakeCapture]:
    """Ingest a source into the set ``pool`` with flushes every four rows."""
    probe.PROBE_SAMPLES = 4  # or everything would be held back until the dtype is chosen
    capture = FakeCapture(n_model_layers=1, batch_samples=2, poison={POISONED: float("nan")})
    request = IngestRequest((source,), "pool", id_field="id", flush=FlushPolicy(rows=4))
    return ingest(Location(url), capture, request), capture


def build_template(url: str, sources: Sources) -> None:
    """Make the store that every trial begins with, in forked processes."""

    def first(tell: Tell) -> None:
        nait_store.open(url, create=True)
        run_ingest(url, sources.base)
        tell("done")

    def die(tell: Tell) -> None:
        def end(*_: Any, **__: Any) -> None:
            tell("dead")
            os._exit(0)

        ActivationSets.commit = end  # type: ignore[method-assign,assignment]
        run_ingest(url, sources.dead)

    for work in (first, die):
        assert run_forked(work).result


def files_of(folder: Path) -> dict[str, bytes]:
    """Read a local store whole."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def put_files(url: str, files: dict[str, bytes]) -> None:
    """Put a store where a trial wants it; the steps are not the trial's."""
    location = Location(url)
    if location.is_local:
        for path, data in files.items():
            target = Path(url, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return
    for path, data in files.items():
        location.write_bytes(path, data)


def ingest_and_tell(url: str, source: str, tell: Tell) -> None:
    """Run the ingest that is to be killed, and tell the ids of samples as soon as they are acknowledged."""
    real = IngestJournal.acknowledge

    def acknowledge(self: IngestJournal, record: SegmentRecord) -> None:
        real(self, record)
        tell({"acknowledged": record.segment_id})

    IngestJournal.acknowledge = acknowledge  # type: ignore[method-assign]
    tell(STARTED)
    run_ingest(url, source)
    tell("done")


def acknowledged_segments(location: Location) -> dict[str, frozenset[str]]:
    """Segment id → sample ids of everything that has a flush record, every byte hashed."""
    found = {}
    for path, _ in location.walk("activations/pool/ingests"):
        if "/flushed/" in path:
            flush = FlushRecord.from_json_bytes(location.read_bytes(path), path)
            ref = SegmentRef(
                segment_id=flush.segment_id, ordinal=0, n_rows=flush.n_rows, record_sha256=flush.record_sha256
            )
            reader = SegmentReader(location, read_segment_record(location, "pool", ref), verify=True)
            reader.read(Feature.MEAN)
            found[flush.segment_id] = frozenset(reader.samples(["sample_id"]).column(0).to_pylist())
    return found


def wrong_values(version: SetVersion) -> Iterator[str]:
    """Yield the visible samples whose activations are not what the capture measured."""
    capture = FakeCapture()
    for segment in version.segments:
        values = segment.read(Feature.MEAN)
        ids = segment.samples(["sample_id"]).column(0).to_pylist()
        for row, sample_id in enumerate(ids):
            for i, layer in enumerate(segment.record.layers):
                expected = capture.vector(sample_id, Feature.MEAN, layer).astype(np.float16)
                if not np.array_equal(values[row, i], expected):
                    yield sample_id
                    break


def verify_errors(url: str) -> list[str]:
    """Errors that a full verification finds."""
    return [f"{finding.path}: {finding.problem}" for finding in nait_store.open(url).verify().errors]
