"""Strategies, combinations and scales by name, and profiles and columns with their weights as users write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Self

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind
from nait_store.schemas.selection import ProfileWeight

_KINDS = frozenset(Kind)


class _Choice(StrEnum):
    """One of a few words."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the member of this name; InvalidInputError where there is none."""
        try:
            return cls(text)
        except ValueError as error:
            raise InvalidInputError(
                f"{text!r} is not {_NOUNS[cls.__name__]}", next_step=f"use one of {', '.join(cls)}"
            ) from error


_NOUNS = {"Strategy": "a strategy", "Combine": "a way to combine profiles", "FuseBy": "a scale"}


class Strategy(_Choice):
    """How candidates are ordered, or drawn.

    ``alignment``: highest score first; ``lowest``: the paper's control; ``random``: the other one; ``length-matched``:
    random, with as many samples of each length as alignment takes; ``embedding``: by cosine to the centroid of the
    in-domain samples in the last layer, the baseline that needs no profile.
    """

    ALIGNMENT = "alignment"
    LOWEST = "lowest"
    RANDOM = "random"
    LENGTH_MATCHED = "length-matched"
    EMBEDDING = "embedding"

    @property
    def is_seeded(self) -> bool:
        """Whether chance decides."""
        return self in (Strategy.RANDOM, Strategy.LENGTH_MATCHED)


class Combine(_Choice):
    """How several profiles make one order.

    ``union``: each profile's best in turn, without repeats; ``sum`` and ``min``: of scores in standard deviations from
    the candidates' mean; ``rrf``: the sum of 1 / (60 + rank); ``norm``: the root of the sum of scores' squares, for the
    first K components of a profile: it grows with the length of a sample's projection on their subspace.
    """

    UNION = "union"
    SUM = "sum"
    MIN = "min"
    RRF = "rrf"
    NORM = "norm"


class FuseBy(_Choice):
    """How values are put on a scale from 0 to 1: by their place between the extremes, or among the others."""

    MINMAX = "minmax"
    RANK = "rank"


def parse_profile(text: str) -> ProfileWeight:
    """Parse ``math``, ``math@2``, ``code:2`` or ``profile:code@prod:0.5``.

    Raises
    ------
    InvalidInputError
        The weight is no number above 0.
    """
    prefix, colon, rest = text.partition(":")
    body = rest if colon and prefix in _KINDS else text
    _, colon, weight = body.rpartition(":")
    if not colon:
        return ProfileWeight(reference=text)
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    return _weighted(text.removesuffix(f":{weight}"), value)


def parse_profiles(profiles: str | Sequence[str] | Mapping[str, float] | None) -> tuple[ProfileWeight, ...]:
    """Understand one profile, several, or a mapping of profiles to weights; errors as of :func:`parse_profile`."""
    if profiles is None:
        return ()
    if isinstance(profiles, str):
        return (parse_profile(profiles),)
    if isinstance(profiles, Mapping):
        return tuple(_weighted(name, weight) for name, weight in profiles.items())
    return tuple(parse_profile(profile) for profile in profiles)


def require_distinct(references: Sequence[str], next_step: str) -> None:
    """Refuse resolved references of which two are the same, as ``math`` and ``math@2`` may be."""
    for reference in references:
        if references.count(reference) > 1:
            raise InvalidInputError(f"{reference} is named twice", next_step=next_step)


def parse_fused(text: str) -> tuple[str, float]:
    """Parse ``quality:0.5``, or ``length:-1`` where less is better.

    Raises
    ------
    InvalidInputError
        No column, or a weight that is no number or 0.
    """
    column, _, weight = text.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not column or not math.isfinite(value) or value == 0:
        raise InvalidInputError(
            f"--fuse {text!r} is not COLUMN:WEIGHT", next_step="write e.g. --fuse quality:0.5; the score counts 1"
        )
    return column, value


def _weighted(reference: str, weight: float) -> ProfileWeight:
    if not (math.isfinite(weight) and weight > 0):
        raise InvalidInputError(
            f"the weight of {reference!r} is not a number above 0", next_step="write e.g. --profile code:2 or code:0.5"
        )
    return ProfileWeight(reference=reference, weight=weight)
