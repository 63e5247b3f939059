"""Which samples count as duplicates, ``exact``, ``near:0.8``, ``cosine:0.95``, and one that was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nait_store.errors import InvalidInputError

_EXAMPLE = "write exact, near, near:0.9 (Jaccard similarity of texts), cosine or cosine:0.99 (of activations)"
LEAST_JACCARD = 0.5
"""Below it MinHash would compare nearly everything with everything."""


class DuplicateKind(StrEnum):
    """How two samples are compared, in the order in which rules are applied.

    ``exact``: their texts are equal; ``near``: their texts have most of their runs of three words in common;
    ``cosine``: their vectors in the last stored layer have nearly the same direction.
    """

    EXACT = "exact"
    NEAR = "near"
    COSINE = "cosine"


_DEFAULTS = {DuplicateKind.NEAR: 0.8, DuplicateKind.COSINE: 0.95}
_LEAST = {DuplicateKind.NEAR: LEAST_JACCARD, DuplicateKind.COSINE: 0.5}


@dataclass(frozen=True)
class DuplicateRule:
    """One way to be a duplicate.

    Attributes
    ----------
    kind
        How samples are compared.
    threshold
        Similarity from which on they are duplicates; 1 for ``exact``.
    """

    kind: DuplicateKind
    threshold: float = 1.0

    def __str__(self) -> str:
        return self.kind.value if self.kind is DuplicateKind.EXACT else f"{self.kind}:{self.threshold!r}"


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
    kind: DuplicateKind
    similarity: float


def parse_rule(text: str) -> DuplicateRule:
    """Parse ``exact``, ``near``, ``near:0.9``, ``cosine`` or ``cosine:0.99``.

    Raises
    ------
    InvalidInputError
        Another word, or a threshold out of range.
    """
    name, colon, number = text.strip().partition(":")
    try:
        kind = DuplicateKind(name)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is no kind of duplicates", next_step=_EXAMPLE) from error
    if kind is DuplicateKind.EXACT:
        if colon:
            raise InvalidInputError("texts are equal or not: exact has no threshold", next_step=_EXAMPLE)
        return DuplicateRule(kind)
    if not colon:
        return DuplicateRule(kind, _DEFAULTS[kind])
    try:
        threshold = float(number)
    except ValueError as error:
        raise InvalidInputError(f"{text!r}: {number!r} is no similarity", next_step=_EXAMPLE) from error
    if not _LEAST[kind] <= threshold <= 1:  # NaN is none of this
        raise InvalidInputError(
            f"{text!r}: a similarity of {number} is not from {_LEAST[kind]:g} to 1", next_step=_EXAMPLE
        )
    return DuplicateRule(kind, threshold)


def parse_rules(texts: str | Sequence[str]) -> tuple[DuplicateRule, ...]:
    """Parse one rule or several, each kind once; they come back in the order in which they are applied.

    Raises
    ------
    InvalidInputError
        As :func:`parse_rule`, or a kind twice.
    """
    rules = [parse_rule(text) for text in ([texts] if isinstance(texts, str) else texts)]
    kinds = [rule.kind for rule in rules]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise InvalidInputError(f"{kind} is named twice", next_step="give each kind of duplicates once")
    return tuple(sorted(rules, key=lambda rule: list(DuplicateKind).index(rule.kind)))
