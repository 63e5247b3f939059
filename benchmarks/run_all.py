"""Run every benchmark in a process of its own, keep its report, and write docs/benchmarks.md from what is kept.

``python -m benchmarks.run_all scan sql`` runs only these; the others' sections stay as they were.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import page
from benchmarks.timing import LEAST_ROUNDS, SECONDS

FOLDER = Path(__file__).resolve().parent
OF_QUALITY = {"fidelity", "recipes"}
"""What measures how well, not how fast: for docs/results.md, and run only when named."""

OUTSIDE = ("data", "model")
NOT_BENCHMARKS = {"__init__", "harness", "page", "run_all"}


def names() -> list[str]:
    """Sorted names of the benchmark modules: those that end in ``run(__doc__, body)``."""
    candidates = (path for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    return sorted(path.stem for path in candidates if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))


def run_one(name: str, arguments: list[str], seconds: float = math.inf) -> subprocess.CompletedProcess[str]:
    """Run one benchmark, its tables for so long each; its report comes back on stdout."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    environment = {**os.environ, SECONDS: str(seconds)}
    return subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and keep what they found; the exit status says whether all of them ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="which to run (default: all)")
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes: shows that they run")
    parser.add_argument("--data", help="folder with pool.jsonl and in_domain_*.jsonl, for those that need real data")
    parser.add_argument("--model", help="folder of a causal language model, for those that need a real one")
    parser.add_argument("--rounds", type=int, help="interleaved rounds, instead of each benchmark's own number")
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help=f"begin no further round of a table after so long, once {LEAST_ROUNDS} are done (default 30)",
    )
    given = parser.parse_args(argv)
    unknown = set(given.names) - set(names())
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = []
    for name in given.names or [name for name in names() if given.toy or name not in OF_QUALITY]:
        print(f"--- {name}", flush=True)
        arguments = ["--toy"] if given.toy else []
        arguments += ["--rounds", str(given.rounds)] if given.rounds else []
        accepted = run_one(name, ["--help"]).stdout
        for option in OUTSIDE:
            value = getattr(given, option)
            if f"--{option}" not in accepted:
                continue
            if value:
                arguments += [f"--{option}", value]
            elif not given.toy:
                print(f"no --{option} given (make bench {option.upper()}=…), so without what needs it", flush=True)
        started = time.perf_counter()
        done = run_one(name, [*arguments, "--json"], given.seconds)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr, flush=True)
            failed.append(name)
            continue
        print(f"{(time.perf_counter() - started) / 60:.1f} minutes; {verdicts(done.stdout)}", flush=True)
        kept = page.RESULTS / f"{name}.json"
        if not given.toy and (measured(done.stdout) or not kept.exists()):
            page.RESULTS.mkdir(parents=True, exist_ok=True)
            kept.write_text(done.stdout, encoding="utf-8")
    if not given.toy:
        page.write()
        print(f"written: {page.PAGE}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measured(report: str) -> bool:
    """Whether a JSON report has figures: one that only says what it lacked must not replace one that had it."""
    document = json.loads(report)
    return bool(document["limits"]) or any(table["bars"] for table in document["tables"])


def verdicts(report: str) -> str:
    """Count the limits of a JSON report, and name those that were missed."""
    limits = json.loads(report)["limits"]
    missed = [f"{limit['what']} {limit['must']}: {limit['median']:.2f}" for limit in limits if limit["met"] is False]
    return f"{len(limits)} limits" + (f", missed: {'; '.join(missed)}" if missed else "")


if __name__ == "__main__":
    sys.exit(main())
