"""The two files of a score sidecar: the Parquet, and the record that says that it is whole."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from nait_store.errors import CorruptChunkError, FormatError, NotFoundError
from nait_store.schemas.record import FileDigest
from nait_store.schemas.scores import ScoreKey, SidecarRecord, scores_schema
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.storage import layout
from nait_store.storage.digests import HashedFile, sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.object_cache import object_cache
from nait_store.storage.pending import PendingFile

KEY_METADATA = b"nait_store.score_key"
_ROW_GROUP_BYTES = 1 << 20
_LENGTH_AND_MAGIC_BYTES = 8
_AGAIN = "run the same command again: the scores are computed anew"


def read_sidecar_record(location: Location, key: str) -> SidecarRecord:
    """Read ``scores/<key>.json``.

    Raises
    ------
    NotFoundError
        There is no such sidecar.
    CorruptChunkError
        The record is damaged, or belongs to other scores.
    """
    path = layout.score_record(key)
    url = location.url_of(path)
    try:
        record = SidecarRecord.from_json_bytes(location.read_bytes(path), url)
    except CorruptChunkError:
        raise
    except FormatError as error:
        raise CorruptChunkError(error.what, next_step=_AGAIN) from error
    if record.key != key:
        raise CorruptChunkError(f"{url} describes other scores than its name says", next_step=_AGAIN)
    return record


@contextlib.contextmanager
def open_sidecar(location: Location, key: ScoreKey) -> Iterator[tuple[SidecarRecord, pq.ParquetFile]]:
    """Open a sidecar that is what its name and its record say; page checksums are verified as pages are read.

    The record holds its own digest and that of the footer, the footer says where the pages lie, and the pages have
    checksums: so no byte that is read goes unchecked, and none is read for the check alone.

    Raises
    ------
    NotFoundError
        One of its two files is missing.
    CorruptChunkError
        They are damaged; also for what goes wrong while the block reads.
    """
    record = read_sidecar_record(location, key.key)
    path = layout.score_sidecar(key.key)
    url = location.url_of(path)
    with _opened(location, path, record) as handle:
        try:
            size_bytes = handle.seek(0, os.SEEK_END)
            if size_bytes != record.size_bytes:
                raise CorruptChunkError(
                    f"{url} has {size_bytes:,} bytes, its record says {record.size_bytes:,}", next_step=_AGAIN
                )
            if not _has_footer(handle, record):
                raise CorruptChunkError(f"{url} differs from the digest in its record", next_step=_AGAIN)
            handle.seek(0)
            # Without Arrow's I/O threads: see open_samples.
            with pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=False) as file:
                schema = file.schema_arrow
                problem = None
                if _stored_key(schema) != key:
                    problem = "holds other scores than its name says"
                elif file.metadata.num_rows != record.n_rows:
                    problem = f"has {file.metadata.num_rows:,} rows, its segment has {record.n_rows:,}"
                elif not schema.remove_metadata().equals(scores_schema(record.n_layers)):
                    problem = f"has the columns {', '.join(f'{f.name} {f.type}' for f in schema)}"
                if problem is not None:
                    raise CorruptChunkError(f"{url} {problem}", next_step=_AGAIN)
                yield record, file
        except (pa.ArrowException, OSError) as error:
            raise CorruptChunkError(
                f"{url} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                next_step=_AGAIN,
            ) from error


def _has_footer(handle: BinaryIO, record: SidecarRecord) -> bool:
    """Whether a file's footer is the one that was written; of records without its digest, whether the whole file is."""
    if record.footer_sha256 is None:
        handle.seek(0)
        return sha256_bytes(handle.read()) == record.sha256
    end = record.size_bytes
    handle.seek(max(0, end - _LENGTH_AND_MAGIC_BYTES))
    n_bytes = _footer_bytes(handle.read())
    handle.seek(max(0, end - n_bytes))
    return n_bytes <= end and sha256_bytes(handle.read()) == record.footer_sha256


def _footer_bytes(end: bytes | bytearray) -> int:
    """Length of the footer of a Parquet file that ends so: metadata, their length in four bytes, and PAR1."""
    return int.from_bytes(end[-8:-4], "little") + _LENGTH_AND_MAGIC_BYTES


def _opened(location: Location, path: str, record: SidecarRecord) -> BinaryIO:
    if not location.is_remote:
        return location.open_read(path)
    file = FileDigest(path=path, size_bytes=record.size_bytes, sha256=record.sha256)
    return io.BytesIO(object_cache().read(location, "", file).data)


