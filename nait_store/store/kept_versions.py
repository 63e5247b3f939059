"""Versions put out of sight, brought back, named, described and protected: of sets, profiles and selections alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from nait_store.errors import ConflictError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import COMMANDS, Kind, Reference, parse_reference
from nait_store.storage.labels import Label, LabelKind
from nait_store.storage.notes import Notes
from nait_store.store.version_notes import NoteSummary, note_summary

if TYPE_CHECKING:
    from nait_store.schemas.history import LabelRecord
    from nait_store.storage.versions import VersionLog
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class Deletion:
    """Who deleted a version, when and why."""

    author: str
    deleted_at: datetime
    reason: str


@dataclass(frozen=True)
class DeletedVersions:
    """Versions that were deleted, and those that are left, ascending."""

    kind: Kind
    deleted: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True)
class LabelMove:
    """One entry in the history of an alias or a tag; ``version`` None: it was taken away."""

    version: str | None
    author: str
    moved_at: datetime
    reason: str


@dataclass(frozen=True)
class LabelSummary:
    """An alias or a tag.

    Attributes
    ----------
    label, kind
        Its name; ``alias`` or ``tag``.
    version
        What it names now, ``pool@3``; None where it was taken away.
    reason
        Of its latest move.
    moves
        Every move, oldest first.
    """

    label: str
    kind: str
    version: str | None
    reason: str
    moves: tuple[LabelMove, ...]


class KeptVersions(ABC):
    """What sets, profiles and selections have in common: versions are deleted, brought back, named, noted, protected.

    Parameters
    ----------
    store
        The store; deleting needs to know what its profiles and selections need.
    """

    kind: ClassVar[Kind]

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    @abstractmethod
    def _log(self) -> VersionLog[Any]:
        """The versions' documents."""

    def delete(self, reference: Reference | str, *, reason: str = "", force: bool = False) -> DeletedVersions:
        """Put a version, or with a bare name all of its versions, out of sight; gc takes them later.

        Parameters
        ----------
        reference
            ``pool@3``, or ``pool`` for everything of this name.
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
            labels = labels_of(self._store.location, self.kind, name)
            found = [one for number in numbers for one in labels.get(number, ()) if one.tag]
        else:
            every = Dependents(self._store)
            going = {f"{self.kind}:{name}@{number}" for number in numbers}  # a profile combined from its own versions
            needs = [one for number in numbers for one in every.of(self.kind, name, number)]
            found = [one for one in needs if one.reference not in going]
        require_unneeded([f"{name}@{number}" for number in numbers], found)
        for number in numbers:  # the latest last, so that the bare name means the same for as long as possible
            self._log.delete(name, number, reason)
            self._give_way_to_a_tag(name, number)
        return DeletedVersions(
            self.kind,
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
            name = self._parsed(reference).name
            listing = self._log.listing(name)
            deleted = [n for n in listing.documents if n in listing.deleted and n not in listing.collected]
            if not deleted and not listing.visible:
                self._log.resolve(Reference(self.kind, name))
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
            Unknown name or version.
        InvalidInputError
            The label is no valid name, numeric, or ``latest``.
        AlreadyExistsError
            It is a tag of another version, or a tag is to have the name of an alias, or the reverse.
        """
        return self._label(LabelKind.ALIAS, reference, alias, reason)

    def untag(self, name: str, label: str, *, reason: str = "") -> LabelSummary:
        """Take a tag or an alias away; NotFoundError suggests near names."""
        return self._take_away(name, label, reason, tuple(LabelKind))

    def unalias(self, name: str, alias: str, *, reason: str = "") -> LabelSummary:
        """Take an alias away, and no tag; NotFoundError suggests near names."""
        return self._take_away(name, alias, reason, (LabelKind.ALIAS,))

    def _take_away(self, name: str, label: str, reason: str, kinds: Sequence[LabelKind]) -> LabelSummary:
        self._store.location.require_writable()
        parsed = self._as_a_whole(name)
        labels = self._log.labels
        found = labels.find(parsed.name, label)
        if found is None or found.kind not in kinds:
            self._require_used(parsed)
            raise NotFoundError(
                f"{self.kind} {parsed.name!r} has no {' or '.join(kinds)} {label!r}",
                next_step=did_you_mean(label, [one.name for one in labels.of(parsed.name) if one.kind in kinds]),
            )
        labels.remove(found.kind, parsed.name, label, reason)
        return self._summary(parsed.name, found.kind, label)

    def labels(self, name: str) -> Sequence[LabelSummary]:
        """Every alias and tag that there ever was, with its moves; NotFoundError for an unknown name."""
        parsed = self._as_a_whole(name)
        self._require_used(parsed)
        labels = self._log.labels
        return [
            label_summary(parsed.name, kind, label, moves)
            for kind, label in labels.names(parsed.name)
            if (moves := labels.history(parsed.name, label, kind))
        ]

    def describe(self, reference: Reference | str, text: str) -> NoteSummary:
        """Say something about a version, in the place of what was said before; every text is kept.

        Parameters
        ----------
        reference
            ``math@3``, ``math@prod``, or ``math`` for the latest version.
        text
            What to say, of 64 KiB at most; space around it is dropped. Empty: the note is taken away.

        Raises
        ------
        NotFoundError
            Unknown name or version, or a deleted version.
        InvalidInputError
            The text is too long or no valid Unicode; it is empty, and there is no note to take away.
        """
        self._store.location.require_writable()
        parsed = self._parsed(reference)
        number = self._log.resolve(parsed)
        notes = Notes(self._store.location, self.kind)
        if not text.strip() and notes.find(parsed.name, number) is None:
            raise InvalidInputError(
                f"there is no note on {self.kind} {parsed.name}@{number} to take away", next_step="give a text to note"
            )
        notes.put(parsed.name, number, text)
        return note_summary(parsed.name, number, notes.history(parsed.name, number))

    def note(self, reference: Reference | str) -> NoteSummary | None:
        """What is said about a version now, with every earlier text; None for nothing. NotFoundError as for others."""
        parsed = self._parsed(reference)
        number = self._log.resolve(parsed)
        records = Notes(self._store.location, self.kind).history(parsed.name, number)
        return note_summary(parsed.name, number, records) if records and records[-1].text else None

    def notes(self, name: str) -> Sequence[NoteSummary]:
        """Every note that there ever was, with its texts, by version; NotFoundError for an unknown name."""
        parsed = self._as_a_whole(name)
        self._require_used(parsed)
        notes = Notes(self._store.location, self.kind)
        return [
            note_summary(parsed.name, number, records)
            for number in notes.numbers(parsed.name)
            if (records := notes.history(parsed.name, number))
        ]

    def _note_texts(self, name: str) -> dict[int, str]:
        return {number: note.text for number, note in Notes(self._store.location, self.kind).of(name).items()}

    def _label(self, kind: LabelKind, reference: Reference | str, label: str, reason: str) -> LabelSummary:
        self._store.location.require_writable()
        parsed = self._parsed(reference)
        number = self._log.resolve(parsed)
        labels = self._log.labels
        labels.put(kind, parsed.name, label, number, reason)
        if kind is LabelKind.TAG and number not in self._log.numbers(parsed.name):
            # Deleted meanwhile: whoever deletes looks for tags afterwards, so one of us sees the other.
            labels.remove(kind, parsed.name, label)
            self._log.resolve(Reference(self.kind, parsed.name, version=number))
        return self._summary(parsed.name, kind, label)

    def _summary(self, name: str, kind: LabelKind, label: str) -> LabelSummary:
        return label_summary(name, kind, label, self._log.labels.history(name, label, kind))

    def _give_way_to_a_tag(self, name: str, number: int) -> None:
        tags = [one for one in self._log.labels.of(name) if one.kind is LabelKind.TAG and one.version == number]
        if tags:
            self._log.undelete(name, number)
            raise ConflictError(
                f"{name}@{number} was tagged {tags[0].name!r} meanwhile and is kept",
                next_step=f"take the tag away with 'nait-store {COMMANDS[self.kind]} untag {name} {tags[0].name}'",
            )

    def _meant(self, reference: Reference | str) -> tuple[str, Sequence[int]]:
        """The visible versions that a reference means: all of them for a bare name."""
        parsed = self._parsed(reference)
        number = self._log.resolve(parsed)
        return parsed.name, self._log.numbers(parsed.name) if _is_whole(reference) else [number]

    def _kept(self, reference: Reference | str) -> tuple[str, int]:
        """The version that a reference means, which may be deleted but not collected."""
        parsed = self._parsed(reference)
        number = parsed.version
        if parsed.alias is not None and (label := self._log.labels.find(parsed.name, parsed.alias)) is not None:
            number = label.version
        if number is None:
            number = self._log.resolve(parsed)
        self._log.require_kept(parsed.name, number)
        return parsed.name, number

    def _as_a_whole(self, name: str) -> Reference:
        """A bare name, checked: what is about all the versions takes none."""
        parsed = parse_reference(name, self.kind)
        if parsed.version is not None or parsed.alias is not None:
            raise InvalidInputError(
                f"{name!r} names a version, where a {self.kind} is expected",
                next_step=f"give the {self.kind}: '{parsed.name}'",
            )
        return parsed

    def _require_used(self, reference: Reference) -> None:
        if not self._log.listing(reference.name).last:
            self._log.resolve(reference)

    def _parsed(self, reference: Reference | str) -> Reference:
        return parse_reference(reference, self.kind) if isinstance(reference, str) else reference


