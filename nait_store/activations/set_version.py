"""One immutable version of an activation set."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.tombstones import Tombstones, merge_tombstones, read_tombstones
from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.schemas.activation_set import ROW_BITS, SegmentRef, SetManifest, SetRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.samples import SAMPLE_FIELDS
from nait_store.storage.location import Location

_OPENED_AT_ONCE = 16  # over a network, where each waits for an answer
_BASE_COLUMNS = tuple(f.name for f in SAMPLE_FIELDS)


class SetVersion:
    """An immutable version of an activation set: which rows of which segments it consists of.

    Opened by :meth:`ActivationSets.open`. Segment records, tombstones and arrays are read when first asked for.

    Parameters
    ----------
    location
        The store's root.
    record
        ``set.json``.
    manifest
        The version's document.
    refs
        Every segment of the version, by ascending ordinal; replacements have taken their places.
    blank
        Rows of replacements that belong to no version: segment ordinal → ascending row indices.
    n_redirects
        Redirects of the set that were followed, whether they concern this version or not.
    verify
        Hash every file that is read.

    Attributes
    ----------
    record, manifest, refs
        As given.
    """

    def __init__(
        self,
        location: Location,
        record: SetRecord,
        manifest: SetManifest,
        refs: tuple[SegmentRef, ...],
        *,
        blank: Tombstones = MappingProxyType({}),
        n_redirects: int = 0,
        verify: bool = False,
    ) -> None:
        self.record = record
        self.manifest = manifest
        self.refs = refs
        self._location = location
        self._blank = blank
        self._n_redirects = n_redirects
        self._verify = verify

    def __repr__(self) -> str:
        return f"SetVersion({self.reference!r}, n_samples={self.n_samples:,})"

    @property
    def name(self) -> str:
        """Name of the set."""
        return self.manifest.set_name

    @property
    def number(self) -> int:
        """Version number, from 1."""
        return self.manifest.number

    @property
    def reference(self) -> str:
        """Resolved reference, ``pool@3``."""
        return f"{self.name}@{self.number}"

    @property
    def model_label(self) -> str | None:
        """The model and what was done to it, for people; None where the version has no segment that says it."""
        return self.segments[0].record.environment.model_label if self.segments else None

    @property
    def state(self) -> str:
        """What to remember under what was made of the version: after a purge or a repair it is another."""
        return f"{self.reference} after {self._n_redirects} redirects" if self._n_redirects else self.reference

    @cached_property
    def n_samples(self) -> int:
        """Visible samples."""
        if not self._blank:
            return self.manifest.n_samples
        return sum(ref.n_rows for ref in self.refs) - sum(map(len, self._tombstones.values()))

    @cached_property
    def segments(self) -> list[SegmentReader]:
        """A reader of every segment, by ascending ordinal."""
        if not self._location.is_remote or len(self.refs) < 2:
            return [self.segment(ref) for ref in self.refs]
        with ThreadPoolExecutor(min(_OPENED_AT_ONCE, len(self.refs)), thread_name_prefix="nait-open") as pool:
            return list(pool.map(self.segment, self.refs))

    def segment(self, ref: SegmentRef) -> SegmentReader:
        """Open one of the version's segments."""
        record = read_segment_record(self._location, self.name, ref)
        return SegmentReader(self._location, record, ref, verify=self._verify)

    @property
    def features(self) -> tuple[Feature, ...]:
        """Features that every segment stores."""
        return self.manifest.features

    @property
    def layers(self) -> tuple[int, ...]:
        """Zero-based decoder layers that every segment stores, ascending."""
        return self.manifest.layers

    def require(self, features: Sequence[Feature], layers: Sequence[int] | None = None) -> None:
        """Check that every sample has these features, and these layers where given.

        Raises
        ------
        NotFoundError
            Naming what is missing and what is there.
        """
        missing = [f for f in features if f not in self.features]
        if missing:
            stored = ", ".join(f.value for f in self.features) or "none that all its segments share"
            raise NotFoundError(
                f"set {self.reference} does not store the feature {', '.join(Feature(f).value for f in missing)}",
                next_step="it keeps projections in the place of activations (--keep-features none); ingest the samples "
                "into a set that keeps them"
                if self.record.projections
                else f"it stores: {stored}; ingest into a new set with --features to get others",
            )
        absent = sorted(set(layers or ()) - set(self.layers))
        if absent:
            raise NotFoundError(
                f"set {self.reference} does not store layer {', '.join(map(str, absent))}",
                next_step=f"it stores the layers {', '.join(map(str, self.layers)) or '(none in common)'}",
            )

    def tombstones(self) -> dict[int, NDArray[np.int64]]:
        """Rows left out: segment ordinal → ascending row indices."""
        return self._tombstones

    def visible_rows(self, segment: SegmentReader) -> NDArray[np.bool_] | None:
        """Mask of a segment's rows that belong to this version, [n]; None where all do."""
        return None if segment.ref is None else self.visible_mask(segment.ref)

    def visible_mask(self, ref: SegmentRef) -> NDArray[np.bool_] | None:
        """As :meth:`visible_rows`, without opening the segment."""
        hidden = self._tombstones.get(ref.ordinal)
        if hidden is None:
            return None
        mask = np.ones(ref.n_rows, dtype=bool)
        mask[hidden] = False
        return mask

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Visible samples in (ordinal, row) order, with ``row_id`` as the first column.

        Parameters
        ----------
        columns
            Of the columns that every segment has (``sample_id``, ``record``, ``n_tokens`` …); all if omitted.
            User fields differ between segments and are read through SQL.

        Raises
        ------
        NotFoundError
            An unknown column.
        """
        wanted = _BASE_COLUMNS if columns is None else tuple(columns)
        for column in wanted:
            if column not in _BASE_COLUMNS:
                raise NotFoundError(
                    f"samples have no column {column!r} in common", next_step=did_you_mean(column, _BASE_COLUMNS)
                )
        schema = pa.schema(
            [pa.field("row_id", pa.int64(), nullable=False)] + [f for f in SAMPLE_FIELDS if f.name in wanted]
        )
        tables = []
        for segment in self.segments:
            ids = self.row_id(segment.ordinal, 0) + np.arange(segment.n_rows, dtype=np.int64)
            table = segment.samples(wanted).add_column(0, "row_id", pa.array(ids))
            mask = self.visible_rows(segment)
            tables.append(table if mask is None else table.filter(pa.array(mask)))
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        return table.select(["row_id", *wanted])

    def sample_ids(self) -> list[str]:
        """Visible sample ids in (ordinal, row) order."""
        ids: list[str] = self.samples(["sample_id"]).column("sample_id").to_pylist()
        return ids

    @staticmethod
    def row_id(ordinal: int, row: int) -> int:
        """Identifier of a row within the set, never reused: ordinal · 2^40 + row."""
        return (ordinal << ROW_BITS) | row

    def segment_of(self, row_id: int) -> tuple[SegmentReader, int]:
        """Return the segment and the row that a ``row_id`` stands for."""
        ordinal, row = row_id >> ROW_BITS, row_id & ((1 << ROW_BITS) - 1)
        for segment in self.segments:
            if segment.ordinal == ordinal and row < segment.n_rows:
                return segment, row
        raise InvalidInputError(f"set {self.reference} has no row {row_id}")

    @cached_property
    def _tombstones(self) -> dict[int, NDArray[np.int64]]:
        written = read_tombstones(self._location, self.name, self.manifest.tombstones)
        return merge_tombstones(written, self._blank) if self._blank else written
