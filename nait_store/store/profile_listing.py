"""Profiles in one line each, and found by what is known of them; from the catalog, so that thousands are fine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nait_store.catalog.profile_lines import ProfileLine, Rank
from nait_store.schemas.profile import Recipe

if TYPE_CHECKING:
    from nait_store.catalog.build import Catalog

_CHOICES = ("method", "center", "profile_feature", "feature", "metric")


@dataclass(frozen=True)
class ProfileSummary:
    """One line about a version of a profile.

    Attributes
    ----------
    reference
        ``math@3``.
    recipe
        What it is made of, and how candidates meet it.
    made_from
        What it was made from, in words: samples, a file, or other profiles.
    source, background
        Set versions of the in-domain samples and of the background; None where there are none.
    n_samples
        In-domain samples; None where it was imported or combined.
    n_layers, n_neurons
        L and J of its directions.
    ported_from
        Profile of another model that it repeats, ``math@3`` as it was called then; None where it was not ported.
    model
        Path or hub id of the model, as given when the in-domain samples were ingested; None where it is not recorded.
    hook_point, capture_id
        What is measured.
    n_warnings
        Of its build.
    message, card
        Of its author.
    aliases, tags
        On this version.
    note
        What is said about it now; empty for nothing.
    created_at, author
        When it was built, and by whom.
    """

    reference: str
    recipe: Recipe
    made_from: str
    source: str | None
    background: str | None
    n_samples: int | None
    n_layers: int
    n_neurons: int
    ported_from: str | None
    model: str | None
    hook_point: str
    capture_id: str
    n_warnings: int
    message: str
    card: str
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    note: str
    created_at: datetime
    author: str


def list_profiles(
    catalog: Catalog,
    *,
    words: Sequence[str] = (),
    model: str | None = None,
    source: str | None = None,
    label: str | None = None,
    names: Sequence[str] | None = None,
    all_versions: bool = False,
) -> list[ProfileSummary]:
    """Describe the profiles that fit, by name and version; see :meth:`~nait_store.store.profiles.Profiles.search`."""
    searching = bool(words or model or source or label)
    upto = Rank.ANY if all_versions else Rank.TOLD_OF if searching else Rank.LATEST
    found = catalog.profile_lines().read(upto, words)
    if words:
        folded = [word.casefold() for word in words]
        found = [line for line in found if _has_all(line, folded)]
    if model is not None:
        part = model.casefold()
        found = [line for line in found if part in (line.model or "").casefold()]
    if source is not None:
        found = [line for line in found if source in (line.source, (line.source or "").partition("@")[0])]
    if label is not None:
        found = [line for line in found if label in line.aliases or label in line.tags]
    if names is not None:
        wanted = frozenset(names)
        found = [line for line in found if line.profile in wanted]
    return [_summary(line) for line in found]


def _has_all(line: ProfileLine, folded: Sequence[str]) -> bool:
    """Whether each of the words is part of something that is known of a version."""
    known = (
        line.reference,
        line.recipe,
        line.method,
        line.source or line.made_from,
        line.background or "",
        line.model or "",
        line.message,
        line.card,
        line.note,
        line.author,
        *line.aliases,
        *line.tags,
    )
    text = "\n".join(known).casefold()
    return all(word in text for word in folded)


def family_names(catalog: Catalog, name: str) -> list[str]:
    """Names of the profiles of a family, sorted: those with a digest in common with this one, or with one of these."""
    keys_of: dict[str, set[str]] = {}
    names_with: dict[str, set[str]] = {}
    for line in catalog.profile_lines().read(Rank.ANY):
        keys_of.setdefault(line.profile, set()).update(line.family_keys)
        for key in line.family_keys:
            names_with.setdefault(key, set()).add(line.profile)
    found, new = set[str](), {name}
    while new:
        found |= new
        new = {other for one in new for key in keys_of.get(one, ()) for other in names_with[key]} - found
    return sorted(found)


@functools.lru_cache(maxsize=256)
def _recipe(name: str, component: int, *choices: Any) -> Recipe:
    """A recipe; thousands of profiles have a handful of them."""
    return Recipe(name=name, component=component, **dict(zip(_CHOICES, choices, strict=True)))


def _summary(line: ProfileLine) -> ProfileSummary:
    choices = (line.method, line.center, line.profile_feature, line.feature, line.metric)
    return ProfileSummary(
        reference=line.reference,
        recipe=_recipe(line.recipe, line.component or 1, *choices),
        made_from=line.made_from,
        source=line.source,
        background=line.background,
        n_samples=line.n_samples,
        n_layers=line.n_layers,
        n_neurons=line.n_neurons,
        ported_from=line.ported_from,
        model=line.model,
        hook_point=line.hook_point,
        capture_id=line.capture_id,
        n_warnings=line.n_warnings,
        message=line.message,
        card=line.card,
        aliases=tuple(line.aliases),
        tags=tuple(line.tags),
        note=line.note,
        created_at=datetime.fromisoformat(line.created_at),
        author=line.author,
    )
