"""What can be said about profiles and sets beside the choice itself: the analyses of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from nait_store.analysis.audit import SetAudit
    from nait_store.analysis.core_set import CoreSet
    from nait_store.analysis.ratio import RatioReport
    from nait_store.analysis.transfer import ProfileTransfer
    from nait_store.store.facade import Store
    from nait_store.store.options import RecaptureOptions


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
            ``union``, ``sum``, ``min``, ``rrf`` or ``norm``: one order of all profiles, as :meth:`Store.select` makes
            it; the profiles may have weights then.
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
            ``.curves``, one a profile, with a point for each per cent and the knee; ``.findings`` in sentences;
            ``.picture()``, drawn.

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

    def audit(
        self,
        set: str,  # noqa: A002
        *profiles: str,
        by: str = "source_uri",
        samples: int = 32,
        seed: int = 0,
        recapture: bool = True,
        force: bool = False,
        **options: Unpack[RecaptureOptions],
    ) -> SetAudit:
        """Say what makes the scores of a set, beside the capability that they are about.

        Length, sources, truncation and repeated texts are told from what is stored. What batches, BOS, the first token
        and the template do is measured on some samples that are captured again, with the model that the set was
        captured with; where that is gone or another one, this is skipped with the reason, and the rest is done.

        Parameters
        ----------
        set
            ``pool`` or ``pool@3``.
        *profiles
            Whose scores to look at; missing ones are computed. If omitted, the profiles whose scores are stored.
        by
            Column of the samples that scores are told apart by.
        samples, seed
            How many samples are captured again, at most 1,024, and what draws them.
        recapture
            Whether to do that.
        force
            Whether to silence compatibility warnings.
        **options
            See :class:`~nait_store.store.options.RecaptureOptions`.

        Returns
        -------
        SetAudit
            ``.findings`` has the sentences, ``.ok`` whether none is a warning, the rest the numbers.

        Raises
        ------
        NotFoundError
            Unknown set, profile or column; the ``model`` that was named is not there.
        IncompatibleError
            A profile that was named means nothing on the set; the ``model`` that was named is another one.
        InvalidInputError
            The set has no sample; a profile gives none of them a finite score.
        """
        from nait_store.store.audits import report_audit

        return report_audit(
            self._store,
            set,
            profiles=profiles,
            by=by,
            n_samples=samples,
            seed=seed,
            recapture=recapture,
            options=options,
            force=force,
        )
