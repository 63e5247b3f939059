"""Whether a full verify finds one flipped bit in any file of a store, and names the file.

A store with one of everything; one random bit of each of many random files in turn, put back afterwards.

    python -m benchmarks.faults.flips --files 100 --seed 0
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.everything import build_everything
from nait_store.storage.location import Location
from nait_store.storage.verify import Finding
from nait_store.store.integrity import verify

_LOGS = ("aliases", "tags", "notes")  # folders of folders of numbered documents


@dataclass(frozen=True)
class Flip:
    """One flipped bit and what came of it.

    Attributes
    ----------
    path
        The file, relative to the store's root.
    byte, bit
        Where.
    finding
        What full verify says of that very file now and did not say before; None if nothing.
    quick
        Whether ``--quick`` says something too.
    """

    path: str
    byte: int
    bit: int
    finding: Finding | None
    quick: bool


def flip_bits(root: Path, n_files: int, seed: int) -> list[Flip]:
    """Flip one bit in each of ``n_files`` random files, in one at a time.

    Files are drawn without repetition as long as there are others; every flip is another bit.
    """
    location = Location(str(root))
    before = set(verify(location).findings)
    draw = random.Random(seed)
    paths = [path for path, size in location.walk() if size]
    chosen: list[str] = []
    while len(chosen) < n_files:
        chosen += draw.sample(paths, min(len(paths), n_files - len(chosen)))
    flips = []
    for path in chosen:
        file = root / path
        whole = file.read_bytes()
        byte, bit = draw.randrange(len(whole)), draw.randrange(8)
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << bit
        file.write_bytes(damaged)
        found = [finding for finding in verify(location).findings if finding not in before and finding.path == path]
        quick = any(f not in before and f.path == path for f in verify(location, quick=True).findings)
        file.write_bytes(whole)
        flips.append(Flip(path, byte, bit, found[0] if found else None, quick))
    if set(verify(location).findings) != before:
        raise RuntimeError("the store is not as it was before")
    return flips


def kind_of(path: str) -> str:
    """``chunk``, ``samples.parquet``, ``versions/*.json`` … for the table."""
    parts = path.split("/")
    if "/c/" in path:
        return "array chunk"
    if parts[-1] == "zarr.json":
        return "zarr.json"
    if parts[-1].endswith(".json") and len(parts) > 2:
        named = parts[-2] in ("versions", "redirects", "flushed") or parts[-3] in _LOGS
        return f"{parts[-3] if parts[-3] in _LOGS else parts[-2]}/*.json" if named else parts[-1]
    if parts[0] == "scores":
        return f"scores/*.{parts[-1].rpartition('.')[2]}"
    return "tombstones/*.parquet" if "tombstones" in parts else parts[-1]


def main(arguments: list[str] | None = None) -> int:
    """Run the trials and print the table; 1 where a flip was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nait-store-flips-") as folder:
        build_everything(f"{folder}/store", Path(folder))
        began = time.perf_counter()
        flips = flip_bits(Path(folder, "store"), options.files, options.seed)
        seconds = time.perf_counter() - began
    tried = collections.Counter(kind_of(flip.path) for flip in flips)
    found = collections.Counter(kind_of(flip.path) for flip in flips if flip.finding is not None)
    print(f"{'one flipped bit in':<24} {'tried':>6} {'found':>6}  one of the findings")
    for kind, n in sorted(tried.items()):
        example = next((flip.finding for flip in flips if flip.finding and kind_of(flip.path) == kind), None)
        text = "" if example is None else f"{example.place + ': ' if example.place else ''}{example.problem}"
        print(f"{kind:<24} {n:>6} {found[kind]:>6}  {text}")
    for flip in flips:
        if flip.finding is None:
            print(f"NOT FOUND: bit {flip.bit} of byte {flip.byte} of {flip.path}")
    n_found = sum(found.values())
    print(f"\n{n_found}/{len(flips)} found by full verify, the file named; {seconds:.0f} s, seed {options.seed}")
    print(f"for information: {sum(flip.quick for flip in flips)}/{len(flips)} found by verify --quick")
    return 0 if n_found == len(flips) else 1


if __name__ == "__main__":
    sys.exit(main())
