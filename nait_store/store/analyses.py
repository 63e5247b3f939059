"""What can be said about profiles and sets beside the choice itself: the analyses of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.analysis.ratio import RatioReport
    from nait_store.store.facade import Store


class Analyses:
    """The analyses of a store.

    Parameters
    ----------
    store
        The store; they need its sets, profiles, scores and SQL.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def ratio(
        self,
        set: str,  # noqa: A002
        *,
        profile: str | Sequence[str] | Mapping[str, float],
        combine: str | None = None,
        where: str | None = None,
        by: str = "source_uri",
        targets: str | None = None,
        force: bool = False,
    ) -> RatioReport:
        """Say what the best 1, 2, … 100 % of a set are like, to choose a ratio by.

        Parameters
        ----------
        set
            Set to choose from, ``pool`` or ``pool@3``.
        profile
            Profile to rank by; several as ``["math", "code"]``, each for itself unless they are combined.
        combine
            ``union``, ``sum``, ``min`` or ``rrf``: one order of all profiles, as :meth:`Store.select` makes it; the
            profiles may have weights then.
        where
            Boolean SQL expression over the columns of ``samples(set)``; what it leaves are the candidates.
        by
            Column whose values are counted.
        targets
            Boolean SQL expression: the candidates that a good order brings first. If omitted, those with the content of
            a sample that the profile was built from.
        force
            Whether to silence compatibility warnings.

        Returns
        -------
        RatioReport
            A curve a profile, with a point for each per cent and its knee;
            :func:`nait_store.analysis.ratio_findings.ratio_findings` puts it in words.

        Raises
        ------
        NotFoundError
            Unknown set, profile, version or column.
        IncompatibleError
            A profile means nothing on the set.
        InvalidInputError
            No profile or no candidate; a condition that is none; scores that are not finite.
        """
        from nait_store.store.ratios import report_ratios

        return report_ratios(
            self._store, set, profile=profile, combine=combine, where=where, by=by, targets=targets, force=force
        )
