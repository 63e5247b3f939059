"""How many samples to take: ``562`` or ``10%``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from nait_store.errors import InvalidInputError

EVERYTHING = "100%"
_COUNT = re.compile(r"[0-9]{1,15}\Z")
_PERCENT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\Z")
_NEXT_STEP = "give a count of at least 1, e.g. --top 500, or a share above 0% and up to 100%, e.g. --top 10%"


@dataclass(frozen=True)
class Budget:
    """A parsed ``--top``; exactly one of ``count`` and ``share`` is set.

    Attributes
    ----------
    text
        As the user wrote it.
    count
        Number of samples, at least 1.
    share
        Exact share of the candidates, in (0, 1].
    """

    text: str
    count: int | None = None
    share: Fraction | None = None

    def resolve(self, n_candidates: int, candidates: str, *, at_most: bool = False) -> int:
        """Turn the budget into a number of samples.

        Parameters
        ----------
        n_candidates
            How many samples there are to choose from.
        candidates
            What they are, for the message: ``"pool@3"``.
        at_most
            Whether a count above what there is means all of them.

        Returns
        -------
        int
            The count, or the share of the candidates rounded up (so at least 1).

        Raises
        ------
        InvalidInputError
            There is no candidate, or there are fewer than the count.
        """
        if n_candidates == 0:
            raise InvalidInputError(
                f"there is nothing to select: {candidates} has no matching sample",
                next_step="widen or drop --where; 'nait-store sql' shows what the columns hold",
            )
        if self.share is not None:
            return math.ceil(self.share * n_candidates)
        count = self.count or 0
        if count > n_candidates:
            if at_most:
                return n_candidates
            raise InvalidInputError(
                f"--top {self.text} asks for more than there is: {candidates} has {n_candidates:,} candidates",
                next_step=f"use --top {n_candidates} or --top 100% to take them all, ranked",
            )
        return count


def parse_budget(top: str | int) -> Budget:
    """Parse ``--top``.

    Parameters
    ----------
    top
        ``562``, ``"562"``, ``"10%"`` or ``"2.5%"``.

    Raises
    ------
    InvalidInputError
        Not of that form, zero, or a share above 100 %.
    """
    text = str(top).strip()
    if _COUNT.match(text):
        if int(text) == 0:
            raise InvalidInputError("--top 0 selects nothing", next_step=_NEXT_STEP)
        return Budget(text, count=int(text))
    if match := _PERCENT.match(text):
        share = Fraction(match[1]) / 100
        if share == 0:
            raise InvalidInputError(f"--top {text} selects nothing", next_step=_NEXT_STEP)
        if share > 1:
            raise InvalidInputError(f"--top {text} is more than all there is", next_step=_NEXT_STEP)
        return Budget(text, share=share)
    raise InvalidInputError(f"--top {text!r} is neither a count nor a percentage", next_step=_NEXT_STEP)
