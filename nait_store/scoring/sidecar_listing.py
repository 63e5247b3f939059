"""What lies in ``scores/``: every sidecar, sound or not, by its record and the sizes of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from nait_store.errors import CorruptChunkError, NotFoundError
from nait_store.schemas.scores import KERNEL_REVISION, SidecarRecord
from nait_store.scoring.sidecar_files import read_sidecar_record
from nait_store.storage import layout
from nait_store.storage.backend import StoredFile
from nait_store.storage.location import Location

_FILE = re.compile(r"([0-9a-f]{64})\.(json|parquet)\Z")
_READERS = 16


@dataclass(frozen=True)
class ListedSidecar:
    """What is left of, or will become, one score sidecar.

    Attributes
    ----------
    key
        Name of its files.
    files
        Those that there are, one or two.
    record
        What its record says; None where that is missing or damaged.
    problem
        Why no reader of this release would believe it, as far as that shows without reading scores; else empty.
    """

    key: str
    files: tuple[StoredFile, ...]
    record: SidecarRecord | None
    problem: str = ""

    @property
    def path(self) -> str:
        """Of the Parquet file, relative to the store's root."""
        return layout.score_sidecar(self.key)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def written_at(self) -> datetime | None:
        """When the later of its files was written; None where the filesystem does not say."""
        return max((file.modified_at for file in self.files if file.modified_at is not None), default=None)


def list_sidecars(location: Location) -> Iterator[ListedSidecar]:
    """Yield every score sidecar of a store by ascending key, damaged and unfinished ones too.

    Costs a listing with sizes, and one small document for each; see :func:`read_records`. Files whose names are no
    keys are passed over.
    """
    found: dict[str, dict[str, StoredFile]] = {}
    for file in location.files(layout.SCORES):
        match = _FILE.match(file.path.rpartition("/")[2])
        if match is not None:
            found.setdefault(match[1], {})[match[2]] = file
    keys = sorted(found)
    whole = [key for key in keys if len(found[key]) == 2]
    records = dict(read_records(location, whole))
    for key in keys:
        files = found[key]
        record = records.get(key)
        if isinstance(record, SidecarRecord):
            problem = _problem(record, files["parquet"].size_bytes)
            yield ListedSidecar(key, tuple(files.values()), record, problem)
        elif record is not None:
            yield ListedSidecar(key, tuple(files.values()), None, "its record is damaged")
        elif len(files) == 1:
            missing = "its record" if "parquet" in files else "its Parquet file"
            yield ListedSidecar(key, tuple(files.values()), None, f"{missing} is missing")


def read_records(location: Location, keys: Sequence[str]) -> Iterator[tuple[str, SidecarRecord | CorruptChunkError]]:
    """Read the records of sidecars: some thousands a second on a local disk, sixteen in one round trip elsewhere.

    Yields
    ------
    key, record
        In the order given; those that are gone are left out. An error instead of a record that is damaged.
    """

    def read(key: str) -> SidecarRecord | CorruptChunkError | None:
        try:
            return read_sidecar_record(location, key)
        except NotFoundError:  # deleted meanwhile
            return None
        except CorruptChunkError as error:
            return error

    if not location.is_remote:
        for key in keys:
            if (record := read(key)) is not None:
                yield key, record
        return
    with ThreadPoolExecutor(_READERS, thread_name_prefix="nait-read") as pool:
        for start in range(0, len(keys), 64 * _READERS):
            part = keys[start : start + 64 * _READERS]
            for key, record in zip(part, pool.map(read, part), strict=True):
                if record is not None:
                    yield key, record


def _problem(record: SidecarRecord, size_bytes: int) -> str:
    if record.size_bytes != size_bytes:
        return f"it has {size_bytes:,} bytes, its record says {record.size_bytes:,}"
    if record.kernel_revision < KERNEL_REVISION:
        return f"an earlier release computed it (kernel revision {record.kernel_revision}, now {KERNEL_REVISION})"
    return ""
