"""Score sidecars: the scores of one segment under one profile's directions."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.schemas.record import Document, FileDigest, Record, Sha256, json_digest

KERNEL_REVISION = 3
"""Raised whenever the scan's arithmetic changes, so that old sidecars are not mistaken for new ones."""


def scores_schema(n_layers: int) -> pa.Schema:
    """Columns of a sidecar: every row of the segment in order, score = Σ_l projections[l]."""
    return pa.schema(
        [
            pa.field("row_index", pa.int64(), nullable=False),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("projections", pa.list_(pa.field("item", pa.float32(), nullable=False), n_layers), nullable=False),
        ]
    )


class ScoreKey(Record):
    """What a sidecar's content is a function of; its digest is the file's name.

    The same record is stored in the Parquet file's key-value metadata under ``nait_store.score_key``.
    """

    segment_sha256: Sha256
    """Digest of ``segment.json``."""
    directions_sha256: Sha256
    feature: Feature
    metric: Metric
    kernel_revision: int = KERNEL_REVISION

    @property
    def key(self) -> str:
        """SHA-256 over the record, 64 hexadecimal digits."""
        return json_digest(self.model_dump(mode="json"))


class SidecarRecord(Document):
    """``scores/<key>.json``, written after the Parquet file: a sidecar without it does not exist."""

    segment_sha256: Sha256
    directions_sha256: Sha256
    feature: Feature
    metric: Metric
    kernel_revision: int
    n_rows: int = Field(ge=1)
    """Of the segment."""
    n_layers: int = Field(ge=1)
    """Of the profile: the length of ``projections``."""
    size_bytes: int = Field(ge=0)
    sha256: Sha256
    """Of the Parquet file."""
    footer_sha256: Sha256 | None = None
    """Of the Parquet file's footer, from the first byte of its metadata to the end of the file: it says where the pages
    lie, which have checksums of their own. None in records that were written before it was kept."""

    @property
    def score_key(self) -> ScoreKey:
        """What the content is a function of."""
        return ScoreKey(
            segment_sha256=self.segment_sha256,
            directions_sha256=self.directions_sha256,
            feature=self.feature,
            metric=self.metric,
            kernel_revision=self.kernel_revision,
        )

    @property
    def key(self) -> str:
        """Digest of :attr:`score_key`, the name of both files."""
        return self.score_key.key

    @property
    def file(self) -> FileDigest:
        """The Parquet file, its path relative to ``scores/``."""
        return FileDigest(path=f"{self.key}.parquet", size_bytes=self.size_bytes, sha256=self.sha256)
