"""Cold start of the command line.

A fresh process each time, on a warm page cache: what a user waits for ``nait-store --help``, beside an interpreter
that does nothing and the import of one library that everybody knows. Bytecode is compiled in the warm-up.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.harness import Options, Report, interleave, ratio_of, run

MUST_SECONDS = 0.4
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "nait-store --help": ["-m", "nait_store.cli.main", "--help"],
    "nait-store ingest --help": ["-m", "nait_store.cli.main", "ingest", "--help"],
    "import nait_store": ["-c", "import nait_store"],
    "import nait_store.store.facade": ["-c", "import nait_store.store.facade"],
    "import duckdb": ["-c", "import duckdb"],
    "import pandas": ["-c", "import pandas"],
}


def start(arguments: list[str]) -> None:
    """Run a fresh interpreter to its end, with bytecode at hand as where a package was installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)


def body(options: Options, report: Report) -> None:
    """Time every command in turn."""
    cases = {name: (lambda arguments=arguments: start(arguments)) for name, arguments in COMMANDS.items()}
    timings = interleave(cases, options.rounds)
    report.timings("Fresh process, start to end", timings, reference="python -c pass")
    help_ms = timings["nait-store --help"]
    ordered = sorted(help_ms.seconds)
    report.table(
        "nait-store --help",
        ("fastest ms", "median ms", "slowest ms"),
        [[f"{ordered[0] * 1e3:.0f}", f"{help_ms.median * 1e3:.0f}", f"{ordered[-1] * 1e3:.0f}"]],
    )
    # Against one second: seconds with the interval of their median.
    report.limit("nait-store --help", "≤", MUST_SECONDS, ratio_of(help_ms.seconds, [1.0] * options.rounds), " s")


if __name__ == "__main__":
    run(__doc__, body, packages=("typer", "duckdb", "pandas"))
