"""How many tokens a batch should hold: tried out on the model and the machine, and remembered.

A larger batch is faster until the device is busy, and then only takes more memory. The trial runs batches of 1, 2, 4 …
times the first budget until the time per token stops falling, the memory is expected to be full, or it is; what it
found is kept in the user's cache folder, per model, device, dtype and whatever else decides the work of a batch.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nait_store.capture.memory import (
    forget_peak,
    free_memory_bytes,
    is_out_of_memory,
    peak_memory_bytes,
    release_memory,
)
from nait_store.errors import NaitStoreError
from nait_store.schemas.record import json_digest
from nait_store.storage.atomic import replace_local
from nait_store.storage.cache_folder import cache_folder

AUTO = "auto"
TRIAL_SAMPLE_TOKENS = 256
_FIRST_CPU_BUDGET = 512
_FIRST_GPU_BUDGET = 4096
_LARGEST_BUDGET = 1 << 20
_GAIN = 0.03
"""Share of the time per token that a doubling must save: less is noise, or not worth the memory."""
_PATIENCE = 2
_TRIAL_SECONDS = 60.0
_REVISION = 1


@dataclass(frozen=True)
class Trial:
    """One budget that was tried.

    Attributes
    ----------
    token_budget
        Tokens of the batch.
    seconds_per_token
        Of the faster of two runs.
    """

    token_budget: int
    seconds_per_token: float


@dataclass(frozen=True)
class FoundBudget:
    """What a trial found.

    Attributes
    ----------
    token_budget
        The smallest budget whose time per token is within 3 % of the best.
    trials
        What was tried.
    stopped_by
        ``time`` (it no longer fell), ``memory``, ``patience`` (the trial took a minute) or ``results`` (the samples'
        vectors fill a batch before its tokens do).
    """

    token_budget: int
    trials: tuple[Trial, ...]
    stopped_by: str


def find_token_budget(
    run: Callable[[int], None], *, device: str, largest: int, clock: Callable[[], float] = time.perf_counter
) -> FoundBudget:
    """Try budgets out.

    Parameters
    ----------
    run
        Captures one made-up batch of so many tokens; may run out of memory.
    device
        Where the model runs.
    largest
        Tokens beyond which a batch is full of samples.
    clock
        Seconds.

    Returns
    -------
    FoundBudget
        At least 1 token; that without a trial where not even the smallest batch fits into memory.
    """
    largest = min(largest, _LARGEST_BUDGET)
    budget = min(_FIRST_CPU_BUDGET if device == "cpu" else _FIRST_GPU_BUDGET, largest)
    began = clock()
    trials: list[Trial] = []
    worse = 0
    fits = True
    forget_peak(device)
    resting = peak_memory_bytes(device)
    while True:
        seconds = _seconds(run, budget, device, clock)
        if seconds is None:
            if trials or budget == 1:
                return _found(trials, "memory")
            budget //= 2  # the first one was too large: look for one that fits, below
            largest, fits = budget, False
            continue
        best = min((trial.seconds_per_token for trial in trials), default=float("inf"))
        trials.append(Trial(budget, seconds / budget))
        worse = 0 if trials[-1].seconds_per_token < best * (1 - _GAIN) else worse + 1
        if worse >= _PATIENCE:
            return _found(trials, "time")
        if 2 * budget > largest:
            return _found(trials, "results" if fits else "memory")
        free = free_memory_bytes(device)
        if free is not None and 2 * (peak_memory_bytes(device) - resting) > free:
            return _found(trials, "memory")
        if clock() - began + 4 * seconds > _TRIAL_SECONDS:  # twice the tokens, twice
            return _found(trials, "patience")
        budget *= 2


def _seconds(run: Callable[[int], None], budget: int, device: str, clock: Callable[[], float]) -> float | None:
    """Return the seconds of the faster of two runs; None if the memory does not hold one."""
    found = float("inf")
    for _ in range(2):
        began = clock()
        try:
            run(budget)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = -1.0
        if found < 0:  # outside of the handler, which keeps the tensors of the failed run alive
            release_memory(device)
            return None
        found = min(found, clock() - began)
    return found


def _found(trials: list[Trial], stopped_by: str) -> FoundBudget:
    if not trials:
        return FoundBudget(1, (), stopped_by)
    best = min(trial.seconds_per_token for trial in trials)
    chosen = next(trial for trial in trials if trial.seconds_per_token <= best * (1 + _GAIN))
    return FoundBudget(chosen.token_budget, tuple(trials), stopped_by)


@dataclass(frozen=True)
class BudgetMemory:
    """Where a found budget is kept.

    Attributes
    ----------
    decided_by
        Everything that the budget depends on, plain JSON values.
    """

    decided_by: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """File in the user's cache folder."""
        return cache_folder() / "token-budgets" / f"{json_digest({**self.decided_by, 'revision': _REVISION})}.json"

    def recall(self) -> int | None:
        """Return the budget that was found before; None if there is none, or its file is damaged."""
        try:
            found = json.loads(self.path.read_bytes())["token_budget"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if type(found) is int and 1 <= found <= _LARGEST_BUDGET else None

    def keep(self, token_budget: int) -> None:
        """Remember a budget; where the cache cannot be written, the next session tries again."""
        document = {"token_budget": token_budget, "decided_by": self.decided_by}
        with contextlib.suppress(OSError, NaitStoreError):
            replace_local(self.path, json.dumps(document, indent=1).encode())
