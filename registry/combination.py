"""Profiles from profiles: a weighted sum of directions, made orthogonal to others ("maths but not code")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.refs import Kind, check_name
from nait_store.registry.basis import Basis
from nait_store.registry.compatibility import require_same_basis
from nait_store.registry.payload import ProfileArrays
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_feature, choose_metric
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Method, Metric, ProfilePart, ProfileRecord, Recipe
from nait_store.schemas.record import json_digest
from nait_store.storage.provenance import current_provenance

NOTHING_LEFT = 1e-4
"""Share of a sum's length below which what is left of it is the rounding of float32 directions."""
LITTLE_LEFT = 0.1
"""Share below which a user should know how little of what was asked for is left."""
_SAME_SPAN = 1e-6  # below this share of its length, a direction adds nothing to the span of the others


@dataclass(frozen=True)
class WeightedProfile:
    """A profile, and what its directions are multiplied with.

    Attributes
    ----------
    profile
        The version.
    weight
        Any finite number but 0; negative to turn away from it.
    """

    profile: Profile
    weight: float


def parse_part(text: str) -> tuple[str, float]:
    """``"math@3:0.5"`` → ("math@3", 0.5); without a weight it is 1.

    Raises
    ------
    InvalidInputError
        What follows the colon is no number.
    """
    reference, colon, weight = text.rpartition(":")
    if not colon or reference == Kind.PROFILE:  # 'profile:math' has a kind and no weight
        return text, 1.0
    try:
        return reference, float(weight)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r}: {weight!r} is not a weight", next_step="write a profile and a number, e.g. math@3:0.5"
        ) from error


def combine_profiles(
    registry: ProfileRegistry,
    name: str,
    parts: Sequence[WeightedProfile],
    *,
    without: Sequence[Profile] = (),
    offset: Profile | None = None,
    no_offset: bool = False,
    feature: str | None = None,
    metric: str | None = None,
    message: str = "",
    card: str = "",
) -> tuple[Profile, bool]:
    """Make the next version of a profile from others, unless one of its versions is this very combination.

    The direction of a layer is v = w / ‖w‖, where w is the weighted sum Σ aᵢ uᵢ of the parts' unit vectors, less its
    projection on the span of those in ``without``.

    Parameters
    ----------
    registry, name
        Where it goes.
    parts
        What is added up; at least one.
    without
        What the sum is made orthogonal to.
    offset
        The one of the parts whose offset candidates are centred on, where they have different ones.
    no_offset
        Whether candidates are not centred, though parts have an offset.
    feature, metric
        What candidates are scored on and how; needed where the parts differ in it.
    message, card
        For the history; free text about the profile.

    Returns
    -------
    profile
        The version.
    created
        False where a version of this name is the same combination.

    Raises
    ------
    InvalidInputError
        No part, one named twice, an impossible weight, or nothing left of a layer's direction.
    IncompatibleError
        The profiles are of different captures, have no layer in common, or differ in feature, metric or offset and
        nothing says which holds.
    """
    check_name(name, Kind.PROFILE)
    _check_parts(parts, without)
    everybody = [*(part.profile for part in parts), *without]
    first = everybody[0].record
    for other in everybody[1:]:
        require_same_basis(Basis.of_profile(everybody[0]), Basis.of_profile(other))
    layers = tuple(sorted(set(first.layers).intersection(*(profile.record.layers for profile in everybody))))
    if not layers:
        raise IncompatibleError(
            f"{_references(everybody)} have no layer in common",
            next_step="build them for the same layers: see 'nait-store profile show'",
        )
    added = [part.profile for part in parts]
    recipe = _recipe(added, feature, metric)
    centre = None if no_offset else _offset(added, offset, layers, recipe)
    recipe_sha256 = json_digest(
        {
            "recipe": recipe.model_dump(mode="json", exclude={"name"}),
            "capture_id": first.capture_id,
            # in an order of their own: a sum does not depend on that of the options
            "sum": sorted([_digest(part.profile), float(part.weight)] for part in parts),
            "without": sorted(_digest(profile) for profile in without),
            "offset": None if centre is None else _digest(centre.profile) if offset is not None else "of all",
            "layers": list(layers),
        }
    )
    existing = registry.find(name, recipe_sha256)
    if existing is not None:
        return existing, False
    directions, warnings = _directions(parts, without, layers)
    warnings += _differences(everybody, layers)
    arrays = ProfileArrays(directions, None if centre is None else centre.rows)
    given = {
        "parts": [f"{part.profile.reference}:{part.weight:g}" for part in parts],
        "without": [profile.reference for profile in without],
        "offset": "none" if no_offset else None if offset is None else offset.reference,
        "model": first.model,
    }
    record = ProfileRecord(
        name=name,
        recipe=recipe,
        recipe_sha256=recipe_sha256,
        capture_id=first.capture_id,
        identity=first.identity,
        settings=first.settings,
        layers=layers,
        n_neurons=first.n_neurons,
        has_offset=arrays.offset is not None,
        directions_sha256=arrays.digest(layers),
        source=None,
        parts=(*(_part(part.profile, part.weight) for part in parts), *(_part(profile, None) for profile in without)),
        statistics=(),
        warnings=warnings,
        files=(),
        parameters={key: value for key, value in given.items() if value},
        card=card,
        parent=registry.log.latest(name),
        provenance=current_provenance(),
    )
    return registry.add(record, arrays, message)


