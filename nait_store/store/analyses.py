"""What can be said about profiles and sets beside the choice itself: the analyses of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.analysis.core_set import CoreSet
    from nait_store.analysis.transfer import ProfileTransfer
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

    def transfer(
        self,
        *profiles: str,
        on: str,
        top: str | int = "10%",
        where: str | None = None,
        domains: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> ProfileTransfer:
        """Say how alike profiles are: their directions, what they choose, and what each finds of another's domain.

        Scores that are missing are computed and kept, those of the in-domain samples too.

        Parameters
        ----------
        *profiles
            ``math``, ``code@2`` …; the latest version of every profile that applies to the set if none is named.
        on
            Set whose samples they rank, ``pool`` or ``pool@3``.
        top
            How many are the best: ``10%``, or a number.
        where
            Boolean SQL expression over the columns of ``samples(set)``; what it leaves are the candidates.
        domains
            Profile → SQL condition that the candidates of its domain meet, ``{"math": "source = 'gsm8k'"}``. Where
            none is given, the samples that the profile was built from stand for its domain, beside all candidates that
            are not among them.
        force
            Whether to silence compatibility warnings.

        Returns
        -------
        ProfileTransfer
            ``.pairs`` with the cosine of each layer, Spearman's correlation and the overlap of the best; ``.domains``
            with the area under the curve of every profile; ``.rows()``, a table; ``.picture()``, heatmaps.

        Raises
        ------
        NotFoundError
            Unknown set, profile, version or column.
        IncompatibleError
            A profile means nothing on the set; two have no layer in common.
        InvalidInputError
            Fewer than two profiles, or one twice; more best ones than candidates; a condition that is none, or that
            holds for all candidates or for none; scores that are not finite.
        """
        from nait_store.store.profile_transfer import analyze_transfer

        return analyze_transfer(self._store, profiles, on=on, top=top, where=where, domains=domains or {}, force=force)

    def core(
        self,
        *profiles: str,
        on: str,
        top: str | int = "10%",
        min_profiles: int | None = None,
        where: str | None = None,
        by: str = "source_uri",
        force: bool = False,
    ) -> CoreSet:
        """Find the samples that several profiles have among their best, and say what they are like.

        Scores that are missing are computed and kept. ``store.selections.save(name, core.selection)`` keeps it;
        ``store.select(set, profile=[…], min_profiles=…, combine="sum")`` gives the same selection.

        Parameters
        ----------
        *profiles
            ``math``, ``code@2`` …; the latest version of every profile that applies to the set if none is named.
        on
            Set to choose from, ``pool`` or ``pool@3``.
        top
            How many are the best of each profile: ``10%``, or a number.
        min_profiles
            Of how many profiles a sample is to be among the best; of all of them if omitted.
        where
            Boolean SQL expression over the columns of ``samples(set)``; what it leaves are the candidates.
        by
            Column of the samples whose values are counted.
        force
            Whether to silence compatibility warnings.

        Returns
        -------
        CoreSet
            ``.agreements``: how many samples are in the top of 1, 2 … profiles, and how many would be by chance;
            ``.values``; ``.selection``; ``.rows`` with every sample's ranks.

        Raises
        ------
        NotFoundError
            Unknown set, profile, version or column.
        IncompatibleError
            A profile means nothing on the set.
        InvalidInputError
            Fewer than two profiles, or one twice; ``min_profiles`` of more than there are; more best ones than
            candidates; a condition that is none; scores that are not finite.
        """
        from nait_store.store.core_set import analyze_core

        return analyze_core(
            self._store, profiles, on=on, top=top, min_profiles=min_profiles, where=where, by=by, force=force
        )
