"""A scan whose files the page cache has forgotten, against dd of the same files.

Interleaved. ``dd bs=8M`` reads the chunk files one after the other and throws them away; the scan runs in a fresh
process that has its kernels loaded, and scores all samples, without sidecars. What is read is forgotten before each.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from benchmarks.harness import Options, Report, Timing, ratio, run, run_fresh, workspace
from benchmarks.page_cache import bytes_from_disk, can_forget, files_below, forget
from benchmarks.scan import FULL, TOY, Size, random_targets, scan_to_memory, write_set
from nait_store.activations.versions import ActivationSets
from nait_store.storage.location import Location

PROFILE_COUNTS = (1, 32)
MUST = 0.9
DD = "dd bs=8M"
_PER_CALL = 256  # files that one shell goes through


def body(options: Options, report: Report) -> None:
    """Write a set, then read it in turn."""
    if not can_forget():
        raise SystemExit("this system cannot be asked to forget files")
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = Size(options.extra.rows, size.n_layers, size.n_neurons)
    with workspace(options, size.n_bytes) as folder:
        location = Location(str(folder / "store"))
        version = write_set(location, size)
        write_set(Location(str(folder / "tiny")), Size(64, 2, 64))
        files = [path for path in files_below(folder / "store") if "/mean/c/" in path.as_posix()]
        cases = {DD: 0, **{f"scan, {counted(n)}": n for n in PROFILE_COUNTS}}
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        from_disk: dict[str, int] = {}
        for number in range(1 if options.toy else options.rounds):
            for name, n_profiles in cases.items() if number % 2 == 0 else reversed(cases.items()):
                forget(files_below(folder / "store"))
                if name == DD:
                    seconds[name].append(dd(files))
                    continue
                found = run_fresh("benchmarks.cold_scan:scan_once", str(folder), version.n_samples, n_profiles).result
                seconds[name].append(found["seconds"])
                from_disk[name] = found["disk_bytes"]
    times = {name: Timing(name, tuple(values)) for name, values in seconds.items()}
    read = ", ".join(f"{name} {n_bytes / 1e6:,.0f}" for name, n_bytes in from_disk.items())
    report.timings(
        f"Cold page cache, {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, float16, "
        f"{size.n_bytes / 1e9:.2f} GB in {len(files):,} files",
        times,
        reference=DD,
        work_bytes=size.n_bytes,
        note=f"MB that the last round read from the disk: {read}.",
    )
    for name, n_profiles in cases.items():
        if n_profiles:
            report.limit(f"cold {name}: rate / rate of dd", "≥", MUST, ratio(times[DD], times[name]))


def counted(n_profiles: int) -> str:
    """``1 profile``, ``32 profiles``."""
    return f"{n_profiles} profile{'s' if n_profiles > 1 else ''}"


def dd(files: list[Path]) -> float:
    """Seconds that ``dd`` takes for files, one after the other."""
    script = 'for file in "$@"; do dd if="$file" of=/dev/null bs=8M 2>/dev/null || exit 1; done'
    started = time.perf_counter()
    for first in range(0, len(files), _PER_CALL):
        subprocess.run(["sh", "-c", script, "sh", *map(str, files[first : first + _PER_CALL])], check=True)
    return time.perf_counter() - started


def scan_once(folder: str, n_samples: int, n_profiles: int) -> dict[str, float]:
    """Scan the set once, run in a fresh process; a tiny one before, so that compiled code is loaded."""
    tiny = ActivationSets(Location(f"{folder}/tiny")).open("pool")
    scan_to_memory(tiny, random_targets(n_profiles, Size(64, 2, 64)))
    version = ActivationSets(Location(f"{folder}/store")).open("pool")
    targets = random_targets(n_profiles, Size(n_samples, len(version.layers), version.record.n_neurons))
    before = bytes_from_disk()
    started = time.perf_counter()
    scores = scan_to_memory(version, targets)
    seconds = time.perf_counter() - started
    if scores.shape != (n_samples, n_profiles) or not scores.any():
        raise ArithmeticError("the scan gave no scores")
    return {"seconds": seconds, "disk_bytes": bytes_from_disk() - before}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples to time with (default {FULL.n:,}, toy {TOY.n:,})")


if __name__ == "__main__":
    run(__doc__, body, packages=("numba",), add_arguments=add_arguments)
