"""The runnable blocks of a Markdown page.

In a ``console`` block every line that begins with ``$ `` is a command, continued while lines end in a backslash; what
else stands there is output, shown and not compared. A ``python`` block is a program. ``sh`` blocks install things and
are not run, nor is a block whose preceding line is ``<!-- shown, not run: why -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[a-z]*)\s*$")
_NOT_RUN = re.compile(r"^<!-- shown, not run: \S.*-->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    language
        What follows the fence.
    line
        Number of its first inner line, from 1.
    text
        Inner lines.
    runs
        Whether it may be run at all.
    """

    language: str
    line: int
    text: str
    runs: bool


@dataclass(frozen=True)
class Snippet:
    """One command or program of a page."""

    line: int
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Read the fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[str, str, int, bool] | None = None
    inner: list[str] = []
    previous = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if opened is None:
            match = _FENCE.match(line)
            if match:
                opened = (match["fence"], match["language"], number + 1, not _NOT_RUN.match(previous))
                inner = []
        elif line.strip() == opened[0]:
            found.append(Block(opened[1], opened[2], "\n".join(inner), opened[3]))
            opened = None
        else:
            inner.append(line)
        previous = line.strip() or previous
    if opened is not None:
        raise ValueError(f"{page}:{opened[2]}: a block is never closed")
    return found


def snippets(page: Path) -> list[Snippet]:
    """What to run of a page, in order."""
    found = []
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "python":
            found.append(Snippet(block.line, "python", block.text))
        if block.language == "console":
            found += _commands(block)
    return found


def _commands(block: Block) -> list[Snippet]:
    found: list[Snippet] = []
    lines = iter(enumerate(block.text.splitlines(), start=block.line))
    for number, line in lines:
        if not line.startswith("$ "):
            continue
        command = [line[2:]]
        while command[-1].endswith("\\"):
            command.append(next(lines)[1])
        found.append(Snippet(number, "console", "\n".join(command)))
    return found
