"""What is fine-tuned on: the ways to choose records for capabilities, as selections of a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.json_lines import write_json_lines

if TYPE_CHECKING:
    from nait_store.store.facade import Store

RANDOM, BEST, LOWEST = "random", "top, default recipe", "lowest, default recipe"
WITH, WITHOUT = "with its source", "without its source"
RECIPES: dict[str, dict[str, Any]] = {
    "default": {"recipe": "default"},
    "contrast": {"recipe": "default", "against": "pool"},
    "dot": {"recipe": "default", "metric": "dot"},
    "paper": {"recipe": "nait-paper"},
}
_FEATURES = ("mean", "drift")


@dataclass(frozen=True)
class Choice:
    """A way to choose records.

    Attributes
    ----------
    name
        As in the tables.
    strategy
        Of the selection.
    recipe
        Of the profiles, a key of :data:`RECIPES`; None where chance chooses.
    top
        How much, if not what the study says.
    of_several
        Whether it can choose for several capabilities at once.
    in_pool
        The only pool that it is measured in; None for both.
    """

    name: str
    strategy: str
    recipe: str | None = None
    top: str | None = None
    of_several: bool = True
    in_pool: str | None = None


CHOICES = (
    Choice(RANDOM, "random"),
    Choice(BEST, "alignment", "default"),
    Choice(LOWEST, "lowest", "default"),
    Choice("embedding", "embedding", "default", of_several=False),
    Choice("length-matched", "length-matched", "default"),
    Choice("top, contrast", "alignment", "contrast", of_several=False),
    Choice("top, default with dot", "alignment", "dot", of_several=False),
    Choice("top, the paper's recipe", "alignment", "paper", of_several=False),
    Choice("everything", "random", top="100%", in_pool=WITH),
)


@dataclass(frozen=True)
class Capability:
    """What is asked for.

    Attributes
    ----------
    name, label
        ``math``, and the source of its records in the pool.
    known, unseen
        In-domain records that profiles are made of, and those that are asked about.
    """

    name: str
    label: str
    known: tuple[dict[str, Any], ...]
    unseen: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class CandidateStore:
    """A store with the set ``pool`` and, for every recipe, a profile of every capability.

    Attributes
    ----------
    store
        It.
    label_field
        Of the pool's records: their source.
    """

    store: Store
    label_field: str

    @classmethod
    def filled(
        cls,
        folder: Path,
        model: Path,
        candidates: Sequence[dict[str, Any]],
        capabilities: Sequence[Capability],
        label_field: str,
    ) -> CandidateStore:
        """Ingest with a model and build, as far as a folder does not hold it yet."""
        import nait_store

        store = nait_store.open(str(folder / "store"), create=True)
        pool = write_json_lines(folder / "pool.jsonl", candidates)
        store.ingest(str(pool), set="pool", model=str(model), features=_FEATURES)
        for one in capabilities:
            source = write_json_lines(folder / f"{one.name}.jsonl", one.known)
            store.ingest(str(source), set=one.name, model=str(model), features=_FEATURES)
            for recipe, build in RECIPES.items():
                store.profiles.build(profile_of(one, recipe), source=one.name, quality_card=False, **build)
        return cls(store, label_field)

    def records(self) -> dict[str, dict[str, Any]]:
        """Records of the pool by sample id."""
        rows = self.store.sql("SELECT sample_id, record FROM samples('pool')").fetchall()
        return {sample_id: json.loads(record) for sample_id, record in rows}

    def chosen(
        self, choice: Choice, capabilities: Sequence[Capability], *, pool: str, top: str, seed: int
    ) -> tuple[str, ...] | None:
        """Sample ids, ascending; None where the choice has no meaning."""
        several = len(capabilities) > 1
        if (several and not choice.of_several) or choice.in_pool not in (None, pool):
            return None
        field = f"json_extract_string(record, '$.{self.label_field}')"
        elsewhere = " AND ".join(f"{field} <> '{one.label}'" for one in capabilities)
        selection = self.store.select(
            "pool",
            profile=None if choice.recipe is None else [profile_of(one, choice.recipe) for one in capabilities],
            strategy=choice.strategy,
            # The lowest of a union are each profile's lowest in turn: no control of the others.
            combine="sum" if several and choice.name == LOWEST else None,
            top=choice.top or top,
            where=None if pool == WITH else elsewhere,
            seed=seed,
        )
        return tuple(sorted(selection.rows.column("sample_id").to_pylist()))


def profile_of(capability: Capability, recipe: str) -> str:
    """Name of a profile."""
    return f"{capability.name}-{recipe}"
