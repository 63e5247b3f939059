"""What became of a profile: its versions, and in what two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nait_store.errors import NaitStoreError
from nait_store.schemas.profile import Method
from nait_store.storage.labels import LabelKind
from nait_store.store.in_domain_rows import in_domain_rows
from nait_store.store.kept_versions import Deletion, deletion_of, labels_on

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile, ProfileRegistry
    from nait_store.store.facade import Store

_FIRST = 5


@dataclass(frozen=True)
class ProfileVersion:
    """One version in the history of a profile.

    Attributes
    ----------
    reference, number
        ``math@3`` and 3.
    what
        Recipe and in-domain samples in words; empty where gc took the version's data.
    parent
        Number of the version that was the latest before.
    message, author, created_at
        As given by, and of, its writer.
    tags, aliases
        Labels on it now.
    note
        What is said about it now; empty for nothing.
    deleted
        Set where it was deleted; until gc takes it, it can be brought back.
    collected
        Whether gc has taken it.
    """

    reference: str
    number: int
    what: str = ""
    parent: int | None = None
    message: str = ""
    author: str = ""
    created_at: datetime | None = None
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""
    deleted: Deletion | None = None
    collected: bool = False


@dataclass(frozen=True)
class SelectionOverlap:
    """How much the best samples of a set under one profile are those under another.

    Attributes
    ----------
    activation_set, n_best
        The set version, and how many samples of it are the best.
    n_common
        Samples that are among the best under both.
    """

    activation_set: str
    n_best: int
    n_common: int

    @property
    def share(self) -> float:
        """Common ones among the best, 0 to 1."""
        return self.n_common / self.n_best


@dataclass(frozen=True)
class ProfileDiff:
    """In what two profile versions differ.

    Attributes
    ----------
    first, second
        The versions, resolved.
    comparable
        Whether both measure the same thing; cosines are given only then.
    cosines
        Layer → cosine of the two directions, of the layers that both have.
    layers_added, layers_removed
        Layers that only the second has, or only the first.
    settings
        What differs of recipe, source, background and capture: name → value of the first and of the second.
    n_added, n_removed, n_kept
        In-domain samples that only the second was made from; only the first; both. None where unknown.
    added, removed
        Ids of the first few of each.
    unknown
        Why the samples cannot be told; empty where they can.
    overlap
        Of the best samples of a set, if one was named.
    """

    first: str
    second: str
    comparable: bool
    cosines: Mapping[int, float]
    layers_added: tuple[int, ...]
    layers_removed: tuple[int, ...]
    settings: Mapping[str, tuple[Any, Any]]
    n_added: int | None
    n_removed: int | None
    n_kept: int | None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unknown: str = ""
    overlap: SelectionOverlap | None = None


def versions_of(registry: ProfileRegistry, name: str, notes: Mapping[int, str]) -> list[ProfileVersion]:
    """Every number that a profile ever used, oldest first, with the notes on them."""
    log = registry.log
    listing = log.listing(name)
    labels = log.labels.of(name)
    found = []
    for number in sorted({*listing.documents, *listing.deleted, *listing.collected}):
        reference = f"{name}@{number}"
        if number in listing.collected or number not in listing.documents:
            found.append(ProfileVersion(reference, number, note=notes.get(number, ""), collected=True))
            continue
        profile = registry.version(name, number)
        record, manifest = profile.record, profile.manifest
        found.append(
            ProfileVersion(
                reference=reference,
                number=number,
                what=f"{record.recipe.in_words}; {record.made_from}",
                parent=record.parent,
                message=manifest.message,
                author=manifest.provenance.author,
                created_at=manifest.provenance.created_at,
                tags=labels_on(number, labels, LabelKind.TAG),
                aliases=labels_on(number, labels, LabelKind.ALIAS),
                note=notes.get(number, ""),
                deleted=deletion_of(log, name, number) if number in listing.deleted else None,
            )
        )
    return found


def diff_profiles(store: Store, first: Profile, second: Profile, *, set_ref: str | None, top: int | str) -> ProfileDiff:
    """Compare two opened versions; see :meth:`~nait_store.store.profiles.Profiles.diff`."""
    import numpy as np

    one, other = first.record, second.record
    comparable = one.capture_id == other.capture_id
    cosines = {}
    if comparable:
        common = sorted({*one.layers} & {*other.layers})
        mine, theirs = first.directions().astype(np.float64), second.directions().astype(np.float64)
        for layer in common:
            v, w = mine[one.layers.index(layer)], theirs[other.layers.index(layer)]
            cosines[layer] = float(v @ w / (np.linalg.norm(v) * np.linalg.norm(w)))
    added, removed, n_kept, unknown = [], [], None, ""
    try:
        before, after = (set(in_domain_rows(store, one)[1].sample_ids()) for one in (first, second))
    except NaitStoreError as error:
        unknown = error.what
    else:
        added, removed, n_kept = sorted(after - before), sorted(before - after), len(before & after)
    return ProfileDiff(
        first=first.reference,
        second=second.reference,
        comparable=comparable,
        cosines=cosines,
        layers_added=tuple(layer for layer in other.layers if layer not in one.layers),
        layers_removed=tuple(layer for layer in one.layers if layer not in other.layers),
        settings={
            name: (value, changed)
            for (name, value), (_, changed) in zip(_settings(first), _settings(second), strict=True)
            if value != changed
        },
        n_added=None if unknown else len(added),
        n_removed=None if unknown else len(removed),
        n_kept=n_kept,
        added=tuple(added[:_FIRST]),
        removed=tuple(removed[:_FIRST]),
        unknown=unknown,
        overlap=None if set_ref is None else _overlap(store, first, second, set_ref, top),
    )


def _overlap(store: Store, first: Profile, second: Profile, set_ref: str, top: int | str) -> SelectionOverlap:
    version = store.sets.open(set_ref).reference
    store.score(version, first.reference, second.reference)  # in one pass
    chosen = [
        set(store.select(version, profile=one.reference, top=top).rows.column("sample_id").to_pylist())
        for one in (first, second)
    ]
    return SelectionOverlap(version, len(chosen[0]), len(chosen[0] & chosen[1]))


def _settings(profile: Profile) -> Iterator[tuple[str, Any]]:
    record = profile.record
    recipe = record.recipe
    yield "recipe", recipe.name
    yield "method", recipe.method.value
    yield "centred", recipe.center
    yield "component", recipe.component if recipe.method is Method.PCA else None
    yield "made of", recipe.profile_feature.value
    yield "candidates'", recipe.feature.value
    yield "metric", recipe.metric.value
    yield "from", record.made_from
    weights = None if record.source is None else record.source.weights
    yield "samples count as", None if weights is None else round(weights.effective_samples, 1)
    yield "against", None if record.background is None else record.background.in_words
    yield "neurons", record.n_neurons
    yield "capture", record.capture_id
    yield "model", record.model
    for name, value in record.settings.model_dump(mode="json").items():
        yield name.replace("_", " "), value
