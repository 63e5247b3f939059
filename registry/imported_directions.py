"""Profiles from files: directions that were made elsewhere, checked, normalised, and given a capture identity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.refs import Kind, check_name
from nait_store.registry.basis import Basis
from nait_store.registry.compatibility import require_same_basis
from nait_store.registry.exported_profile import DIRECTIONS, LAYERS, OFFSET, export_header
from nait_store.registry.payload import MAX_ARRAY_BYTES, ProfileArrays
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import choose_feature, choose_metric
from nait_store.registry.tensor_files import HEADER, TensorFile, parse_tensors, tensor_format
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import ImportedFile, Method, Metric, ProfileRecord, Recipe, parts_in_words
from nait_store.schemas.profile_export import ProfileExport
from nait_store.schemas.record import json_digest
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.provenance import current_provenance

UNIT_TOLERANCE = 1e-5
"""Vectors whose length is this close to 1 are kept bit by bit."""
SAID_TOLERANCE = 1e-2
"""Float16 and bfloat16 round a unit vector's length by less than this; more means that lengths were meant."""
_TOLD_CHARACTERS = 300
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class DirectionFile:
    """A file of directions, as read.

    Attributes
    ----------
    url
        As given; its ending says the format.
    data
        Its bytes.
    """

    url: str
    data: bytes


def import_profile(
    registry: ProfileRegistry,
    name: str,
    file: DirectionFile,
    *,
    like: Basis | None = None,
    layers: Sequence[int] | None = None,
    feature: str | None = None,
    metric: str | None = None,
    message: str = "",
    card: str = "",
) -> tuple[Profile, bool]:
    """Make the next version of a profile from a file, unless one of its versions has these directions.

    Parameters
    ----------
    registry, name
        Where it goes.
    file
        Exported by us, or any file with an array [L, J], or an array [J] for each layer whose name has its number.
    like
        What the directions were captured like; needed where the file does not say.
    layers
        Zero-based decoder layers of the rows of an array [L, J], where the file does not say.
    feature, metric
        What candidates are scored on and how; as the file says, else ``mean`` and ``cosine``.
    message, card
        For the history; free text about the profile.

    Returns
    -------
    profile
        The version; what was changed about the directions is among its warnings.
    created
        False where a version of this name has the same directions for the same use.

    Raises
    ------
    InvalidInputError
        The file cannot be used: not whole, no directions in it, NaN, a layer of zeros, layers that the model does not
        have, another number of neurons; or nothing says how they were captured.
    IncompatibleError
        The file says another capture identity than ``like``.
    """
    check_name(name, Kind.PROFILE)
    found = parse_tensors(file.data, tensor_format(file.url), file.url)
    header = export_header(found, file.url)
    basis = _basis(file.url, header, like)
    named, vectors, offset = _vectors(found, file.url, layers, basis)
    _check_space(file.url, basis, named, vectors.shape[1])
    arrays, warnings = _normalised(file.url, named, vectors, offset)
    if header is not None and arrays.digest(named) != header.directions_sha256:
        raise InvalidInputError(
            f"{file.url} holds other numbers than those that were exported as {header.reference!r}",
            next_step=f"export the profile again, or save the changed arrays without the text {HEADER}",
        )
    recipe = _recipe(header, feature, metric)
    if arrays.offset is not None and header is not None and recipe.feature is not header.recipe.feature:
        raise IncompatibleError(
            f"{file.url} centres candidates on a mean of {header.recipe.feature}, which says nothing about "
            f"{recipe.feature}",
            next_step="leave out --feature",
        )
    recipe_sha256 = json_digest(
        {
            "recipe": recipe.model_dump(mode="json", exclude={"name"}),
            "capture_id": basis.identity.capture_id,
            "settings": basis.settings.model_dump(mode="json"),
            "directions": arrays.digest(named),
            "layers": list(named),
        }
    )
    existing = registry.find(name, recipe_sha256)
    if existing is not None:
        return existing, False
    given = {"file": file.url, "model": basis.model, "like": None if like is None else like.reference, "layers": layers}
    record = ProfileRecord(
        name=name,
        recipe=recipe,
        recipe_sha256=recipe_sha256,
        capture_id=basis.identity.capture_id,
        identity=basis.identity,
        settings=basis.settings,
        layers=named,
        n_neurons=basis.n_neurons,
        has_offset=arrays.offset is not None,
        directions_sha256=arrays.digest(named),
        source=None,
        imported=ImportedFile(
            url=file.url,
            format=found.format.value,
            size_bytes=len(file.data),
            sha256=sha256_bytes(file.data),
            exported_from=None if header is None else header.reference,
            told=None if header is None else _told(header),
        ),
        statistics=(),
        warnings=warnings,
        files=(),
        parameters={key: value for key, value in given.items() if value is not None},
        card=card or ("" if header is None else header.card),
        parent=registry.log.latest(name),
        provenance=current_provenance(),
    )
    return registry.add(record, arrays, message)


