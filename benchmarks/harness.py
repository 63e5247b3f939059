"""How every benchmark measures and reports: interleaved rounds, medians, pairwise ratios, fresh processes.

A benchmark is a module with a ``body(options, report)`` that times cases with :func:`interleave`, adds tables and
limits to the report, and ends in ``run(__doc__, body)``. README.md says how to read the output and how to add one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9
TOY_ROUNDS = 3
_RESULT_MARK = "##benchmark-result## "


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Attributes
    ----------
    toy
        Seconds instead of minutes; limits are shown but not judged.
    rounds
        Interleaved rounds.
    folder
        Where to put temporary data; the system's temporary folder if None.
    extra
        The benchmark's own arguments.
    """

    toy: bool
    rounds: int
    folder: Path | None
    extra: argparse.Namespace


@dataclass(frozen=True)
class Timing:
    """One case's wall times, one a round, in seconds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Fastest and slowest round, in milliseconds."""
        return f"{min(self.seconds) * 1e3:,.1f}–{max(self.seconds) * 1e3:,.1f}"


@dataclass(frozen=True)
class Ratio:
    """Pair-by-pair ratio of two interleaved cases.

    ``low`` and ``high`` bound its median: order statistics of the pairs' ratios with at least 95 % coverage, or all
    of them where there are too few pairs (fewer than 6) for that.
    """

    median: float
    low: float
    high: float
    n_pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"


def interleave(
    cases: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    *,
    warmups: int = 1,
    before: Callable[[str], object] | None = None,
) -> dict[str, Timing]:
    """Time the cases in turn, A B A B …, so that whatever else the machine does hits them alike.

    Parameters
    ----------
    cases
        Name → what to time. Every second round runs them in reverse order.
    rounds
        How often each is timed.
    warmups
        Untimed runs of each beforehand (compilation, page cache).
    before
        Called with the case's name before each run, untimed: to remove what the last run cached.

    Returns
    -------
    dict of str to Timing
        In the order given; the i-th time of each belongs to the i-th round.
    """
    order = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for number in range(-warmups, rounds):
        for name in order if number % 2 == 0 else reversed(order):
            if before is not None:
                before(name)
            gc.collect()
            started = time.perf_counter()
            cases[name]()
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """Ratio of two cases of one :func:`interleave`, round by round: ``ratio(reference, ours)`` is the speed-up."""
    return ratio_of(numerator.seconds, denominator.seconds)


def ratio_of(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """As :func:`ratio`, of any paired measurements."""
    values = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    n = len(values)
    rank = 0  # the largest rank whose interval still covers the median with 95 % probability (binomial)
    while rank + 1 < n / 2 and 2 * sum(math.comb(n, i) for i in range(rank + 2)) / 2**n <= 0.05:
        rank += 1
    return Ratio(statistics.median(values), values[rank], values[n - 1 - rank], n)


@dataclass(frozen=True)
class Fresh:
    """What a function did in a fresh process.

    Attributes
    ----------
    result
        What it returned (through JSON).
    seconds
        Wall time of the function alone.
    process_seconds
        Wall time of the process, interpreter start included.
    baseline_bytes, peak_bytes
        Peak resident memory after importing the function's module, and at the end. File pages that are mapped
        count while they are mapped.
    """

    result: Any
    seconds: float
    process_seconds: float
    baseline_bytes: int
    peak_bytes: int


def run_fresh(function: str, *arguments: Any, env: Mapping[str, str] | None = None) -> Fresh:
    """Call ``"benchmarks.scan:score_store"`` in a fresh interpreter and measure its memory.

    Parameters
    ----------
    function
        ``module:function``, importable from the repository root.
    arguments
        Plain JSON values.
    env
        Environment variables to add.
    """
    command = [sys.executable, "-m", "benchmarks.harness", function, json.dumps(arguments)]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    process_seconds = time.perf_counter() - started
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT_MARK)]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{function} failed with exit code {done.returncode}:\n{done.stderr}")
    return Fresh(process_seconds=process_seconds, **json.loads(lines[-1].removeprefix(_RESULT_MARK)))


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as status:
        # Not ru_maxrss: on Linux that survives exec and so starts at the parent's size.
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_line(*packages: str) -> str:
    """One line that says what ran where: processor, cores, memory, system, Python and package versions."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as info:
        models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
        processor = models[0] if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = []
    for package in ("nait-store", "numpy", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    return (
        f"{processor}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, {load}; "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


@dataclass(frozen=True)
class Table:
    """One table of a report."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return it as markdown; every column but the first is right-aligned."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|---|" + "---:|" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines + (["", self.note] if self.note else []))


