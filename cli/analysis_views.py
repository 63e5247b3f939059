"""How analyses look to people: their findings, one a line, with what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nait_store.cli.tables import cell

if TYPE_CHECKING:
    from nait_store.analysis.findings import Finding


def findings_view(findings: Sequence[Finding]) -> Iterator[str]:
    """Verdict, topic and profile of each finding, then its text, and the next step on a line of its own."""
    heads = [(finding.verdict.value, finding.topic, cell(finding.of)) for finding in findings]
    widths = [max((len(head[i]) for head in heads), default=0) for i in range(3)]
    for finding, head in zip(findings, heads, strict=True):
        front = "  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True) if width)
        yield f"{front}  {cell(finding.text)}"
        if finding.next_step:
            yield f"{' ' * len(front)}  → {cell(finding.next_step)}"


def percent(share: float | None) -> str | None:
    """``12.3 %`` of 0.123."""
    return None if share is None else f"{100 * share:.1f} %"
