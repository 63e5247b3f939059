"""Bringing a store and a shared registry to the same versions, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import ConflictError, FormatError, NaitStoreError, NotFoundError, UntrustedError, did_you_mean
from nait_store.refs import Kind, check_name
from nait_store.registry.sharing.departure import describe

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile, ProfileRegistry
    from nait_store.registry.sharing.adoption import Adoption
    from nait_store.registry.sharing.departure import Pushed
    from nait_store.registry.sharing.shared_registry import SharedRegistry
    from nait_store.schemas.sharing import Publication


@dataclass(frozen=True)
class SyncProblem:
    """A version that could not be brought over.

    Attributes
    ----------
    reference
        ``math@3``.
    what, next_step
        What is wrong, and what to do.
    exit_code
        Of the error that it would be by itself.
    """

    reference: str
    what: str
    next_step: str
    exit_code: int


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did, or under ``dry_run`` would do.

    Attributes
    ----------
    url
        The registry.
    dry_run
        Whether nothing was changed.
    pushed, pulled
        Versions that were missing there, and here.
    left
        Versions of the registry that were deleted here, and so were not pulled.
    problems
        What could not be brought over; all the rest was.
    n_bytes
        Moved.
    notes
        What the user should know.
    """

    url: str
    dry_run: bool
    pushed: tuple[str, ...] = ()
    pulled: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    problems: tuple[SyncProblem, ...] = ()
    n_bytes: int = 0
    notes: tuple[str, ...] = ()


class Synchronisation:
    """One run.

    Parameters
    ----------
    registry
        The store's profiles.
    shared
        The shared registry.
    push
        Publishes one version.
    adopt
        Prepares to take one; UntrustedError where nobody vouches for it who must.
    dry_run
        Whether to change nothing.
    """

    def __init__(
        self,
        registry: ProfileRegistry,
        shared: SharedRegistry,
        *,
        push: Callable[[Profile], Pushed],
        adopt: Callable[[Publication], Adoption],
        dry_run: bool,
    ) -> None:
        self._registry = registry
        self._shared = shared
        self._push = push
        self._adopt = adopt
        self._dry_run = dry_run
        self._pushed: list[str] = []
        self._pulled: list[str] = []
        self._left: list[str] = []
        self._problems: list[SyncProblem] = []
        self._notes: list[str] = []
        self._n_bytes = 0

    def run(self, names: Sequence[str], *, pushes: bool, pulls: bool) -> SyncReport:
        """Bring names over: those given, else all that the registry has.

        Raises
        ------
        NotFoundError
            A name that neither side has.
        """
        for name in self._chosen(names):
            self._bring_over(name, pushes=pushes, pulls=pulls)
        return SyncReport(
            url=self._shared.url,
            dry_run=self._dry_run,
            pushed=tuple(self._pushed),
            pulled=tuple(self._pulled),
            left=tuple(self._left),
            problems=tuple(self._problems),
            n_bytes=self._n_bytes,
            notes=tuple(self._notes),
        )

    def _chosen(self, names: Sequence[str]) -> list[str]:
        known = self._shared.names()
        for name in names:
            if check_name(name, Kind.PROFILE) not in known and not self._registry.numbers(name):
                raise NotFoundError(
                    f"there is no profile {name!r} here, nor in {self._shared.url}",
                    next_step=did_you_mean(name, {*known, *self._registry.names()}),
                )
        return sorted(set(names)) if names else known

    def _bring_over(self, name: str, *, pushes: bool, pulls: bool) -> None:
        """Compare a name here and there: a version is the same wherever its record is, whatever its number."""
        here = {manifest.record_sha256: manifest.number for manifest in self._registry.manifests(name)}
        there = {one.record_sha256: one for one in self._published(name)}
        listing = self._registry.log.listing(name)
        numbers_there = {one.number for one in there.values()}
        for digest, publication in there.items():
            if digest in here or not pulls:
                continue
            if publication.number in {*listing.deleted, *listing.collected}:
                self._left.append(publication.spelled)
            elif publication.number in listing.documents:
                self._conflict(publication.spelled, describe(publication))
            else:
                self._pull(publication)
        for digest, number in here.items():
            if digest in there or not pushes:
                continue
            if number in numbers_there:
                published = next(one for one in there.values() if one.number == number)
                self._conflict(published.spelled, describe(published))
            else:
                self._publish(name, number)

    def _published(self, name: str) -> Iterator[Publication]:
        for number in self._shared.numbers(name):
            try:
                found = self._shared.find(name, number)
            except FormatError as error:
                self._tell(f"{name}@{number}", error)
            else:
                if found is not None:
                    yield found

    def _pull(self, publication: Publication) -> None:
        try:
            adoption = self._adopt(publication)
            if not self._dry_run:
                self._n_bytes += adoption.pull().moved.n_bytes
            self._pulled.append(publication.spelled)
        except (ConflictError, FormatError, UntrustedError) as error:
            self._tell(publication.spelled, error)

    def _publish(self, name: str, number: int) -> None:
        reference = f"{name}@{number}"
        try:
            if not self._dry_run:
                pushed = self._push(self._registry.version(name, number))
                self._n_bytes += pushed.moved.n_bytes
                self._notes += pushed.notes
            self._pushed.append(reference)
        except (ConflictError, FormatError) as error:
            self._tell(reference, error)

    def _conflict(self, reference: str, published: str) -> None:
        if reference in (one.reference for one in self._problems):
            return
        step = (
            f"publish yours with 'nait-store push {reference} --as NAME', take theirs with "
            f"'nait-store pull {reference} --as NAME', or both"
        )
        self._tell(
            reference, ConflictError(f"{reference} is one profile here and another there, {published}", next_step=step)
        )

    def _tell(self, reference: str, error: NaitStoreError) -> None:
        """What is refused is told, and does not keep the others back."""
        self._problems.append(SyncProblem(reference, error.what, error.next_step or "", error.exit_code))
