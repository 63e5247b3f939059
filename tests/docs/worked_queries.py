"""The questions of docs/queries.md: a heading, a query, and the first rows of what it gives.

``python -m tests.docs.worked_queries`` makes the store by the page's own commands and writes the shown rows anew; look
at the difference before committing it.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import nait_store
from nait_store.cli.query_output import write_form
from tests.docs.pages import REPOSITORY, blocks, run
from tests.warm_processes import warm_programs

PAGE = REPOSITORY / "docs" / "queries.md"

_MOST_SHOWN, _SHOWN_OF_MORE = 12, 5
_NUMBER = re.compile(r"(?<![\w.@-])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.@])")


@dataclass(frozen=True)
class WorkedQuery:
    """One question of the page.

    Attributes
    ----------
    title
        Its heading.
    line
        Number of the query's first line, from 1.
    sql
        The query.
    shown
        Lines of its result, as the page shows them.
    """

    title: str
    line: int
    sql: str
    shown: list[str]


def worked_queries(page: Path = PAGE) -> list[WorkedQuery]:
    """Read every query of the page with the result that follows it.

    Raises
    ------
    ValueError
        A query without a heading of its own or without a result.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[WorkedQuery] = []
    answers = blocks(page)[1:]
    for block, answer in zip(blocks(page), [*answers, None], strict=True):
        if block.language != "sql":
            continue
        title = next(line for line in reversed(lines[: block.line]) if line.startswith("#")).lstrip("# ")
        if answer is None or answer.language != "text" or title in {one.title for one in found}:
            raise ValueError(f"{page}:{block.line}: a query needs its own heading and, in a text block, its result")
        found.append(WorkedQuery(title, block.line, block.text, answer.text.splitlines()))
    return found


def shown_rows(table: pa.Table) -> list[str]:
    """The lines by which a page shows a result: as ``nait-store sql`` prints it, of a long one the first rows."""
    n_shown = table.num_rows if table.num_rows <= _MOST_SHOWN else _SHOWN_OF_MORE
    stream = io.BytesIO()
    write_form(table.slice(0, n_shown), "table", stream)
    lines = stream.getvalue().decode().splitlines()
    return lines if n_shown == table.num_rows else [*lines, f"… {table.num_rows:,} rows"]


def differ(shown: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether two results differ by more than the last decimal that is shown: another processor rounds otherwise.

    Texts and whole numbers must be equal; how wide columns are does not matter.
    """
    if len(shown) != len(actual):
        return True
    for one, other in zip(shown, actual, strict=True):
        if _NUMBER.sub("#", one).split() != _NUMBER.sub("#", other).split():
            return True
        if any(_apart(*pair) for pair in zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)):
            return True
    return False


def _apart(one: str, other: str) -> bool:
    decimals = max(len(text.partition(".")[2]) for text in (one, other))
    last_place = 10.0**-decimals if decimals else 0.0
    return abs(float(one) - float(other)) > 1.5 * last_place


def rewrite(page: Path = PAGE) -> None:
    """Put what the queries give in the place of what the page shows."""
    lines = page.read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder, warm_programs() as programs:
        run(page, Path(folder), programs)
        with contextlib.chdir(Path(folder) / "tour"):
            store = nait_store.open("./.nait-store")
            for query in reversed(worked_queries(page)):
                first = lines.index("```text", query.line) + 1
                lines[first : first + len(query.shown)] = shown_rows(store.sql(query.sql).arrow())
            store.session.close()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
