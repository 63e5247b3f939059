"""Whether a ranking that was made again is the one that it should be: the same samples, scores as good as equal."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Check:
    """One thing that was compared.

    Attributes
    ----------
    subject
        The version or input, ``set:pool@1``, ``file:pool.jsonl``.
    what
        ``sample ids``, ``directions`` …
    ok
        Whether it is the same, or within the tolerance.
    detail
        What was found.
    """

    subject: str
    what: str
    ok: bool
    detail: str


def ranking_checks(
    subject: str, first: pa.Table, second: pa.Table, *, scored: bool, tolerance: float
) -> Iterator[Check]:
    """Compare two rankings: sample ids, and scores where there are some.

    Parameters
    ----------
    subject
        What they are of.
    first, second
        ``rank``, ``sample_id`` and ``score``, in the order of rank: as it was, and as it was made again.
    scored
        Whether a profile scored them; without one the order must be the very same.
    tolerance
        Largest difference of a score, in standard deviations of the first ranking's scores. Samples whose scores are
        nearer to each other may change places, also over the last rank.
    """
    ids, again = first.column("sample_id").to_pylist(), second.column("sample_id").to_pylist()
    if not scored:
        yield Check(subject, "sample ids", ids == again, _order(ids, again))
        return
    scores, scores_again = (
        dict(zip(names, table.column("score").to_pylist(), strict=True))
        for names, table in ((ids, first), (again, second))
    )
    spread = float(np.std(np.array([scores[one] for one in ids], dtype=np.float64))) if ids else 0.0
    allowed = tolerance * (spread or 1.0)
    missing, extra = set(ids) - set(again), set(again) - set(ids)
    ok = not (missing or extra)
    detail = _order(ids, again)
    if not ok and len(ids) == len(again):
        # Samples whose scores are as good as equal may change places over the last rank.
        near = [abs(scores[one] - scores[ids[-1]]) for one in missing]
        near += [abs(scores_again[one] - scores_again[again[-1]]) for one in extra]
        ok = max(near) <= allowed
        detail += ", all within the tolerance of the last rank's score" if ok else ""
    yield Check(subject, "sample ids", ok, detail)
    worst = max((abs(scores[one] - scores_again[one]) for one in set(ids) & set(again)), default=0.0)
    unit = "standard deviations" if spread else "units"
    detail = f"largest difference {worst / (spread or 1.0):.1e} {unit} of the scores; tolerance {tolerance:.1e}"
    yield Check(subject, "scores", worst <= allowed, detail)


def counts(missing: Collection[str], extra: Collection[str]) -> str:
    """``3 missing, 0 too many``."""
    return f"{len(missing):,} missing, {len(extra):,} too many"


def _order(ids: list[str], again: list[str]) -> str:
    missing, extra = set(ids) - set(again), set(again) - set(ids)
    if missing or extra:
        return counts(missing, extra)
    moved = sum(one != other for one, other in zip(ids, again, strict=True))
    return f"{len(ids):,} samples" + (f", {moved:,} at another rank" if moved else " in the same order")
