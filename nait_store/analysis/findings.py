"""What an analysis found, in words: whether all is well, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """``ok``; ``warning``, which has a next step; or ``skipped``, where it could not be looked at."""

    OK = "ok"
    WARNING = "warning"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic
        What was looked at, one or two words.
    of
        The profile that it is about; empty where it is about the set.
    verdict
        Whether it is as it should be.
    text
        What was found, with its numbers; where it was skipped, why.
    next_step
        What to do about it; empty where there is nothing to do.
    """

    topic: str
    of: str
    verdict: Verdict
    text: str
    next_step: str = ""

    @classmethod
    def judged(cls, topic: str, of: str, text: str, *, warn: bool, next_step: str) -> Finding:
        """A finding that is a warning under a condition; only a warning has a next step."""
        return cls(topic, of, Verdict.WARNING if warn else Verdict.OK, text, next_step if warn else "")

    @classmethod
    def skipped(cls, topic: str, of: str, why: str, next_step: str = "") -> Finding:
        """What could not be looked at."""
        return cls(topic, of, Verdict.SKIPPED, why, next_step)


def has_warning(findings: Iterable[Finding]) -> bool:
    """Whether any of them is a warning."""
    return any(finding.verdict is Verdict.WARNING for finding in findings)
