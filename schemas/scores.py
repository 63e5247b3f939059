"""Score sidecars: the scores of one segment under one profile's directions."""

from __future__ import annotations

import pyarrow as pa

from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.schemas.record import Record, Sha256, json_digest

KERNEL_REVISION = 1
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
