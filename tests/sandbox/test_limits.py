"""Limits of untrusted queries."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.errors import InvalidInputError
from nait_store.query.sandbox.limits import SandboxLimits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wall_seconds", 0),
        ("wall_seconds", float("nan")),
        ("wall_seconds", float("inf")),
        ("wall_seconds", "10"),
        ("memory_bytes", 1),
        ("memory_bytes", 1e9),
        ("output_bytes", 0),
        ("threads", 0),
        ("threads", True),
        ("threads", 1000),
        ("new_scores", -1),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"the limit {name} is"):
        SandboxLimits(**{name: value})


def test_no_new_scores_can_be_asked_for() -> None:
    assert SandboxLimits(new_scores=0).new_scores == 0
