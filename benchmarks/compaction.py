"""Compacting a set of many small segments: what it costs, and what opening and scanning gain.

The set has 200 segments, as 200 small ingests leave them. The reference for the cost is a plain copy of its files
with ``shutil.copytree``, which neither hashes nor waits for the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, ratio_of, run, run_fresh, workspace
from nait_store.activations.compaction import compact
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.capture import Feature
from nait_store.scoring.completion import ensure_scores
from nait_store.storage.location import Location
from nait_store.testing.scores import random_target
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

_TARGET_BYTES = 100_000_000_000  # one segment, whatever the size: the hardest case for memory


@dataclass(frozen=True)
class Size:
    """``n_segments`` of [rows, L, J] float16 each."""

    n_segments: int
    rows: int
    n_layers: int
    n_neurons: int

    @property
    def n_bytes(self) -> int:
        """Of all activations."""
        return 2 * self.n_segments * self.rows * self.n_layers * self.n_neurons


FULL, TOY = Size(200, 16, 4, 11008), Size(12, 8, 2, 64)


def body(options: Options, report: Report) -> None:
    """Measure cost, gain and memory."""
    size = TOY if options.toy else FULL
    with workspace(options, 4 * size.n_bytes) as folder:
        write_set(folder / "store", size)
        cost(folder, size, options, report)
        gain(folder, size, options, report)
    with workspace(options, 6 * size.n_bytes) as folder:
        memory(folder, size, options, report)


def write_set(folder: Path, size: Size) -> None:
    """Write the set ``pool`` and the scores of one profile; segments are committed together, which saves time only."""
    location = Location(str(folder))
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=size.n_layers, n_neurons=size.n_neurons))
    rng = np.random.default_rng(0)
    records = []
    for number in range(size.n_segments):
        rows = [fake_row(f"s{number:04d}-{i:03d}", i) for i in range(size.rows)]
        values = rng.standard_normal((size.rows, size.n_layers, size.n_neurons), dtype=np.float32)
        records.append(build_segment(location, "pool", rows, {Feature.MEAN: values}))
    sets.commit("pool", records, ingest_ids=())
    score(folder, size)


def score(folder: Path, size: Size) -> int:
    """Score the latest version under one profile; returns how many segments had to be scanned."""
    location = Location(str(folder))
    target = random_target(1, layers=range(size.n_layers), n_neurons=size.n_neurons)
    return ensure_scores(location, ActivationSets(location).open("pool"), [target]).n_computed


def compact_store(url: str) -> int:
    """Compact the set into one segment; returns the bytes of it. Run in a fresh process for its memory."""
    return compact(ActivationSets(Location(url)), "pool", target_bytes=_TARGET_BYTES).n_bytes


def cost(folder: Path, size: Size, options: Options, report: Report) -> None:
    """Time the compaction beside a plain copy."""

    def again(_case: str) -> None:
        for name in ("copy", "compacted"):
            shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "store", folder / "compacted")

    cases: dict[str, Callable[[], object]] = {
        "plain copy of the files": lambda: shutil.copytree(folder / "store", folder / "copy"),
        "sets compact": lambda: compact_store(str(folder / "compacted")),
    }
    times = interleave(cases, min(options.rounds, 5), before=again)
    again("")
    compact_store(str(folder / "compacted"))
    if score(folder / "compacted", size):
        raise ArithmeticError("scores were computed again")
    report.timings(
        f"{size.n_segments} segments of {size.rows} samples × {size.n_layers} layers × {size.n_neurons:,} neurons into "
        f"one, {size.n_bytes / 1e9:.2f} GB, page cache warm",
        times,
        reference="plain copy of the files",
        work_bytes=size.n_bytes,
        note="Every byte is hashed twice, once as it was and once as it is, and synced to the disk.",
    )


def gain(folder: Path, size: Size, options: Options, report: Report) -> None:
    """Time opening and scanning the set before and after."""

    def opened(name: str) -> Callable[[], object]:
        return lambda: ActivationSets(Location(str(folder / name))).open("pool").segments

    def scanned(name: str) -> Callable[[], object]:
        return lambda: score(folder / name, size)

    def remove_scores(_case: str) -> None:
        for name in ("store", "compacted"):
            shutil.rmtree(folder / name / "scores", ignore_errors=True)

    before, after = f"{size.n_segments} segments", "compacted"
    for what, make in (("Open the set and all its segments", opened), ("Score one profile, no sidecars", scanned)):
        times = interleave({before: make("store"), after: make("compacted")}, options.rounds, before=remove_scores)
        report.timings(what, times, reference=before)
        if make is scanned:
            report.limit(
                "scoring the compacted set against the scattered one", "≥", 1, ratio(times[before], times[after])
            )


def memory(folder: Path, size: Size, options: Options, report: Report) -> None:
    """Compare the peak memory of compacting a set and one four times as long, in fresh processes."""
    sizes = {1: Size(size.n_segments // 4, size.rows, size.n_layers, size.n_neurons), 4: size}
    peaks: dict[int, list[int]] = {}
    rows = []
    for times, each in sizes.items():
        peaks[times] = []
        for number in range(1 if options.toy else 3):
            store = folder / f"store-{times}-{number}"
            write_set(store, each)
            fresh = run_fresh("benchmarks.compaction:compact_store", str(store))
            peaks[times].append(fresh.peak_bytes)
            above = fresh.peak_bytes - fresh.baseline_bytes
            shutil.rmtree(store)
        rows.append(
            [
                f"{each.n_segments} segments, {each.n_bytes / 1e6:,.0f} MB",
                f"{np.median(peaks[times]) / 2**20:,.1f}",
                f"{above / 2**20:,.1f}",
            ]
        )
    report.table(
        "Peak memory of a compaction into one segment, fresh processes",
        ("what", "peak MiB", "above the imported package, MiB"),
        rows,
    )
    report.limit("peak memory of compacting 4 times the segments", "≤", 1.25, ratio_of(peaks[4], peaks[1]))


if __name__ == "__main__":
    run(__doc__, body)
