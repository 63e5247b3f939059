"""The runnable blocks of a Markdown page.

In a ``console`` block every line that begins with ``$ `` is a command, continued while lines end in a backslash; what
else stands there is output, shown and not compared. A ``python`` block is a program. ``sh`` blocks install things and
are not run, nor is a block whose preceding line is ``<!-- shown, not run: why -->``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nait_store.demo import files
from tests.warm_processes import warm_environment

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


def run(page: Path, folder: Path, programs: Path) -> None:
    """Run a page's commands and programs in one shell, in a folder with the demo's pool.jsonl, maths.jsonl and model/.

    Parameters
    ----------
    page
        The Markdown file.
    folder
        Where to run; no store is set.
    programs
        Folder of ``nait-store`` and ``python``.
    """
    files.copy_inputs(folder)
    script = ["set -euo pipefail"]
    for snippet in snippets(page):
        script += [f"echo '>>> {page.name}:{snippet.line}' >&2", _spell(snippet, folder)]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=warm_environment(programs),
        capture_output=True,
        text=True,
        check=False,
    )
    marks = [line for line in done.stderr.splitlines() if line.startswith(">>> ")]
    stopped = marks[-1] if marks else "the start"
    assert done.returncode == 0, f"stopped at {stopped}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _spell(snippet: Snippet, folder: Path) -> str:
    """A shell line that runs the snippet; programs go through a file, so that tracebacks name their lines."""
    if snippet.language == "console":
        return snippet.code
    program = folder / f"line_{snippet.line}.py"
    program.write_text(snippet.code + "\n", encoding="utf-8")
    return f"python -W error {shlex.quote(str(program))}"
