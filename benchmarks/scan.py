"""Scoring a stored set against the script one would write instead.

Warm page cache, no sidecars. The script keeps activations as one ``.npy`` of float16 [N, L·J] and goes over it in
blocks: ``torch.from_numpy(memmap[block]).float() @ V.T``. The set holds the same numbers.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Options, Report, interleave, ratio, ratio_of, run, run_fresh, workspace
from nait_store.activations.set_version import SetVersion
from nait_store.activations.versions import ActivationSets
from nait_store.activations.writer import SegmentWriter
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.profile import Metric
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.kernels import Kernels, default_kernels
from nait_store.scoring.packed_vectors import PackedVectors, pack
from nait_store.scoring.scan import scan, thread_count
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage.location import Location
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_row, fake_set_record

PROFILE_COUNTS = (1, 32)
MEMORY_PROFILES = 32
MEMORY_LIMIT_MIB = 600  # of the whole process
_BLOCK_ROWS = 256
_SAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class Size:
    """Shape of the activations: N samples, L layers, J neurons."""

    n: int
    n_layers: int
    n_neurons: int

    @property
    def n_bytes(self) -> int:
        """Of the float16 array."""
        return 2 * self.n * self.n_layers * self.n_neurons


FULL = Size(1024, 32, 11008)  # 0.7 GB: what 1,024 samples of a 7B model take
TOY = Size(256, 4, 1408)
MEMORY_FULL = Size(1024, 4, 11008)
MEMORY_TOY = Size(256, 2, 704)


def body(options: Options, report: Report) -> None:
    """Measure speed, then memory."""
    size, memory_size = (TOY, MEMORY_TOY) if options.toy else (FULL, MEMORY_FULL)
    if options.extra.rows:
        size = Size(options.extra.rows, size.n_layers, size.n_neurons)
    with workspace(options, 2 * size.n_bytes) as folder:
        speed(folder, size, options, report)
    with workspace(options, 11 * memory_size.n_bytes) as folder:
        memory(folder, memory_size, options, report)


def speed(folder: Path, size: Size, options: Options, report: Report) -> None:
    """Time every way to score, one profile and many."""
    import torch

    location = Location(str(folder / "store"))
    version = write_set(location, size)
    memmap = write_npy(version, folder / "activations.npy")
    for n_profiles in PROFILE_COUNTS:
        targets = random_targets(n_profiles, size)
        V = np.stack([target.directions.reshape(-1) for target in targets])  # [P, L·J]
        V_torch, V_packed = torch.from_numpy(V.T.copy()), pack(V)

        def torch_script(V: torch.Tensor = V_torch) -> NDArray[Any]:
            return np.concatenate([(torch.from_numpy(block).float() @ V).numpy() for block in blocks(memmap)])

        def numpy_script(V: NDArray[np.float32] = V) -> NDArray[Any]:
            return np.concatenate([block.astype(np.float32) @ V.T for block in blocks(memmap)])

        def bare_kernel(V: PackedVectors = V_packed) -> NDArray[Any]:
            with ThreadPoolExecutor(thread_count()) as pool:
                found = pool.map(lambda block: default_kernels().project(block, V), blocks(memmap))
                return np.concatenate(list(found))

        def our_scan(targets: list[ScoringTarget] = targets) -> NDArray[Any]:
            return scan_to_memory(version, targets)

        def our_scores(targets: list[ScoringTarget] = targets) -> None:
            ensure_scores(location, version, targets)

        def remove_sidecars(_case: str) -> None:
            shutil.rmtree(folder / "store" / "scores", ignore_errors=True)

        found, expected = our_scan(), torch_script()[:, :n_profiles]
        if np.abs(found - expected).max() > 1e-3 * expected.std():
            raise ArithmeticError("the scan and the script disagree")
        cases: dict[str, Callable[[], object]] = {
            "memmap + torch .float() @": torch_script,
            "memmap + numpy astype @": numpy_script,
            "scores into sidecars": our_scores,
            "scan alone": our_scan,
            "our kernel over the .npy": bare_kernel,
        }
        times = interleave(cases, options.rounds, before=remove_sidecars)
        title = "1 profile" if n_profiles == 1 else f"{n_profiles} profiles"
        report.timings(
            f"{title}, {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} neurons, float16, "
            f"{size.n_bytes / 1e9:.2f} GB",
            times,
            reference="memmap + torch .float() @",
            work_bytes=size.n_bytes,
        )
        speedup = ratio(times["memmap + torch .float() @"], times["scores into sidecars"])
        report.limit(f"scoring, {title}, against memmap + torch", "≥", 5 if n_profiles == 1 else 3, speedup)
        alone = ratio(times["memmap + torch .float() @"], times["scan alone"])
        report.limit(f"scan alone, {title}, against memmap + torch", "≥", 8 if n_profiles == 1 else 3, alone)
        layout = ratio(times["our kernel over the .npy"], times["scan alone"])
        report.limit(f"scan alone, {title}, against our kernel over the .npy", "≥", 0.3, layout)


def memory(folder: Path, size: Size, options: Options, report: Report) -> None:
    """Compare the peak memory of scoring two sets, one ten times as long, in fresh processes."""
    sizes = {1: size, 10: Size(10 * size.n, size.n_layers, size.n_neurons)}
    for times, each in sizes.items():
        write_set(Location(str(folder / f"store-{times}")), each)
    peaks: dict[int, list[int]] = {times: [] for times in sizes}
    above: dict[int, list[int]] = {times: [] for times in sizes}
    for _ in range(1 if options.toy else 3):
        for times in sizes:
            shutil.rmtree(folder / f"store-{times}" / "scores", ignore_errors=True)
            fresh = run_fresh("benchmarks.scan:score_store", str(folder / f"store-{times}"), MEMORY_PROFILES)
            peaks[times].append(fresh.peak_bytes)
            above[times].append(fresh.peak_bytes - fresh.baseline_bytes)
    rows = [
        [
            f"{each.n:,} samples, {each.n_bytes / 1e6:,.0f} MB of activations",
            f"{np.median(peaks[times]) / 2**20:,.1f}",
            f"{np.median(above[times]) / 2**20:,.1f}",
        ]
        for times, each in sizes.items()
    ]
    report.table(
        f"Peak memory of scoring {MEMORY_PROFILES} profiles into sidecars, fresh processes",
        ("what", "peak MiB", "above the imported package, MiB"),
        rows,
    )
    report.limit("peak memory of scoring 10 times the samples", "≤", 1.10, ratio_of(peaks[10], peaks[1]))
    most_mib = max(peaks[10]) / 2**20
    report.limit(f"peak memory of scoring {MEMORY_PROFILES} profiles", "≤", MEMORY_LIMIT_MIB, most_mib, " MiB")


def score_store(url: str, n_profiles: int) -> int:
    """Score a store's set into sidecars; returns the number of segment scores. Run in a fresh process."""
    location = Location(url)
    version = ActivationSets(location).open("pool")
    size = Size(version.n_samples, len(version.layers), version.record.n_neurons)
    return ensure_scores(location, version, random_targets(n_profiles, size)).n_computed


