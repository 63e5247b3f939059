"""The list of everything an ingest left out."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterable
from typing import IO

from nait_store.activations.writer import RejectedSample
from nait_store.capture.rendering import UnpreparedSample
from nait_store.capture.source_records import RejectedRecord, place, printable
from nait_store.errors import InvalidInputError, StorageError
from nait_store.ingest.requests import Rejection
from nait_store.storage.location import Location

_SHOWN = 20
_IN_MEMORY_BYTES = 1 << 20


class RejectLog:
    """Counts rejections, keeps the first 20 for the report, and writes all of them as JSON Lines at the end.

    They gather in memory and then in a temporary file, so that an ingest without any leaves no file behind. Safe to
    use from several threads.
    """

    def __init__(self) -> None:
        self._spool: IO[str] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._first: list[Rejection] = []
        self._n = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._n

    @property
    def first(self) -> tuple[Rejection, ...]:
        """The first 20."""
        return tuple(self._first)

    @property
    def first_reason(self) -> str:
        """Where and why the first record was left out, a phrase."""
        return f"{self._first[0].where}: {self._first[0].reason}" if self._first else "there are none"

    def add_record(self, rejected: RejectedRecord) -> None:
        """Note a record that could not be read or used."""
        self._add(rejected.source_uri, rejected.source_index, rejected.line, None, rejected.reason, rejected.raw)

    def add_unprepared(self, sample: UnpreparedSample) -> None:
        """Note a sample that gives nothing to measure."""
        raw = printable(sample.sample.record_json)
        self.add_sample(sample.sample_id, sample.source_uri, sample.source_index, sample.reason, raw=raw)

    def add_unstored(self, samples: Iterable[RejectedSample]) -> None:
        """Note samples whose activations cannot be stored."""
        for sample in samples:
            self.add_sample(sample.sample_id, sample.source_uri, sample.source_index, sample.reason)

    def add_sample(
        self, sample_id: str, source_uri: str, source_index: int, reason: str, *, raw: str = "", line: int | None = None
    ) -> None:
        """Note a sample that was read but cannot be captured or stored."""
        self._add(source_uri, source_index, line, sample_id, reason, raw)

    def write(self, location: Location, default_path: str, rejects_path: str | None) -> str | None:
        """Write the file and return where it is; None where nothing was rejected.

        Parameters
        ----------
        location, default_path
            Within the store.
        rejects_path
            Path or URL that the user asked for instead.
        """
        with self._lock:  # after Ctrl-C the reader may still be at its last records
            return self._write(location, default_path, rejects_path)

    def _write(self, location: Location, default_path: str, rejects_path: str | None) -> str | None:
        if not self._n:
            return None
        self._spool.seek(0)
        if rejects_path is None:
            location.write_bytes(default_path, self._spool.read().encode("utf-8"))
            return location.url_of(default_path)
        import fsspec

        try:
            with fsspec.open(rejects_path, "w", encoding="utf-8") as target:
                while block := self._spool.read(_IN_MEMORY_BYTES):
                    target.write(block)
        except OSError as error:
            raise StorageError(
                f"could not write the rejects file {rejects_path}: {error.strerror or error}",
                next_step="name another file with --rejects",
            ) from error
        except (ValueError, ImportError) as error:
            raise InvalidInputError(f"cannot write the rejects file {rejects_path!r}: {error}") from error
        return rejects_path

    def close(self) -> None:
        """Forget the temporary file."""
        self._spool.close()

    def _add(
        self, source_uri: str, source_index: int, line: int | None, sample_id: str | None, reason: str, raw: str
    ) -> None:
        where = place(source_uri, source_index, line)
        entry = {
            "where": where,
            "source_uri": source_uri,
            "source_index": source_index,
            "line": line,
            "sample_id": sample_id,
            "reason": reason,
            "raw": raw.rstrip("\r\n"),
        }
        with self._lock:
            if self._n < _SHOWN:
                self._first.append(Rejection(where, reason, sample_id))
            self._n += 1
            self._spool.write(json.dumps(entry, ensure_ascii=True) + "\n")
