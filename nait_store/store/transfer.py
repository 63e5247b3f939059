"""How alike two models rank the same candidates: by sample id, for directions themselves cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.registry.compatibility import require_compatible
from nait_store.selection.budget import parse_budget

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.activations.set_version import SetVersion
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store

DEFAULT_TOP = ("10%", "30%")

# Ids that stand for another text in the other set are no common candidates.
_COUNTS = """
SELECT count(*) FILTER (a.content_hash = b.content_hash) AS n_common,
    count(*) FILTER (b.sample_id IS NULL) AS n_only_first,
    count(*) FILTER (a.sample_id IS NULL) AS n_only_second,
    count(*) FILTER (a.content_hash <> b.content_hash) AS n_changed
FROM (SELECT sample_id, content_hash FROM samples('{first_set}')) AS a
FULL JOIN (SELECT sample_id, content_hash FROM samples('{second_set}')) AS b USING (sample_id)
"""
_RANKS = """
WITH one AS (
    SELECT sample_id, content_hash, score
    FROM alignment('{first_set}', '{first}') JOIN samples('{first_set}') USING (sample_id)
),
other AS (
    SELECT sample_id, content_hash, score
    FROM alignment('{second_set}', '{second}') JOIN samples('{second_set}') USING (sample_id)
)
SELECT sample_id,
    row_number() OVER (ORDER BY one.score DESC, sample_id) AS first_rank, one.score AS first_score,
    row_number() OVER (ORDER BY other.score DESC, sample_id) AS second_rank, other.score AS second_score
FROM one JOIN other USING (sample_id, content_hash)
ORDER BY first_rank
"""
# Of equal scores each has the mean of the ranks that they take together.
_SPEARMAN = """
WITH ranks AS (
    SELECT rank() OVER (ORDER BY first_score) + (count(*) OVER (PARTITION BY first_score) - 1) / 2 AS x,
        rank() OVER (ORDER BY second_score) + (count(*) OVER (PARTITION BY second_score) - 1) / 2 AS y
    FROM common
)
SELECT CASE WHEN min(x) < max(x) AND min(y) < max(y) THEN corr(x, y) END FROM ranks
"""
_OVERLAP = "SELECT count(*) FROM common WHERE first_rank <= $n AND second_rank <= $n"


@dataclass(frozen=True)
class TopOverlap:
    """How many of the best candidates under one profile are among the best under the other.

    Attributes
    ----------
    top
        As asked, ``10%``.
    n_best
        How many candidates that is; a share of the common ones, rounded up.
    n_candidates
        The common ones.
    n_common
        Samples that are among the best under both.
    """

    top: str
    n_best: int
    n_candidates: int
    n_common: int

    @property
    def share(self) -> float:
        """Common ones among the best, 0 to 1."""
        return self.n_common / self.n_best

    @property
    def share_by_chance(self) -> float:
        """What two unrelated rankings share on average, 0 to 1."""
        return self.n_best / self.n_candidates


@dataclass(frozen=True)
class TransferReport:
    """How alike two profiles rank the samples that two sets have in common.

    Attributes
    ----------
    first, second
        The profiles, resolved.
    first_set, second_set
        The set versions that each of them ranks.
    first_model, second_model
        Of these sets; None where it is not recorded.
    n_common
        Candidates: samples with one id and one content in both sets.
    n_only_first, n_only_second
        Samples that one of the sets lacks; they are not ranked.
    n_changed
        Ids that stand for different records in the two sets; they are not ranked either.
    spearman
        Spearman's rank correlation of the scores, -1 to 1, equal scores with their mean rank; None where all scores of
        one side are equal.
    overlaps
        Of the best candidates.
    warnings
        About the profiles' fit to the sets.
    rows
        ``sample_id``, ``first_rank``, ``first_score``, ``second_rank``, ``second_score`` of every candidate, by first
        rank; ranks count from 1 and fall to the lower id where scores are equal, as in a selection.
    """

    first: str
    second: str
    first_set: str
    second_set: str
    first_model: str | None
    second_model: str | None
    n_common: int
    n_only_first: int
    n_only_second: int
    n_changed: int
    spearman: float | None
    overlaps: tuple[TopOverlap, ...]
    warnings: tuple[str, ...]
    rows: pa.Table = field(repr=False, compare=False)


def report_transfer(
    store: Store, first: str, second: str, *, on: Sequence[str], top: Sequence[str | int], force: bool
) -> TransferReport:
    """Compare two rankings; see :meth:`~nait_store.store.facade.Store.transfer_report`."""
    budgets = [parse_budget(one) for one in dict.fromkeys(map(str, top))]
    if len(on) != 2:
        raise InvalidInputError(
            f"{len(on)} sets were named, and each of the two profiles ranks one",
            next_step="name the set of the first profile's model, then that of the second's: --on pool pool-qwen",
        )
    profiles = [store.profiles.open(reference) for reference in (first, second)]
    versions = [store.sets.open(reference) for reference in on]
    warnings = _fit(profiles, versions, force)
    names = {
        "first": profiles[0].reference,
        "second": profiles[1].reference,
        "first_set": versions[0].reference,
        "second_set": versions[1].reference,
    }
    counts = store.sql(_COUNTS.format_map(names)).to_dicts()[0]
    if not counts["n_common"]:
        changed = f"; {counts['n_changed']:,} ids stand for different records in the two" * bool(counts["n_changed"])
        raise InvalidInputError(
            f"sets {names['first_set']} and {names['second_set']} have no sample in common{changed}",
            next_step="ingest the same files into both, with the same --map and --id-field: ids come from the records",
        )
    rows = store.sql(_RANKS.format_map(names)).arrow()
    overlaps = []
    for budget in budgets:
        n_best = budget.resolve(counts["n_common"], f"what {names['first_set']} and {names['second_set']} share")
        found = store.sql(_OVERLAP, {"n": n_best}, tables={"common": rows}).fetchall()
        overlaps.append(TopOverlap(budget.text, n_best, counts["n_common"], int(found[0][0])))
    return TransferReport(
        **names,
        n_common=counts["n_common"],
        n_only_first=counts["n_only_first"],
        n_only_second=counts["n_only_second"],
        n_changed=counts["n_changed"],
        first_model=versions[0].model_label,
        second_model=versions[1].model_label,
        spearman=store.sql(_SPEARMAN, tables={"common": rows}).fetchall()[0][0],
        overlaps=tuple(overlaps),
        warnings=tuple(warnings),
        rows=rows,
    )


def _fit(profiles: Sequence[Profile], versions: Sequence[SetVersion], force: bool) -> list[str]:
    """Warnings about each profile on its set; who named the sets the wrong way round is told so."""
    try:
        found = [require_compatible(p, v, force=force) for p, v in zip(profiles, versions, strict=True)]
    except IncompatibleError as error:
        try:
            for profile, version in zip(profiles, reversed(versions), strict=True):
                require_compatible(profile, version, force=True)
        except IncompatibleError:
            raise error from None
        raise IncompatibleError(
            error.what, next_step=f"name the sets the other way round: --on {versions[1].name} {versions[0].name}"
        ) from error
    return list(dict.fromkeys(text for texts in found for text in texts))
