"""Profiles in one line each, and found by what is known of them; from the catalog, so that thousands are fine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nait_store.refs import Kind
from nait_store.schemas.profile import Recipe
from nait_store.store.labelled_versions import with_labels, written_at

if TYPE_CHECKING:
    from nait_store.catalog.build import Catalog

_SUMMARIES = """
SELECT reference, recipe, method, center, component, profile_feature, feature, metric, made_from,
    source, background, n_samples, len(layers) AS n_layers, n_neurons, ported_from, model, hook_point, capture_id,
    len(warnings) AS n_warnings, message, card,
    coalesce(aliases, []) AS aliases, coalesce(tags, []) AS tags, coalesce(note, '') AS note,
    epoch_us(profiles.created_at) AS written_us, profiles.author
FROM profiles LEFT JOIN labelled ON labelled.name = profile AND labelled.version = profiles.version
LEFT JOIN noted ON noted.name = profile AND noted.version = profiles.version
"""
_CHOICES = ("method", "center", "profile_feature", "feature", "metric")
_SEARCHED = (
    "concat_ws(chr(10), reference, recipe, method, coalesce(source, made_from), background, model, message, card, "
    "note, author, "
    "array_to_string(aliases, chr(10)), array_to_string(tags, chr(10)))"
)


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
    conditions = []
    values: list[Any] = []

    def require(condition: str, value: Any) -> None:
        conditions.append(condition)
        values.append(value)

    for word in words:
        require(f"contains(lower({_SEARCHED}), lower(?))", word)
    if model is not None:
        require("contains(lower(model), lower(?))", model)
    if source is not None:
        require("source = ?" if "@" in source else "split_part(source, '@', 1) = ?", source)
    if label is not None:
        require("list_contains(list_concat(coalesce(aliases, []), coalesce(tags, [])), ?)", label)
    if names is not None:
        conditions.append("list_contains(?, profile)")
        values.append(list(names))
    if not all_versions:
        searching = bool(words or model or source or label)
        told_of = "(is_latest OR labelled.version IS NOT NULL OR noted.version IS NOT NULL)"
        conditions.append(told_of if searching else "is_latest")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"{with_labels(Kind.PROFILE)} {_SUMMARIES} {where} ORDER BY profile, profiles.version"
    found = catalog.ask(query, values)
    return [_summary(row) for row in found]


def family_names(catalog: Catalog, name: str) -> list[str]:
    """Names of the profiles of a family, sorted: those with a digest in common with this one, or with one of these."""
    keys_of: dict[str, set[str]] = {}
    names_with: dict[str, set[str]] = {}
    for row in catalog.ask("SELECT profile, unnest(family_keys) AS key FROM profiles"):
        keys_of.setdefault(row["profile"], set()).add(row["key"])
        names_with.setdefault(row["key"], set()).add(row["profile"])
    found, new = set[str](), {name}
    while new:
        found |= new
        new = {other for one in new for key in keys_of.get(one, ()) for other in names_with[key]} - found
    return sorted(found)


@functools.lru_cache(maxsize=256)
def _recipe(name: str, component: int, *choices: Any) -> Recipe:
    """A recipe; thousands of profiles have a handful of them."""
    return Recipe(name=name, component=component, **dict(zip(_CHOICES, choices, strict=True)))


def _summary(row: dict[str, Any]) -> ProfileSummary:
    recipe = _recipe(row.pop("recipe"), row.pop("component") or 1, *(row.pop(name) for name in _CHOICES))
    written = written_at(row.pop("written_us"))
    return ProfileSummary(
        recipe=recipe, aliases=tuple(row.pop("aliases")), tags=tuple(row.pop("tags")), created_at=written, **row
    )
