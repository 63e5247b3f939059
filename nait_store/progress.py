"""How long work reports what it has done, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """State of one running piece of work.

    Attributes
    ----------
    stage
        ``"capture"``, ``"score"``, ``"read"``, ``"verify"`` …
    done
        Units (samples, rows, files) finished.
    total
        Units in all, where known.
    tokens
        Tokens that went through the model so far.
    bytes_done
        Bytes written (ingest) or read (score, verify) so far.
    bytes_total
        Bytes in all, where known.
    elapsed_seconds
        Since the stage began.
    """

    stage: str
    done: int
    total: int | None = None
    tokens: int = 0
    bytes_done: int = 0
    bytes_total: int | None = None
    elapsed_seconds: float = 0.0


ProgressListener = Callable[[ProgressEvent], None]


def ignore_progress(event: ProgressEvent) -> None:
    """Listen to nothing."""