def _basis(name: str, header: ProfileExport | None, like: Basis | None) -> Basis:
    if header is None:
        if like is None:
            raise InvalidInputError(
                f"{name} does not say which model its directions are of, and how that was captured",
                next_step="name something captured in the same way: --like SET, or --like profile:NAME",
            )
        return like
    own = Basis(
        name, header.identity, header.settings, header.n_neurons, header.layers, None, _printable(header.model or "")
    )
    if like is not None:
        require_same_basis(own, like)
    return own


def _vectors(
    file: TensorFile, name: str, layers: Sequence[int] | None, basis: Basis
) -> tuple[tuple[int, ...], NDArray[Any], NDArray[Any] | None]:
    """Layers in ascending order, their directions [L, J], and the offset if there is one."""
    arrays = {key: array for key, array in file.arrays.items() if array.dtype.kind == "f"}
    offset = arrays.pop(OFFSET, None)
    tables = {key: array for key, array in arrays.items() if array.ndim == 2}
    chosen = tables.get(DIRECTIONS) if DIRECTIONS in tables else next(iter(tables.values()), None)
    if chosen is not None and (DIRECTIONS in tables or len(arrays) == 1):
        named = _row_layers(name, len(chosen), file.arrays.get(LAYERS), layers, basis)
        vectors = chosen
    else:
        by_layer = _by_layer(arrays)
        if by_layer is None or layers is not None or offset is not None:
            shown = ", ".join(f"{key} {list(array.shape)}" for key, array in sorted(arrays.items())[:8]) or "none"
            raise InvalidInputError(
                f"{name} has no array 'directions' [layers, neurons], and no array [neurons] for each layer whose name "
                f"has the layer's number: it has {_printable(shown)}",
                next_step="save the directions as one array 'directions', and 'layers' beside it",
            )
        named = tuple(by_layer)
        vectors = np.stack([*by_layer.values()])
    if offset is not None and offset.shape != vectors.shape:
        raise InvalidInputError(
            f"{name}: the offset has shape {list(offset.shape)}, the directions {list(vectors.shape)}",
            next_step="save one row of 'offset' for each row of 'directions', or none",
        )
    if vectors.size * 4 > MAX_ARRAY_BYTES:
        raise InvalidInputError(
            f"{name}: directions of shape {list(vectors.shape)} take more than {MAX_ARRAY_BYTES:,} bytes",
            next_step="import fewer layers",
        )
    if len(set(named)) != len(named):
        raise InvalidInputError(f"{name} has two directions for one layer", next_step="name each layer once")
    order = np.argsort(named)
    return tuple(named[i] for i in order), vectors[order], None if offset is None else offset[order]


def _row_layers(
    name: str, n_rows: int, stored: NDArray[Any] | None, given: Sequence[int] | None, basis: Basis
) -> tuple[int, ...]:
    """Decoder layers of the rows of an array [L, J]."""
    if stored is not None:
        if given is not None:
            raise InvalidInputError(
                f"{name} says itself which layers its directions are of", next_step="leave out --layers"
            )
        if stored.dtype.kind != "i" or stored.shape != (n_rows,):
            raise InvalidInputError(
                f"{name}: 'layers' is {stored.dtype} {list(stored.shape)}, not one whole number a row, {n_rows}",
                next_step="save 'layers' as int64, one number a row",
            )
        return tuple(int(layer) for layer in stored)
    if given is None:
        if n_rows == basis.n_model_layers:
            return tuple(range(n_rows))
        if n_rows == len(basis.layers):
            return basis.layers
        raise InvalidInputError(
            f"{name} has {n_rows} directions, and {basis.reference} {len(basis.layers)} layers",
            next_step="say which layers they are of with --layers",
        )
    if len(given) != n_rows:
        raise InvalidInputError(
            f"{name} has {n_rows} directions, but {len(given)} layers were named",
            next_step="name one layer for each row",
        )
    return tuple(given)


