"""Text of others in Markdown and in tables: shown as it is, so that nothing in it can act."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_MARKUP = frozenset("\\`*|<&[]~")


def one_line(text: str) -> str:
    """The text on one line: line breaks and control characters are spelled."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped(text: str) -> str:
    """The text within a line of GitHub's Markdown: what would be markup is escaped, its own lines are kept."""
    lines = (one_line(line) for line in text.splitlines())
    return "<br>".join("".join(_escaped(line, i) for i in range(len(line))) for line in lines)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Draw a table of cells that are Markdown already; columns in ``right`` are aligned right."""
    drawn = [list(columns), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[i]) for row in drawn)) for i in range(len(columns))]
    lines = [
        [text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
        for row in drawn
    ]
    lines.insert(1, ["-" * (w - 1) + ":" if i in right else "-" * w for i, w in enumerate(widths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(line: str, i: int) -> str:
    """One character; an underscore within a word is no markup and stays as it is."""
    c = line[i]
    within = c == "_" and line[i - 1 : i].isalnum() and line[i + 1 : i + 2].isalnum()
    return f"\\{c}" if c in _MARKUP or (c == "_" and not within) else c
