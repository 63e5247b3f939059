"""Write docs/benchmarks.md and its pictures from the kept results: ``python -m benchmarks.page``.

Every benchmark leaves one JSON report under benchmarks/results/; what the page says besides stands in the modules'
docstrings and in benchmarks/notes/<name>.md, both written by hand. The same results give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.pictures import picture
from benchmarks.report import Bar, Table

RESULTS = ROOT / "benchmarks" / "results"
NOTES = ROOT / "benchmarks" / "notes"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "images" / "benchmarks"
FIRST = ("peers", "scan", "ingest")
"""What the page begins with; the others follow by name."""

_INTRODUCTION = """# Benchmarks: speed and memory

Written by `make bench`, not by hand: it measures everything again, `make bench ONLY="scan sql"` only these two.
Rounds are interleaved (A B A B …). Times are medians with the fastest and slowest round; ratios are taken round by
round, with their interval in parentheses. Absolute times are this machine's, ratios carry over. A limit counts as
missed when the whole interval is on the wrong side of it.
[How to read the tables](../benchmarks/README.md#how-to-read-the-tables);
[what a store survives](faults.md).
"""


@dataclass(frozen=True)
class Result:
    """One benchmark's kept report.

    Attributes
    ----------
    name
        Of its module.
    document
        The report, as :meth:`benchmarks.report.Report.to_json` gives it.
    note
        What was written about it by hand; may be empty.
    """

    name: str
    document: dict[str, Any]
    note: str

    @property
    def title(self) -> str:
        """Its title."""
        return _plain(self.document["title"])

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [
            Table(
                table["title"],
                tuple(table["columns"]),
                tuple(tuple(row) for row in table["rows"]),
                table["note"],
                tuple(Bar(**bar) for bar in table["bars"]),
                table["unit"],
            )
            for table in self.document["tables"]
        ]


def kept_results(results: Path = RESULTS, notes: Path = NOTES) -> list[Result]:
    """Load what is kept, in the order of the page; toy-size reports have no place in it."""
    found = []
    for path in results.glob("*.json"):
        note = notes / f"{path.stem}.md"
        text = note.read_text(encoding="utf-8").strip() if note.exists() else ""
        document = json.loads(path.read_text(encoding="utf-8"))
        if not document["toy"]:
            found.append(Result(path.stem, document, text))
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    return sorted(found, key=lambda result: (ranks.get(result.name, len(FIRST)), result.name))


def rendered(results: list[Result]) -> tuple[str, dict[str, str]]:
    """Render the page, and its pictures by file name."""
    pictures: dict[str, str] = {}
    sections = [_INTRODUCTION.rstrip(), *_machine(results), *_summary(results)]
    sections += [_section(result, pictures) for result in results]
    return "\n\n".join(sections) + "\n", pictures


def write(results: Path = RESULTS, notes: Path = NOTES, page: Path = PAGE, pictures: Path = PICTURES) -> None:
    """Write the page and its pictures, and remove pictures that nothing shows any more."""
    text, drawn = rendered(kept_results(results, notes))
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, svg in drawn.items():
        (pictures / name).write_text(svg, encoding="utf-8")
    page.write_text(text, encoding="utf-8")


def _machine(results: list[Result]) -> list[str]:
    machines = Counter(result.document["machine"].split(", load")[0] for result in results)
    if not machines:
        return []
    return [f"Machine: {'; '.join(machines)}. Each section says when it was measured, with what, and under what load."]


def _summary(results: list[Result]) -> list[str]:
    rows = [
        "| benchmark | what | must | measured | |",
        "|---|---|---:|---:|---|",
        *(
            f"| [{result.name}](#{_anchor(result.title)}) | {limit['what']} | {limit['must']} | "
            f"{_measured(limit)} | {'met' if limit['met'] else '**missed**'} |"
            for result in results
            for limit in result.document["limits"]
        ),
    ]
    return ["\n".join(rows)] if len(rows) > 2 else []


def _measured(limit: dict[str, Any]) -> str:
    if limit["low"] == limit["high"]:
        return _shown(limit["median"])
    return f"{_shown(limit['median'])} ({_shown(limit['low'])}–{_shown(limit['high'])})"


def _shown(value: float) -> str:
    return f"{value:.4f}" if 0.9 < value < 1 else f"{value:.2f}"


def _section(result: Result, pictures: dict[str, str]) -> str:
    document = result.document
    parts = [f"## {result.title}"]
    if document["description"]:
        parts.append(_plain(document["description"]))
    if result.note:
        parts.append(result.note)
    for number, table in enumerate(result.tables, start=1):
        parts.append(table.markdown())
        svg = picture(table)
        if svg is not None:
            file_name = f"{result.name}-{number}.svg"
            pictures[file_name] = svg
            parts.append(f"![{table.title}](images/benchmarks/{file_name})")
    parts.append(f"`python -m benchmarks.{result.name}`, {document['measured']}: {document['machine']}.")
    return "\n\n".join(parts)


def _plain(docstring: str) -> str:
    """Turn a docstring's reStructuredText literals and roles into markdown's."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", docstring)
    return text.replace("``", "`")


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return kept.replace(" ", "-")


if __name__ == "__main__":
    write()
