"""``--top``: counts and percentages."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_store.errors import InvalidInputError
from nait_store.selection.budget import parse_budget


@pytest.mark.parametrize(
    ("top", "n_candidates", "expected"),
    [("10%", 5620, 562), ("10%", 11, 2), ("10%", 1, 1), ("100%", 7, 7), ("2.5%", 1000, 25), ("0.001%", 10, 1),
     (" 12 % ", 100, 12), (562, 600, 562), ("600", 600, 600), ("007", 10, 7)],
)  # fmt: skip
def test_resolves(top: str | int, n_candidates: int, expected: int) -> None:
    assert parse_budget(top).resolve(n_candidates, "pool@1") == expected


@pytest.mark.parametrize(
    "top", ["0", 0, "0%", "0.0%", "200%", "100.0001%", "abc", "", "-5", "-5%", "1.5", 0.1, "1e3", "10 samples", "٣"]
)
def test_refuses_with_examples(top: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_budget(top)
    assert str(top) in caught.value.what
    assert "10%" in str(caught.value.next_step)


def test_more_than_there_is_says_how_many_there_are() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_budget("7000").resolve(6000, "pool@1")
    assert "6,000" in caught.value.what
    assert "pool@1" in caught.value.what
    assert "6000" in str(caught.value.next_step)


def test_nothing_to_select_from_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="nothing to select"):
        parse_budget("10%").resolve(0, "pool@1 where false")


@given(st.integers(1, 10_000), st.integers(1, 10**6))
def test_shares_round_up_exactly(hundredths: int, n_candidates: int) -> None:
    """No floating point: 7 % of 100 is 7, though 0.07 * 100 exceeds 7."""
    text = f"{hundredths // 100}.{hundredths % 100:02}%"
    expected = math.ceil(Fraction(hundredths, 10_000) * n_candidates)
    assert parse_budget(text).resolve(n_candidates, "x") == expected
