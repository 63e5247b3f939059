"""Score sidecars: what a scan found, kept so that it is never computed again.

One Parquet file per (segment, directions, feature, metric), named after the digest of its :class:`ScoreKey`, which
also stands in its metadata. It is a cache: a file that cannot be trusted is reported, ignored and written anew.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from nait_store.activations.reader import SegmentReader
from nait_store.errors import CorruptChunkError, NotFoundError, ReadOnlyError
from nait_store.schemas.scores import ScoreKey, scores_schema
from nait_store.scoring.scan import SegmentScores
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile

logger = logging.getLogger(__name__)

KEY_METADATA = b"nait_store.score_key"
SCORE_COLUMNS = ("row_index", "score")
_ROW_GROUP_BYTES = 1 << 20


class ScoreSidecars:
    """Every kept score of a store.

    Where the store cannot be written, scores are kept by this object, so whoever reads them afterwards must hold on
    to it: a query session has one for its lifetime. Row indices and scores only, then; no projections.

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
        self._memory: dict[str, pa.Table] = {}
        self._valid: set[str] = set()

    @staticmethod
    def key(segment: SegmentReader, target: ScoringTarget) -> ScoreKey:
        """What a sidecar's content is a function of."""
        return ScoreKey(
            segment_sha256=segment.record_sha256,
            directions_sha256=target.directions_sha256,
            feature=target.feature,
            metric=target.metric,
        )

    def exists(self, segment: SegmentReader, target: ScoringTarget) -> bool:
        """Whether the scores are there, judging by the file's metadata; a bad file is logged and counts as absent."""
        key = self.key(segment, target)
        if key.key in self._valid:
            return True
        path = layout.score_sidecar(key.key)
        if not self._location.is_file(path):
            return False
        try:
            with self._open(key, segment, target):
                self._valid.add(key.key)
                return True
        except (CorruptChunkError, NotFoundError) as error:
            logger.warning("ignoring a score sidecar, its scores will be computed again: %s", error)
            return False

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
            These scores, or a column of this name, are not there.
        CorruptChunkError
            The file is damaged; it counts as absent from now on, so computing and reading again mends it.
        ReadOnlyError
            Projections are wanted and the store could not be written, so that only scores were kept.
        """
        check_columns(columns)
        key = self.key(segment, target)
        kept = self._memory.get(key.key)
        if kept is not None:
            if "projections" in columns:
                raise ReadOnlyError(
                    f"projections are not kept: {self._location.url} cannot be written",
                    next_step="copy the store to a folder that you can write",
                )
            return kept.select(list(columns))
        try:
            with self._open(key, segment, target) as file:
                return file.read(columns=list(columns)).select(list(columns)).replace_schema_metadata(None)
        except NotFoundError:
            self._valid.discard(key.key)
            raise
        except CorruptChunkError:
            self._valid.discard(key.key)
            self._discard(key)
            raise

    def write(self, segment: SegmentReader, target: ScoringTarget, scores: SegmentScores) -> None:
        """Keep a whole segment's scores; on a store that cannot be written, in memory."""
        with self.writing(segment, target) as writer:
            writer.append(scores)

    @contextlib.contextmanager
    def writing(self, segment: SegmentReader, target: ScoringTarget) -> Iterator[SidecarWriter]:
        """Write a segment's scores range by range; they are kept if the block ends normally and has all rows."""
        writer = self.open_writer(segment, target)
        try:
            yield writer
            writer.close()
        finally:
            writer.discard()

    def open_writer(self, segment: SegmentReader, target: ScoringTarget) -> SidecarWriter:
        """As :meth:`writing`; the caller calls ``close`` or ``discard``."""
        key = self.key(segment, target)

        def keep(table: pa.Table | None) -> None:
            if table is not None:
                self._memory[key.key] = table
            self._valid.add(key.key)

        try:
            file = PendingFile(self._location, layout.score_sidecar(key.key), durable=False)
        except ReadOnlyError as error:
            if not self._in_memory:
                raise
            logger.info("scores are kept in memory only: %s", error.what)
            file = None
        return SidecarWriter(file, key, segment.n_rows, len(target.layers), keep)

    def _discard(self, key: ScoreKey) -> None:
        path = layout.score_sidecar(key.key)
        try:
            self._location.delete(path)
        except ReadOnlyError:
            logger.warning("a damaged score sidecar cannot be removed: %s", self._location.url_of(path))

    @contextlib.contextmanager
    def _open(self, key: ScoreKey, segment: SegmentReader, target: ScoringTarget) -> Iterator[pq.ParquetFile]:
        """Open a sidecar that is what its name says, translating whatever is wrong with it."""
        path = layout.score_sidecar(key.key)
        url = self._location.url_of(path)
        with self._location.open_read(path) as handle:
            try:
                with pq.ParquetFile(handle, page_checksum_verification=True) as file:
                    schema = file.schema_arrow
                    problem = None
                    if _stored_key(schema) != key:
                        problem = "holds other scores than its name says"
                    elif file.metadata.num_rows != segment.n_rows:
                        problem = f"has {file.metadata.num_rows:,} rows, its segment has {segment.n_rows:,}"
                    elif not schema.remove_metadata().equals(scores_schema(len(target.layers))):
                        problem = f"has the columns {', '.join(f'{f.name} {f.type}' for f in schema)}"
                    if problem is not None:
                        raise CorruptChunkError(f"{url} {problem}")
                    yield file
            except (pa.ArrowException, OSError) as error:
                raise CorruptChunkError(
                    f"{url} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                    next_step="run the same command again: the scores are computed anew",
                ) from error


