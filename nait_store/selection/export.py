"""Exporting a selection: the file a training run reads."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.schemas.samples import MAX_USER_FIELDS
from nait_store.selection.choosing import Selection
from nait_store.selection.ranked_records import RankedRecord, RankedRecords
from nait_store.storage.location import Location

_ROWS_PER_GROUP = 8192
# json.dumps would make an encoder for every row.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
# What JSON leaves as it is within a text and some readers of lines, str.splitlines among them, end a line at.
_LINE_ENDS = {ord(one): f"\\u{ord(one):04x}" for one in "\u0085\u2028\u2029"}


class ExportFormat(StrEnum):
    """JSON lines, Parquet, or one sample id a line."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    IDS = "ids"


class Target(Protocol):
    """A file or stream that an export is written to."""

    url: str

    def open(self) -> Any:
        """Context manager that gives a binary stream."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes
    ----------
    url
        Where.
    format
        How.
    n_samples
        Lines or rows.
    score_field, rank_field
        Names under which score and rank stand in the file; None where they do not.
    """

    url: str
    format: ExportFormat
    n_samples: int
    score_field: str | None
    rank_field: str | None


def format_for(url: str, asked: ExportFormat | str | None) -> ExportFormat:
    """Return the asked format, else the one that the file's name ends in, else JSON lines.

    Raises
    ------
    InvalidInputError
        No such format.
    """
    if asked is not None:
        try:
            return ExportFormat(asked)
        except ValueError as error:
            raise InvalidInputError(
                f"{asked!r} is not an export format", next_step=f"use one of {', '.join(ExportFormat)}"
            ) from error
    ending = url.rsplit(".", 1)[-1].lower()
    return {"parquet": ExportFormat.PARQUET, "txt": ExportFormat.IDS, "ids": ExportFormat.IDS}.get(
        ending, ExportFormat.JSONL
    )


def export(
    location: Location,
    version: SetVersion,
    selection: Selection,
    target: Target,
    *,
    format: ExportFormat,  # noqa: A002  (the option's name on the command line and in Python)
    clean: bool = False,
) -> ExportReport:
    """Write a selection in rank order: every original field, then score and rank.

    A field of the user's that is called ``score`` or ``rank`` keeps its name and value; ours are then called
    ``nait_score`` and ``nait_rank``. Without a profile there is no score field. Records are streamed: memory does
    not grow with their size.

    Parameters
    ----------
    location
        The store's root.
    version
        The set version that was selected from.
    selection
        What to write.
    target
        A :class:`~nait_store.selection.destination.Destination` or stream.
    format
        JSON lines, Parquet or ids.
    clean
        Whether to leave score and rank out.

    Returns
    -------
    ExportReport
        What was written and under which names.
    """
    score_field: str | None = None
    rank_field: str | None = None
    if format is ExportFormat.IDS:
        with target.open() as stream:
            write_ids(stream, selection)
        return ExportReport(target.url, format, selection.n_selected, None, None)
    with RankedRecords(location, version, selection.rows) as records:
        if not clean:
            taken = {name.lower() for name in records.user_fields}
            if len(records.user_fields) >= MAX_USER_FIELDS:  # a record may have fields beyond those listed
                taken |= {"score", "rank"}
            score_field = _free_name("score", taken) if selection.has_scores else None
            rank_field = _free_name("rank", taken)
        rows = _rows(records, score_field, rank_field)
        with target.open() as stream:
            if format is ExportFormat.JSONL:
                write_jsonl(stream, rows)
            else:
                schema = infer_schema(_rows(records, score_field, rank_field))
                write_parquet(stream, rows, schema)
    return ExportReport(target.url, format, selection.n_selected, score_field, rank_field)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"nait_{name}"
    return name


def _rows(records: Iterable[RankedRecord], score_field: str | None, rank_field: str | None) -> Iterator[dict[str, Any]]:
    for ranked in records:
        row = dict(ranked.record)
        if score_field is not None:
            row[score_field] = ranked.score
        if rank_field is not None:
            row[rank_field] = ranked.rank
        yield row


def write_ids(stream: BinaryIO, selection: Selection) -> None:
    """Write one sample id a line, in the order of the rows."""
    for batch in selection.rows.select(["sample_id"]).to_batches(max_chunksize=_ROWS_PER_GROUP):
        stream.write("".join(f"{sample_id}\n" for sample_id in batch.column(0).to_pylist()).encode())


def write_jsonl(stream: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    """Write one JSON object a line, each line a line to every reader."""
    while lines := [_encode(row).translate(_LINE_ENDS) for row in islice(rows, 1024)]:
        stream.write(("\n".join(lines) + "\n").encode())


def write_parquet(stream: BinaryIO, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows under the schema that :func:`infer_schema` found for them."""
    # pyarrow closes what it is given; the destination must stay open to sync and rename it.
    with pa.PythonFile(_Uncloseable(stream), mode="w") as sink, pq.ParquetWriter(sink, schema) as writer:
        while batch := list(islice(rows, _ROWS_PER_GROUP)):
            writer.write_table(_table(batch, schema))


class _Uncloseable(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        return None


def infer_schema(rows: Iterator[dict[str, Any]]) -> pa.Schema:
    """Find one Arrow type per field over all rows; fields of mixed shape become JSON text."""
    types: dict[str, pa.DataType | None] = {}
    while batch := list(islice(rows, _ROWS_PER_GROUP)):
        names = dict.fromkeys(name for row in batch for name in row)
        for name in names:
            if name in types and types[name] is None:
                continue
            found = _infer([row.get(name) for row in batch])
            types[name] = _unify(types[name], found) if name in types and found is not None else found
    fields = []
    for name, kind in types.items():
        text = kind is None or pa.types.is_null(kind)
        metadata = {"nait_store.json": "true"} if kind is None else None
        fields.append(pa.field(name, pa.string() if text else kind, metadata=metadata))
    return pa.schema(fields)


def _infer(values: Sequence[Any]) -> pa.DataType | None:
    try:
        kind = pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    return None if _has_empty_struct(kind) else kind


def _has_empty_struct(kind: pa.DataType) -> bool:
    """Whether Parquet cannot hold it: a struct without fields somewhere inside."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)


def _unify(left: pa.DataType | None, right: pa.DataType) -> pa.DataType | None:
    if left is None:
        return None
    try:
        schemas = [pa.schema([("x", left)]), pa.schema([("x", right)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.metadata and b"nait_store.json" in field.metadata:
            values = [v if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)
