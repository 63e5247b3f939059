"""Names that people give to versions: aliases, which move, and tags, which stay and protect.

Both are append-only logs, ``<kind>/<name>/aliases/<alias>/<n>.json`` and ``…/tags/<tag>/<n>.json``: the highest
``n`` says which version the label names now, or that it was removed; the others are its history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import Kind, check_name
from nait_store.schemas.history import LabelRecord
from nait_store.storage import layout
from nait_store.storage.append_log import AppendLog
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance


class LabelKind(StrEnum):
    """An alias is moved at will; a tag stays where it was put and keeps its version from ``gc``."""

    ALIAS = "alias"
    TAG = "tag"


LABEL_FOLDERS = {LabelKind.ALIAS: "aliases", LabelKind.TAG: "tags"}
"""Where the labels of each kind lie, below their item."""


@dataclass(frozen=True)
class Label:
    """What a label names now.

    Attributes
    ----------
    kind, record
        Alias or tag, and its latest document; ``record.version`` is a number.
    """

    kind: LabelKind
    record: LabelRecord

    @property
    def name(self) -> str:
        """The label itself."""
        return self.record.label

    @property
    def version(self) -> int:
        """The version that it names."""
        assert self.record.version is not None
        return self.record.version


class Labels:
    """The aliases and tags of every set, profile or selection of a store.

    Parameters
    ----------
    location
        The store's root.
    kind
        What they name versions of.
    """

    def __init__(self, location: Location, kind: Kind) -> None:
        self._location = location
        self._kind = kind

    def of(self, name: str) -> list[Label]:
        """Every alias and tag of one item that names a version now, sorted by name."""
        found = []
        for kind, folder in LABEL_FOLDERS.items():
            for label in self._location.names(layout.labels_folder(self._kind, name, folder)):
                record = self._log(name, kind, label).latest()
                if record is not None and record.version is not None:
                    found.append(Label(kind, record))
        return sorted(found, key=lambda label: label.name)

    def names(self, name: str) -> list[tuple[LabelKind, str]]:
        """Every alias and tag that one item ever had, removed ones included, sorted by name."""
        found = [
            (kind, label)
            for kind, folder in LABEL_FOLDERS.items()
            for label in self._location.names(layout.labels_folder(self._kind, name, folder))
        ]
        return sorted(found, key=lambda one: (one[1], one[0]))

    def find(self, name: str, label: str) -> Label | None:
        """The alias or tag of this name, or None."""
        for kind in LabelKind:
            record = self._log(name, kind, label).latest()
            if record is not None and record.version is not None:
                return Label(kind, record)
        return None

    def history(self, name: str, label: str, kind: LabelKind | None = None) -> list[LabelRecord]:
        """Every move of an alias, or placing and removal of a tag, oldest first; of both kinds if none is given."""
        kinds = list(LabelKind) if kind is None else [kind]
        return [record for kind in kinds for record in self._log(name, kind, label).history()]

    def put(self, kind: LabelKind, name: str, label: str, version: int, reason: str = "") -> Label:
        """Name a version.

        Parameters
        ----------
        kind
            An alias moves from where it was; a tag must be new.
        name
            Item that has the version; that it exists is the caller's to check.
        label
            Name of the alias or tag, not numeric and not ``latest``.
        version, reason
            What it names, and why.

        Raises
        ------
        InvalidInputError
            The label is no valid name.
        AlreadyExistsError
            The tag is on another version, or an alias has the tag's name, or the reverse.
        """
        check_label(label, kind)
        existing = self.find(name, label)
        if existing is not None and (existing.kind != kind or (kind is LabelKind.TAG and existing.version != version)):
            raise AlreadyExistsError(
                f"{label!r} is {_an(existing.kind)} of {name}@{existing.version} already",
                next_step="choose another name"
                + (", or remove the tag first" if existing.kind is LabelKind.TAG else ""),
            )
        if existing is not None and existing.version == version:
            return existing

        def naming(number: int, _: LabelRecord | None) -> LabelRecord:
            return _move(label, number, version, reason)

        return Label(kind, self._append(name, kind, label, naming))

    def remove(self, kind: LabelKind, name: str, label: str, reason: str = "") -> None:
        """Take an alias or tag away.

        Raises
        ------
        NotFoundError
            There is none of this name; near names are suggested.
        """

        def nothing(number: int, current: LabelRecord | None) -> LabelRecord:
            if current is None or current.version is None:
                known = [known.name for known in self.of(name) if known.kind == kind]
                raise NotFoundError(
                    f"{self._kind} {name!r} has no {kind} {label!r}", next_step=did_you_mean(label, known)
                )
            return _move(label, number, None, reason)

        self._append(name, kind, label, nothing)

    def _append(
        self, name: str, kind: LabelKind, label: str, propose: Callable[[int, LabelRecord | None], LabelRecord]
    ) -> LabelRecord:
        return self._log(name, kind, label).append(propose, f"{kind} {label!r} of {self._kind} {name!r}")

    def _log(self, name: str, kind: LabelKind, label: str) -> AppendLog[LabelRecord]:
        folder = f"{layout.labels_folder(self._kind, name, LABEL_FOLDERS[kind])}/{label}"
        return AppendLog(self._location, folder, LabelRecord)


def _move(label: str, number: int, version: int | None, reason: str) -> LabelRecord:
    return LabelRecord(label=label, number=number, version=version, reason=reason, provenance=current_provenance())


def check_label(label: str, kind: LabelKind) -> str:
    """Return ``label`` if it can name a version.

    Raises
    ------
    InvalidInputError
        It is no valid name, numeric, or ``latest``.
    """
    check_name(label, kind)
    if label.isdigit() or label == "latest":
        raise InvalidInputError(
            f"{label!r} cannot be {_an(kind)}: numbers name versions, and 'latest' the newest",
            next_step="use a word, e.g. 'prod'",
        )
    return label


def _an(kind: LabelKind) -> str:
    return "an alias" if kind is LabelKind.ALIAS else "a tag"