def _check_parts(parts: Sequence[WeightedProfile], without: Sequence[Profile]) -> None:
    if not parts:
        raise InvalidInputError("no profile to combine", next_step="name at least one, e.g. math@3:1.0")
    for part in parts:
        if not math.isfinite(part.weight) or part.weight == 0.0:
            raise InvalidInputError(
                f"{part.profile.reference} has the weight {part.weight:g}",
                next_step="give a finite number other than 0, or leave the profile out",
            )
    references = [profile.reference for profile in (*(part.profile for part in parts), *without)]
    repeated = sorted({reference for reference in references if references.count(reference) > 1})
    if repeated:
        raise InvalidInputError(f"{', '.join(repeated)} is named twice", next_step="name each profile once")


def _directions(
    parts: Sequence[WeightedProfile], without: Sequence[Profile], layers: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Unit vectors [L, J], and in words where little is left."""
    added = [_rows(part.profile, layers) for part in parts]
    taken_out = [_rows(profile, layers) for profile in without]
    directions = np.empty((len(layers), parts[0].profile.record.n_neurons), dtype=np.float32)
    scale = math.hypot(*(part.weight for part in parts))  # the sum's length if the profiles had nothing in common
    shares = []
    for i, layer in enumerate(layers):
        summed = np.zeros(directions.shape[1])
        for part, rows in zip(parts, added, strict=True):
            summed += part.weight / scale * _unit(rows[i])
        left = _orthogonal(summed, [_unit(rows[i]) for rows in taken_out])
        share = float(np.linalg.norm(left))
        if share < NOTHING_LEFT:
            what = "lies in the span of those that it is to be without" if without else "cancels out"
            raise InvalidInputError(
                f"layer {layer}: the weighted sum of {_references([part.profile for part in parts])} {what}, so "
                "nothing is left of it",
                next_step="change the weights, or take a profile out",
            )
        directions[i] = left / share
        shares.append(share)
    few = [layer for layer, share in zip(layers, shares, strict=True) if share < LITTLE_LEFT]
    if not few:
        return directions, ()
    return directions, (
        f"little is left of what was added up in {len(few)} of {len(layers)} layers (least {min(shares):.1%} in layer "
        f"{layers[int(np.argmin(shares))]}): the profiles nearly cancel out there, or nearly lie in those left out",
    )


def _orthogonal(vector: NDArray[np.float64], others: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """``vector`` less its projection on the span of ``others``."""
    if not others:
        return vector
    basis, triangle, _ = scipy.linalg.qr(np.stack(others, axis=1), mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    basis = basis[:, : int((sizes > _SAME_SPAN * sizes[0]).sum())]  # [J, k]
    for _ in range(2):  # the second time takes back what rounding left of the first
        vector = vector - basis @ (basis.T @ vector)
    return vector


def _rows(profile: Profile, layers: Sequence[int]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = profile.directions()[[profile.record.layers.index(layer) for layer in layers]]
    return rows


def _unit(row: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = row.astype(np.float64)
    length = float(np.linalg.norm(wide))
    return wide / length if length > 0.0 else wide


@dataclass(frozen=True)
class _Centre:
    """The offset of a combination: rows [L, J], and whose it is."""

    profile: Profile
    rows: NDArray[np.float32]


def _offset(
    added: Sequence[Profile], chosen: Profile | None, layers: tuple[int, ...], recipe: Recipe
) -> _Centre | None:
    """The one offset that all parts have, or that of the chosen profile."""
    if chosen is not None:
        if chosen.reference not in {profile.reference for profile in added}:
            raise InvalidInputError(
                f"{chosen.reference} is not among the profiles that are added up",
                next_step=f"name one of {_references(added)}, or none, with --offset",
            )
        found = _centre_of(chosen, layers)
        if found is None:
            raise InvalidInputError(
                f"{chosen.reference} does not centre candidates for all of these layers, so it has no offset to give",
                next_step="name a profile that was built with --against, or leave out --offset",
            )
    else:
        centres = [_centre_of(profile, layers) for profile in added]
        found = centres[0]
        first = None if found is None else found.rows.tobytes()
        if any((None if one is None else one.rows.tobytes()) != first for one in centres):
            kinds = ", ".join(
                f"{profile.reference} {'by nothing' if one is None else 'by a background of its own'}"
                for profile, one in zip(added, centres, strict=True)
            )
            raise IncompatibleError(
                f"the profiles centre candidates differently ({kinds}), and a combination can do it in one way only",
                next_step="build them --against the same background; or say which holds, with --offset PROFILE, or "
                "--offset none",
            )
    if found is not None and found.profile.record.recipe.feature is not recipe.feature:
        raise IncompatibleError(
            f"{found.profile.reference} centres candidates on a mean of {found.profile.record.recipe.feature}, which "
            f"says nothing about {recipe.feature}",
            next_step=f"say --feature {found.profile.record.recipe.feature}, or --offset none",
        )
    return found


def _centre_of(profile: Profile, layers: Sequence[int]) -> _Centre | None:
    offset, own = profile.offset(), profile.record.layers
    if offset is None or not set(layers) <= set(own):
        return None
    return _Centre(profile, offset[[own.index(layer) for layer in layers]])


def _recipe(added: Sequence[Profile], feature: str | None, metric: str | None) -> Recipe:
    recipes = [profile.record.recipe for profile in added]
    features = dict.fromkeys(recipe.feature for recipe in recipes)
    metrics = dict.fromkeys(recipe.metric for recipe in recipes)
    for what, values, given in (("feature", features, feature), ("metric", metrics, metric)):
        if given is None and len(values) > 1:
            shown = ", ".join(f"{profile.reference} by {getattr(profile.record.recipe, what)}" for profile in added)
            raise IncompatibleError(
                f"the profiles score candidates by different {what}s: {shown}",
                next_step=f"say which holds: --{what} {' or '.join(values)}",
            )
    made_of = dict.fromkeys(recipe.profile_feature for recipe in recipes)
    scored: Feature = next(iter(features)) if feature is None else choose_feature(feature)
    chosen: Metric = next(iter(metrics)) if metric is None else choose_metric(metric)
    return Recipe(
        name=Method.COMBINED.value,
        method=Method.COMBINED,
        center=False,
        profile_feature=next(iter(made_of)) if len(made_of) == 1 else scored,
        feature=scored,
        metric=chosen,
    )


def _differences(everybody: Sequence[Profile], layers: tuple[int, ...]) -> tuple[str, ...]:
    """In words: layers that are not used, and captures that shift the numbers a little."""
    found = []
    for profile in everybody:
        unused = [layer for layer in profile.record.layers if layer not in layers]
        if unused:
            found.append(
                f"{len(unused)} of {len(profile.record.layers)} layers of {profile.reference} are not used: another "
                "profile has not got them"
            )
    first = everybody[0].record.settings
    other = [profile.reference for profile in everybody if profile.record.settings != first]
    if other:
        found.append(
            f"{', '.join(other)} and {everybody[0].reference} were captured with different settings (maximum length, "
            "truncation or compute dtype); compatibility is checked against those of the latter"
        )
    return tuple(found)


def _part(profile: Profile, weight: float | None) -> ProfilePart:
    return ProfilePart(
        name=profile.name,
        version=profile.number,
        directions_sha256=profile.record.directions_sha256,
        weight=weight,
    )


def _digest(profile: Profile) -> str:
    """What a profile is made of, the same wherever it is made; of a pulled one, which only claims that, what it is."""
    return profile.record.recipe_sha256 if profile.manifest.origin is None else profile.record.directions_sha256


def _references(profiles: Sequence[Profile]) -> str:
    return ", ".join(profile.reference for profile in profiles)
