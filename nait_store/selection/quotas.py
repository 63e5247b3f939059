"""Quotas: which part of a selection each value of a column gives, ``source=alpaca:50%,code:20%``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from nait_store.errors import InvalidInputError
from nait_store.selection.budget import Budget, parse_budget

_EXAMPLE = "write e.g. --quota source=alpaca:50%,code:20%: a column, and for its values a share or a number each"


@dataclass(frozen=True)
class Quota:
    """Parsed quotas.

    Attributes
    ----------
    column
        Of ``samples(set)``.
    amounts
        Value of the column, as text → its share of the selection, or its number of samples.
    """

    column: str
    amounts: Mapping[str, Budget]

    @property
    def has_counts(self) -> bool:
        """Whether some amount is a number."""
        return any(amount.count is not None for amount in self.amounts.values())

    @property
    def is_counts(self) -> bool:
        """Whether every amount is a number, so that they say how many there are in all."""
        return all(amount.count is not None for amount in self.amounts.values())

    def divide(self, total: int) -> Division:
        """Share out a number of samples or tokens; what shares leave over falls to the largest remainders.

        Raises
        ------
        InvalidInputError
            The numbers are more than the total.
        """
        wanted: dict[str | None, Fraction] = {
            value: Fraction(amount.count) if amount.count is not None else (amount.share or 0) * Fraction(total)
            for value, amount in self.amounts.items()
        }
        rest = total - sum(wanted.values())
        if rest < 0:
            raise InvalidInputError(
                f"the quotas of {self.column} add up to more than the {total:,} to be selected",
                next_step="raise --top, or lower the quotas",
            )
        wanted[None] = Fraction(rest)
        whole = {value: int(amount) for value, amount in wanted.items()}
        # Python's sort is stable: of equal remainders the value that was written first gets the sample.
        by_remainder = sorted(wanted, key=lambda value: whole[value] - wanted[value])
        for value in by_remainder[: total - sum(whole.values())]:
            whole[value] += 1
        others = whole.pop(None)
        return Division({value: whole[value] for value in self.amounts}, others)


@dataclass(frozen=True)
class Division:
    """Quotas in numbers.

    Attributes
    ----------
    named
        Value → its number of samples, or tokens.
    others
        What all other values give together.
    """

    named: Mapping[str, int]
    others: int


def parse_quota(text: str) -> Quota:
    """Parse ``COLUMN=VALUE:AMOUNT,VALUE:AMOUNT``; a value holds no comma.

    Raises
    ------
    InvalidInputError
        Not of that form, a value twice, or shares of more than 100 %.
    """
    column, equals, listed = text.partition("=")
    column = column.strip()
    if not equals or not column or not listed.strip():
        raise InvalidInputError(f"--quota {text!r} has no COLUMN=VALUE:SHARE", next_step=_EXAMPLE)
    amounts: dict[str, Budget] = {}
    for part in listed.split(","):
        value, colon, amount = (piece.strip() for piece in part.rpartition(":"))
        if not colon or not value:
            raise InvalidInputError(f"--quota {text!r}: {part.strip()!r} is not VALUE:SHARE", next_step=_EXAMPLE)
        if value in amounts:
            raise InvalidInputError(f"--quota {text!r} names {value!r} twice", next_step="give each value one share")
        try:
            amounts[value] = parse_budget(amount)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"--quota {text!r}: {amount!r} is no share or number of samples", next_step=_EXAMPLE
            ) from error
    if sum((amount.share or Fraction(0) for amount in amounts.values()), Fraction(0)) > 1:
        raise InvalidInputError(f"--quota {text!r}: the shares are more than 100%", next_step="lower some of them")
    return Quota(column, amounts)