class SidecarWriter:
    """Writes one sidecar in row groups of about a megabyte.

    Parameters
    ----------
    file
        Where to; None to keep row indices and scores in memory.
    key
        Stands in the file's metadata.
    n_rows
        Of the segment.
    n_layers
        L of the target.
    keep
        Told when the sidecar is whole, with the table where there is no file.
    """

    def __init__(
        self,
        file: PendingFile | None,
        key: ScoreKey,
        n_rows: int,
        n_layers: int,
        keep: Callable[[pa.Table | None], None],
    ) -> None:
        self._n_rows = n_rows
        self._n_written = 0
        self._schema = scores_schema(n_layers)
        self._group_rows = max(1024, _ROW_GROUP_BYTES // (16 + 4 * n_layers))
        self._waiting: list[SegmentScores] = []
        self._n_waiting = 0
        self._tables: list[pa.Table] = []
        self._keep = keep
        self._file = file
        if file is not None:
            self._parquet = pq.ParquetWriter(
                file.handle,
                self._schema.with_metadata({KEY_METADATA: key.to_json_bytes().rstrip()}),
                compression="none",
                use_dictionary=False,
                write_page_checksum=True,
                write_statistics=["row_index", "score"],
            )

    def append(self, scores: SegmentScores) -> None:
        """Add the next rows."""
        self._waiting.append(scores)
        self._n_waiting += len(scores.scores)
        if self._n_waiting >= self._group_rows:
            self._flush()

    def close(self) -> None:
        """Put the sidecar in its place."""
        self._flush()
        if self._n_written != self._n_rows:
            raise ValueError(f"{self._n_written} of the segment's {self._n_rows} rows were scored")
        if self._file is None:
            self._keep(pa.concat_tables(self._tables))
            return
        with self._file.errors():
            self._parquet.close()
        self._file.publish()
        self._file = None
        self._keep(None)

    def discard(self) -> None:
        """Leave nothing behind; nothing happens after :meth:`close`."""
        if self._file is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._parquet.close()
            self._file.discard()
            self._file = None

    def _flush(self) -> None:
        if not self._waiting:
            return
        index = np.arange(self._n_written, self._n_written + self._n_waiting, dtype=np.int64)
        scores = np.concatenate([part.scores for part in self._waiting])
        if self._file is None:
            fields = [self._schema.field(name) for name in SCORE_COLUMNS]
            self._tables.append(pa.table([pa.array(index), pa.array(scores)], schema=pa.schema(fields)))
        else:
            projections = pa.array(np.concatenate([part.projections for part in self._waiting]).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(projections, type=self._schema.field("projections").type)
            table = pa.table([pa.array(index), pa.array(scores), lists], schema=self._schema)
            with self._file.errors():
                self._parquet.write_table(table, row_group_size=len(index))
        self._n_written += self._n_waiting
        self._waiting, self._n_waiting = [], 0


def check_columns(columns: Sequence[str]) -> None:
    """Refuse a column that sidecars do not have."""
    known = scores_schema(1).names
    for column in columns:
        if column not in known:
            raise NotFoundError(f"scores have no column {column!r}", next_step=f"they have: {', '.join(known)}")


def _stored_key(schema: pa.Schema) -> ScoreKey | None:
    stored = (schema.metadata or {}).get(KEY_METADATA)
    if stored is None:
        return None
    try:
        return ScoreKey.model_validate_json(stored)
    except ValidationError:
        return None
