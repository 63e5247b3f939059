"""Appending segments to a version: a sample that is there already, or in two of them, is kept once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.changes import Change, Contents
from nait_store.activations.reader import SegmentReader
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.set_version import SetVersion
from nait_store.errors import ConflictError
from nait_store.schemas.activation_set import Operation, SegmentRecord, SegmentRef
from nait_store.storage.location import Location

_MANY_LOOKUPS = 16


class KnownKeys:
    """Keys of the samples of segments, each read once: a writer that lost a race must be quick.

    Parameters
    ----------
    location
        The store's root.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._keys: dict[str, SegmentKeys] = {}  # by segment id; segments are immutable

    def of(self, segment_id: str, opener: Callable[[], SegmentReader]) -> SegmentKeys:
        """Keys of a segment's rows, opened only if it must be read."""
        known = self._keys.get(segment_id)
        if known is None:
            known = self._keys[segment_id] = SegmentKeys.read(opener())
        return known

    def visible(self, version: SetVersion) -> list[SegmentKeys]:
        """Keys of the visible rows of every segment of a version, in the order of its ``refs``."""
        return [holding.keys for holding in self.holdings(version)]

    def holdings(self, version: SetVersion) -> list[Holding]:
        """The same, with the means to open each segment."""
        found = []
        for ref in version.refs:
            opener = partial(version.segment, ref)
            keys = self.of(ref.segment_id, opener)
            found.append(Holding(keys.only(version.visible_mask(ref)), opener))
        return found


@dataclass(frozen=True)
class Holding:
    """A segment that holds samples: the keys of its visible rows, and how to open it."""

    keys: SegmentKeys
    opener: Callable[[], SegmentReader]


@dataclass(frozen=True)
class Addition:
    """A segment to be appended.

    Attributes
    ----------
    record
        Its record.
    blank
        Rows that belong to no version; None where there are none.
    yields
        Whether its rows give way, instead of being refused, where the set holds other content under the same id.
    """

    record: SegmentRecord
    blank: NDArray[np.int64] | None = None
    yields: bool = False


def append_change(
    location: Location,
    name: str,
    keys: KnownKeys,
    current: SetVersion | None,
    next_ordinal: int,
    additions: Sequence[Addition],
    *,
    operation: Operation,
    ingest_ids: Sequence[str],
    message: str,
) -> Change | None:
    """The change that appends segments to a version; None where they would bring nothing new.

    Raises
    ------
    ConflictError
        A sample id stands for two contents.
    """
    referenced = {ref.segment_id for ref in current.refs} if current else set()
    held = HeldSamples(keys.holdings(current) if current else [], n_lookups=len(additions))
    refs: list[SegmentRef] = []
    records: list[SegmentRecord] = []
    hidden: dict[int, NDArray[np.int64]] = {}
    for addition in additions:
        record = addition.record
        if record.segment_id in referenced:
            continue
        reader = SegmentReader(location, record)
        own = keys.of(record.segment_id, partial(_same, reader))
        blank = np.zeros(record.n_rows, dtype=bool)
        if addition.blank is not None:
            blank[addition.blank] = True
        repeated = blank | _repeated(name, reader, own.only(~blank), held, tolerant=addition.yields)
        if repeated.all():
            continue
        ordinal = next_ordinal + len(refs)
        refs.append(
            SegmentRef(
                segment_id=record.segment_id, ordinal=ordinal, n_rows=record.n_rows, record_sha256=record.digest()
            )
        )
        records.append(record)
        if repeated.any():
            hidden[ordinal] = np.flatnonzero(repeated).astype(np.int64)
        held.add(Holding(own.only(~repeated), partial(_same, reader)))
    if not refs:
        return None
    return Change(
        operation=operation,
        contents=Contents.of(records, current),
        message=message,
        added=tuple(refs),
        hidden=hidden,
        ingest_ids=tuple(ingest_ids),
    )


def additions_of(
    records: Sequence[SegmentRecord], yielding: Collection[str], blank: Callable[[str], NDArray[np.int64] | None]
) -> list[Addition]:
    """Additions of segments, some of which give way; ``blank`` tells the blank rows of a segment."""
    return [Addition(r, blank(r.segment_id), r.segment_id in yielding) for r in records]


