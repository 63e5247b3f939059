"""Saved selections on disk: ranked sample ids with the query, versions and seed that made them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from nait_store.schemas.record import Document, FileDigest, Name, Provenance, Record, Sha256, Ulid

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
"""Columns of ``selection.parquet``, in rank order from 1; ``score`` is null for random selections without a profile."""


def _is_absent(value: Any) -> bool:
    return value is None or value == () or value is False


_LATER = Field(exclude_if=_is_absent)
"""Of fields that came later: a record that has nothing in them is written, and digested, as it was before."""


class ProfileWeight(Record):
    """A profile that takes part in the order, and how much it counts."""

    reference: str
    """``math@2``; in a record it is resolved."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class ProfileShare(Record):
    """What became of one of several profiles in a selection."""

    reference: str
    n_in_own_top: int = Field(ge=0)
    """Chosen samples that the profile alone would have chosen too, were it to choose as many."""
    n_through: int | None = Field(default=None, ge=0)
    """Chosen samples that came in through its turn; None where the profiles do not take turns."""


class DroppedDuplicates(Record):
    """How many samples a selection passed over because better-ranked ones say the same."""

    kind: Literal["exact", "near", "cosine"]
    n_samples: int = Field(ge=0)


class SelectionRecord(Document):
    """``selection.json`` of a payload. Immutable."""

    name: Name
    set_ref: str
    """Resolved, ``pool@3``."""
    profile_ref: str | None
    """Resolved, ``math@2``; None for a random selection. The first where there are several."""
    profiles: Annotated[tuple[ProfileWeight, ...], _LATER] = ()
    """All of several, with their weights; empty where ``profile_ref`` says it all."""
    combine: Annotated[Literal["union", "sum", "min", "rrf", "norm"] | None, _LATER] = None
    """How several profiles made one order."""
    min_profiles: Annotated[int | None, Field(ge=1), _LATER] = None
    """Only samples in the top of so many of several profiles were taken; ``top`` is of each of them then."""
    strategy: Literal["alignment", "lowest", "random", "length-matched", "embedding"]
    in_domain: Annotated[str | None, _LATER] = None
    """Set whose centroid the embedding strategy compared with, resolved; None for the profile's own samples."""
    fuse: Annotated[tuple[str, ...], _LATER] = ()
    """Columns and weights as asked, ``quality:0.5``."""
    fuse_by: Annotated[Literal["minmax", "rank"] | None, _LATER] = None
    top: str
    """As asked, ``10%`` or ``562``."""
    where: str | None
    seed: int | None
    budget_tokens: Annotated[int | None, _LATER] = None
    quota: Annotated[str | None, _LATER] = None
    """As asked, ``source=alpaca:50%,code:20%``."""
    per: Annotated[str | None, _LATER] = None
    """Column of the groups of which each gave its own top."""
    min_score: Annotated[float | None, _LATER] = None
    knee: Annotated[bool, _LATER] = False
    drop_duplicates: Annotated[tuple[str, ...], _LATER] = ()
    """What counts as a duplicate, with the threshold, ``near:0.8``."""
    diversity: Annotated[Literal["k-center", "facility-location"] | None, _LATER] = None
    """How samples were spread over the best."""
    among: Annotated[str | None, _LATER] = None
    """Over how many of the best, ``1500``; fewer where there were no more."""
    n_candidates: int = Field(ge=0)
    n_selected: int = Field(ge=0)
    query: str
    """The SQL that reproduces it; where duplicates were dropped or diversity decided, that of the ranking before."""
    shares: Annotated[tuple[ProfileShare, ...], _LATER] = ()
    """Of several profiles."""
    dropped: Annotated[tuple[DroppedDuplicates, ...], _LATER] = ()
    """Duplicates that are ranked above the last chosen sample."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    files: tuple[FileDigest, ...]
    provenance: Provenance

    @property
    def profiles_with_weights(self) -> tuple[ProfileWeight, ...]:
        """Every profile that took part, in the order in which they were named."""
        if self.profiles or self.profile_ref is None:
            return self.profiles
        return (ProfileWeight(reference=self.profile_ref),)

    @property
    def ranked_by(self) -> str | None:
        """Every profile that took part, ``math@2`` or ``math@2, code@1``; None without one."""
        return ", ".join(one.reference for one in self.profiles_with_weights) or None

    @property
    def has_scores(self) -> bool:
        """Whether its samples have scores."""
        return self.profile_ref is not None or self.strategy == "embedding"

    @property
    def set_refs(self) -> tuple[str, ...]:
        """Every set version that took part, what was chosen from first."""
        return (self.set_ref,) if self.in_domain is None else (self.set_ref, self.in_domain)


class SelectionManifest(Document):
    """``versions/<n>.json`` of a selection: the sole commit point."""

    name: Name
    number: int = Field(ge=1)
    payload: Ulid
    record_sha256: Sha256
    message: str = ""
    provenance: Provenance


class SelectionRedirect(Document):
    """``redirects/<payload>.json``: another payload stands for this one, without samples that were purged."""

    payload: Ulid
    """The payload that is gone."""
    replacement: Ulid
    record_sha256: Sha256
    """Of the replacement's ``selection.json``."""
    n_removed: int = Field(ge=1)
    """Samples that it has less than the payload it replaces."""
    provenance: Provenance
