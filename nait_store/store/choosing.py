"""What a store is for: candidates scored, the best of them selected, and written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack, cast

from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

    from nait_store.scoring.completion import ScoreWork
    from nait_store.selection.choosing import Selection
    from nait_store.selection.export import ExportReport, Target
    from nait_store.store.facade import Store
    from nait_store.store.options import ExportOptions, SelectOptions
    from nait_store.store.transfer import TransferReport


class Choosing:
    """The methods of :class:`~nait_store.store.facade.Store`, its only subclass, that score and select samples."""

    def score(
        self,
        set: str,  # noqa: A002
        *profiles: str,
        force: bool = False,
        ray: str | None = None,
        device: str | None = None,
    ) -> tuple[ScoreWork, list[str]]:
        """Compute and keep the scores of a set under profiles, in one pass over the arrays.

        Parameters
        ----------
        set, profiles
            ``pool`` or ``pool@3``; ``math``, ``code@2`` …
        force
            Whether to silence compatibility warnings.
        ray
            Address of a Ray cluster that does it, see :func:`nait_store.cluster.ray_cluster.ray_cluster`; this
            process does if omitted.
        device
            ``cuda`` or ``cuda:1`` to compute there; this machine's cores (``cpu``), or what
            ``NAIT_STORE_SCORE_DEVICE`` says, if omitted.

        Returns
        -------
        work
            What was computed and what was there already.
        warnings
            About the profiles' fit to the set.
        """
        from nait_store.registry.compatibility import require_compatible
        from nait_store.scoring.completion import ensure_scores
        from nait_store.scoring.scoring_devices import kernels_on

        if ray is not None and device is not None:
            raise InvalidInputError(
                "a device is of this machine, and --ray computes elsewhere", next_step="leave one of the two out"
            )
        kernels = None if device is None else kernels_on(device)
        store = cast("Store", self)
        version = store.sets.open(set)
        opened = [store.profiles.open(profile) for profile in profiles]
        warnings = [text for profile in opened for text in require_compatible(profile, version, force=force)]
        targets = [p.target() for p in opened]
        if ray is None:
            work = ensure_scores(store.location, version, targets, store.progress, kernels=kernels)
        else:
            from nait_store.store.on_cluster import score_on_cluster

            work = score_on_cluster(store, ray, version, targets)
        return work, list(dict.fromkeys(warnings))

    def score_samples(
        self,
        set: str,  # noqa: A002
        *profiles: str,
        where: str,
        force: bool = False,
    ) -> tuple[pa.Table, list[str]]:
        """Score the samples of a set for which a condition holds.

        Where scores are stored they are read; of other segments only the chunks that hold these samples are, and
        their scores are stored only if those are all chunks.

        Parameters
        ----------
        set, profiles, force
            As for :meth:`score`.
        where
            Boolean SQL expression over the columns of ``samples(set)``.

        Returns
        -------
        scores
            ``sample_id``, and a column of float64 named after each profile's reference; in the order of storage.
        warnings
            About the profiles' fit to the set.

        Raises
        ------
        InvalidInputError, NotFoundError
            A condition that is none; unknown names.
        """
        from nait_store.query.rows import score_samples
        from nait_store.registry.compatibility import require_compatible

        store = cast("Store", self)
        version = store.sets.open(set)
        opened = {p.reference: p for p in map(store.profiles.open, profiles)}
        warnings = [text for p in opened.values() for text in require_compatible(p, version, force=force)]
        table = score_samples(store.session, version, list(opened.values()), where)
        return table, list(dict.fromkeys(warnings))

    def select(
        self,
        set: str,  # noqa: A002
        *,
        profile: str | Sequence[str] | Mapping[str, float] | None = None,
        top: str | int | None = None,
        **options: Unpack[SelectOptions],
    ) -> Selection:
        """Choose samples by score, or by chance.

        Parameters
        ----------
        set
            Set to choose from, ``pool`` or ``pool@3``.
        profile
            Profile to score with; optional for ``strategy="random"``. Several as ``["math", "code:2"]``, or with their
            weights as ``{"math": 1, "code": 2}``.
        top
            Count or percentage of the candidates; 10 % where no other option limits the number.
        **options
            See :class:`~nait_store.store.options.SelectOptions`.

        Returns
        -------
        Selection
            Ranked; hand it to :meth:`export`, or to ``store.selections.save(name, selection)``.
        """
        from nait_store.selection.choosing import select
        from nait_store.selection.redundancy.diversity import parse_diversity
        from nait_store.selection.requests import SelectionRequest
        from nait_store.selection.strategies import Combine, FuseBy, Strategy, parse_profiles

        duplicates = options.get("drop_duplicates", ())
        combine, fuse, fuse_by = options.get("combine"), options.get("fuse", ()), options.get("fuse_by")
        request = SelectionRequest(
            set,
            parse_profiles(profile),
            combine=None if combine is None else Combine.parse(combine),
            min_profiles=options.get("min_profiles"),
            top=top,
            strategy=Strategy.parse(options.get("strategy", "alignment")),
            seed=options.get("seed", 0),
            in_domain=options.get("in_domain"),
            fuse=tuple(f"{name}:{weight!r}" for name, weight in fuse.items())
            if isinstance(fuse, Mapping)
            else tuple(fuse),
            fuse_by=None if fuse_by is None else FuseBy.parse(fuse_by),
            where=options.get("where"),
            budget_tokens=options.get("budget_tokens"),
            quota=options.get("quota"),
            per=options.get("per"),
            min_score=options.get("min_score"),
            knee=options.get("knee", False),
            diversity=parse_diversity(options.get("diversity")),
            among=options.get("among"),
            drop_duplicates=(duplicates,) if isinstance(duplicates, str) else tuple(duplicates),
            force=options.get("force", False),
        )
        store = cast("Store", self)
        return select(store.session, store.sets.versions, store.profiles.registry, request)

    def select_again(self, reference: str) -> Selection:
        """Make a saved selection again: the same request on the set version and profiles that it records.

        Parameters
        ----------
        reference
            ``best`` or ``best@1``.

        Raises
        ------
        NotFoundError
            There is no such selection, or a version that it was made from is gone.
        """
        from nait_store.selection.choosing import select
        from nait_store.selection.requests import SelectionRequest

        store = cast("Store", self)
        request = SelectionRequest.from_record(store.selections.open(reference).record)
        return select(store.session, store.sets.versions, store.profiles.registry, request)

    def transfer_report(
        self,
        first: str,
        second: str,
        *,
        on: Sequence[str],
        top: Sequence[str | int] = ("10%", "30%"),
        force: bool = False,
    ) -> TransferReport:
        """Say how alike two models rank the same candidates, by sample id; scores that are missing are computed.

        Parameters
        ----------
        first, second
            Profiles, ``math@3`` and its sister ``math-qwen``.
        on
            Two sets, each captured with the model of its profile: ``("pool", "pool-qwen")``.
        top
            How many are the best: shares as ``"10%"``, or numbers.
        force
            Whether to silence compatibility warnings.

        Returns
        -------
        TransferReport
            Spearman's correlation, overlap of the best, counts of common samples and others, and both rankings.

        Raises
        ------
        NotFoundError
            Unknown profile or set.
        IncompatibleError
            A profile means nothing on its set.
        InvalidInputError
            The sets have no sample in common, or fewer than are to be the best; not two sets.
        """
        from nait_store.store.transfer import report_transfer

        store = cast("Store", self)
        return report_transfer(store, first, second, on=on, top=top, force=force)

    def export(self, selection: Selection, to: str | Target, **options: Unpack[ExportOptions]) -> ExportReport:
        """Write a selection's original records in rank order; the file appears whole or not at all.

        Parameters
        ----------
        selection
            From :meth:`select`, or a saved one's ``.selection()``.
        to
            Path, fsspec URL, or an open :class:`~nait_store.selection.export.Target`.
        **options
            See :class:`~nait_store.store.options.ExportOptions`.

        Raises
        ------
        AlreadyExistsError
            The file exists and ``overwrite`` is off.
        """
        from nait_store.selection.destination import Destination
        from nait_store.selection.export import export, format_for

        target = Destination(to, overwrite=options.get("overwrite", False)) if isinstance(to, str) else to
        chosen = format_for(target.url, options.get("format"))
        store = cast("Store", self)
        version = store.sets.open(selection.set_ref)
        return export(store.location, version, selection, target, format=chosen, clean=options.get("clean", False))
