"""How much an untrusted query may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nait_store.errors import InvalidInputError

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
