"""How much each in-domain sample counts, as it was given, checked and recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nait_store.errors import InvalidInputError
from nait_store.registry.in_domain import ChosenRows
from nait_store.schemas.profile import SampleWeights
from nait_store.schemas.record import SourceFile

MOST_WEIGHTED = 200_000
"""Samples whose weights a record holds."""

_NAMED = 3


@dataclass(frozen=True)
class GivenWeights:
    """Weights of samples, those of others among them, from one place.

    Attributes
    ----------
    by_id
        Sample id → weight; None where there is none.
    expression, file
        Where they are from: the one or the other.
    """

    by_id: Mapping[str, float | None]
    expression: str | None = None
    file: SourceFile | None = None

    def weigh(self, chosen: ChosenRows) -> ChosenRows:
        """Give each of the chosen samples its weight.

        Raises
        ------
        InvalidInputError
            One has none, or one that is no finite number above 0; or there are more than ``MOST_WEIGHTED``.
        """
        if chosen.n_samples > MOST_WEIGHTED:
            raise InvalidInputError(
                f"{chosen.n_samples:,} samples are too many to keep a weight of each: at most {MOST_WEIGHTED:,}",
                next_step=f"draw some of them: --limit {MOST_WEIGHTED}",
            )
        ids = chosen.sample_ids()
        found = [self.by_id.get(sample_id) for sample_id in ids]
        self._refuse([i for i, w in zip(ids, found, strict=True) if w is None], "no weight")
        weights = np.array(found, dtype=np.float64)
        for wrong, what in (
            (~np.isfinite(weights), "a weight that is not a finite number"),
            (weights <= 0.0, "a weight that is not above 0"),
        ):
            self._refuse([ids[i] for i in np.flatnonzero(wrong)], what)
        return dataclasses.replace(chosen, weights=weights)

    def record(self, chosen: ChosenRows) -> SampleWeights:
        """What a profile's record says of the weights of its samples."""
        return SampleWeights(expression=self.expression, file=self.file, values=tuple(weights_by_id(chosen)))

    def _refuse(self, sample_ids: Sequence[str], what: str) -> None:
        if not sample_ids:
            return
        named = ", ".join(sample_ids[:_NAMED]) + (" …" if len(sample_ids) > _NAMED else "")
        noun = "sample has" if len(sample_ids) == 1 else "samples have"
        where = f"by {self.expression}" if self.file is None else f"in {self.file.uri}"
        raise InvalidInputError(
            f"{len(sample_ids):,} in-domain {noun} {what} {where}: {named}",
            next_step="give each a number above 0, or leave samples out with --where",
        )


def weights_by_id(chosen: ChosenRows) -> list[float]:
    """Weights of chosen samples that have some, in the order of their ids."""
    if chosen.weights is None:
        raise ValueError("these samples have no weights")
    return [weight for _, weight in sorted(zip(chosen.sample_ids(), chosen.weights.tolist(), strict=True))]


def recorded_weights(weights: SampleWeights, sample_ids: Sequence[str]) -> GivenWeights:
    """The weights of a record, by the ids of all its samples, in any order."""
    by_id = dict(zip(sorted(sample_ids), weights.values, strict=True))
    return GivenWeights(by_id, weights.expression, weights.file)