def scan_to_memory(
    version: SetVersion, targets: list[ScoringTarget], kernels: Kernels | None = None
) -> NDArray[np.float64]:
    """Scores of a set of one segment, [n, P], kept nowhere; on the cores unless kernels are given."""
    out = np.empty((version.n_samples, len(targets)))
    position = {id(target): p for p, target in enumerate(targets)}
    for found in scan([(segment, targets) for segment in version.segments], kernels=kernels):
        out[found.rows, position[id(found.target)]] = found.scores.scores
    return out


def random_targets(n_profiles: int, size: Size) -> list[ScoringTarget]:
    """Profiles with random unit directions."""
    rng = np.random.default_rng(1)
    V = rng.standard_normal((n_profiles, size.n_layers, size.n_neurons), dtype=np.float32)
    V /= np.linalg.norm(V, axis=2, keepdims=True)
    return [ScoringTarget(v, None, tuple(range(size.n_layers)), Feature.MEAN, Metric.DOT) for v in V]


def write_set(location: Location, size: Size) -> SetVersion:
    """Commit a set ``pool`` of one segment. Rows repeat every 64, scaled: speed does not depend on the numbers."""
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=size.n_layers, n_neurons=size.n_neurons))
    writer = SegmentWriter(
        location,
        "pool",
        identity=fake_identity(),
        layers=range(size.n_layers),
        n_neurons=size.n_neurons,
        features=[Feature.MEAN],
        dtype=StoredDtype.FLOAT16,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        expected_rows=size.n,
    )
    shape = (_SAMPLES_AT_ONCE, size.n_layers, size.n_neurons)
    sample = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    for start in range(0, size.n, _SAMPLES_AT_ONCE):
        rows = [fake_row(f"s{i:07d}", i) for i in range(start, min(start + _SAMPLES_AT_ONCE, size.n))]
        scale = np.float32(1 + start / size.n)
        writer.append(rows, {Feature.MEAN: sample[: len(rows)] * scale})
    record = writer.close()
    if record is None:
        raise RuntimeError("no rows were written")
    return sets.commit("pool", [record], ingest_ids=())


def write_npy(version: SetVersion, path: Path) -> NDArray[np.float16]:
    """Write the set's numbers as the script's array, and map it: [N, L·J] float16."""
    (segment,) = version.segments
    width = len(segment.layers) * segment.record.n_neurons
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(segment.n_rows, width))
    for rows in segment.blocks(Feature.MEAN):
        out[rows] = segment.read(Feature.MEAN, rows).reshape(-1, width)
    out.flush()
    del out
    mapped: NDArray[np.float16] = np.load(path, mmap_mode="c")  # copy-on-write: torch warns about read-only arrays
    return mapped


def blocks(memmap: NDArray[np.float16]) -> list[NDArray[np.float16]]:
    """Row blocks of the script's array."""
    return [memmap[start : start + _BLOCK_ROWS] for start in range(0, len(memmap), _BLOCK_ROWS)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help=f"samples to time with (default {FULL.n})")


if __name__ == "__main__":
    run(__doc__, body, packages=("numba", "torch", "zarr", "pyarrow"), add_arguments=add_arguments)