def _by_layer(arrays: Mapping[str, NDArray[Any]]) -> dict[int, NDArray[Any]] | None:
    """Arrays [J] by the one number in their names; None where they are not such arrays."""
    found: dict[int, NDArray[Any]] = {}
    for key, array in arrays.items():
        numbers = _NUMBER.findall(key[:200])
        if len(numbers) != 1 or len(numbers[0]) > 6 or array.ndim != 1 or int(numbers[0]) in found:
            return None
        found[int(numbers[0])] = array
    widths = {len(array) for array in found.values()}
    return found if len(widths) == 1 else None


def _check_space(name: str, basis: Basis, layers: Sequence[int], n_neurons: int) -> None:
    if n_neurons != basis.n_neurons:
        raise InvalidInputError(
            f"{name} has directions of {n_neurons:,} numbers, where {basis.reference} has {basis.n_neurons:,} neurons "
            f"at hook point {basis.identity.hook_point}",
            next_step="name a set of the model, and of the hook point, that the directions are of, with --like",
        )
    unknown = [layer for layer in layers if not basis.has_layer(layer)]
    if unknown:
        raise InvalidInputError(
            f"{name} has directions for the layers {', '.join(map(str, unknown[:8]))}, which {basis.reference} has "
            "not; layers count from 0",
            next_step="say which layers the rows are of with --layers, or name a set of the right model with --like",
        )


def _normalised(
    name: str, layers: Sequence[int], vectors: NDArray[Any], offset: NDArray[Any] | None
) -> tuple[ProfileArrays, tuple[str, ...]]:
    """Unit vectors in float32, and what was changed about them, in words."""
    directions = np.empty(vectors.shape, dtype=np.float32)
    lengths = []
    for i, (layer, vector) in enumerate(zip(layers, vectors, strict=True)):
        wide = vector.astype(np.float64)
        if not np.isfinite(wide).all():
            raise _not_finite(f"{name}: the direction of layer {layer}")
        largest = float(np.abs(wide).max())
        length = largest * float(np.linalg.norm(wide / largest)) if largest > 0.0 else 0.0
        if length == 0.0:
            raise InvalidInputError(
                f"{name}: the direction of layer {layer} is zero, so it points nowhere",
                next_step="leave that layer out of the file",
            )
        unit = abs(length - 1.0) <= UNIT_TOLERANCE
        directions[i] = vector if unit else (wide / largest) / (length / largest)
        lengths.append(length)
    off = [length for length in lengths if abs(length - 1.0) > SAID_TOLERANCE]
    warnings: tuple[str, ...] = ()
    if off:
        warnings = (
            f"{len(off)} of {len(lengths)} directions had another length than 1 ({min(off):.4g} to {max(off):.4g}): "
            "each was scaled to 1, so all layers have the same weight now",
        )
    centre = None
    if offset is not None:
        with np.errstate(over="ignore"):
            centre = offset.astype(np.float32)
        if not np.isfinite(centre).all():
            raise _not_finite(f"{name}: the offset")
    return ProfileArrays(directions, centre), warnings


def _not_finite(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what} holds NaN, infinity, or a number beyond float32", next_step="look at how the file was made"
    )


def _recipe(header: ProfileExport | None, feature: str | None, metric: str | None) -> Recipe:
    own = None if header is None else header.recipe
    if feature is None:
        feature = Feature.MEAN if own is None else own.feature
    scored = choose_feature(feature)
    return Recipe(
        name=Method.IMPORTED.value,
        method=Method.IMPORTED,
        center=False,
        profile_feature=scored if own is None else choose_feature(own.profile_feature),
        feature=scored,
        metric=choose_metric(metric) if metric is not None else (Metric.COSINE if own is None else own.metric),
    )


def _told(header: ProfileExport) -> str:
    """What a file says of its profile; from a stranger, so nothing in it may act on a terminal."""
    made_from = "" if header.source is None else header.source.in_words
    if header.imported is not None:
        made_from = header.imported.in_words
    elif header.parts:
        made_from = parts_in_words(header.parts)
    return _printable(f"{header.recipe.in_words}; {made_from}")


def _printable(text: str) -> str:
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown if len(shown) <= _TOLD_CHARACTERS else shown[: _TOLD_CHARACTERS - 1] + "…"
