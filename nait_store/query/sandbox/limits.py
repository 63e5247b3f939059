"""How much an untrusted query may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nait_store.errors import InvalidInputError, LimitExceededError

_BOUNDS: dict[str, tuple[float, float]] = {
    "wall_seconds": (0.01, 86_400),
    "memory_bytes": (64 << 20, 1 << 44),
    "output_bytes": (1, 1 << 36),
    "threads": (1, 256),
    "new_scores": (0, 10_000),
}


@dataclass(frozen=True)
class SandboxLimits:
    """What one query may take before it is stopped.

    Attributes
    ----------
    wall_seconds
        Time in its own process, from reading the query to the last row. Scores that are computed for it by the caller's
        process are not counted.
    memory_bytes
        Memory beyond what its process has when it starts; at least 64 MiB.
    output_bytes
        Size of its rows as an Arrow IPC stream, and a byte more for every value, also those in lists.
    threads
        Threads that DuckDB runs it with.
    new_scores
        How many pairs of set and profile may be scored for it that are not scored yet.

    Raises
    ------
    InvalidInputError
        A limit that is no number, or out of range.
    """

    wall_seconds: float = 10.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 20
    threads: int = 2
    new_scores: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _BOUNDS[field.name]
            whole = field.name != "wall_seconds"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InvalidInputError(
                    f"the limit {field.name} is {value!r}", next_step=f"give a{' whole' * whole} number"
                )
            if not math.isfinite(value) or not low <= value <= high:
                raise InvalidInputError(
                    f"the limit {field.name} is {value!r}", next_step=f"give a number from {low:,} to {high:,}"
                )


def over_time(limits: SandboxLimits) -> LimitExceededError:
    """The error for a query that takes too long."""
    return LimitExceededError(
        f"the query took longer than {limits.wall_seconds:g} s and was stopped",
        next_step="ask for less, or allow more: SandboxLimits(wall_seconds=…), --timeout",
    )


def over_memory(limits: SandboxLimits) -> LimitExceededError:
    """The error for a query that needs too much memory."""
    return LimitExceededError(
        f"the query needs more memory than {limits.memory_bytes >> 20:,} MiB and was stopped",
        next_step="ask for less, or allow more: SandboxLimits(memory_bytes=…), --memory",
    )


def over_output(limit_bytes: int) -> LimitExceededError:
    """The error for a query that gives too many rows."""
    return LimitExceededError(
        f"the query gives more than {limit_bytes:,} bytes of rows and was stopped",
        next_step="select fewer columns or rows, or allow more: SandboxLimits(output_bytes=…), --max-output",
    )


def over_new_scores(n_pairs: int, limits: SandboxLimits) -> LimitExceededError:
    """The error for a query that needs too many scores that are not stored."""
    return LimitExceededError(
        f"the query needs {n_pairs:,} pairs of set and profile scored that are not stored yet, and may have "
        f"{limits.new_scores:,}",
        next_step="run 'nait-store score SET PROFILE…' first, or allow more: SandboxLimits(new_scores=…), --new-scores",
    )
