"""The activation sets of a store: listed, described, and their history written on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from nait_store.errors import InvalidInputError, did_you_mean
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.store.inventory import SetDetails, SetSummary, describe, summarise
from nait_store.store.kept_versions import KeptVersions
from nait_store.store.set_history import (
    DeletedSamples,
    RestoredVersion,
    SetDiff,
    VersionSummary,
    diff_of,
    history_of,
)

if TYPE_CHECKING:
    from nait_store.activations.compaction import CompactionReport
    from nait_store.activations.conversion import ConversionReport
    from nait_store.activations.versions import ActivationSets, SetVersion
    from nait_store.schemas.activation_set import SetManifest
    from nait_store.storage.versions import VersionLog


class Sets(KeptVersions):
    """The activation sets of a store.

    Parameters
    ----------
    store
        The store; deleting needs its profiles and selections, and its SQL for ``where``.
    """

    kind = Kind.SET

    @cached_property
    def versions(self) -> ActivationSets:
        """The versions themselves, for reading arrays."""
        from nait_store.activations.versions import ActivationSets

        return ActivationSets(self._store.location)

    def names(self) -> list[str]:
        """Sorted names."""
        return self.versions.names()

    def open(self, reference: Reference | str) -> SetVersion:
        """Open a version; NotFoundError suggests near names."""
        return self.versions.open(reference)

    def list(self) -> list[SetSummary]:
        """Summaries of the latest version of every set."""
        return [summarise(self.open(name)) for name in self.names()]

    def show(self, reference: Reference | str) -> SetDetails:
        """Describe a version."""
        version = self.open(reference)
        note = self.note(version.reference)
        return describe(version, self.versions.numbers(version.name), note.text if note else "")

    def history(self, name: str) -> Sequence[VersionSummary]:
        """Versions of a set, oldest first, deleted ones included; NotFoundError for an unknown name."""
        parsed = parse_reference(name, Kind.SET)
        self._require_used(parsed)
        return history_of(self.versions, parsed.name, self._note_texts(parsed.name))

    def diff(self, first: Reference | str, second: Reference | str) -> SetDiff:
        """Compare two versions, of one set or of two, by sample id and content.

        Parameters
        ----------
        first, second
            ``pool@1``, ``pool@paper``; sets of different models can be compared too.

        Returns
        -------
        SetDiff
            Counts and the first few ids; ``.ids()`` reads them all.
        """
        return diff_of(self.versions, self.open(first), self.open(second))

    def delete_samples(
        self,
        name: str,
        *,
        where: str | None = None,
        ids: Iterable[str] | None = None,
        ignore_missing: bool = False,
        allow_empty: bool = False,
        message: str = "",
        dry_run: bool = False,
    ) -> DeletedSamples:
        """Commit a version of a set without some of its samples; earlier versions keep them.

        Parameters
        ----------
        name
            The set.
        where
            SQL condition over the columns of ``samples(set)``; samples that are appended meanwhile are not looked at.
        ids
            Sample ids, instead of ``where``.
        ignore_missing
            Whether ids that the set does not have are passed over.
        allow_empty
            Whether all samples may be deleted.
        message
            For the history, which also records ``where``, or the number of ids.
        dry_run
            Only say what would be deleted.

        Returns
        -------
        DeletedSamples
            Where nothing was found, ``set_ref`` is the latest version and nothing was committed.

        Raises
        ------
        InvalidInputError
            Neither or both of ``where`` and ``ids``; no ids; a condition that is none; no sample would be left.
        NotFoundError
            Unknown set, column or ids.
        ConflictError
            Other writers kept winning for five minutes.
        """
        from nait_store.store.sample_deletion import delete_samples

        version = self.open(self._as_a_whole(name))
        return delete_samples(
            self._store,
            version,
            where=where,
            ids=ids,
            ignore_missing=ignore_missing,
            allow_empty=allow_empty,
            message=message,
            dry_run=dry_run,
        )

    def restore(self, reference: Reference | str, *, message: str = "") -> RestoredVersion:
        """Commit a version that equals an old one, which may be a deleted one; purged samples stay away.

        Raises
        ------
        NotFoundError
            Unknown, or taken by gc.
        """
        from nait_store.activations.history import restore

        self._store.location.require_writable()
        name, number = self._kept(reference)
        version, created = restore(self.versions, name, number, message=message)
        return RestoredVersion(version.reference, f"{name}@{number}", version.n_samples, created)

    def compact(
        self, name: str, *, target_bytes: int | None = None, dry_run: bool = False, message: str = ""
    ) -> CompactionReport:
        """Merge the many small segments of a set into few, as its next version; hidden rows are left behind.

        Samples and scores stay bit by bit what they were. Earlier versions keep the old segments until gc.

        Parameters
        ----------
        name
            The set.
        target_bytes
            Size of a new segment, 1 GB if omitted; segments of at least half of that are left alone.
        dry_run
            Only say what would be done.
        message
            For the history.

        Returns
        -------
        CompactionReport
            Where there was nothing to gain, ``reference`` is None and nothing was committed.

        Raises
        ------
        NotFoundError
            Unknown set.
        CorruptChunkError
            Something that was to be copied is damaged.
        ConflictError
            The set was purged, repaired, restored or compacted meanwhile.
        StorageError
            There is not enough room.
        """
        from nait_store.activations.compaction import DEFAULT_TARGET_BYTES, compact

        return compact(
            self.versions,
            self._as_a_whole(name).name,
            target_bytes=DEFAULT_TARGET_BYTES if target_bytes is None else target_bytes,
            dry_run=dry_run,
            message=message,
            progress=self._store.progress,
        )

    def convert(self, name: str, dtype: str, *, dry_run: bool = False, message: str = "") -> ConversionReport:
        """Write a set again in another dtype, as its next version; hidden rows are left behind.

        Values are rounded to the new dtype, and scores are computed from them when next asked for. A wider dtype brings
        no precision back. Segments that have the dtype stay as they are. Earlier versions keep the old segments, and
        so their space, until they are deleted and gc takes them.

        Parameters
        ----------
        name
            The set.
        dtype
            ``float16``, ``bfloat16``, ``int8`` or ``float32``.
        dry_run
            Only say what would be done.
        message
            For the history.

        Returns
        -------
        ConversionReport
            Where all segments have the dtype, ``reference`` is None and nothing was committed.

        Raises
        ------
        NotFoundError
            Unknown set.
        InvalidInputError
            Unknown dtype, or one that cannot hold a stored value.
        CorruptChunkError
            Something that was to be converted is damaged.
        ConflictError
            The set was purged, repaired, restored, compacted or converted meanwhile.
        StorageError
            There is not enough room.
        """
        from nait_store.activations.conversion import convert
        from nait_store.schemas.capture import StoredDtype

        if dtype not in list(StoredDtype):
            raise InvalidInputError(f"{dtype!r} is not a dtype to store", next_step=did_you_mean(dtype, StoredDtype))
        return convert(
            self.versions,
            self._as_a_whole(name).name,
            StoredDtype(dtype),
            dry_run=dry_run,
            message=message,
            progress=self._store.progress,
        )

    @property
    def _log(self) -> VersionLog[SetManifest]:
        return self.versions.log