def delete_sidecar(location: Location, key: str) -> None:
    """Delete both files of a sidecar, the record first, so that no moment shows a whole one that is not."""
    location.delete(layout.score_record(key))
    location.delete(layout.score_sidecar(key))


class SidecarWriter:
    """Writes one sidecar in row groups of about a megabyte.

    Parameters
    ----------
    location
        The store's root.
    key
        Whose scores.
    n_rows
        Of the segment.
    n_layers
        L of the profile.

    Raises
    ------
    ReadOnlyError
        The store cannot be written.
    StorageError
        The disk is full, or failed.
    """

    def __init__(self, location: Location, key: ScoreKey, n_rows: int, n_layers: int) -> None:
        self._location = location
        self._key = key
        self._n_rows = n_rows
        self._n_layers = n_layers
        self._n_written = 0
        self._schema = scores_schema(n_layers)
        self._group_rows = max(1024, _ROW_GROUP_BYTES // (16 + 4 * n_layers))
        self._waiting: list[SegmentScores] = []
        self._n_waiting = 0
        self._footer_sha256 = ""
        # A cache needs no fsync: readers see what a crash of the machine left of it.
        file = PendingFile(location, layout.score_sidecar(key.key), durable=False)
        self._file: PendingFile | None = file
        self._hashed = HashedFile(file.handle)
        try:
            with file.errors():  # it writes the file's first bytes
                self._parquet = pq.ParquetWriter(
                    self._hashed,
                    self._schema.with_metadata({KEY_METADATA: key.to_json_bytes().rstrip()}),
                    compression="none",
                    use_dictionary=False,
                    write_page_checksum=True,
                    write_statistics=["row_index", "score"],
                )
        except BaseException:
            file.discard()
            raise

    def append(self, scores: SegmentScores) -> None:
        """Add the next rows."""
        self._waiting.append(scores)
        self._n_waiting += len(scores.scores)
        if self._n_waiting >= self._group_rows:
            self._flush()

    def close(self) -> None:
        """Put the sidecar in its place, unless somebody else did so meanwhile."""
        self._flush()
        if self._n_written != self._n_rows:
            raise ValueError(f"{self._n_written} of the segment's {self._n_rows} rows were scored")
        file = self._file
        assert file is not None
        end = self._hashed.keep()
        with file.errors():
            self._parquet.close()
        self._footer_sha256 = sha256_bytes(bytes(end[-_footer_bytes(end) :]))
        if self._is_there():
            self.discard()
            return
        location, key = self._location, self._key
        location.delete(layout.score_record(key.key))  # of a damaged one: it must not vouch for this file
        file.publish()
        self._file = None
        try:
            self._write_record()
        except BaseException:
            location.delete(layout.score_sidecar(key.key))
            raise

    def discard(self) -> None:
        """Leave nothing behind; nothing happens after :meth:`close`."""
        if self._file is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._parquet.close()
            self._file.discard()
            self._file = None

    def _is_there(self) -> bool:
        try:
            with open_sidecar(self._location, self._key):
                return True
        except (CorruptChunkError, NotFoundError):
            return False

    def _write_record(self) -> None:
        record = SidecarRecord(
            **self._key.model_dump(),
            n_rows=self._n_rows,
            n_layers=self._n_layers,
            size_bytes=self._hashed.size_bytes,
            sha256=self._hashed.sha256,
            footer_sha256=self._footer_sha256,
        )
        with PendingFile(self._location, layout.score_record(self._key.key), durable=False) as file:
            with file.errors():
                file.handle.write(record.to_json_bytes())
            file.publish()

    def _flush(self) -> None:
        if not self._waiting or self._file is None:
            return
        index = pa.array(np.arange(self._n_written, self._n_written + self._n_waiting, dtype=np.int64))
        scores = pa.array(np.concatenate([part.scores for part in self._waiting]))
        projections = pa.array(np.concatenate([part.projections for part in self._waiting]).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(projections, type=self._schema.field("projections").type)
        table = pa.table([index, scores, lists], schema=self._schema)
        with self._file.errors():
            self._parquet.write_table(table, row_group_size=len(index))
        self._n_written += self._n_waiting
        self._waiting, self._n_waiting = [], 0


def _stored_key(schema: pa.Schema) -> ScoreKey | None:
    stored = (schema.metadata or {}).get(KEY_METADATA)
    if stored is None:
        return None
    try:
        return ScoreKey.model_validate_json(stored)
    except ValidationError:
        return None
