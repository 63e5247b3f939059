"""Which versions to attach: references, and patterns over names and versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, Protocol, TypeVar

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import NotFoundError, did_you_mean
from nait_store.refs import Kind, parse_reference
from nait_store.registry.profiles import Profile, ProfileRegistry


class _Version(Protocol):
    """What set versions and profiles have in common."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def reference(self) -> str: ...


V = TypeVar("V", bound=_Version)
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, eq=False)
class Chosen(Generic[V]):
    """A version, under the name that it was asked for.

    Attributes
    ----------
    label
        ``pool`` where the latest was asked for, else ``pool@3`` or ``pool@paper``.
    version
        What that means now.
    is_latest
        Whether it is also the latest.
    is_named
        Whether it was asked for by name, not by a pattern.
    """

    label: str
    version: V
    is_latest: bool
    is_named: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that means this version."""
        bare = (self.version.name,) if self.is_latest else ()
        return tuple(dict.fromkeys([self.label, self.version.reference, *bare]))


def chosen_sets(sets: ActivationSets, asked: Sequence[str]) -> list[Chosen[SetVersion]]:
    """The set versions that references and patterns mean.

    Parameters
    ----------
    sets
        Of the store.
    asked
        ``pool``, ``pool@3``, ``pool@paper``; ``math-*`` for the latest version of each of these, ``pool@*`` for every
        version. Nothing is everything at its latest version.

    Raises
    ------
    NotFoundError
        An unknown name, or a pattern that fits nothing.
    InvalidInputError
        No reference.
    """
    return _chosen(Kind.SET, asked, sets.names(), sets.numbers, sets.open)


def chosen_profiles(registry: ProfileRegistry, asked: Sequence[str]) -> list[Chosen[Profile]]:
    """The profiles that references and patterns mean; as :func:`chosen_sets`."""
    return _chosen(Kind.PROFILE, asked, registry.names(), registry.numbers, registry.open)


def _chosen(
    kind: Kind,
    asked: Sequence[str],
    names: Sequence[str],
    numbers: Callable[[str], Sequence[int]],
    open_version: Callable[[str], V],
) -> list[Chosen[V]]:
    found: dict[str, Chosen[V]] = {}

    def add(label: str, *, is_named: bool) -> None:
        version = open_version(label)
        is_latest = version.number == max(numbers(version.name), default=0)
        known = found.get(label)
        found[label] = Chosen(label, version, is_latest, is_named or (known is not None and known.is_named))

    for text in asked:
        if not _WILDCARDS & set(text):
            add(str(parse_reference(text, kind)), is_named=True)
            continue
        labels = list(_matching(text.removeprefix(f"{kind}:"), names, numbers, open_version))
        if not labels:
            raise NotFoundError(f"no {kind} fits {text!r}", next_step=did_you_mean(text.partition("@")[0], names))
        for label in labels:
            add(label, is_named=False)
    if not asked:
        for name in names:
            add(name, is_named=False)
    return list(found.values())


def _matching(
    pattern: str,
    names: Sequence[str],
    numbers: Callable[[str], Sequence[int]],
    open_version: Callable[[str], object],
) -> Iterable[str]:
    """References that a pattern fits: of names, of versions, or of both."""
    of_name, at, of_version = pattern.partition("@")
    for name in names:
        if not fnmatchcase(name, of_name):
            continue
        if not at:
            yield name
        elif _WILDCARDS & set(of_version):
            yield from (f"{name}@{number}" for number in numbers(name) if fnmatchcase(str(number), of_version))
        else:
            try:  # a label or number that some of the names may lack
                open_version(f"{name}@{of_version}")
            except NotFoundError:
                continue
            yield f"{name}@{of_version}"
