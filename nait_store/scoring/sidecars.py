"""Score sidecars: what a scan found, kept so that it is never computed again.

One Parquet file and one record per (segment, directions, feature, metric), named after the digest of its
:class:`ScoreKey`. It is a cache: a sidecar that cannot be trusted is reported, ignored and written anew.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from nait_store.activations.reader import SegmentReader
from nait_store.errors import CorruptChunkError, NotFoundError, ReadOnlyError
from nait_store.schemas.scores import ScoreKey, scores_schema
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.memory_sidecars import MemorySidecars, MemoryWriter
from nait_store.scoring.sidecar_files import SidecarWriter, delete_sidecar, open_sidecar
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage import layout
from nait_store.storage.location import Location

logger = logging.getLogger(__name__)

SCORE_COLUMNS = ("row_index", "score")
_LISTED_FROM = 16


class RecordedSegment(Protocol):
    """A segment as far as keys go: its reader, or its name in a manifest."""

    @property
    def record_sha256(self) -> str:
        """Digest of its record."""


class ScoreSidecars:
    """Every kept score of a store.

    Where the store cannot be written, scores are kept by this object, so whoever reads them afterwards must hold on
    to it: a query session has one for its lifetime. What that takes of memory is said by
    :class:`~nait_store.scoring.memory_sidecars.MemorySidecars`.

    Parameters
    ----------
    location
        The store's root.
    in_memory
        Whether to do that; otherwise writing raises ReadOnlyError there.
    """

    def __init__(self, location: Location, *, in_memory: bool = True) -> None:
        self._location = location
        self._in_memory = in_memory
        self._memory = MemorySidecars()
        self._known: set[str] = set()

    @staticmethod
    def key(segment: RecordedSegment, target: ScoringTarget) -> ScoreKey:
        """What a sidecar's content is a function of."""
        return ScoreKey(
            segment_sha256=segment.record_sha256,
            directions_sha256=target.directions_sha256,
            feature=target.feature,
            metric=target.metric,
        )

    def exists(self, segment: RecordedSegment, target: ScoringTarget) -> bool:
        """Whether the scores are there; see :meth:`existing`."""
        return self.existing([(segment, target)])[0]

    def existing(self, pairs: Sequence[tuple[RecordedSegment, ScoringTarget]]) -> list[bool]:
        """Tell of each pair whether its scores are there, judging by the presence of the record alone.

        Nothing is opened, and many pairs cost one listing, so that thousands can be asked for. Damage shows when
        the scores are read, and :func:`~nait_store.scoring.completion.read_scores` mends it.
        """
        keys = [self.key(segment, target).key for segment, target in pairs]
        unknown = {key for key in keys if key not in self._known and key not in self._memory}
        if len(unknown) < _LISTED_FROM:
            self._known |= {key for key in unknown if self._location.is_file(layout.score_record(key))}
        else:
            names = set(self._location.names(layout.SCORES))
            self._known |= {key for key in unknown if f"{key}.json" in names}
        return [key in self._known or key in self._memory for key in keys]

    def read(self, segment: SegmentReader, target: ScoringTarget, columns: Sequence[str] = SCORE_COLUMNS) -> pa.Table:
        """Read some columns of a segment's scores under a target.

        Parameters
        ----------
        segment, target
            Whose scores; :func:`ensure_scores` has computed them.
        columns
            Of ``row_index``, ``score`` and ``projections`` (a fixed-size list of the target's L terms).

        Returns
        -------
        pyarrow.Table
            Every row of the segment in order, tombstoned ones included.

        Raises
        ------
        NotFoundError
            These scores, or a column of this name, are not there; or they are kept in memory, where projections are
            dropped beyond a limit. :func:`~nait_store.scoring.completion.read_scores` computes them again.
        CorruptChunkError
            A file is damaged; the sidecar is gone afterwards, so computing and reading again mends it.
        """
        check_columns(columns)
        key = self.key(segment, target)
        if key.key in self._memory:
            return self._memory.read(key.key, columns)
        try:
            with open_sidecar(self._location, key) as (record, file):
                if (record.n_rows, record.n_layers) != (segment.n_rows, len(target.layers)):
                    raise CorruptChunkError(
                        f"{self._location.url_of(layout.score_record(key.key))} is about {record.n_rows:,} rows and "
                        f"{record.n_layers} layers instead of {segment.n_rows:,} and {len(target.layers)}"
                    )
                return file.read(columns=list(columns)).select(list(columns)).replace_schema_metadata(None)
        except NotFoundError:
            self._known.discard(key.key)
            raise
        except CorruptChunkError:
            self._known.discard(key.key)
            self._discard(key)
            raise

    def write(self, segment: SegmentReader, target: ScoringTarget, scores: SegmentScores) -> None:
        """Keep a whole segment's scores; on a store that cannot be written, in memory."""
        with self.writing(segment, target) as writer:
            writer.append(scores)

    @contextlib.contextmanager
    def writing(self, segment: SegmentReader, target: ScoringTarget) -> Iterator[SidecarWriter | MemoryWriter]:
        """Write a segment's scores range by range; they are kept if the block ends normally and has all rows."""
        writer = self.open_writer(segment, target)
        try:
            yield writer
            writer.close()
        finally:
            writer.discard()

    def open_writer(self, segment: SegmentReader, target: ScoringTarget) -> SidecarWriter | MemoryWriter:
        """As :meth:`writing`; the caller calls ``close`` or ``discard``."""
        key = self.key(segment, target)
        try:
            return SidecarWriter(self._location, key, segment.n_rows, len(target.layers))
        except ReadOnlyError as error:
            if not self._in_memory:
                raise
            logger.info("scores are kept in memory only: %s", error.what)
            return self._memory.open_writer(key.key, segment.n_rows, len(target.layers))

    def _discard(self, key: ScoreKey) -> None:
        try:
            delete_sidecar(self._location, key.key)
        except ReadOnlyError:
            logger.warning(
                "a damaged score sidecar cannot be removed: %s",
                self._location.url_of(layout.score_sidecar(key.key)),
            )


def check_columns(columns: Sequence[str]) -> None:
    """Refuse a column that sidecars do not have."""
    known = scores_schema(1).names
    for column in columns:
        if column not in known:
            raise NotFoundError(f"scores have no column {column!r}", next_step=f"they have: {', '.join(known)}")
