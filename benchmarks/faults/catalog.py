"""Whether a store gives the same answers whatever happens to its catalog.

Deleted, truncated, damaged, replaced by another store's (with and without that store's record), in a folder that cannot
be written, on a full disk: the same rows come from the manifests.

    python -m benchmarks.faults.catalog --truncations 50
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import nait_store
from benchmarks.faults.everything import build_everything
from nait_store.catalog.build import Catalog
from nait_store.catalog.profile_lines import Rank
from nait_store.catalog.rows import TABLES
from nait_store.errors import NaitStoreError
from nait_store.query.session import QuerySession
from nait_store.storage import layout

Answers = list[list[tuple[object, ...]]]
Fault = Callable[[], contextlib.AbstractContextManager[object]]

QUERIES = (
    *(f"SELECT * FROM {table} ORDER BY ALL" for table in TABLES),
    "SELECT count(*) FROM versions WHERE kind = 'set' AND is_latest",
    "SELECT s.activation_set, sum(g.n_rows) FROM activation_sets s JOIN segments g USING (activation_set) "
    "GROUP BY ALL ORDER BY ALL",
    "SELECT sample_id, score FROM alignment('pool', 'math') ORDER BY score DESC, sample_id LIMIT 5",
)
_AGAIN = QUERIES[:2]  # of another session, which finds the catalog that the first one made


@dataclass(frozen=True)
class Row:
    """One kind of fault: how often it was tried, and how often every answer was the same."""

    fault: str
    n_tried: int
    n_same: int


def answers(url: str, queries: Sequence[str] = QUERIES, *, read_only: bool = False) -> Answers:
    """What a new session says, then the lines about profiles; the first statement finds what the fault left."""
    store = nait_store.open(url)
    location = store.location.read_only("frozen for the trial", "thaw it") if read_only else store.location
    catalog = Catalog(location)
    session = QuerySession(location, store.sets.versions, store.profiles.registry, catalog)
    found = [session.sql(query).fetchall() for query in queries]
    return [*found, [tuple(line) for line in catalog.profile_lines().read(Rank.ANY)]]


class CatalogFaults:
    """Does things to the catalog of a store, and compares what it says afterwards.

    Parameters
    ----------
    root, other
        Two stores.
    """

    def __init__(self, root: Path, other: Path) -> None:
        self._root = root
        self._other = other
        self._expected = answers(str(root))
        nait_store.open(str(other)).sql("FROM versions").fetchall()
        names = (layout.CATALOG, layout.CATALOG_RECORD, layout.CATALOG_PROFILES)
        self._files = [root / name for name in names]
        self._theirs = [other / name for name in names]
        self._whole = [file.read_bytes() for file in self._files]

    def rows(self, n_truncations: int, seed: int) -> Iterator[Row]:
        """Try everything."""
        draw = random.Random(seed)
        catalog, record, lines = self._files
        size = len(self._whole[0])
        places = [0, 1, size - 1, *(draw.randrange(2, size - 1) for _ in range(n_truncations - 3))]
        yield self._row("nothing", [contextlib.nullcontext])
        yield self._row("deleted", [lambda: self._deleted(catalog), lambda: self._deleted(catalog, record)])
        yield self._row("its record deleted", [lambda: self._deleted(record)])
        yield self._row("truncated", [lambda at=at: self._written(catalog, self._whole[0][:at]) for at in places])
        yield self._row("one flipped bit", [lambda: self._flipped(catalog, draw) for _ in range(n_truncations // 4)])
        yield self._row("one flipped bit in its record", [lambda: self._flipped(record, draw) for _ in range(3)])
        yield self._row("its lines about profiles deleted", [lambda: self._deleted(lines)])
        yield self._row("one flipped bit in these", [lambda: self._flipped(lines, draw) for _ in range(3)])
        yield self._row("another store's", [lambda: self._written(catalog, self._theirs[0].read_bytes())])
        yield self._row("another store's, with that store's record", [self._swapped])
        yield self._row("an older one of its own, with its record", [self._outdated])
        yield self._row("a log of a crashed writer beside it", [self._with_log])
        yield self._row("folder unwritable", [self._deleted_all], read_only=True)
        yield self._row("folder and cache folder unwritable", [self._no_cache], read_only=True)
        yield self._row("disk full", [self._disk_full])

    def _row(self, fault: str, faults: Sequence[Fault], *, read_only: bool = False) -> Row:
        n_same = 0
        for number, prepare in enumerate(faults):
            self._restore()
            with prepare():
                try:
                    same = self._is_same(QUERIES, read_only) and self._is_same(_AGAIN, read_only)
                except NaitStoreError as error:
                    print(f"{fault}, trial {number}: {error}")
                    same = False
            n_same += same
        self._restore()
        return Row(fault, len(faults), n_same)

    def _is_same(self, queries: Sequence[str], read_only: bool) -> bool:
        expected = [*self._expected[: len(queries)], self._expected[-1]]
        return answers(str(self._root), queries, read_only=read_only) == expected

    def _restore(self) -> None:
        for file, data in zip(self._files, self._whole, strict=True):
            file.write_bytes(data)

    @contextlib.contextmanager
    def _deleted(self, *files: Path) -> Iterator[None]:
        for file in files:
            file.unlink()
        yield

    @contextlib.contextmanager
    def _deleted_all(self) -> Iterator[None]:
        with self._deleted(*self._files):
            yield

    @contextlib.contextmanager
    def _written(self, file: Path, data: bytes) -> Iterator[None]:
        file.write_bytes(data)
        yield

    @contextlib.contextmanager
    def _flipped(self, file: Path, draw: random.Random) -> Iterator[None]:
        data = bytearray(file.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        yield

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[None]:
        for ours, theirs in zip(self._files, self._theirs, strict=True):
            shutil.copy(theirs, ours)
        yield

    @contextlib.contextmanager
    def _outdated(self) -> Iterator[None]:
        marker = next(self._root.glob("activations/*/versions/*.deleted.json"))
        hidden = marker.read_bytes()
        marker.unlink()
        answers(str(self._root))  # a catalog that shows the version
        marker.write_bytes(hidden)
        yield

    @contextlib.contextmanager
    def _with_log(self) -> Iterator[None]:
        log = self._root / "catalog.duckdb.wal"
        log.write_bytes(b"left over" * 100)
        yield
        log.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _no_cache(self) -> Iterator[None]:
        in_the_way = self._root.parent / "a file"
        in_the_way.write_text("where the cache folder would be")
        with self._deleted(*self._files), mock.patch.dict(os.environ, NAIT_STORE_CACHE=str(in_the_way / "cache")):
            yield

    @contextlib.contextmanager
    def _disk_full(self) -> Iterator[None]:
        def fail(_: Path, target: Path) -> Path:
            raise OSError(28, "No space left on device", str(target))

        with self._deleted(*self._files), mock.patch.object(Path, "replace", fail):
            yield


def main(arguments: list[str] | None = None) -> int:
    """Run the trials and print the table; 1 where an answer differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truncations", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nait-store-catalog-"))
        with mock.patch.dict(os.environ, NAIT_STORE_CACHE=f"{folder}/cache"):
            build_everything(f"{folder}/store", Path(folder))
            other = nait_store.open(f"{folder}/other", create=True)
            shutil.copytree(f"{folder}/store/activations/maths", f"{folder}/other/activations/maths")
            rows = list(CatalogFaults(Path(folder, "store"), Path(other.url)).rows(options.truncations, options.seed))
    print(f"{'what happened to the catalog':<44} {'trials':>7} {'same answers':>13}")
    for row in rows:
        print(f"{row.fault:<44} {row.n_tried:>7} {row.n_same:>13}")
    same = all(row.n_same == row.n_tried for row in rows)
    said = "always the same answers" if same else "ANSWERS DIFFERED"
    print(f"\n{len(QUERIES)} queries after each, then {len(_AGAIN)} in another session: {said}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
