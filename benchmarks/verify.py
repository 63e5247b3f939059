"""Verifying a store: all of it, and `--quick`, beside hashing its files one after the other.

The store is one activation set with chunks of 4 to 8 MB (L = 16, J = 4096), in the page cache: what is measured is
hashing, not the disk. `verify` also reads every document, the sample rows, and looks for repeated ids.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import nait_store
from benchmarks.harness import Options, Report, interleave, run, workspace
from nait_store.scoring.scan import thread_count
from nait_store.storage.location import Location
from nait_store.store.integrity import verify
from nait_store.testing.stores import build_set

REFERENCE = "hashlib, one file after the other"


def main(argv: list[str] | None = None) -> None:
    run(__doc__ or "", body, argv=argv)


def body(options: Options, report: Report) -> None:
    n, n_layers, n_neurons = (64, 2, 256) if options.toy else (4096, 16, 4096)
    with workspace(options, 3 * 2 * n * n_layers * n_neurons) as folder:
        location = nait_store.open(str(Path(folder) / "store"), create=True).location
        build_set(location, "pool", n, n_layers, n_neurons, n_segments=4)
        files = [str(location.local_path(path)) for path, _ in location.walk()]
        n_bytes = sum(size for _, size in location.walk())
        cases: dict[str, Callable[[], object]] = {f"verify, {thread_count()} threads": lambda: _verify(location)}
        cases = {REFERENCE: lambda: _hash_in_turn(files), **cases}
        if shutil.which("sha256sum"):
            cases["sha256sum"] = lambda: subprocess.run(["sha256sum", *files], check=True, capture_output=True)
        report.timings(
            f"{n_bytes / 1e6:,.0f} MB in {len(files):,} files",
            interleave(cases, options.rounds),
            reference=REFERENCE,
            work_bytes=n_bytes,
        )
        quick = interleave({"verify --quick": lambda: _verify(location, quick=True)}, options.rounds)
        report.timings("The same store", quick, reference="verify --quick")


def _hash_in_turn(files: Sequence[str]) -> None:
    for file in files:
        with Path(file).open("rb") as handle:
            hashlib.file_digest(handle, "sha256").hexdigest()


def _verify(location: Location, *, quick: bool = False) -> None:
    if not verify(location, quick=quick).ok:
        raise RuntimeError("the store is damaged")


if __name__ == "__main__":
    main()
