"""Scores that move with their rows: listing the sidecars of segments, and making those of a segment made of others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError, InvalidInputError, NotFoundError
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.scores import KERNEL_REVISION, ScoreKey, SidecarRecord
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.sidecar_files import SidecarWriter, open_sidecar, read_sidecar_record
from nait_store.scoring.sidecar_listing import read_records
from nait_store.storage import layout
from nait_store.storage.location import Location

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CarriedRows:
    """Rows of one segment that a new segment takes over.

    Attributes
    ----------
    segment_sha256
        Digest of the old segment's ``segment.json``.
    rows
        [m] ascending row indices of the old segment; they follow each other in the new one.
    blank
        [m] mask of those that are blank in the new segment; None where none is.
    """

    segment_sha256: str
    rows: NDArray[np.int64]
    blank: NDArray[np.bool_] | None = None


def sidecar_records(location: Location) -> Iterator[SidecarRecord]:
    """Yield the record of every score sidecar of a store, by ascending key; damaged ones are left out and logged.

    Reads one small document per sidecar, and there is one for each segment and profile ever scored: see
    :func:`~nait_store.scoring.sidecar_listing.read_records`. Ask once and keep the answer.
    """
    keys = [name.removesuffix(".json") for name in location.names(layout.SCORES) if name.endswith(".json")]
    for _, record in read_records(location, keys):
        if isinstance(record, CorruptChunkError):
            logger.warning("ignoring a score sidecar: %s", record.what)
        else:
            yield record


def carry_over(
    location: Location,
    sources: Sequence[CarriedRows],
    segment: SegmentRecord,
    known: Sequence[SidecarRecord] | None = None,
) -> list[SidecarRecord]:
    """Make the sidecars of a segment whose rows come from others, for every profile that all of those have scores for.

    No score is computed. Blank rows get zero, for the score and for every projection. A source that turns out to be
    damaged costs its profile's scores, which are computed when they are next asked for.

    Parameters
    ----------
    location
        The store's root.
    sources
        Where the new segment's rows come from, in order.
    segment
        The new segment.
    known
        What :func:`sidecar_records` found, to spare asking again.

    Returns
    -------
    list of SidecarRecord
        Of the sidecars that the segment now has because of this call.

    Raises
    ------
    StorageError
        Writing failed; the sidecars written before stay, which does no harm.
    """
    if sum(len(source.rows) for source in sources) != segment.n_rows:
        raise InvalidInputError("the rows that are carried over are not those of the new segment")
    wanted = {source.segment_sha256 for source in sources}
    stored: dict[tuple[str, str, str, int], dict[str, SidecarRecord]] = {}
    for record in sidecar_records(location) if known is None else known:
        if record.segment_sha256 in wanted and record.kernel_revision == KERNEL_REVISION:
            what = (record.directions_sha256, record.feature.value, record.metric.value, record.n_layers)
            stored.setdefault(what, {})[record.segment_sha256] = record
    made = []
    digest = segment.digest()
    for _, by_segment in sorted(stored.items()):
        if by_segment.keys() != wanted:
            continue
        first = next(iter(by_segment.values()))
        key = first.score_key.model_copy(update={"segment_sha256": digest})
        try:
            _carry(location, sources, by_segment, key, segment.n_rows, first.n_layers)
        except (CorruptChunkError, NotFoundError) as error:
            logger.warning("scores are not carried over, they will be computed again: %s", error.what)
            continue
        made.append(read_sidecar_record(location, key.key))
    return made


def _carry(
    location: Location,
    sources: Sequence[CarriedRows],
    by_segment: dict[str, SidecarRecord],
    key: ScoreKey,
    n_rows: int,
    n_layers: int,
) -> None:
    writer = SidecarWriter(location, key, n_rows, n_layers)
    try:
        for source in sources:
            for part in _parts(location, by_segment[source.segment_sha256], source, n_layers):
                writer.append(part)
        writer.close()
    finally:
        writer.discard()


def _parts(location: Location, record: SidecarRecord, source: CarriedRows, n_layers: int) -> Iterator[SegmentScores]:
    """Scores of the rows that are taken, one row group of the old sidecar at a time."""
    with open_sidecar(location, record.score_key) as (_, file):
        begin = 0
        for group in range(file.metadata.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            low, high = np.searchsorted(source.rows, [begin, end])
            if low < high:
                table = file.read_row_group(group, columns=["score", "projections"])
                rows = source.rows[low:high] - begin
                scores = table.column("score").to_numpy()[rows]
                lists = table.column("projections").combine_chunks()
                projections = lists.flatten().to_numpy().reshape(-1, n_layers)[rows]
                if source.blank is not None:
                    blank = source.blank[low:high]
                    scores[blank] = 0
                    projections[blank] = 0
                yield SegmentScores(scores, projections)
            begin = end
