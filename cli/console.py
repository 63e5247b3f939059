"""What commands write: results on standard output, everything else on standard error."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from nait_store.cli.progress_line import ProgressLine
from nait_store.cli.tables import Table, harmless, print_table


@dataclass(frozen=True)
class Console:
    """How this run of the program talks.

    Attributes
    ----------
    store_url
        ``--store``, or None for the default.
    as_json
        Whether results are JSON on standard output.
    quiet
        Whether summaries, hints and progress are left out; results, warnings and errors never are.
    debug
        Whether errors show tracebacks.
    """

    store_url: str | None = None
    as_json: bool = False
    quiet: bool = False
    debug: bool = False

    def result(self, value: Any, blocks: Iterable[str | Table]) -> None:
        """Write a command's result: ``value`` as JSON, or ``blocks`` for people."""
        if self.as_json:
            self.json(value)
            return
        for block in blocks:
            if isinstance(block, Table):
                print_table(block)
            else:
                sys.stdout.write(f"{block}\n")

    def summary(self, value: Any, lines: Sequence[str]) -> None:
        """Write the outcome of a command that has no other result; ``--quiet`` leaves it out."""
        if self.as_json or not self.quiet:
            self.result(value, lines)

    def json(self, value: Any) -> None:
        """Write one JSON document on standard output."""
        sys.stdout.write(json.dumps(as_json(value), ensure_ascii=False, indent=2) + "\n")

    def note(self, text: str) -> None:
        """Say something that is not the result, on standard error."""
        if not self.quiet and not self.as_json:
            sys.stderr.write(f"{text}\n")

    def hint(self, command: str) -> str:
        """Phrase the natural next command, ready to be typed."""
        named = self.store_url if self.store_url != os.environ.get("NAIT_STORE") else None
        return f"next: nait-store {f'--store {shlex.quote(named)} ' if named else ''}{command}"

    def warn(self, texts: Iterable[str]) -> None:
        """Warn on standard error, also under ``--quiet``."""
        for text in texts:
            sys.stderr.write(f"warning: {harmless(text)}\n")

    def progress(self) -> ProgressLine:
        """Progress on standard error; a listener that hears nothing under ``--quiet``."""
        return ProgressLine(sys.stderr, enabled=not self.quiet)


def as_json(value: Any) -> Any:
    """Turn dataclasses, records, enums and times into plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return as_json(value.model_dump(mode="json"))
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
