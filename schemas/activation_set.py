"""Activation sets on disk: the set, its segments, its versions and its ingests."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from nait_store.schemas.capture import (
    CaptureEnvironment,
    CaptureIdentity,
    CaptureSettings,
    Feature,
    StoredDtype,
)
from nait_store.schemas.profile import Metric
from nait_store.schemas.record import (
    Document,
    FileDigest,
    Name,
    Provenance,
    Record,
    RelativePath,
    Sha256,
    SourceFile,
    Timestamp,
    Ulid,
)
from nait_store.schemas.samples import FieldType


def _is_empty(value: Any) -> bool:
    return not value


_LATER = Field(exclude_if=_is_empty)
"""Of a field that came later: records that have nothing in it are written, and digested, as they were before."""

ROW_BITS = 40
"""``row_id`` = segment ordinal · 2^40 + row index: never reused in a set, never persisted outside it."""


class Projection(Record):
    """One column of the feature ``projections``: the profile whose scores it gives."""

    profile: str
    """Its reference when the set was begun, ``math@2``; for people, and to find it again."""
    directions_sha256: Sha256
    feature: Feature
    """What of a sample was projected."""
    metric: Metric
    layers: tuple[int, ...]
    """Zero-based decoder layers that it reads; of others the column holds 0."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Equal for what gives every sample the same score: directions, feature and metric."""
        return self.directions_sha256, self.feature.value, self.metric.value


class SetRecord(Document):
    """``set.json``: the name and the identity that every segment shares. Immutable."""

    name: Name
    capture_id: str
    identity: CaptureIdentity
    n_neurons: int = Field(ge=1)
    """J, the width of a layer's vector; of a set that keeps projections, their number P."""
    n_model_layers: int = Field(ge=1)
    projections: Annotated[tuple[Projection, ...], _LATER] = ()
    """Of a set that keeps no activations: what its last axis is."""
    provenance: Provenance


class FeatureArray(Record):
    """One feature's Zarr array within a segment: ``data.zarr/<feature>`` [n, L, J].

    Beside it lie the float32 norms, ``data.zarr/<feature>_norms`` [n, L], and for int8 the float32 scales,
    ``data.zarr/<feature>_scales`` [n, L].
    """

    feature: Feature
    dtype: StoredDtype
    chunk_rows: int = Field(ge=1)
    """The chunk grid is (chunk_rows, 1, J)."""
    max_abs: float = Field(ge=0)
    """Largest absolute stored value."""


class SegmentRecord(Document):
    """``segment.json``, written last: its presence says that the segment is whole."""

    segment_id: Ulid
    set_name: Name
    capture_id: str
    n_rows: int = Field(ge=1)
    layers: tuple[int, ...]
    """Zero-based decoder layers, ascending; axis 1 of the arrays."""
    n_neurons: int = Field(ge=1)
    arrays: tuple[FeatureArray, ...]
    user_fields: dict[str, FieldType]
    files: tuple[FileDigest, ...]
    """Every other file of the segment, chunk by chunk, paths relative to the segment's folder."""
    settings: CaptureSettings
    environment: CaptureEnvironment
    n_tokens: int = Field(ge=0)
    n_truncated: int = Field(ge=0)
    replaces: tuple[Ulid, ...] = ()
    """Segments that it was made from, by a compaction or as their replacement."""
    projections: Annotated[tuple[Projection, ...], _LATER] = ()
    """As in ``set.json``."""
    provenance: Provenance

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features it stores."""
        return tuple(a.feature for a in self.arrays)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files but the record itself."""
        return sum(f.size_bytes for f in self.files)


class SegmentRef(Record):
    """How a manifest names a segment."""

    segment_id: Ulid
    ordinal: int = Field(ge=0, lt=2**23)
    """Assigned at commit, never reused within the set; the high bits of ``row_id``."""
    n_rows: int = Field(ge=1)
    record_sha256: Sha256
    """Digest of ``segment.json``, which holds the digests of everything else."""


class TombstoneRef(Record):
    """Parquet of (segment_ordinal, row_index) that this version leaves out."""

    path: RelativePath
    """Relative to the set's folder."""
    n_rows: int = Field(ge=1)
    sha256: Sha256


