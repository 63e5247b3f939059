"""Finding one sample of a set version, and reading its activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.errors import NotFoundError
from nait_store.query.features.table import FeatureContext
from nait_store.query.spelling import literal
from nait_store.schemas.capture import Feature
from nait_store.scoring.scan import thread_count
from nait_store.storage.fetching import work_ahead

_HELD_BYTES = 32 << 20


@dataclass(frozen=True)
class OneSample:
    """Where a sample lies.

    Attributes
    ----------
    segment
        Its segment.
    row
        Its row there.
    """

    segment: SegmentReader
    row: int

    def read(self, feature: Feature, layers: Sequence[int]) -> NDArray[np.float64]:
        """Its activations, [L, J]; one row of each layer is read."""
        row_bytes = self.segment.record.n_neurons * 8
        vectors = work_ahead(
            lambda layer: self.segment.row(feature, layer, self.row),
            layers,
            size_bytes=lambda _: row_bytes,
            limit_bytes=_HELD_BYTES,
            n_threads=thread_count(remote=self.segment.is_remote),
        )
        return np.stack([vector.astype(np.float64) for _, vector in vectors])


def find_sample(context: FeatureContext, version: SetVersion, sample_id: str) -> OneSample:
    """Find a sample by its id; the ids of all samples are read, once a session.

    Raises
    ------
    NotFoundError
        The version has no such sample, or leaves it out.
    """
    for segment in version.segments:
        row = pc.index(context.scores.sample_ids(segment), sample_id).as_py()
        visible = version.visible_rows(segment)
        if row >= 0 and (visible is None or visible[row]):
            return OneSample(segment, row)
    raise NotFoundError(
        f"set {version.reference} has no sample {sample_id!r}",
        next_step=f"see which it has: SELECT sample_id FROM samples({literal(version.reference)})",
    )
