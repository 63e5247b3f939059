"""Run every benchmark in a process of its own, keep its report, and write docs/benchmarks.md from what is kept.

``python -m benchmarks.run_all scan sql`` runs only these; the others' sections stay as they were.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import page

FOLDER = Path(__file__).resolve().parent
OUTSIDE = ("data", "model")
NOT_BENCHMARKS = {"__init__", "harness", "page", "run_all"}


def names() -> list[str]:
    """Sorted names of the benchmark modules: those that end in ``run(__doc__, body)``."""
    candidates = (path for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    return sorted(path.stem for path in candidates if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))


def run_one(name: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one benchmark; its report comes back on stdout."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and keep what they found; the exit status says whether all of them ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="which to run (default: all)")
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes: shows that they run")
    parser.add_argument("--data", help="folder with pool.jsonl and in_domain_*.jsonl, for those that need real data")
    parser.add_argument("--model", help="folder of a causal language model, for those that need a real one")
    given = parser.parse_args(argv)
    unknown = set(given.names) - set(names())
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    failed = []
    for name in given.names or names():
        print(f"--- {name}", flush=True)
        arguments = ["--toy"] if given.toy else []
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
        done = run_one(name, [*arguments, "--json"])
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr, flush=True)
            failed.append(name)
            continue
        print(f"{(time.perf_counter() - started) / 60:.1f} minutes; {verdicts(done.stdout)}", flush=True)
        if not given.toy:
            page.RESULTS.mkdir(parents=True, exist_ok=True)
            (page.RESULTS / f"{name}.json").write_text(done.stdout, encoding="utf-8")
    if not given.toy:
        page.write()
        print(f"written: {page.PAGE}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def verdicts(report: str) -> str:
    """Count the limits of a JSON report, and name those that were missed."""
    limits = json.loads(report)["limits"]
    missed = [f"{limit['what']} {limit['must']}: {limit['median']:.2f}" for limit in limits if limit["met"] is False]
    return f"{len(limits)} limits" + (f", missed: {'; '.join(missed)}" if missed else "")


if __name__ == "__main__":
    sys.exit(main())