def label_summary(name: str, kind: LabelKind, label: str, moves: Sequence[LabelRecord]) -> LabelSummary:
    """A label from its documents, oldest first."""
    versions = [None if move.version is None else f"{name}@{move.version}" for move in moves]
    return LabelSummary(
        label=label,
        kind=kind.value,
        version=versions[-1],
        reason=moves[-1].reason,
        moves=tuple(
            LabelMove(version, move.provenance.author, move.provenance.created_at, move.reason)
            for version, move in zip(versions, moves, strict=True)
        ),
    )


def labels_on(number: int, labels: Sequence[Label], kind: LabelKind) -> tuple[str, ...]:
    """Names of the labels of one kind that a version has, of all those of its item."""
    return tuple(label.name for label in labels if label.version == number and label.kind is kind)


def deletion_of(log: VersionLog[Any], name: str, number: int) -> Deletion | None:
    """Who deleted a version, when and why; None where it is not deleted."""
    record = log.deletion(name, number)
    if record is None:
        return None
    return Deletion(record.provenance.author, record.provenance.created_at, record.reason)


def _is_whole(reference: Reference | str) -> bool:
    """Whether a reference is a bare name; ``pool@latest`` is one version, and it would be a pity to mistake it."""
    if isinstance(reference, str):
        return "@" not in reference
    return reference.version is None and reference.alias is None
