"""Which share of a set to take: what the best 1, 2, … 100 % of its samples under a profile are like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.analysis.findings import Finding
from nait_store.analysis.frequent_values import frequent_values
from nait_store.errors import InvalidInputError
from nait_store.query.spelling import identifier, literal
from nait_store.refs import Kind, parse_reference
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.selection.budget import EVERYTHING
from nait_store.selection.choosing import select
from nait_store.selection.knee import Knee, find_knee
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import Combine

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

PERCENTS = range(1, 101)
_MOST_SOURCES = 12
"""Values of the column that are counted: the most frequent ones."""


@dataclass(frozen=True)
class Targets:
    """Samples that a good selection holds.

    Attributes
    ----------
    described
        Which they are, in words.
    content_sha256
        Hashes of their contents, by which they are known in any set; None where a condition tells them.
    where
        The condition, over the columns of the candidates.
    unknown
        Why nobody knows them; empty where somebody does.
    """

    described: str
    content_sha256: frozenset[str] | None = field(default=None, repr=False)
    where: str | None = None
    unknown: str = ""


FindTargets = Callable[[Sequence[Profile]], Targets]


@dataclass(frozen=True)
class RatioPoint:
    """The best samples up to one ratio.

    Attributes
    ----------
    percent
        The ratio, 1 to 100; of the knee rarely a whole number.
    n_samples
        That share of the candidates, rounded up, as ``select --top`` does.
    threshold
        The lowest score among them.
    mean_score
        Theirs.
    n_tokens, token_share
        Tokens of all of them, and which part of the candidates' tokens that is, 0 to 1.
    mean_tokens
        Of one of them.
    sources
        Value of the column → how many of them have it, of the most frequent values.
    recall
        Which part of the targets is among them, 0 to 1; None where there are none.
    """

    percent: float
    n_samples: int
    threshold: float
    mean_score: float
    n_tokens: int
    token_share: float
    mean_tokens: float
    sources: Mapping[str, int]
    recall: float | None


@dataclass(frozen=True)
class RatioCurve:
    """The points of one order of the candidates.

    Attributes
    ----------
    ranked_by
        ``math@2``, or ``union of math@2, code@1``.
    profiles
        References of the profiles.
    points
        One for each per cent.
    knee
        Where ``select --knee`` stops; None where the scores have none.
    at_knee
        The samples up to there.
    no_knee
        Why there is none.
    n_targets
        Targets among the candidates.
    targets
        Which they are, ``samples that math@2 was built from``; where there are none, why.
    """

    ranked_by: str
    profiles: tuple[str, ...]
    points: tuple[RatioPoint, ...] = field(repr=False)
    knee: Knee | None
    at_knee: RatioPoint | None
    no_knee: str
    n_targets: int
    targets: str

    def at(self, percent: int) -> RatioPoint:
        """The point of one ratio, 1 to 100."""
        return self.points[percent - 1]


@dataclass(frozen=True)
class RatioReport:
    """What choosing more or less of a set comes to.

    Attributes
    ----------
    set_ref
        The set version.
    where
        Condition on the candidates.
    n_candidates, n_tokens
        Of all of them.
    by
        Column whose values are counted.
    sources
        Its most frequent values among the candidates, most frequent first, with their counts.
    n_other_sources
        Further values, which are not counted.
    curves
        One a profile, or one for all of them where they are combined.
    warnings
        About the profiles' fit to the set.
    """

    set_ref: str
    where: str | None
    n_candidates: int
    n_tokens: int
    by: str
    sources: Mapping[str, int]
    n_other_sources: int
    curves: tuple[RatioCurve, ...]
    warnings: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The same in sentences: what is as it should be, what is not, and what to do next."""
        from nait_store.analysis.ratio_findings import ratio_findings

        return ratio_findings(self)

    def picture(self, form: str = "png") -> bytes:
        """Draw the curves.

        Parameters
        ----------
        form
            ``png``, ``svg`` or ``pdf``.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from nait_store.analysis.ratio_picture import draw_ratios

        return draw_ratios(self, form)


def trace_ratios(
    session: QuerySession,
    sets: ActivationSets,
    registry: ProfileRegistry,
    requests: Sequence[SelectionRequest],
    *,
    by: str,
    find_targets: FindTargets,
) -> RatioReport:
    """Say what the best samples are like, from 1 to 100 % of the candidates.

    Parameters
    ----------
    session, sets, registry
        Of one store; scores that are missing are computed.
    requests
        One a curve, of one set and condition; everything is ranked, as :func:`~nait_store.selection.choosing.select`
        ranks.
    by
        Column of the samples whose values are counted.
    find_targets
        Tells for the profiles of a curve which samples are to be found.

    Raises
    ------
    NotFoundError
        Unknown set, profile, version or column.
    IncompatibleError
        A profile means nothing on the set.
    InvalidInputError
        There is no candidate, or a score is not a finite number.
    """
    version = sets.open(parse_reference(requests[0].set_ref, Kind.SET))
    curves, warnings = [], list[str]()
    traced = None
    for request in requests:
        profiles = [registry.open(parse_reference(one.reference, Kind.PROFILE)) for one in request.profiles]
        targets = find_targets(profiles)
        selection = select(session, sets, registry, replace(request, top=EVERYTHING))
        warnings += selection.warnings
        names = tuple(one.reference for one in selection.request.profiles)
        combine = selection.request.effective_combine
        ranked_by = names[0] if combine is None else f"{combine.value} of {', '.join(names)}"
        traced = _Ranking.of(session, version, selection.rows, by, targets)
        n_lost = int(np.count_nonzero(~np.isfinite(traced.scores)))
        if n_lost:
            raise InvalidInputError(
                f"{n_lost:,} scores of {version.reference} under {ranked_by} are not finite: they have no order",
                next_step="find them with SELECT … WHERE NOT isfinite(score), and leave them out with --where",
            )
        curves.append(traced.curve(ranked_by, names, targets, falls=combine is not Combine.UNION))
    assert traced is not None
    return RatioReport(
        set_ref=version.reference,
        where=requests[0].where,
        n_candidates=len(traced.scores),
        n_tokens=int(traced.n_tokens.sum()),
        by=by,
        sources=traced.all_sources,
        n_other_sources=traced.n_other_sources,
        curves=tuple(curves),
        warnings=tuple(dict.fromkeys(warnings)),
    )


@dataclass(frozen=True)
class _Ranking:
    """The candidates in rank order.

    Attributes
    ----------
    scores, n_tokens, is_target
        [n] each.
    source_codes
        [n] position of each one's value among ``source_names``; their number for other values.
    source_names
        Most frequent first.
    n_other_sources
        How many values that are.
    """

    scores: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    is_target: NDArray[np.bool_]
    source_codes: NDArray[np.int64]
    source_names: tuple[str, ...]
    n_other_sources: int

    @classmethod
    def of(cls, session: QuerySession, version: SetVersion, ranked: pa.Table, by: str, targets: Targets) -> _Ranking:
        tables = {"ranked": ranked}
        is_target = "false" if targets.where is None else f"coalesce((\n{targets.where}\n), false)"
        if targets.content_sha256 is not None:
            tables["targets"] = pa.table({"content_hash": pa.array(sorted(targets.content_sha256), pa.string())})
            is_target = "content_hash IN (SELECT content_hash FROM targets)"
        samples = (
            f"SELECT sample_id, n_tokens, coalesce({identifier(by)}::VARCHAR, '') AS \"value of column\",\n"
            f"{is_target} AS is_target FROM samples({literal(version.reference)})"
        )
        query = (
            'SELECT score, n_tokens, "value of column" AS source, is_target\n'
            f"FROM ranked JOIN ({samples}) USING (sample_id)\nORDER BY rank"
        )
        found = session.sql(query, tables=tables).arrow()
        names, codes, n_others = frequent_values(found.column("source"), _MOST_SOURCES)
        return cls(
            found.column("score").to_numpy(),
            found.column("n_tokens").to_numpy().astype(np.int64),
            found.column("is_target").to_numpy(),
            codes,
            names,
            n_others,
        )

    @property
    def all_sources(self) -> dict[str, int]:
        return self._sources(len(self.scores))

    def curve(self, ranked_by: str, profiles: tuple[str, ...], targets: Targets, *, falls: bool) -> RatioCurve:
        """The points; a knee only where the scores fall along the order."""
        n = len(self.scores)
        counts = [(percent, -(-percent * n // 100)) for percent in PERCENTS]
        knee, no_knee = None, "the scores of a union are under one profile and another, and make no one curve"
        if falls:
            try:
                knee = find_knee(self.scores)
            except InvalidInputError as error:
                no_knee = error.what
        n_targets = int(self.is_target.sum())
        described = targets.described
        if targets.unknown:
            described = f"not known: {targets.unknown}"
        elif not n_targets:
            described = f"none of the {described} is among the candidates"
        return RatioCurve(
            ranked_by=ranked_by,
            profiles=profiles,
            points=tuple(self._point(percent, count) for percent, count in counts),
            knee=knee,
            at_knee=None if knee is None else self._point(100 * knee.n_before / n, knee.n_before),
            no_knee="" if knee is not None else no_knee,
            n_targets=n_targets,
            targets=described,
        )

    def _point(self, percent: float, n_samples: int) -> RatioPoint:
        scores, n_tokens = self.scores[:n_samples], int(self.n_tokens[:n_samples].sum())
        n_targets = int(self.is_target.sum())
        return RatioPoint(
            percent=percent,
            n_samples=n_samples,
            threshold=float(scores.min()),  # of a union it is not the last one's
            mean_score=float(scores.mean()),
            n_tokens=n_tokens,
            token_share=n_tokens / max(1, int(self.n_tokens.sum())),
            mean_tokens=n_tokens / n_samples,
            sources=self._sources(n_samples),
            recall=int(self.is_target[:n_samples].sum()) / n_targets if n_targets else None,
        )

    def _sources(self, n_samples: int) -> dict[str, int]:
        counts = np.bincount(self.source_codes[:n_samples], minlength=len(self.source_names) + 1)
        return dict(zip(self.source_names, counts[:-1].tolist(), strict=True))