def _repeated(
    name: str, reader: SegmentReader, keys: SegmentKeys, held: HeldSamples, *, tolerant: bool
) -> NDArray[np.bool_]:
    """Mask over a new segment's rows whose samples are there already."""
    repeated = np.zeros(reader.n_rows, dtype=bool)
    repeated[keys.rows[1:][keys.ids[1:] == keys.ids[:-1]]] = True  # a stable sort: the first row comes first
    for level in held.levels:
        at = level.keys.find(keys.ids)
        found = at >= 0
        differs = found & (keys.contents != level.keys.contents[np.maximum(at, 0)]) if found.any() else found
        if differs.any() and not tolerant:
            first = int(np.flatnonzero(differs)[0])
            opener, other_row = level.place(int(at[first]))
            raise _contradiction(name, reader, int(keys.rows[first]), opener(), other_row)
        repeated[keys.rows[found]] = True
    return repeated


class HeldSamples:
    """The samples of many segments, looked up a few arrays at a time: a commit may bring 100,000 segments.

    Parameters
    ----------
    holdings
        Segments whose visible samples have nothing in common.
    n_lookups
        How many segments will be looked up: a few are not worth putting all keys of a set in order.
    """

    def __init__(self, holdings: Sequence[Holding], *, n_lookups: int) -> None:
        one_by_one = n_lookups < _MANY_LOOKUPS or not holdings
        self._first = [Level.of([h]) for h in holdings] if one_by_one else [Level.of(holdings)]
        self._added: list[Level] = []

    @property
    def levels(self) -> list[Level]:
        """Sorted keys, each of one or more segments."""
        return [*self._first, *self._added]

    def add(self, holding: Holding) -> None:
        """Add a segment; levels of like size become one, so there are never many, and each key moves seldom."""
        self._added.append(Level.of([holding]))
        while len(self._added) > 1 and len(self._added[-2].keys) <= 2 * len(self._added[-1].keys):
            last, before = self._added.pop(), self._added.pop()
            self._added.append(before.joined_with(last))


@dataclass(frozen=True)
class Level:
    """Keys of the samples of some segments in one order.

    Attributes
    ----------
    keys
        Sorted by id; their rows are positions in the keys of the segments, one after the other.
    holdings
        The segments.
    starts
        Where the keys of each segment begin among all of them.
    """

    keys: SegmentKeys
    holdings: tuple[Holding, ...]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, holdings: Sequence[Holding]) -> Level:
        """Put the keys of segments in one order."""
        if len(holdings) == 1:  # in order already, and large sets have many that need no copy
            keys = holdings[0].keys
            keys = SegmentKeys(keys.ids, keys.contents, np.arange(len(keys), dtype=np.int32))
            return cls(keys, tuple(holdings), np.zeros(1, np.int64))
        ids = np.concatenate([holding.keys.ids for holding in holdings])
        contents = np.concatenate([holding.keys.contents for holding in holdings])
        ends = np.cumsum([len(holding.keys) for holding in holdings])
        return cls(_sorted(ids, contents, np.arange(len(ids))), tuple(holdings), np.concatenate([[0], ends[:-1]]))

    def joined_with(self, other: Level) -> Level:
        """One level of both."""
        ids = np.concatenate([self.keys.ids, other.keys.ids])
        contents = np.concatenate([self.keys.contents, other.keys.contents])
        positions = np.concatenate([self.keys.rows, other.keys.rows + len(self.keys)])
        starts = np.concatenate([self.starts, other.starts + len(self.keys)])
        return Level(_sorted(ids, contents, positions), (*self.holdings, *other.holdings), starts)

    def place(self, entry: int) -> tuple[Callable[[], SegmentReader], int]:
        """Say which segment an entry of :attr:`keys` is of, and which row of it."""
        position = int(self.keys.rows[entry])
        source = int(np.searchsorted(self.starts, position, side="right")) - 1
        holding = self.holdings[source]
        return holding.opener, int(holding.keys.rows[position - int(self.starts[source])])


def _sorted(ids: NDArray[np.bytes_], contents: NDArray[np.bytes_], positions: NDArray[np.integer]) -> SegmentKeys:
    order = np.argsort(ids, kind="stable")  # quick where parts are in order already
    return SegmentKeys(ids[order], contents[order], positions[order].astype(np.int32))


def _same(reader: SegmentReader) -> SegmentReader:
    return reader


def _contradiction(name: str, new: SegmentReader, row: int, old: SegmentReader, old_row: int) -> ConflictError:
    places = []
    for reader, index in ((old, old_row), (new, row)):
        sample = reader.samples(["sample_id", "source_uri", "source_index"]).slice(index, 1).to_pylist()[0]
        places.append(f"{sample['source_uri']} record {sample['source_index']}")
    return ConflictError(
        f"sample {sample['sample_id']!r} has one text in set {name!r} (from {places[0]}) and another in {places[1]}",
        next_step="give one of the two another id, or ingest into another set",
    )
