"""How every benchmark measures and reports: interleaved rounds, medians, pairwise ratios, fresh processes.

A benchmark is a module with a ``body(options, report)`` that times cases with :func:`interleave`, adds tables and
limits to the report, and ends in ``run(__doc__, body)``. README.md says how to read the output and how to add one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Report
from benchmarks.timing import ROUNDS, Ratio, Timing, interleave, ratio, ratio_of

__all__ = [
    "ROOT",
    "ROUNDS",
    "Fresh",
    "Options",
    "Ratio",
    "Report",
    "Timing",
    "interleave",
    "peak_memory_bytes",
    "ratio",
    "ratio_of",
    "run",
    "run_fresh",
    "workspace",
]

ROOT = Path(__file__).resolve().parent.parent
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
    title, _, rest = description.partition("\n")
    report = Report(title.rstrip("."), given.toy, tuple(packages), rest.strip())
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