class Operation(StrEnum):
    """What made a version of a set out of the one before."""

    INGEST = "ingest"
    DELETE_SAMPLES = "delete-samples"
    RESTORE = "restore"
    COMPACT = "compact"
    CONVERT = "convert"
    PURGE = "purge"
    REPAIR = "repair"


class SetManifest(Document):
    """``versions/<n>.json``: its atomic creation is the commit.

    ``base is None`` marks a full list of segments (every 100th version); otherwise ``segments`` holds what came
    since version ``base``, whose manifest is full, so that reading a version takes two documents at most.
    """

    set_name: Name
    number: int = Field(ge=1)
    parent: int | None
    operation: Operation
    details: dict[str, Any] = Field(default_factory=dict)
    """What the operation was asked to do, for the history: ``restored``, ``where``, ``n_deleted`` …"""
    message: str = ""
    features: tuple[Feature, ...]
    """Features that all its segments store."""
    layers: tuple[int, ...]
    """Zero-based decoder layers that all its segments store, ascending."""
    base: int | None = None
    segments: tuple[SegmentRef, ...]
    tombstones: TombstoneRef | None = None
    next_ordinal: int = Field(ge=0)
    n_samples: int = Field(ge=0)
    """Visible samples: rows less tombstones."""
    ingest_ids: tuple[Ulid, ...] = ()
    provenance: Provenance


class IngestChoices(Record):
    """Which records of its sources an ingest takes, and under which ids."""

    field_map: dict[str, str] = Field(default_factory=dict)
    """Canonical field → the records' field that stands for it; empty where the layout was detected."""
    id_field: str | None = None
    """Field that holds the sample id; None: a hash of the content."""
    on_error: str = "stop"
    """``stop`` at a record that cannot be used, or ``skip`` it."""
    limit: int | None = None
    """The first so many usable, distinct samples."""
    n_only: int | None = None
    """How many samples a repair or a port named to be captured, and no others; their ids are not kept."""


class IngestPlan(Document):
    """``ingests/<ulid>/plan.json``: what an ingest set out to do."""

    ingest_id: Ulid
    set_name: Name
    capture_id: str
    sources: tuple[SourceFile, ...]
    features: tuple[Feature, ...]
    layers: tuple[int, ...]
    dtype: StoredDtype
    identity: CaptureIdentity | None = None
    """With the two numbers below, all that ``set.json`` says, so that a lost one can be made again."""
    n_neurons: int | None = Field(default=None, ge=1)
    n_model_layers: int | None = Field(default=None, ge=1)
    projections: Annotated[tuple[Projection, ...], _LATER] = ()
    command: str = ""
    choices: Annotated[IngestChoices | None, _LATER] = None
    """None where an older release wrote the plan."""
    provenance: Provenance


class Heartbeat(Document):
    """``heartbeat.json`` of an ingest or another job that writes segments, rewritten while it lives."""

    at: Timestamp
    host: str
    pid: int


class RedirectRecord(Document):
    """``redirects/<segment>.json``: another segment stands for this one, in every version that refers to it.

    The replacement has the same rows in the same places, some of them blank: purged, or lost to damage. Blank rows
    belong to no version.
    """

    segment_id: Ulid
    """The segment that is gone."""
    replacement: Ulid
    record_sha256: Sha256
    """Of the replacement's ``segment.json``."""
    n_rows: int = Field(ge=1)
    blank_rows: tuple[int, ...]
    """Ascending row indices, those that were blank before included."""
    operation: Operation
    provenance: Provenance


class FlushRecord(Document):
    """``ingests/<ulid>/flushed/<segment>.json``: from its creation on, the segment's samples are acknowledged."""

    ingest_id: Ulid
    segment_id: Ulid
    n_rows: int = Field(ge=1)
    record_sha256: Sha256


class IngestOutcome(Document):
    """``ingests/<ulid>/outcome.json``: the ingest is over; its segments are in ``version`` or there were none."""

    ingest_id: Ulid
    version: int | None
    rejects: FileDigest | None = None
    """``rejects.jsonl`` beside it, where something was left out."""
    provenance: Provenance
