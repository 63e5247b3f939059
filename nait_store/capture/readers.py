"""Reading training records from files of every usual kind and from ``datasets``.

The kind is told by the name and, where that says nothing, by the first bytes; compression by the first bytes.

What becomes of values: JSON is taken as it is (of a repeated key the last value counts); CSV values stay text; of
Parquet, Arrow and ``datasets`` values, dates and times become ISO 8601 text, durations seconds, decimals and bytes
text (digits, Base64). A record with NaN, infinity or invalid Unicode is rejected, because ids are made of its
canonical JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Literal

from nait_store.capture import hub_datasets, sources
from nait_store.capture.json_records import read_json, read_json_lines
from nait_store.capture.source_records import RejectedRecord, SourceRecord
from nait_store.capture.sources import open_sources
from nait_store.capture.table_records import read_arrow, read_csv, read_parquet
from nait_store.errors import InvalidInputError

__all__ = ["OnError", "RejectedRecord", "SourceRecord", "count_records", "open_sources", "read_records"]

OnError = Literal["stop", "skip"]

_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_COMPRESSED = (".gz", ".zst", ".zstd")
_BOM = b"\xef\xbb\xbf"
_SNIFFED_BYTES = 1 << 16
_ARRAY_OF_OBJECTS = re.compile(rb"\s*\[\s*\{")
"""What many a file called .jsonl begins with."""


def read_records(
    source: str, *, on_error: OnError = "stop", rejects: Callable[[RejectedRecord], None] | None = None
) -> Iterator[SourceRecord]:
    """Read a source's records one after the other, in bounded memory.

    Parameters
    ----------
    source
        One of the ``uri`` that :func:`open_sources` returns.
    on_error
        What to do about a record that cannot be read: ``"stop"`` raises, ``"skip"`` reports it and goes on.
    rejects
        Called with each record that is skipped.

    Yields
    ------
    SourceRecord
        In the order of the source.

    Raises
    ------
    NotFoundError
        The source does not exist.
    InvalidInputError
        A record cannot be read (``file:line`` and what to do), or nothing can: an empty, damaged or unknown file.
    StorageError
        The disk or network failed.
    MissingExtraError
        ``datasets`` is needed and not installed.
    """
    found = False
    with sources.reading_errors(source):
        for item in _items(source):
            found = True
            if isinstance(item, SourceRecord):
                yield item
            elif on_error == "stop":
                raise InvalidInputError(
                    f"{item.where}: {item.reason}",
                    next_step="correct the record, or pass --on-error skip to leave such records out",
                )
            elif rejects is not None:
                rejects(item)
    if not found:
        raise InvalidInputError(f"{source} holds no records", next_step=f"give {sources.ACCEPTED}")


def count_records(source: str) -> int | None:
    """Count a source's records where that is cheap, for progress; None where only reading would tell.

    For JSON Lines it is the number of lines, blank ones included.
    """
    path = sources.local_path(source)
    if path is None or path.is_dir() or _is_compressed(source):
        return None
    kind = _kind_by_name(source)
    with sources.reading_errors(source):
        if kind == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return int(pq.read_metadata(path).num_rows)
            except pa.ArrowException:
                return None
        if kind == "jsonl":
            lines, last = 0, b"\n"
            with path.open("rb") as handle:
                while block := handle.read(1 << 20):
                    lines += block.count(b"\n")
                    last = block[-1:]
            return lines + (last != b"\n")
    return None


def _items(source: str) -> Iterator[SourceRecord | RejectedRecord]:
    path = sources.local_path(source)
    if source.startswith(sources.DATASETS_PREFIX) or (path is not None and path.is_dir()):
        yield from hub_datasets.read_dataset(source)
        return
    kind = _kind_by_name(source)
    if kind in ("parquet", "arrow") and not _is_compressed(source):
        with sources.open_raw(source) as raw:
            yield from read_parquet(raw, source) if kind == "parquet" else read_arrow(raw, source)
        return
    with sources.open_plain(source) as stream:
        head = stream.peek(_SNIFFED_BYTES)
        if head.startswith(_BOM):
            stream.read(len(_BOM))
            head = head[len(_BOM) :]
        if not head:
            raise InvalidInputError(f"{source} is empty", next_step=f"give {sources.ACCEPTED}")
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InvalidInputError(f"{source} is UTF-16 text", next_step="save it as UTF-8")
        if kind in (None, "json") or (kind == "jsonl" and _ARRAY_OF_OBJECTS.match(head)):
            kind = _kind_by_content(head, source)
        if kind == "jsonl":
            yield from read_json_lines(stream, source)
        elif kind == "json":
            yield from read_json(stream, source)
        elif kind in ("csv", "tsv"):
            yield from read_csv(stream, source, "," if kind == "csv" else "\t")
        else:
            yield from read_parquet(stream, source) if kind == "parquet" else read_arrow(stream, source)


def _suffixes(source: str) -> list[str]:
    return [suffix.lower() for suffix in PurePosixPath(source.partition("?")[0]).suffixes]


def _is_compressed(source: str) -> bool:
    return _suffixes(source)[-1:] != [] and _suffixes(source)[-1] in _COMPRESSED


def _kind_by_name(source: str) -> str | None:
    suffixes = [suffix for suffix in _suffixes(source) if suffix not in _COMPRESSED]
    return _KINDS.get(suffixes[-1]) if suffixes else None


def _kind_by_content(head: bytes, source: str) -> str:
    """Tell Parquet, Arrow, JSON and JSON Lines by how the content begins."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    text = head.lstrip(b" \t\r\n")
    if text.startswith(b"{"):
        # A line that is an object by itself, with more after it, is JSON Lines: there a broken line costs one record.
        first, newline, _ = text.partition(b"\n")
        return "jsonl" if newline and first.rstrip().endswith(b"}") else "json"
    if text.startswith(b"[") or not text or _kind_by_name(source) == "json":
        return "json"
    raise InvalidInputError(f"{source} is of no kind that can be read", next_step=f"give {sources.ACCEPTED}")
