"""Scoring a stored array: this store and what people would use instead.

Every competitor writes the same activations once, in its own format with its best settings, and scores all samples
with one profile and with 32; all must give the scores that float64 gives. *Warm*: the files are in the page cache and
opened, no sidecar is there. *Cold*: the page cache has forgotten the files; a fresh process, which has scored a tiny
array of its own before, opens and scores them.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors import COMPETITORS, OURS, Competitor, missing
from benchmarks.harness import Options, Report, Timing, interleave, ratio, run, run_fresh, workspace
from benchmarks.page_cache import bytes_from_disk, can_forget, files_below, forget
from benchmarks.scan import Size

FULL = Size(384, 32, 11008)  # 0.27 GB: what 384 samples of a 7B model take; each competitor writes that much
TOY = Size(256, 2, 256)
TINY = Size(64, 2, 64)
PROFILE_COUNTS = (1, 32)
MUST_WARM = {1: 8.0, 32: 3.0}
MUST_COLD = 1.0
COLD_ROUNDS = 5
SLOW_SECONDS = 3.0  # a competitor that takes longer is timed in fewer rounds
DD = "dd of the .npy"
_SAMPLES_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Written:
    """What a competitor wrote."""

    competitor: type[Competitor]
    folder: Path
    held_bytes: int
    largest_error: float


def body(options: Options, report: Report) -> None:
    """Write everything, check the scores, time warm and cold."""
    size = TOY if options.toy else FULL
    if options.extra.rows:
        size = dataclasses.replace(size, n=options.extra.rows)
    present = [each for each in (*OURS, *COMPETITORS) if not missing(each)]
    with workspace(options, (len(present) + 1) * size.n_bytes) as folder:
        written = write_all(present, folder, size)
        describe(written, size, report)
        for n_profiles in PROFILE_COUNTS:
            warm(written, n_profiles, size, options, report)
        if can_forget():
            cold(written, folder, size, options, report)


def write_all(present: list[type[Competitor]], folder: Path, size: Size) -> list[Written]:
    """Have every competitor write the array and a tiny one, and compare its scores with exact ones."""
    for each in (size, TINY):
        write_source(source_path(folder, each), each)
    source = np.load(source_path(folder, size), mmap_mode="r")
    directions = random_directions(max(PROFILE_COUNTS), size)
    exact = exact_scores(source, directions)
    written = []
    for competitor in present:
        for each in (size, TINY):
            place = competitor_folder(folder, competitor, each)
            place.mkdir(parents=True)
            competitor().write(np.load(source_path(folder, each), mmap_mode="r"), place)
        place = competitor_folder(folder, competitor, size)
        scan = competitor().open(place)
        error = max(largest_error(scan(directions[:p]), exact[:, :p]) for p in PROFILE_COUNTS)
        if error > competitor.tolerance:
            raise ArithmeticError(f"{competitor.name}: its scores are {error:.1e} standard deviations off")
        held_bytes = sum(path.stat().st_size for path in files_below(place))
        written.append(Written(competitor, place, held_bytes, error))
    return written


def describe(written: list[Written], size: Size, report: Report) -> None:
    """Add what each keeps and how it is set up, and what is absent."""
    rows = [
        (each.competitor.name, f"{each.held_bytes / 1e6:,.1f}", f"{each.largest_error:.1e}", each.competitor.setup)
        for each in written
    ]
    rows += [
        (each.name, "", "", f"absent: {', '.join(missing(each))} is not installed")
        for each in COMPETITORS
        if missing(each)
    ]
    report.table(
        f"What each keeps of {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons",
        ("what", "MB", "largest error, sd", "set up"),
        rows,
        "Errors are in standard deviations of the exact scores.",
    )


def warm(written: list[Written], n_profiles: int, size: Size, options: Options, report: Report) -> None:
    """Time scans of what is open and in the page cache, in turn."""
    directions = random_directions(n_profiles, size)
    scans = {each.competitor.name: each.competitor().open(each.folder) for each in written}
    cases: dict[str, Callable[[], object]] = {
        name: lambda scan=scan: scan(directions)  # type: ignore[misc]
        for name, scan in scans.items()
    }
    times = interleave(cases, options.rounds, slow_seconds=SLOW_SECONDS)
    add_times(f"Warm, {counted(n_profiles)}", times, size, report)
    add_limits(f"warm, {counted(n_profiles)}", MUST_WARM[n_profiles], times, report)


def cold(written: list[Written], folder: Path, size: Size, options: Options, report: Report) -> None:
    """Time each in processes of their own that find nothing in the page cache."""
    if options.toy:  # each process takes seconds to import what it needs
        written = [each for each in written if each.competitor in (OURS[0], COMPETITORS[0])]
    seconds: dict[str, list[float]] = {each.competitor.name: [] for each in written}
    from_disk: dict[str, int] = {}
    seconds[DD] = []
    for number in range(1 if options.toy else min(options.rounds, COLD_ROUNDS)):
        for each in written if number % 2 == 0 else reversed(written):
            name = each.competitor.name
            tiny = competitor_folder(folder, each.competitor, TINY)
            found = run_fresh("benchmarks.peers:scan_cold", name, str(each.folder), str(tiny), size_of(size)).result
            seconds[name].append(found["seconds"])
            from_disk[name] = found["disk_bytes"]
        seconds[DD].append(dd_cold(source_path(folder, size)))
    times = {name: Timing(name, tuple(values)) for name, values in seconds.items()}
    read = [f"{name} {n_bytes / 1e6:,.0f}" for name, n_bytes in from_disk.items()]
    add_times(
        f"Cold page cache, {counted(1)}, a fresh process each",
        times,
        size,
        report,
        f"MB that the last round read from the disk: {', '.join(read)}.",
    )
    del times[DD]
    add_limits("cold, 1 profile", MUST_COLD, times, report)


def add_times(title: str, times: Mapping[str, Timing], size: Size, report: Report, note: str = "") -> None:
    """Add a table of times."""
    report.timings(
        f"{title}, {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, "
        f"{size.n_bytes / 1e9:.2f} GB as float16",
        times,
        reference=COMPETITORS[0].name,
        work_bytes=size.n_bytes,
        note=note,
    )


def add_limits(what: str, must: float, times: Mapping[str, Timing], report: Report) -> None:
    """Judge our halves against the script that people write, and against the fastest of all the others."""
    ours = times[OURS[0].name]
    ours_names = {each.name for each in OURS}
    others = {name: timing for name, timing in times.items() if name not in ours_names}
    best = min(others.values(), key=lambda timing: timing.median)
    report.limit(f"{what}: the best competitor, {best.name} / {ours.name}", "≥", must, ratio(best, ours))
    script = COMPETITORS[0].name
    if best.name != script:
        report.limit(f"{what}: {script} / {ours.name}", "≥", must, ratio(times[script], ours))


def scan_cold(name: str, folder: str, tiny: str, shape: list[int]) -> dict[str, float]:
    """Open and score what the page cache has forgotten; run in a fresh process.

    A tiny array is scored first, so that imports and compiled code are loaded, as in a program that runs.
    """
    [competitor] = [each for each in (*OURS, *COMPETITORS) if each.name == name]
    competitor().open_once(Path(tiny))(random_directions(1, TINY))
    directions = random_directions(1, Size(*shape))
    forget(files_below(Path(folder)))
    before = bytes_from_disk()
    started = time.perf_counter()
    scores = competitor().open_once(Path(folder))(directions)
    seconds = time.perf_counter() - started
    disk_bytes = bytes_from_disk() - before
    if not np.isfinite(scores).all():
        raise ArithmeticError(f"{name}: a score is not finite")
    return {"seconds": seconds, "disk_bytes": disk_bytes}


def dd_cold(path: Path) -> float:
    """Seconds that ``dd`` takes to read a file that the page cache has forgotten."""
    forget([path])
    started = time.perf_counter()
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=8M"], check=True, capture_output=True)
    return time.perf_counter() - started


def write_source(path: Path, size: Size) -> None:
    """Write random activations, [n, L, J] float16; rows repeat every 64, scaled."""
    shape = (size.n, size.n_layers, size.n_neurons)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    sample = np.random.default_rng(0).standard_normal((_SAMPLES_AT_ONCE, *shape[1:]), dtype=np.float32)
    for start in range(0, size.n, _SAMPLES_AT_ONCE):
        n = min(_SAMPLES_AT_ONCE, size.n - start)
        out[start : start + n] = sample[:n] * np.float32(1 + start / size.n)
    out.flush()


def random_directions(n_profiles: int, size: Size) -> NDArray[np.float32]:
    """Unit directions, [P, L, J], read-only as those of stored profiles are; the first are the same whatever P."""
    rng = np.random.default_rng(1)
    V = rng.standard_normal((n_profiles, size.n_layers, size.n_neurons), dtype=np.float32)
    V /= np.linalg.norm(V, axis=2, keepdims=True)
    return np.frombuffer(V.tobytes(), V.dtype).reshape(V.shape)


def exact_scores(activations: NDArray[np.float16], directions: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores in float64, [n, P]."""
    V = directions.reshape(len(directions), -1).T.astype(np.float64)
    starts = range(0, len(activations), _SAMPLES_AT_ONCE)
    blocks = (activations[start : start + _SAMPLES_AT_ONCE].astype(np.float64) for start in starts)
    return np.concatenate([block.reshape(len(block), -1) @ V for block in blocks])


def largest_error(scores: NDArray[Any], exact: NDArray[np.float64]) -> float:
    """Largest |difference| in standard deviations of the exact scores."""
    return float(np.abs(scores - exact).max() / exact.std())


def source_path(folder: Path, size: Size) -> Path:
    """Where the array lies that all of them write."""
    return folder / f"{size.n}x{size.n_layers}x{size.n_neurons}.npy"


def competitor_folder(folder: Path, competitor: type[Competitor], size: Size) -> Path:
    """Where a competitor keeps its files of an array."""
    return folder / competitor.__name__ / source_path(folder, size).stem


def size_of(size: Size) -> list[int]:
    """Shape as a list, for another process."""
    return [size.n, size.n_layers, size.n_neurons]


def counted(n_profiles: int) -> str:
    """How many profiles, in words."""
    return "1 profile" if n_profiles == 1 else f"{n_profiles} profiles"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples (default {FULL.n:,}, toy {TOY.n:,})")


if __name__ == "__main__":
    run(
        __doc__,
        body,
        packages=(
            *("numba", "torch", "faiss-cpu", "pylance", "lancedb", "duckdb"),
            *("pyarrow", "zarr", "zarrs", "tensorstore"),
        ),
        add_arguments=_arguments,
    )
