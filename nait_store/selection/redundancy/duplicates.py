"""A sample that is left out, and which better-ranked one says the same."""

from __future__ import annotations

from dataclasses import dataclass

from nait_store.selection.redundancy.rules import Kind


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One sample that is left out.

    Attributes
    ----------
    position
        Of the sample in the ranking, from 0.
    of
        Position of the better-ranked sample that stays.
    kind
        By what they are alike.
    similarity
        How much.
    """

    position: int
    of: int
    kind: Kind
    similarity: float
