"""The activation sets of a store: listed, described, and their history written on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from nait_store.errors import ConflictError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.storage.labels import LabelKind
from nait_store.store.inventory import SetDetails, SetSummary, describe, summarise
from nait_store.store.set_history import (
    DeletedSamples,
    DeletedVersions,
    LabelSummary,
    RestoredVersion,
    SetDiff,
    VersionSummary,
    diff_of,
    history_of,
    label_summary,
)

if TYPE_CHECKING:
    from nait_store.activations.compaction import CompactionReport
    from nait_store.activations.conversion import ConversionReport
    from nait_store.activations.versions import ActivationSets, SetVersion
    from nait_store.schemas.activation_set import SetManifest
    from nait_store.storage.versions import VersionLog
    from nait_store.store.facade import Store


class Sets:
    """The activation sets of a store.

    Parameters
    ----------
    store
        The store; deleting needs its profiles and selections, and its SQL for ``where``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

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
        return describe(version, self.versions.numbers(version.name))

    def history(self, name: str) -> Sequence[VersionSummary]:
        """Versions of a set, oldest first, deleted ones included; NotFoundError for an unknown name."""
        parsed = parse_reference(name, Kind.SET)
        if not self._log.listing(parsed.name).last:
            self.versions.resolve(parsed)
        return history_of(self.versions, parsed.name)

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

        version = self.open(self._latest_of(name))
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
            self._latest_of(name).name,
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
            self._latest_of(name).name,
            StoredDtype(dtype),
            dry_run=dry_run,
            message=message,
            progress=self._store.progress,
        )

    def delete(self, reference: Reference | str, *, reason: str = "", force: bool = False) -> DeletedVersions:
        """Put a version, or with a bare name all versions of a set, out of sight; gc takes them later.

        Parameters
        ----------
        reference
            ``pool@3``, or ``pool`` for the whole set.
        reason
            Recorded.
        force
            Also where aliases, selections or profiles need it. A tag always protects.

        Raises
        ------
        NotFoundError
            Unknown, or deleted already.
        InvalidInputError
            Somebody needs it: each is named, with what to do.
        """
        from nait_store.store.dependents import Dependents, labels_of, require_unneeded

        self._store.location.require_writable()
        name, numbers = self._meant(reference)
        if force:
            labels = labels_of(self._store.location, Kind.SET, name)
            found = [one for number in numbers for one in labels.get(number, ()) if one.tag]
        else:
            every = Dependents(self._store)
            found = [one for number in numbers for one in every.of(Kind.SET, name, number)]
        require_unneeded([f"{name}@{number}" for number in numbers], found)
        for number in numbers:  # the latest last, so that the bare name means the same for as long as possible
            self._log.delete(name, number, reason)
            self._give_way_to_a_tag(name, number)
        return DeletedVersions(
            tuple(f"{name}@{number}" for number in numbers),
            tuple(f"{name}@{number}" for number in self._log.numbers(name)),
        )

    def undelete(self, reference: Reference | str) -> Sequence[str]:
        """Bring a deleted version back, or with a bare name all that gc has not taken; returns their references.

        Raises
        ------
        NotFoundError
            Unknown, or taken by gc.
        """
        self._store.location.require_writable()
        if _is_whole(reference):
            name = _parsed(reference).name
            listing = self._log.listing(name)
            deleted = [n for n in listing.documents if n in listing.deleted and n not in listing.collected]
            if not deleted and not listing.visible:
                self.versions.resolve(Reference(Kind.SET, name))
        else:
            name, number = self._kept(reference)
            deleted = [number] if number in self._log.listing(name).deleted else []
        for number in deleted:
            self._log.undelete(name, number)
        return tuple(f"{name}@{number}" for number in deleted)

    def tag(self, reference: Reference | str, tag: str, *, reason: str = "") -> LabelSummary:
        """Protect a version from gc and deletion under a name that stays on it; errors as for :meth:`alias`."""
        return self._label(LabelKind.TAG, reference, tag, reason)

    def alias(self, reference: Reference | str, alias: str, *, reason: str = "") -> LabelSummary:
        """Name a version, or move the name to it.

        Raises
        ------
        NotFoundError
            Unknown set or version.
        InvalidInputError
            The label is no valid name, numeric, or ``latest``.
        AlreadyExistsError
            It is a tag of another version, or a tag is to have the name of an alias, or the reverse.
        """
        return self._label(LabelKind.ALIAS, reference, alias, reason)

    def untag(self, name: str, label: str, *, reason: str = "") -> LabelSummary:
        """Take a tag or an alias away; NotFoundError suggests near names."""
        self._store.location.require_writable()
        parsed = self._latest_of(name)
        labels = self._log.labels
        found = labels.find(parsed.name, label)
        if found is None:
            self._require_used(parsed)
            raise NotFoundError(
                f"set {parsed.name!r} has no alias or tag {label!r}",
                next_step=did_you_mean(label, [known.name for known in labels.of(parsed.name)]),
            )
        kind = found.kind
        labels.remove(kind, parsed.name, label, reason)
        return label_summary(parsed.name, kind, label, labels.history(parsed.name, label, kind))

    def labels(self, name: str) -> Sequence[LabelSummary]:
        """Every alias and tag that a set ever had, with its moves; NotFoundError for an unknown name."""
        parsed = self._latest_of(name)
        self._require_used(parsed)
        labels = self._log.labels
        return [
            label_summary(parsed.name, kind, label, moves)
            for kind, label in labels.names(parsed.name)
            if (moves := labels.history(parsed.name, label, kind))
        ]

    @property
    def _log(self) -> VersionLog[SetManifest]:
        return self.versions.log

    def _label(self, kind: LabelKind, reference: Reference | str, label: str, reason: str) -> LabelSummary:
        self._store.location.require_writable()
        parsed = _parsed(reference)
        number = self.versions.resolve(parsed)
        labels = self._log.labels
        labels.put(kind, parsed.name, label, number, reason)
        if kind is LabelKind.TAG and number not in self._log.numbers(parsed.name):
            # Deleted meanwhile: whoever deletes looks for tags afterwards, so one of us sees the other.
            labels.remove(kind, parsed.name, label)
            self.versions.resolve(Reference(Kind.SET, parsed.name, version=number))
        return label_summary(parsed.name, kind, label, labels.history(parsed.name, label, kind))

    def _give_way_to_a_tag(self, name: str, number: int) -> None:
        tags = [one for one in self._log.labels.of(name) if one.kind is LabelKind.TAG and one.version == number]
        if tags:
            self._log.undelete(name, number)
            raise ConflictError(
                f"{name}@{number} was tagged {tags[0].name!r} meanwhile and is kept",
                next_step=f"take the tag away with 'nait-store sets untag {name} {tags[0].name}'",
            )

    def _meant(self, reference: Reference | str) -> tuple[str, Sequence[int]]:
        """The visible versions that a reference means: all of them for a bare name."""
        parsed = _parsed(reference)
        number = self.versions.resolve(parsed)
        return parsed.name, self._log.numbers(parsed.name) if _is_whole(reference) else [number]

    def _kept(self, reference: Reference | str) -> tuple[str, int]:
        """The version that a reference means, which may be deleted but not collected."""
        from nait_store.activations.history import require_kept

        parsed = _parsed(reference)
        number = parsed.version
        if parsed.alias is not None and (label := self._log.labels.find(parsed.name, parsed.alias)) is not None:
            number = label.version
        if number is None:
            number = self.versions.resolve(parsed)
        require_kept(self.versions, parsed.name, number)
        return parsed.name, number

    def _latest_of(self, name: str) -> Reference:
        """A bare name, checked: what changes a set as a whole takes no version."""
        parsed = parse_reference(name, Kind.SET)
        if parsed.version is not None or parsed.alias is not None:
            raise InvalidInputError(
                f"{name!r} names a version, where a set is expected", next_step=f"give the set: '{parsed.name}'"
            )
        return parsed

    def _require_used(self, reference: Reference) -> None:
        if not self._log.listing(reference.name).last:
            self.versions.resolve(reference)


def _parsed(reference: Reference | str) -> Reference:
    return parse_reference(reference, Kind.SET) if isinstance(reference, str) else reference


def _is_whole(reference: Reference | str) -> bool:
    """Whether a reference is a bare name; ``pool@latest`` is one version, and it would be a pity to mistake it."""
    if isinstance(reference, str):
        return "@" not in reference
    return reference.version is None and reference.alias is None
