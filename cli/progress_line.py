"""Progress on standard error: one line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from nait_store.cli.quantities import duration, rate, size
from nait_store.progress import ProgressEvent

_REDRAW_SECONDS = 0.1
_SPARSE_SECONDS = 30.0
_UNITS = {
    "capture": "samples",
    "score": "rows",
    "read": "rows",
    "profile": "layers",
    "card": "layers",
    "verify": "files",
    "compact": "rows",
    "convert": "rows",
    "prune": "sidecars",
}


class ProgressLine:
    """Shows progress events; a context manager that cleans its line up.

    Parameters
    ----------
    stream
        Standard error.
    enabled
        Whether to show anything.
    """

    def __init__(self, stream: TextIO, *, enabled: bool = True) -> None:
        self._stream = stream
        self._enabled = enabled
        self._redraws = enabled and stream.isatty()
        self._stage = ""
        self._shown_at = time.monotonic()
        self._width = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._clear()

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event, unless the last one was shown just now."""
        if not self._enabled:
            return
        now = time.monotonic()
        finished = event.total is not None and event.done >= event.total
        pause = _REDRAW_SECONDS if self._redraws else _SPARSE_SECONDS
        if now - self._shown_at < pause and not (self._redraws and (finished or event.stage != self._stage)):
            return
        self._shown_at, self._stage = now, event.stage
        text = describe(event)
        if self._redraws:
            width = max(20, shutil.get_terminal_size().columns - 1)
            shown = text if len(text) <= width else text[: width - 1] + "…"
            self._stream.write("\r" + shown.ljust(self._width))
            self._width = len(shown)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def describe(event: ProgressEvent) -> str:
    """One line: ``capture 1,234/6,000 (20 %)  152 samples/s  31.2k tokens/s  44 MB  ETA 0:31``."""
    done = f"{event.done:,}" if event.total is None else f"{event.done:,}/{event.total:,}"
    if event.total:
        done += f" ({event.done / event.total:.0%})".replace("%", " %")
    parts = [f"{event.stage} {done}"]
    seconds = event.elapsed_seconds
    if seconds > 0:
        if event.done:
            parts.append(f"{rate(event.done / seconds)} {_UNITS.get(event.stage, 'items')}/s")
        if event.tokens:
            parts.append(f"{rate(event.tokens / seconds)} tokens/s")
    if event.bytes_done:
        parts.append(size(event.bytes_done) + (f"/{size(event.bytes_total)}" if event.bytes_total else ""))
    # bytes take the time where their total is known
    done_share, all_of_it = (event.bytes_done, event.bytes_total) if event.bytes_total else (event.done, event.total)
    if seconds > 0 and all_of_it and 0 < done_share < all_of_it:
        parts.append(f"ETA {duration(seconds / done_share * (all_of_it - done_share))}")
    return "  ".join(parts)
