"""What a benchmark found: tables, bars to draw, and limits; as markdown and as JSON."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.timing import ROUNDS, Ratio, Timing, ratio


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


_WORDY = 40  # characters


@dataclass(frozen=True)
class Bar:
    """One row of a table, drawn: a value, and the lowest and highest measured; ratios are to the reference."""

    label: str
    value: float
    low: float
    high: float
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """One table of a report; ``bars`` in ``unit`` is its picture, where its own cells don't say what to draw."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    bars: tuple[Bar, ...] = ()
    unit: str = ""

    def markdown(self) -> str:
        """Return it as markdown; every column but the first, and those of sentences, is right-aligned."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        wordy = [any(len(row[i]) > _WORDY for row in self.rows) for i in range(len(self.columns))]
        lines.append("|---|" + "".join("---|" if words else "---:|" for words in wordy[1:]))
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
    def promise(self) -> str:
        """What must be, as text."""
        return f"{self.comparison} {self.must:g}{self.unit}"

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
    description: str = ""
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
        """Add a table of timings: median, spread, rate, and how many times faster than ``reference`` each is.

        Its picture shows the medians and the fastest and slowest rounds.
        """
        columns = ["what", "median ms", "min–max ms", *(["GB/s"] if work_bytes else []), f"{reference} / this"]
        rows = []
        for name, timing in timings.items():
            rate = [f"{work_bytes / timing.median / 1e9:.2f}"] if work_bytes else []
            against = "1" if name == reference else str(ratio(timings[reference], timing))
            rows.append([name, f"{timing.median * 1e3:,.1f}", timing.spread, *rate, against])
        cells = tuple(tuple(row) for row in rows)
        bars = tuple(
            Bar(name, timing.median * 1e3, min(timing.seconds) * 1e3, max(timing.seconds) * 1e3, name == reference)
            for name, timing in timings.items()
        )
        n_rounds = max(len(timing.seconds) for timing in timings.values())
        if n_rounds < ROUNDS:
            note = f"{note} {n_rounds} rounds.".strip()
        self.tables.append(Table(title, tuple(columns), cells, note, bars, "ms"))

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
                    limit.promise,
                    f"{limit.measured.median:.2f} ({limit.measured.low:.2f}–{limit.measured.high:.2f})",
                    "not judged" if self.toy else "met" if limit.met else "**missed**",
                )
                for limit in self.limits
            )
            parts.append(Table("Limits", ("what", "must", "measured", "verdict"), rows).markdown())
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Return the same as JSON, with what the page about all benchmarks needs besides."""
        document = {
            "title": self.title,
            "description": self.description,
            "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "toy": self.toy,
            "machine": machine_line(*self.packages),
            "tables": [asdict(table) for table in self.tables],
            "limits": [
                {
                    "what": limit.what,
                    "must": limit.promise,
                    "median": limit.measured.median,
                    "low": limit.measured.low,
                    "high": limit.measured.high,
                    "met": None if self.toy else limit.met,
                }
                for limit in self.limits
            ],
        }
        return json.dumps(document, ensure_ascii=False, indent=1)
