"""The store: one object over everything at one URL, and all that the command line does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now

if TYPE_CHECKING:
    from nait_store.catalog.build import Catalog
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.ingest.requests import EstimateListener, IngestReport
    from nait_store.query.session import QueryResult, QuerySession, StatementPlan
    from nait_store.scoring.completion import ScoreWork
    from nait_store.selection.choosing import Selection
    from nait_store.selection.export import ExportReport, Target
    from nait_store.selection.saved import SavedSelections
    from nait_store.store.attached_file import AttachReport
    from nait_store.store.doctor import DoctorReport
    from nait_store.store.garbage.collection import GcReport
    from nait_store.store.integrity import VerifyReport
    from nait_store.store.inventory import Profiles
    from nait_store.store.options import ExportOptions, IngestOptions, SelectOptions
    from nait_store.store.purge.purging import PurgeReport
    from nait_store.store.repair.repairing import RepairReport
    from nait_store.store.score_cache import ScoreCache
    from nait_store.store.sets import Sets

DEFAULT_URL = "./.nait-store"


class Store:
    """A store at one URL; made by :func:`nait_store.open`.

    Parameters
    ----------
    location
        Its root.
    record
        Its ``store.json``.
    progress
        Told about long work.
    created
        Whether it was created just now.

    Attributes
    ----------
    url
        Where it is.
    """

    def __init__(
        self,
        location: Location,
        record: StoreRecord,
        *,
        progress: ProgressListener | None = None,
        created: bool = False,
    ) -> None:
        unknown = record.unknown_writer_features()
        if unknown:
            location = location.read_only(
                f"the store at {location.url} is read-only for this release: unknown writer features "
                f"{', '.join(unknown)}",
                "upgrade to write to it: pip install --upgrade nait-store",
            )
        self.location = location
        self.record = record
        self.url = location.url
        self.created = created
        self.progress: ProgressListener = progress or ignore_progress

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = False, progress: ProgressListener | None = None) -> Store:
        """Open a store, or create it; see :func:`nait_store.open`."""
        location = store_location(url)
        if location.is_file(""):
            raise InvalidInputError(
                f"{location.url} is a file, a store is a folder", next_step="name another folder with --store"
            )
        created = False
        if not location.exists(layout.STORE_RECORD):
            if not create:
                raise NotFoundError(f"there is no store at {location.url}", next_step=_how_to_create(url, location.url))
            created = _create(location)
        record = StoreRecord.from_json_bytes(
            location.read_bytes(layout.STORE_RECORD), location.url_of(layout.STORE_RECORD)
        )
        record.check_readable(location.url)
        return cls(location, record, progress=progress, created=created)

    @cached_property
    def sets(self) -> Sets:
        """Its activation sets."""
        from nait_store.store.sets import Sets

        return Sets(self)

    @cached_property
    def profiles(self) -> Profiles:
        """Its profiles."""
        from nait_store.store.inventory import Profiles

        return Profiles(self)

    @cached_property
    def selections(self) -> SavedSelections:
        """Its saved selections."""
        from nait_store.selection.saved import SavedSelections

        return SavedSelections(self.location)

    @cached_property
    def catalog(self) -> Catalog:
        """The index over its manifests; rebuilt whenever they changed."""
        from nait_store.catalog.build import Catalog

        return Catalog(self.location)

    @cached_property
    def score_cache(self) -> ScoreCache:
        """The scores that it keeps."""
        from nait_store.store.score_cache import ScoreCache

        return ScoreCache(self)

    @cached_property
    def session(self) -> QuerySession:
        """Runs SQL over it."""
        from nait_store.query.session import QuerySession

        return QuerySession(
            self.location,
            self.sets.versions,
            self.profiles.registry,
            self.catalog,
            progress=self.progress,
            selected=lambda reference: self.selections.open(reference).rows(),
        )

    def ingest(
        self,
        sources: str | Sequence[str],
        *,
        set: str,  # noqa: A002  (the option's name on the command line and in Python)
        model: str,
        features: Sequence[str] = ("mean",),
        capture: CaptureSource | None = None,
        announce: EstimateListener | None = None,
        **options: Unpack[IngestOptions],
    ) -> IngestReport:
        """Run records through a model once and append their features to an activation set.

        Samples that the set holds already are skipped before the forward pass, so the same call again is cheap,
        and resumes what was interrupted. Ctrl-C commits what was captured by then; a second one stops at once.

        Parameters
        ----------
        sources
            Files, globs, fsspec URLs, ``hf-datasets:`` ids.
        set
            Name of the set; created by its first ingest.
        model
            Folder or hub id of a causal LM.
        features
            Any of ``mean``, ``drift``, ``last``.
        capture
            An open capture session to use instead of loading ``model``.
        announce
            Called with the expected size once it is known, before anything is captured.
        **options
            See :class:`~nait_store.store.options.IngestOptions`.

        Returns
        -------
        IngestReport
            Counts of added, known, duplicate and rejected samples, bytes and seconds, the new version's reference.

        Raises
        ------
        InvalidInputError
            Unusable names, options or records; the message names file and line.
        IncompatibleError
            The set was measured with another model, template, span or hook.
        ConflictError
            A sample id that exists came with another content.
        IngestInterrupted
            Ctrl-C; the message says which version holds what was captured.
        """
        from nait_store.ingest.adoption import find_sources
        from nait_store.ingest.job import ingest
        from nait_store.ingest.requests import ignore_estimate
        from nait_store.store.ingesting import open_capture, plan_request

        self.location.require_writable()
        request = plan_request(
            sources, set, features, options, find=lambda named: find_sources(self.sets.versions, set, named)
        )
        session = capture or open_capture(model, request, options)
        return ingest(self.location, session, request, self.progress, announce or ignore_estimate)

    def sql(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> QueryResult:
        """Run SQL over ``samples(set)``, ``alignment(set, profile)`` and the metadata views.

        Parameters
        ----------
        query
            One SELECT, in DuckDB's SQL.
        params
            Values of ``$name`` from a mapping, of ``?`` and ``$1`` from a sequence.
        tables
            What else the query may read, by name: pandas, polars and Arrow tables, earlier results, dicts of columns,
            and paths, globs or fsspec URLs of Parquet, CSV, JSON, JSON Lines or Arrow files. Your program's variables
            are never looked at.

        Returns
        -------
        QueryResult
            With ``.df()``, ``.pl()``, ``.arrow()``, ``.fetchall()``, ``.to_dicts()``; all rows, in memory.

        Raises
        ------
        NotFoundError
            Unknown set, profile, version, table, column, function or file.
        InvalidInputError
            Not one query; parameters or tables that do not fit; an error of the query itself.
        IncompatibleError
            A profile that was built on activations that mean something else.
        """
        return self.session.sql(query, params, tables=tables)

    def explain(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
    ) -> StatementPlan:
        """Say what :meth:`sql` would scan for a query, without running it.

        Parameters
        ----------
        query, params, tables
            As for :meth:`sql`.

        Returns
        -------
        StatementPlan
            Which scores are stored, which passes over arrays the others take, and their bytes.

        Raises
        ------
        NaitStoreError
            As :meth:`sql` would, for slips in the query too.
        """
        return self.session.explain(query, params, tables=tables)

    def score(self, set: str, *profiles: str, force: bool = False) -> tuple[ScoreWork, list[str]]:  # noqa: A002
        """Compute and keep the scores of a set under profiles, in one pass over the arrays.

        Returns
        -------
        work
            What was computed and what was there already.
        warnings
            About the profiles' fit to the set.
        """
        from nait_store.registry.compatibility import require_compatible
        from nait_store.scoring.completion import ensure_scores

        version = self.sets.open(set)
        opened = [self.profiles.open(profile) for profile in profiles]
        warnings = [text for profile in opened for text in require_compatible(profile, version, force=force)]
        work = ensure_scores(self.location, version, [p.target() for p in opened], self.progress)
        return work, list(dict.fromkeys(warnings))

    def select(
        self,
        set: str,  # noqa: A002
        *,
        profile: str | None = None,
        top: str | int = "10%",
        **options: Unpack[SelectOptions],
    ) -> Selection:
        """Choose samples by score, or by chance.

        Parameters
        ----------
        set
            Set to choose from, ``pool`` or ``pool@3``.
        profile
            Profile to score with; optional for ``strategy="random"``.
        top
            Count or percentage of the candidates.
        **options
            See :class:`~nait_store.store.options.SelectOptions`.

        Returns
        -------
        Selection
            Ranked; hand it to :meth:`export`, or to ``store.selections.save(name, selection)``.
        """
        from nait_store.selection.choosing import SelectionRequest, Strategy, select

        request = SelectionRequest(
            set,
            profile,
            top,
            strategy=Strategy.parse(options.get("strategy", "alignment")),
            seed=options.get("seed", 0),
            where=options.get("where"),
            force=options.get("force", False),
        )
        return select(self.session, self.sets.versions, self.profiles.registry, request)

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
        version = self.sets.open(selection.set_ref)
        return export(self.location, version, selection, target, format=chosen, clean=options.get("clean", False))

    def attach(
        self,
        out: str,
        *,
        sets: str | Sequence[str] = (),
        profiles: str | Sequence[str] = (),
        compute: bool = False,
        overwrite: bool = False,
    ) -> AttachReport:
        """Write a plain DuckDB file with views over samples and stored scores, for programs without this package.

        It holds no samples and no scores: its views read the store's Parquet files. It shows the store as it is
        now; write it again to show what came later.

        Parameters
        ----------
        out
            Path or fsspec URL of the file.
        sets, profiles
            ``pool``, ``pool@3``, ``pool@paper``, or patterns: ``math-*``, ``pool@*``. By default every set and every
            profile at its latest version. Pairs that do not belong together are left out.
        compute
            Whether to compute and keep scores that are missing; otherwise such pairs are left out and reported.
        overwrite
            Whether an existing file may be replaced.

        Returns
        -------
        AttachReport
            The views, and the pairs that were left out.

        Raises
        ------
        AlreadyExistsError
            The file exists and ``overwrite`` is off.
        NotFoundError, IncompatibleError
            An unknown set, profile or version; a profile, named by itself, that fits none of the sets.
        InvalidInputError
            A name that a DuckDB file cannot have here; a store in memory.
        """
        from nait_store.store.attached_file import write_attached_file

        return write_attached_file(
            self,
            out,
            sets=(sets,) if isinstance(sets, str) else sets,
            profiles=(profiles,) if isinstance(profiles, str) else profiles,
            compute=compute,
            overwrite=overwrite,
        )

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

        return purge(self, set, ids=ids, where=where, everywhere=everywhere, reason=reason, dry_run=dry_run)

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
            self,
            set_name=set,
            sources=(sources,) if isinstance(sources, str) else tuple(sources),
            model=model,
            capture=capture,
            options=options,
            dry_run=dry_run,
        )

    def refresh(self) -> None:
        """Forget what was read of the store: immutable things may have been purged or repaired."""
        for remembered in ("session", "sets"):
            self.__dict__.pop(remembered, None)

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
        return gc(self, dry_run=dry_run, grace=grace, policy=policy, set_name=set)

    def doctor(self) -> DoctorReport:
        """Describe the installation, the machine and the store, and what is wrong with them."""
        from nait_store.store.doctor import examine

        return examine(self)


def store_location(url: str | None = None) -> Location:
    """Root of the store at ``url``, of the one that ``NAIT_STORE`` names, or of the default one."""
    return Location(url or os.environ.get("NAIT_STORE") or DEFAULT_URL)


def _create(location: Location) -> bool:
    """Create ``store.json``; False where somebody else did meanwhile."""
    found = location.names()
    if layout.STORE_RECORD in found:
        return False
    if found:
        raise InvalidInputError(
            f"{location.url} is a folder with other files in it, not a store",
            next_step="name a new or empty folder with --store",
        )
    record = StoreRecord(format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now())
    try:
        location.create_bytes(layout.STORE_RECORD, record.to_json_bytes())
    except AlreadyExistsError:
        return False
    return True


def _how_to_create(asked: str | None, url: str) -> str:
    option = f" --store {url}" if asked else ""
    return f"create it with 'nait-store{option} init', or name another with --store"
