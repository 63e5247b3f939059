"""One picture for a table: horizontal bars as a small SVG, readable on a light page and on a dark one.

Written by hand rather than by a plotting library: the same numbers give the same bytes, a picture is some two
kilobytes, its text is text, and a checkout needs nothing installed to draw it. Ours are blue, the reference of the
table's ratios is dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from benchmarks.report import Bar, Table

WIDTH = 760
LABEL_WIDTH = 250
VALUE_WIDTH = 90
ROW_HEIGHT = 22
BAR_HEIGHT = 12
MOST_BARS = 24
LOGARITHMIC_FROM = 30.0
"""Largest value over smallest from which bars are drawn on a logarithmic scale."""

ALIKE = 1.01
"""Largest value over smallest up to which a column says nothing as a picture."""

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.t{font-weight:600}"
    ".b{fill:#8c959f}.r{fill:#57606a}.o{fill:#2f81f7}"
    ".w{stroke:#57606a;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#adbac7}.b{fill:#768390}.r{fill:#adbac7}.w{stroke:#adbac7}}"
)
_LEADING_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")
_OURS = "nait-store"


def picture(table: Table) -> str | None:
    """Draw a table, or return None where there is nothing to compare: fewer than two rows of numbers."""
    bars, unit = (table.bars, table.unit) if table.bars else bars_of_cells(table)
    bars = tuple(bars[:MOST_BARS])
    if len(bars) < 2 or max(bar.high for bar in bars) <= 0:
        return None
    return _svg(table.title, bars, unit)


def bars_of_cells(table: Table) -> tuple[tuple[Bar, ...], str]:
    """Bars of the first column of numbers that are not negative and not all the same, and the column's name."""
    for column in range(1, len(table.columns)):
        values = [_number(row[column]) for row in table.rows]
        numbers = [value for value in values if value is not None]
        if len(numbers) != len(values) or not numbers or min(numbers) < 0 or max(numbers) <= ALIKE * min(numbers):
            continue
        words = [i for i in range(1, column) if not any(_number(row[i]) is not None for row in table.rows)]
        labels = [", ".join(row[i] for i in (0, *words)) for row in table.rows]
        bars = tuple(Bar(label, value, value, value) for label, value in zip(labels, numbers, strict=True))
        return bars, table.columns[column]
    return (), ""


def _number(cell: str) -> float | None:
    found = _LEADING_NUMBER.match(cell)
    return float(found[0].replace(",", "")) if found else None


def _svg(title: str, bars: Sequence[Bar], unit: str) -> str:
    smallest = min((bar.value for bar in bars if bar.value > 0), default=1.0)
    largest = max(bar.high for bar in bars)
    logarithmic = largest / smallest > LOGARITHMIC_FROM
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    origin = 10 ** math.floor(math.log10(smallest)) if logarithmic else 0.0

    def x(value: float) -> float:
        if not logarithmic:
            return LABEL_WIDTH + room * value / largest
        share = math.log(max(value, origin) / origin) / math.log(largest / origin) if largest > origin else 1.0
        return LABEL_WIDTH + room * share

    height = 44 + ROW_HEIGHT * len(bars)
    scale = f"{unit}, logarithmic scale" if logarithmic else unit
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="t" x="8" y="16">{escape(_shortened(title, 108))}</text>',
        f'<text x="{LABEL_WIDTH}" y="32">{escape(scale)}</text>',
    ]
    for number, bar in enumerate(bars):
        top = 40 + ROW_HEIGHT * number
        middle = top + BAR_HEIGHT / 2
        kind = "o" if bar.label.startswith(_OURS) else "r" if bar.reference else "b"
        parts.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 10}" text-anchor="end">{escape(_shortened(bar.label, 38))}</text>'
            f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{top}" width="{x(bar.value) - LABEL_WIDTH:.1f}" '
            f'height="{BAR_HEIGHT}"/>'
        )
        if bar.high > bar.low:
            parts.append(
                f'<line class="w" x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{middle:g}" y2="{middle:g}"/>'
            )
        parts.append(f'<text x="{x(bar.high) + 6:.1f}" y="{top + 10}">{_shown(bar.value)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _shown(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
