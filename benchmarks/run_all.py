"""Run every benchmark in a process of its own and keep the tables: ``python -m benchmarks.run_all``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"__init__", "harness", "run_all"}
OUTSIDE = ("data", "model")


def names() -> list[str]:
    """Sorted names of the benchmark modules: those that end in ``run(__doc__, body)``."""
    candidates = (path for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    return sorted(path.stem for path in candidates if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))


def run_one(name: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one benchmark; its tables come back on stdout."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)


def main() -> int:
    """Run, print and keep every benchmark's tables; the exit status says whether all of them ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes: shows that they run")
    parser.add_argument("--data", help="folder with pool.jsonl and in_domain_*.jsonl, for those that need real data")
    parser.add_argument("--model", help="folder of a causal language model, for those that need a real one")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", help="where the tables go")
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names():
        accepted = run_one(name, ["--help"]).stdout
        arguments = ["--toy"] if given.toy else []
        for option in OUTSIDE:
            value = getattr(given, option)
            if f"--{option}" not in accepted:
                continue
            if value:
                arguments += [f"--{option}", value]
            elif not given.toy:
                print(
                    f"{name}: no --{option} given (make bench {option.upper()}=…), so without what needs it", flush=True
                )
        print(f"--- {name} {' '.join(arguments)}", flush=True)
        done = run_one(name, arguments)
        print(done.stdout, flush=True)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr, flush=True)
            failed.append(name)
        else:
            (given.results / f"{name}.md").write_text(done.stdout, encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
