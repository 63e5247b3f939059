"""The store: one object over everything at one URL, and all that the command line does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import new_ulid, now
from nait_store.store.choosing import Choosing
from nait_store.store.tracing import Tracing
from nait_store.store.upkeep import Upkeep

if TYPE_CHECKING:
    from nait_store.catalog.build import Catalog
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.ingest.requests import EstimateListener, IngestReport
    from nait_store.query.sandbox.limits import SandboxLimits
    from nait_store.query.session import QueryResult, QuerySession, StatementPlan
    from nait_store.store.analyses import Analyses
    from nait_store.store.attached_file import AttachReport
    from nait_store.store.options import IngestOptions
    from nait_store.store.profiles import Profiles
    from nait_store.store.remotes import Remotes
    from nait_store.store.score_cache import ScoreCache
    from nait_store.store.selections import Selections
    from nait_store.store.sets import Sets
    from nait_store.store.trust import Trust

DEFAULT_URL = "./.nait-store"


class Store(Choosing, Tracing, Upkeep):
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
        from nait_store.store.profiles import Profiles

        return Profiles(self)

    @cached_property
    def remotes(self) -> Remotes:
        """The registries that it shares profiles through."""
        from nait_store.store.remotes import Remotes

        return Remotes(self)

    @cached_property
    def trust(self) -> Trust:
        """The keys whose signatures it believes."""
        from nait_store.store.trust import Trust

        return Trust(self)

    @cached_property
    def selections(self) -> Selections:
        """Its saved selections."""
        from nait_store.store.selections import Selections

        return Selections(self)

    @cached_property
    def analyses(self) -> Analyses:
        """What can be said about its profiles and sets beside the choice itself."""
        from nait_store.store.analyses import Analyses

        return Analyses(self)

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
            See :class:`~nait_store.store.options.IngestOptions`; with ``ray`` the workers of a cluster do the work.

        Returns
        -------
        IngestReport
            Counts of added, known, duplicate and rejected samples, bytes and seconds, the new version's reference.

        Raises
        ------
        InvalidInputError
            Unusable names, options or records; the message names file and line.
        IncompatibleError
            The set was measured with another model, template, span or hook; a profile of ``score_with`` means nothing
            on the samples.
        NotFoundError
            A source, or a profile of ``score_with``, does not exist.
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
        for profile in request.score_with or ():  # a slip is to cost no loading of a model
            self.profiles.open(profile)
        if options.get("ray") is not None:
            from nait_store.store.on_cluster import ingest_on_cluster

            return ingest_on_cluster(self, model, request, options, capture, announce or ignore_estimate)
        session = capture or open_capture(model, request, options)
        return ingest(self.location, session, request, self.progress, announce or ignore_estimate)

    def sql(
        self,
        query: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        tables: Mapping[str, Any] | None = None,
        sandbox: bool | SandboxLimits = False,
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
        sandbox
            For a query that you did not write: run it in a process of its own that can read the store and nothing
            else, and stop it at these limits (True: at the default ones). Linux only.

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
        ForbiddenError
            The query says something that an untrusted query may not.
        LimitExceededError
            It took more time, memory or output than it may.
        """
        if sandbox is not False:
            from nait_store.store.untrusted import run_untrusted

            return run_untrusted(self, query, params, tables, sandbox)
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

    def refresh(self) -> None:
        """Forget what was read of the store: immutable things may have been purged or repaired."""
        for remembered in ("session", "sets"):
            self.__dict__.pop(remembered, None)


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
