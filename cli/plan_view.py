"""What a query would scan, for people: the answer of ``sql --explain``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nait_store.cli.console import as_json
from nait_store.cli.quantities import count, numbers, size
from nait_store.cli.tables import Table

if TYPE_CHECKING:
    from nait_store.query.plan import StatementPlan


def plan_value(plan: StatementPlan) -> dict[str, Any]:
    """The plan as JSON."""
    return {**as_json(plan), "size_bytes": plan.size_bytes}


def plan_blocks(plan: StatementPlan) -> Iterator[str | Table]:
    """The plan in words: what is kept, what is scanned, how many bytes."""
    if plan.scores:
        yield Table(
            ("set", "profile", "feature", "metric", "samples", "segments", "with scores"),
            [
                (s.activation_set, s.profile, s.feature, s.metric, s.n_samples, s.n_segments, s.n_cached_segments)
                for s in plan.scores
            ],
        )
    for scan in plan.passes:
        yield (
            f"one pass over the {scan.feature} of {scan.activation_set}: {size(scan.size_bytes)} "
            f"({count(scan.n_segments, 'segment')}, {count(scan.n_rows, 'row')}, {count(scan.n_layers, 'layer')}) "
            f"for {', '.join(scan.profiles)}"
        )
    for read in plan.reads:
        yield (
            f"reads the {read.feature} of {read.activation_set}: at most {size(read.size_bytes)} "
            f"(layers {numbers(read.layers)})"
        )
    if plan.size_bytes:
        yield f"{'at most ' if plan.reads else ''}{size(plan.size_bytes)} of activations would be read"
    elif plan.scores:
        yield "no activations would be read: the scores are stored"
    else:
        yield "no activations would be read"
