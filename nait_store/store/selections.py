"""The saved selections of a store: listed, described, compared, made again, exported, and their history."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from nait_store.refs import Kind, Reference
from nait_store.store.kept_versions import KeptVersions
from nait_store.store.selection_details import SelectionDetails, describe_selection
from nait_store.store.selection_diff import SelectionDiff, diff_selections
from nait_store.store.selection_listing import SelectionSummary, list_selections
from nait_store.store.selection_recomputation import SelectionVerification, verify_selection

if TYPE_CHECKING:
    from nait_store.schemas.selection import SelectionManifest
    from nait_store.selection.choosing import Selection
    from nait_store.selection.saved import SavedSelection, SavedSelections
    from nait_store.selection.trainers.export import TrainerExport
    from nait_store.storage.versions import VersionLog
    from nait_store.store.options import TrainerOptions


class Selections(KeptVersions):
    """The saved selections of a store.

    Parameters
    ----------
    store
        The store; describing and verifying need its sets, profiles and SQL.
    """

    kind = Kind.SELECTION

    @cached_property
    def versions(self) -> SavedSelections:
        """The versions themselves."""
        from nait_store.selection.saved import SavedSelections

        return SavedSelections(self._store.location)

    @property
    def log(self) -> VersionLog[SelectionManifest]:
        """The versions' documents."""
        return self.versions.log

    def names(self) -> list[str]:
        """Sorted names."""
        return self.versions.names()

    def open(self, reference: Reference | str) -> SavedSelection:
        """Open a version; NotFoundError suggests near names."""
        return self.versions.open(reference)

    def version(self, name: str, number: int) -> SavedSelection:
        """Open a version that gc has not taken, deleted or not; errors as for :meth:`open`."""
        return self.versions.version(name, number)

    def manifests(self, name: str) -> list[SelectionManifest]:
        """Documents of the versions of one selection, oldest first; NotFoundError for an unknown name."""
        return self.versions.manifests(name)

    def manifest(self, name: str, number: int) -> SelectionManifest:
        """Read one version's document, deleted or not."""
        return self.versions.manifest(name, number)

    def save(
        self, name: str, selection: Selection, *, message: str = "", parameters: Mapping[str, Any] | None = None
    ) -> SavedSelection:
        """Save a selection as the next version of ``name``.

        Parameters
        ----------
        name
            New or existing name.
        selection
            What was selected.
        message
            For the reader's benefit.
        parameters
            Options as given, recorded beside the query.

        Raises
        ------
        InvalidInputError
            Bad name.
        ReadOnlyError, StorageError
            It could not be written; nothing is left of it but an unreferenced folder.
        """
        return self.versions.save(name, selection, message=message, parameters=parameters)

    def list(self) -> list[SelectionSummary]:
        """Summaries of the latest version of every selection, from the catalog."""
        return list_selections(self._store.catalog)

    def show(self, reference: Reference | str) -> SelectionDetails:
        """Describe a version: how it was made, where its samples come from, scores, lengths, the first samples.

        Raises
        ------
        NotFoundError
            Unknown, or deleted. That a set or profile it was made from is deleted is no error, and said.
        CorruptChunkError
            A file differs from its record.
        """
        return describe_selection(self._store, self.open(reference))

    def diff(self, first: Reference | str, second: Reference | str) -> SelectionDiff:
        """Compare two versions, of one selection or of two, by sample id.

        Parameters
        ----------
        first, second
            ``best@1``, ``best@paper``.

        Returns
        -------
        SelectionDiff
            Samples of both and of one alone, their scores and lengths, and what differs of the settings.

        Raises
        ------
        NotFoundError
            Unknown selection or version.
        """
        return diff_selections(self._store, self.open(first), self.open(second))

    def verify(self, reference: Reference | str) -> SelectionVerification:
        """Make a version again from what is recorded of it, and compare ids, order and scores.

        The set version, profile version, condition, number and seed are those of the record, so that what was appended
        or compacted since makes no difference. Scores that are stored are read, others are computed. Whether its files
        are undamaged is asked by :meth:`nait_store.store.facade.Store.verify`.

        Returns
        -------
        SelectionVerification
            ``ok``, ``identical`` and each check. A set or profile that is deleted is a check that failed.

        Raises
        ------
        NotFoundError
            Unknown selection or version.
        CorruptChunkError
            A file differs from its record.
        """
        return verify_selection(self._store, self.open(reference))

    def export(self, reference: Reference | str, out: str, **options: Unpack[TrainerOptions]) -> TrainerExport:
        """Write the records of a version as the files that a trainer reads, with a side file that says what they are.

        Rows have the columns of the layout and no others, in the order of rank or of ``shuffle``. Every file appears
        whole or not at all; an existing ``dataset_info.json`` keeps its other entries.

        Parameters
        ----------
        reference
            ``best@1``.
        out
            Folder, or for ``jsonl``, ``parquet`` and ``ids`` the file; path or fsspec URL.
        **options
            See :class:`~nait_store.store.options.TrainerOptions`; ``to`` is needed.

        Returns
        -------
        TrainerExport
            Files, SHA-256, rows, and the samples that were left out.

        Raises
        ------
        NotFoundError
            Unknown selection; the set that it was selected from is deleted.
        InvalidInputError
            A sample would lose something in the layout: each of the first few is named, with why and what to do; an
            unknown trainer or layout; a ``dataset_info.json`` that is none.
        AlreadyExistsError
            A file, or another entry of this name, is there and ``overwrite`` is off.
        """
        from nait_store.store.selection_export import export_selection

        return export_selection(
            self._store,
            self.open(reference),
            out,
            to=options["to"],
            layout=options.get("layout"),
            name=options.get("name"),
            shuffle=options.get("shuffle"),
            map=options.get("map"),
            on_error=options.get("on_error", "stop"),
            overwrite=options.get("overwrite", False),
        )

    @property
    def _log(self) -> VersionLog[SelectionManifest]:
        return self.log