@dataclass(frozen=True)
class Limit:
    """A promise and what was measured; missed only if the interval excludes it."""

    what: str
    comparison: Literal["≤", "≥"]
    must: float
    measured: Ratio
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether the measurement allows the promise."""
        return self.measured.high >= self.must if self.comparison == "≥" else self.measured.low <= self.must


@dataclass
class Report:
    """Collects what a benchmark found."""

    title: str
    toy: bool
    packages: tuple[str, ...] = ()
    tables: list[Table] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> None:
        """Add a table; cells are shown with ``str``."""
        cells = tuple(tuple(str(cell) for cell in row) for row in rows)
        self.tables.append(Table(title, tuple(columns), cells, note))

    def timings(
        self,
        title: str,
        timings: Mapping[str, Timing],
        *,
        reference: str,
        work_bytes: int | None = None,
        note: str = "",
    ) -> None:
        """Add a table of timings: median, spread, rate, and how many times faster than ``reference`` each is."""
        columns = ["what", "median ms", "min–max ms", *(["GB/s"] if work_bytes else []), f"{reference} / this"]
        rows = []
        for name, timing in timings.items():
            rate = [f"{work_bytes / timing.median / 1e9:.2f}"] if work_bytes else []
            against = "1" if name == reference else str(ratio(timings[reference], timing))
            rows.append([name, f"{timing.median * 1e3:,.1f}", timing.spread, *rate, against])
        self.table(title, columns, rows, note)

    def limit(
        self, what: str, comparison: Literal["≤", "≥"], must: float, measured: Ratio | float, unit: str = "×"
    ) -> None:
        """Add a promise beside its measurement."""
        value = measured if isinstance(measured, Ratio) else Ratio(measured, measured, measured, 1)
        self.limits.append(Limit(what, comparison, must, value, unit))

    def markdown(self) -> str:
        """Return the whole report as markdown."""
        size = " (toy size: shows that it runs; the figures mean nothing)" if self.toy else ""
        parts = [f"## {self.title}{size}", machine_line(*self.packages), *(t.markdown() for t in self.tables)]
        if self.limits:
            rows = tuple(
                (
                    limit.what,
                    f"{limit.comparison} {limit.must:g}{limit.unit}",
                    f"{limit.measured.median:.2f} ({limit.measured.low:.2f}–{limit.measured.high:.2f})",
                    "not judged" if self.toy else "met" if limit.met else "**missed**",
                )
                for limit in self.limits
            )
            parts.append(Table("Limits", ("what", "must", "measured", "verdict"), rows).markdown())
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Return the same as JSON."""
        document = {
            "title": self.title,
            "toy": self.toy,
            "machine": machine_line(*self.packages),
            "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note} for t in self.tables],
            "limits": [
                {
                    "what": limit.what,
                    "must": f"{limit.comparison} {limit.must:g}{limit.unit}",
                    "median": limit.measured.median,
                    "low": limit.measured.low,
                    "high": limit.measured.high,
                    "met": None if self.toy else limit.met,
                }
                for limit in self.limits
            ],
        }
        return json.dumps(document, ensure_ascii=False, indent=1)


@contextlib.contextmanager
def workspace(options: Options, needed_bytes: int) -> Iterator[Path]:
    """Yield an empty temporary folder with room for ``needed_bytes``, removed afterwards."""
    parent = options.folder or Path(tempfile.gettempdir())
    free = shutil.disk_usage(parent).free
    if free < needed_bytes * 1.1:
        raise SystemExit(
            f"{parent} has {free / 1e9:.1f} GB free, this benchmark needs {needed_bytes / 1e9:.1f} GB: "
            "name another folder with --folder, or run with --toy"
        )
    with tempfile.TemporaryDirectory(prefix="nait-bench-", dir=parent) as folder:
        yield Path(folder)


def run(
    description: str,
    body: Callable[[Options, Report], object],
    *,
    packages: Sequence[str] = (),
    add_arguments: Callable[[argparse.ArgumentParser], object] | None = None,
    argv: Sequence[str] | None = None,
) -> Report:
    """Run a benchmark as a command and print its report.

    Parameters
    ----------
    description
        The module's docstring; its first line is the report's title.
    body
        Measures and fills the report.
    packages
        Distributions whose versions belong in the machine line.
    add_arguments
        Adds the benchmark's own options; they arrive in ``options.extra``.
    argv
        Arguments instead of the process's own.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes: shows that it runs")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {ROUNDS}, toy {TOY_ROUNDS})")
    parser.add_argument("--folder", type=Path, help="where to put temporary data (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of markdown")
    if add_arguments is not None:
        add_arguments(parser)
    given = parser.parse_args(argv)
    rounds = given.rounds if given.rounds is not None else TOY_ROUNDS if given.toy else ROUNDS
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    report = Report(description.splitlines()[0].rstrip("."), given.toy, tuple(packages))
    body(Options(given.toy, rounds, given.folder, given), report)
    print(report.to_json() if given.json else report.markdown())
    return report


def _call(function: str, arguments: str) -> None:
    module_name, _, name = function.partition(":")
    target = getattr(importlib.import_module(module_name), name)
    baseline = peak_memory_bytes()
    started = time.perf_counter()
    result = target(*json.loads(arguments))
    seconds = time.perf_counter() - started
    measured = {"result": result, "seconds": seconds, "baseline_bytes": baseline, "peak_bytes": peak_memory_bytes()}
    print(_RESULT_MARK + json.dumps(measured))


if __name__ == "__main__":
    _call(sys.argv[1], sys.argv[2])
