"""SQL that reads the samples of one set version from its segments' Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.activations.chunks import SAMPLES_FILE
from nait_store.activations.reader import SegmentReader
from nait_store.activations.versions import SetVersion
from nait_store.errors import CorruptChunkError
from nait_store.query.spelling import identifier, literal, without_wildcards
from nait_store.schemas.activation_set import ROW_BITS
from nait_store.schemas.samples import USER_FIELD_PREFIX, FieldType, sql_column_name
from nait_store.storage import layout
from nait_store.storage.location import Location

_SQL_TYPES: dict[FieldType, str] = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "json": "VARCHAR",
}
_TRAILING = ("n_tokens", "n_content_tokens", "truncated", "content_hash", "source_uri", "source_index")
BASE_COLUMNS = {
    "sample_id": "VARCHAR",
    "n_tokens": "INTEGER",
    "n_content_tokens": "INTEGER",
    "truncated": "BOOLEAN",
    "content_hash": "VARCHAR",
    "source_uri": "VARCHAR",
    "source_index": "BIGINT",
    "row_id": "BIGINT",
    "record": "VARCHAR",
}
"""Columns that the samples of every set have, and their types in SQL."""

_HIDDEN_LISTED = 500
_PARTS_LISTED = 16
_FETCHED_AT_ONCE = 16


@dataclass(frozen=True)
class UserColumn:
    """A user field as a column: its name in SQL, its name in the records, its type over all segments."""

    name: str
    user_field: str
    sql_type: str


@dataclass
class _Group:
    """Segments whose files can be read as one table."""

    fields: Mapping[str, FieldType]
    positions: Sequence[str] | None
    """Stored column names by position, where names alone are ambiguous to DuckDB."""
    segments: list[SegmentReader] = field(default_factory=list)


class SampleRelation:
    """The samples of one set version as SQL.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version.
    path_of
        Where the reader finds a segment's ``samples.parquet``.

    Attributes
    ----------
    user_columns
        The user's fields in the order of their first appearance.
    """

    def __init__(
        self,
        location: Location,
        version: SetVersion,
        path_of: Callable[[SegmentReader], str] = SegmentReader.samples_path,
    ) -> None:
        self._location = location
        self._version = version
        self._path_of = path_of
        self._groups = self._group()
        self.user_columns = _user_columns(self._stored_fields(), [group.fields for group in self._groups])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return ("sample_id", *(column.name for column in self.user_columns), *_TRAILING, "row_id", "record")

    def sql(
        self, rows: Mapping[int, NDArray[np.int64]] | None = None, *, columns: Collection[str] | None = None
    ) -> str:
        """Spell a query that gives the samples.

        Parameters
        ----------
        rows
            Segment ordinal → rows to give, a few of them; all visible ones if omitted. The rows named must be visible.
        columns
            Those to give; all of them if omitted.

        Returns
        -------
        str
            A query whose columns are :attr:`columns`, or those asked for, in the same order.
        """
        wanted = self.columns if columns is None else [name for name in self.columns if name in columns]
        if rows is None:
            parts = [self._select(wanted, group, segments, hidden) for group, segments, hidden in self._visible_parts()]
        else:
            # One file each, so that the row groups without wanted rows are skipped by their statistics.
            parts = [
                self._select(wanted, group, [segment], _among("p.row_index IN", rows[segment.ordinal]))
                for group in self._groups
                for segment in group.segments
                if len(rows.get(segment.ordinal, ()))
            ]
        return "\nUNION ALL\n".join(parts) if parts else self._empty(wanted)

    def files(self) -> list[str]:
        """Paths or URLs of the Parquet files that :meth:`sql` reads."""
        return [path for group in self._groups for path in self._paths(group.segments)]

    def _visible_parts(self) -> Iterable[tuple[_Group, list[SegmentReader], str]]:
        hidden = self._version.tombstones()
        for group in self._groups:
            whole = [s for s in group.segments if s.ordinal not in hidden]
            if whole:
                yield group, whole, ""
            partly = [s for s in group.segments if s.ordinal in hidden]
            if len(partly) > _PARTS_LISTED:
                # Thousands of branches would take longer to plan than to run.
                rows = np.concatenate([(s.ordinal << ROW_BITS) | hidden[s.ordinal] for s in partly])
                yield group, partly, f"{row_id_sql(partly)} NOT IN {_listed(rows)}"
                continue
            for segment in partly:
                yield group, [segment], _not_in(hidden[segment.ordinal])

    def _select(self, wanted: Collection[str], group: _Group, segments: Sequence[SegmentReader], condition: str) -> str:
        stored = set(group.fields)
        values = {name: f"p.{name}" for name in ("sample_id", *_TRAILING, "record")}
        values["row_id"] = f"{row_id_sql(segments)} AS row_id"
        for column in self.user_columns:
            if column.user_field in stored:
                reference = identifier(USER_FIELD_PREFIX + column.user_field)
                value = f"CAST(p.{reference} AS {column.sql_type})"
                if _SQL_TYPES[group.fields[column.user_field]] == column.sql_type:
                    value = f"p.{reference}"
            else:
                value = f"CAST(NULL AS {column.sql_type})"
            values[column.name] = f"{value} AS {identifier(column.name)}"
        items = [values[name] for name in wanted]
        alias = "p"
        if group.positions is not None:
            names = (identifier(name) for name in _unambiguous(group.positions))
            alias = f"p({', '.join(names)})"
            items = [self._by_position(item, group.positions) for item in items]
        source = f"{parquet_sql(self._paths(segments))} {alias}"
        return f"SELECT {', '.join(items)} FROM {source}" + (f" WHERE {condition}" if condition else "")

    @staticmethod
    def _by_position(item: str, positions: Sequence[str]) -> str:
        for stored, unique in zip(positions, _unambiguous(positions), strict=True):
            if stored != unique:
                item = item.replace(f"p.{identifier(stored)}", f"p.{identifier(unique)}")
        return item

    def _empty(self, wanted: Iterable[str]) -> str:
        types = BASE_COLUMNS | {column.name: column.sql_type for column in self.user_columns}
        items = ", ".join(f"CAST(NULL AS {types[name]}) AS {identifier(name)}" for name in wanted)
        return f"SELECT {items} WHERE false"

    def _paths(self, segments: Sequence[SegmentReader]) -> list[str]:
        if len(segments) < 2 or not segments[0].is_remote:
            return [self._path_of(segment) for segment in segments]
        with ThreadPoolExecutor(min(_FETCHED_AT_ONCE, len(segments)), thread_name_prefix="nait-samples") as pool:
            return list(pool.map(self._path_of, segments))

    def _group(self) -> list[_Group]:
        groups: dict[object, _Group] = {}
        for segment in self._version.segments:
            fields = segment.record.user_fields
            ambiguous = len({name.lower() for name in fields}) < len(fields)
            positions = self._stored_columns(segment) if ambiguous else None
            key = (tuple(sorted(fields.items())), positions)
            groups.setdefault(key, _Group(fields, positions)).segments.append(segment)
        return list(groups.values())

    def _stored_fields(self) -> list[str]:
        """Names of the user's fields in the order of their first appearance; records keep them sorted."""
        found: dict[str, None] = {}
        for group in self._groups:
            stored = group.positions or self._stored_columns(group.segments[0])
            prefix = USER_FIELD_PREFIX
            found.update(dict.fromkeys(n.removeprefix(prefix) for n in stored if n.startswith(prefix)))
        return list(found)

    def _stored_columns(self, segment: SegmentReader) -> tuple[str, ...]:
        path = f"{layout.segment_folder(self._version.name, segment.segment_id)}/{SAMPLES_FILE}"
        try:
            with self._location.open_read(path) as handle:
                return tuple(pq.read_schema(handle).names)
        except FileNotFoundError as error:
            raise CorruptChunkError(f"{self._location.url_of(path)} is missing") from error
        except (pa.ArrowException, OSError) as error:
            raise CorruptChunkError(
                f"{self._location.url_of(path)} cannot be read as Parquet: {error}",
                next_step="run 'nait-store verify' to see what else is damaged",
            ) from error


