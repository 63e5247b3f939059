"""Scores of a segment that is being written: computed of its blocks while they are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nait_store.activations.stored_blocks import StoredBlock
from nait_store.schemas.capture import Feature
from nait_store.scoring.kernels import Kernels, default_kernels
from nait_store.scoring.layer_plans import ScoringPlan, SegmentScores
from nait_store.scoring.targets import ScoringTarget, distinct_targets


def plan_features(targets: Sequence[ScoringTarget]) -> dict[Feature, ScoringPlan]:
    """Plan for each feature the targets that read it; of equal targets, one."""
    by_feature: dict[Feature, list[ScoringTarget]] = {}
    for target in distinct_targets(targets):
        by_feature.setdefault(target.feature, []).append(target)
    return {feature: ScoringPlan.of(group) for feature, group in by_feature.items()}


class WrittenScores:
    """Scores the blocks that a :class:`~nait_store.activations.writer.SegmentWriter` shows it.

    What it is shown are the numbers that a scan would read, in the same blocks, so the scores are those of a scan of
    the same targets, bit by bit. They stay in memory: what they are kept under depends on the segment's record, which
    is written last.

    Parameters
    ----------
    plans
        From :func:`plan_features`; the segment stores every feature and layer that they read.
    kernels
        The arithmetic; the fastest that works here if omitted.
    """

    def __init__(self, plans: Mapping[Feature, ScoringPlan], kernels: Kernels | None = None) -> None:
        self._plans = plans
        self._kernels = kernels
        self._parts: dict[tuple[str, str, str], list[SegmentScores]] = {
            target.identity: [] for plan in plans.values() for target in plan.targets
        }
        self.size_bytes = 0

    def block_written(self, block: StoredBlock) -> None:
        """See :class:`~nait_store.activations.stored_blocks.BlockListener`."""
        plan = self._plans.get(block.feature)
        if plan is None:
            return
        kernels = self._kernels or default_kernels()
        terms = plan.empty_terms(block.values.shape[1])
        for layer in plan.layers:
            i = block.layers.index(layer.layer)
            norms = block.norms[:, i] if plan.needs_norms else None
            scales = None if block.scales is None else block.scales[:, i]
            layer.score(block.values[i], norms, scales, terms, kernels)
        for target, found in zip(plan.targets, terms, strict=True):
            scores = SegmentScores.of_terms(found)
            self._parts[target.identity].append(scores)
            self.size_bytes += scores.scores.nbytes + scores.projections.nbytes

    def scores(self) -> Iterator[tuple[ScoringTarget, SegmentScores]]:
        """Every target with the scores of all rows that were shown; each is let go of once it was yielded."""
        for plan in self._plans.values():
            for target in plan.targets:
                yield target, SegmentScores.joined(self._parts.pop(target.identity))
