"""What keeps a store sound and small: verify, repair, gc, purge, doctor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack, cast

from nait_store.progress import ProgressListener
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.store.doctor import DoctorReport
    from nait_store.store.facade import Store
    from nait_store.store.garbage.collection import GcReport
    from nait_store.store.integrity import VerifyReport
    from nait_store.store.options import IngestOptions
    from nait_store.store.purge.purging import PurgeReport
    from nait_store.store.repair.repairing import RepairReport


class Upkeep:
    """The methods of :class:`~nait_store.store.facade.Store`, its only subclass, that look after what is stored."""

    location: Location
    progress: ProgressListener

    def verify(self, *, quick: bool = False, set: str | None = None) -> VerifyReport:  # noqa: A002
        """Compare every file with its record.

        Parameters
        ----------
        quick
            Read the documents and compare sizes, and leave the hashing of everything else out.
        set
            Verify this set only.
        """
        from nait_store.store.integrity import verify

        return verify(self.location, quick=quick, set_name=set, progress=self.progress)

    def purge(
        self,
        set: str | None = None,  # noqa: A002
        *,
        ids: Iterable[str] | None = None,
        where: str | None = None,
        everywhere: bool = False,
        reason: str = "",
        dry_run: bool = False,
    ) -> PurgeReport:
        """Take samples out of everything in the store, for good: all versions, deleted ones included.

        Their rows become blank, in the arrays, the sample rows and the scores; they leave saved selections and lists
        of rejected records; a new version of each set records it. Killed at any moment, the same call finishes it.

        Parameters
        ----------
        set
            Name of the set, or ``pool@3`` for the version that ``where`` is asked of.
        ids, where
            The samples: by id, or by a boolean SQL expression over the columns of ``samples(set)``.
        everywhere
            Whether to take the samples out of all sets.
        reason
            Recorded with the version; it must not name the samples.
        dry_run
            Whether to look only.

        Returns
        -------
        PurgeReport
            What was rewritten and deleted, and what could not be reached.

        Raises
        ------
        ConflictError
            An ingest or another job of the set is alive.
        NotFoundError, InvalidInputError
            Unknown set or column; no ids, or no condition.
        CorruptChunkError
            Something is damaged that may hold the samples: repair first.
        """
        from nait_store.store.purge.purging import purge

        return purge(
            cast("Store", self), set, ids=ids, where=where, everywhere=everywhere, reason=reason, dry_run=dry_run
        )

    def repair(
        self,
        *,
        set: str | None = None,  # noqa: A002
        sources: str | Sequence[str] = (),
        model: str | None = None,
        capture: CaptureSource | None = None,
        dry_run: bool = False,
        **options: Unpack[IngestOptions],
    ) -> RepairReport:
        """Verify everything, mend what can be mended, and leave out what is lost.

        What digests confirm is made again as it was: flipped bits in small files, metadata, norms. Rows of damaged
        chunks become blank in all versions and are listed; sound rows are kept. Killed at any moment, the same call
        goes on.

        Parameters
        ----------
        set
            Mend this set only.
        sources, model
            Capture the dropped samples again: from where they were read, with the model of the set.
        capture
            An open capture session to use instead of loading ``model``.
        dry_run
            Whether to look only.
        **options
            ``rejects``: the JSON Lines file to which dropped rows are appended, ``repair-rejects.jsonl`` by default.
            The others are for capturing again; what is not given is as the set was captured.

        Returns
        -------
        RepairReport
            What was mended, what could not be saved, and the damage that is left.

        Raises
        ------
        ConflictError
            An ingest or another job of a damaged set is alive.
        NotFoundError, InvalidInputError
            Unknown set; sources without a model.
        """
        from nait_store.store.repair.repairing import repair

        return repair(
            cast("Store", self),
            set_name=set,
            sources=(sources,) if isinstance(sources, str) else tuple(sources),
            model=model,
            capture=capture,
            options=options,
            dry_run=dry_run,
        )

    def gc(
        self,
        *,
        dry_run: bool = False,
        grace: timedelta = timedelta(days=7),
        keep_last: int | None = None,
        expire_older_than: timedelta | None = None,
        set: str | None = None,  # noqa: A002
    ) -> GcReport:
        """Take what nothing needs any more: deleted versions whose grace period is over, and what crashes left.

        Everybody may go on working in the store meanwhile. Tags, aliases, selections, profiles and running ingests
        protect what they need. Killed at any moment, the next run goes on.

        Parameters
        ----------
        dry_run
            Whether to change nothing, and say what would go.
        grace
            How long a deleted version can be brought back, and how old an orphan must be (an hour at least).
        keep_last, expire_older_than
            Delete visible versions of sets that are not among the last N, or older than this (where both are given:
            both), unless something needs them. Their data go with a later run, after the grace period.
        set
            Look at this set only.

        Returns
        -------
        GcReport
            What went, what was deleted by policy, what stays and why.

        Raises
        ------
        NotFoundError, InvalidInputError
            Unknown set; a negative or absurd duration or number.
        """
        from nait_store.store.garbage.collection import ExpiryPolicy, gc

        policy = ExpiryPolicy(keep_last, expire_older_than)
        return gc(cast("Store", self), dry_run=dry_run, grace=grace, policy=policy, set_name=set)

    def doctor(self) -> DoctorReport:
        """Describe the installation, the machine and the store, and what is wrong with them."""
        from nait_store.store.doctor import examine

        return examine(cast("Store", self))