def _user_columns(stored: Sequence[str], groups: Sequence[Mapping[str, FieldType]]) -> tuple[UserColumn, ...]:
    taken = {"sample_id", "row_id", "record", *_TRAILING}
    columns = []
    for user_field in stored:
        kinds = {group[user_field] for group in groups if user_field in group}
        kind: FieldType = kinds.pop() if len(kinds) == 1 else "double" if kinds == {"int64", "double"} else "string"
        name = base = sql_column_name(user_field)
        number = 2
        # DuckDB compares column names without regard to case; 'Text' beside 'text' becomes 'Text_2'.
        while name.lower() in taken:
            name = f"{base}_{number}"
            number += 1
        taken.add(name.lower())
        columns.append(UserColumn(name, user_field, _SQL_TYPES[kind]))
    return tuple(columns)


def _unambiguous(stored: Sequence[str]) -> list[str]:
    """Names for the columns of a file of which some differ in case only."""
    lowered = [name.lower() for name in stored]
    return [f"{i}:{name}" if lowered.count(name.lower()) > 1 else name for i, name in enumerate(stored)]


def row_id_sql(segments: Sequence[SegmentReader]) -> str:
    """``row_id`` of a row that was read, under the alias ``p``, from one Parquet file for each of these segments."""
    return f"((({_ordinal(segments)}) << {ROW_BITS}) | p.row_index)"


def parquet_sql(paths: Iterable[str]) -> str:
    """Spell a table function that reads these files, of which no character is a wildcard."""
    files = ", ".join(literal(without_wildcards(path)) for path in paths)
    return f"read_parquet([{files}], hive_partitioning = false)"


def _ordinal(segments: Sequence[SegmentReader]) -> str:
    ordinals = [segment.ordinal for segment in segments]
    if len(ordinals) == 1:
        return f"{ordinals[0]}::BIGINT"
    if ordinals == list(range(ordinals[0], ordinals[0] + len(ordinals))):
        return f"p.file_index::BIGINT + {ordinals[0]}"
    return f"list_extract({ordinals}::BIGINT[], p.file_index::BIGINT + 1)"


def _not_in(hidden: NDArray[np.int64]) -> str:
    if len(hidden) <= _HIDDEN_LISTED:
        return _among("p.row_index NOT IN", hidden)
    return f"p.row_index NOT IN {_listed(hidden)}"


def _listed(rows: NDArray[np.int64]) -> str:
    # As a subquery a long list is hashed instead of compared item by item; as one text it is read at once, while
    # numbers would each become a node of the syntax tree, to be parsed and bound anew in every query.
    return f"(SELECT unnest('{rows.tolist()}'::BIGINT[]))"


def _among(test: str, rows: NDArray[np.int64]) -> str:
    return f"{test} ({', '.join(map(str, rows.tolist()))})"
