"""Which samples count as duplicates: ``exact``, ``near:0.8``, ``cosine:0.95``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nait_store.errors import InvalidInputError

_EXAMPLE = "write exact, near, near:0.9 (Jaccard similarity of texts), cosine or cosine:0.99 (of activations)"
LEAST_JACCARD = 0.5
"""Below it MinHash would compare nearly everything with everything."""


class Kind(StrEnum):
    """How two samples are compared, in the order in which rules are applied.

    ``exact``: their texts are equal; ``near``: their texts have most of their runs of three words in common;
    ``cosine``: their vectors in the last stored layer have nearly the same direction.
    """

    EXACT = "exact"
    NEAR = "near"
    COSINE = "cosine"


_DEFAULTS = {Kind.NEAR: 0.8, Kind.COSINE: 0.95}
_LEAST = {Kind.NEAR: LEAST_JACCARD, Kind.COSINE: 0.5}


@dataclass(frozen=True)
class Rule:
    """One way to be a duplicate.

    Attributes
    ----------
    kind
        How samples are compared.
    threshold
        Similarity from which on they are duplicates; 1 for ``exact``.
    """

    kind: Kind
    threshold: float = 1.0

    def __str__(self) -> str:
        return self.kind.value if self.kind is Kind.EXACT else f"{self.kind}:{self.threshold!r}"


def parse_rule(text: str) -> Rule:
    """Parse ``exact``, ``near``, ``near:0.9``, ``cosine`` or ``cosine:0.99``.

    Raises
    ------
    InvalidInputError
        Another word, or a threshold out of range.
    """
    name, colon, number = text.strip().partition(":")
    try:
        kind = Kind(name)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is no kind of duplicates", next_step=_EXAMPLE) from error
    if kind is Kind.EXACT:
        if colon:
            raise InvalidInputError("texts are equal or not: exact has no threshold", next_step=_EXAMPLE)
        return Rule(kind)
    if not colon:
        return Rule(kind, _DEFAULTS[kind])
    try:
        threshold = float(number)
    except ValueError as error:
        raise InvalidInputError(f"{text!r}: {number!r} is no similarity", next_step=_EXAMPLE) from error
    if not _LEAST[kind] <= threshold <= 1:  # NaN is none of this
        raise InvalidInputError(
            f"{text!r}: a similarity of {number} is not from {_LEAST[kind]:g} to 1", next_step=_EXAMPLE
        )
    return Rule(kind, threshold)


def parse_rules(texts: str | Sequence[str]) -> tuple[Rule, ...]:
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
    return tuple(sorted(rules, key=lambda rule: list(Kind).index(rule.kind)))
