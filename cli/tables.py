"""Tables: drawn by rich and cut to the width on a terminal, plain and complete elsewhere; and in Markdown."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nait_store.markdown import escaped, one_line, table_of


@dataclass(frozen=True)
class Table:
    """Columns and rows of values.

    Attributes
    ----------
    columns
        Headings.
    rows
        One sequence of values a row; numbers are aligned right.
    caption
        Line above it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


def cell(value: Any) -> str:
    """One line of text for a value: line breaks and control characters are spelled, so that they cannot act."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(value if isinstance(value, str) else str(value))


def harmless(text: str) -> str:
    """Text of several lines as it is, but for control characters, which are spelled: it may quote a stranger."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def print_table(table: Table) -> None:
    """Print on standard output."""
    if sys.stdout.isatty():
        _print_rich(table)
    else:
        sys.stdout.write(plain_table(table) + "\n")


def plain_table(table: Table) -> str:
    """Aligned columns, two spaces apart, nothing cut: stable for scripts and diffs."""
    right = _numeric_columns(table)
    columns = []  # thousands of rows: a column at a time is quicker than a cell at a time
    for i, name in enumerate(table.columns):
        cells = [name, *(cell(row[i]) for row in table.rows)]
        width = max(map(len, cells))
        columns.append([text.rjust(width) if i in right else text.ljust(width) for text in cells])
    lines = [table.caption] if table.caption else []
    lines += ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    return "\n".join(lines)


def markdown_table(table: Table) -> str:
    """Draw a table of GitHub's Markdown that shows values as they are: what would be markup is escaped, lines kept."""
    columns, *rows = [
        [escaped(value) if isinstance(value, str) else cell(value) for value in row]
        for row in (table.columns, *table.rows)
    ]
    return table_of(columns, rows, _numeric_columns(table))


def _numeric_columns(table: Table) -> set[int]:
    numeric = set()
    for i in range(len(table.columns)):
        found = {type(row[i]) for row in table.rows} - {type(None)}
        if found and all(issubclass(one, (int, float, Decimal)) and one is not bool for one in found):
            numeric.add(i)
    return numeric


def _print_rich(table: Table) -> None:
    # Imported here: rich costs a tenth of a second, which --help and scripts need not pay.
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    right = _numeric_columns(table)
    drawn = RichTable(box=box.SIMPLE_HEAD, title=table.caption or None, title_justify="left", pad_edge=False)
    for i, name in enumerate(table.columns):
        drawn.add_column(Text(name), justify="right" if i in right else "left", overflow="ellipsis", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    # The width is said outright: on a terminal without capabilities rich would take 80 columns for granted.
    Console().print(drawn, width=shutil.get_terminal_size().columns)


def pairs(items: Sequence[tuple[str, str | None]]) -> str:
    """Aligned ``key  value`` lines; keys without a value are left out."""
    shown = [(key, cell(value)) for key, value in items if value]
    width = max(len(key) for key, _ in shown)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown)
