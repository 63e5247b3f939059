"""``profile_similarity``: how alike the directions of profiles are, layer by layer and over all layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.dataset import field

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.query.features.table import FeatureContext, FeatureTable
from nait_store.query.lazy_table import BATCH_ROWS, may_match, mentions
from nait_store.registry.basis import Basis
from nait_store.registry.compatibility import require_same_basis
from nait_store.registry.profiles import Profile

_HELD_BYTES = 1 << 30
_AT_ONCE = 512
_SCHEMA = pa.schema(
    [("profile_a", pa.string()), ("profile_b", pa.string()), ("layer", pa.int32()), ("cosine", pa.float64())]
)


def profile_similarity(context: FeatureContext, values: Mapping[str, Any]) -> FeatureTable:
    """``profile_similarity(profiles)``: cosines of every pair, each layer and the whole (``layer`` NULL).

    Reads the directions of the profiles, and no activations. Those of more than 1 GiB are read several times, some of
    their layers at a time.

    Raises
    ------
    NotFoundError
        A name of no profile.
    InvalidInputError
        Less than two profiles are named.
    IncompatibleError
        Two that are named were built on activations that mean different things, or have no layer in common.
    """
    groups = _latest(context) if "profiles" not in values else [_named(context, values["profiles"])]

    def batches(names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        for profiles in groups:
            yield from _Comparison(context, profiles, names, condition).batches()

    return FeatureTable(_SCHEMA, batches, ())


def _latest(context: FeatureContext) -> list[list[Profile]]:
    """The latest version of every profile, those together that can be compared."""
    groups: dict[tuple[str, int], list[Profile]] = {}
    for profile in context.names.latest_profiles():
        groups.setdefault((profile.record.capture_id, profile.record.n_neurons), []).append(profile)
    return list(groups.values())


def _named(context: FeatureContext, names: Sequence[str]) -> list[Profile]:
    distinct = {profile.reference: profile for profile in map(context.names.profile, names)}
    profiles = sorted(distinct.values(), key=lambda profile: (profile.name, profile.number))
    if len(profiles) < 2:
        raise InvalidInputError(
            f"profile_similarity() compares at least two profiles, and only {profiles[0].reference} is named",
            next_step="name another one, or none to compare the latest version of every profile",
        )
    for profile in profiles[1:]:
        require_same_basis(Basis.of_profile(profiles[0]), Basis.of_profile(profile))
    has = _has_layers(profiles, _layers(profiles))
    apart = np.argwhere(np.triu(_common_layers(has, has) == 0, 1))
    if len(apart):
        first, second = (profiles[i].reference for i in apart[0])
        raise IncompatibleError(
            f"profiles {first} and {second} have no layer in common",
            next_step="see which they have: SELECT reference, layers FROM profiles",
        )
    return profiles


def _layers(profiles: Sequence[Profile]) -> list[int]:
    return sorted({layer for profile in profiles for layer in profile.record.layers})


def _has_layers(profiles: Sequence[Profile], layers: Sequence[int]) -> NDArray[np.float32]:
    """[P, L], 1 where a profile has a layer."""
    return np.array([np.isin(layers, profile.record.layers) for profile in profiles], dtype=np.float32)


def _common_layers(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many layers every two have in common, [P, Q]."""
    counts: NDArray[np.float32] = first @ second.T
    return counts


@dataclass(frozen=True)
class _Tile:
    """Some of the profiles a beside some profiles b, as positions."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]

    @property
    def is_pair(self) -> NDArray[np.bool_]:
        """[a, b]: each two profiles once."""
        return self.a[:, None] < self.b[None, :]


@dataclass(frozen=True)
class _Directions:
    """One layer's directions of all profiles."""

    vectors: NDArray[np.float32]
    """[P, J]; zeros of profiles that have none, or are not needed."""
    lengths: NDArray[np.float64]
    """[P]."""

    def cosines(self, tile: _Tile) -> NDArray[np.float64]:
        """[a, b]."""
        first, second = (self.vectors[profiles].astype(np.float64) for profiles in (tile.a, tile.b))
        lengths = np.outer(self.lengths[tile.a], self.lengths[tile.b])
        clipped: NDArray[np.float64] = np.clip(first @ second.T / lengths, -1, 1)
        return clipped


class _Comparison:
    """Pairs of profiles that lie in the same space, in the order of their names.

    Parameters
    ----------
    context
        Says when to stop.
    profiles
        All of them.
    names
        Columns to give.
    condition
        Filter; layers and profiles that cannot meet it are left out.
    """

    def __init__(
        self, context: FeatureContext, profiles: Sequence[Profile], names: Sequence[str], condition: Any
    ) -> None:
        self._context = context
        self._profiles = profiles
        self._schema = pa.schema([_SCHEMA.field(name) for name in names])
        self._references = pa.array([profile.reference for profile in profiles])
        self._a, self._b = (self._matching(column, condition) for column in ("profile_a", "profile_b"))
        self._all_layers = _layers(profiles)
        self._has = _has_layers(profiles, self._all_layers)
        guarantees: dict[int | None, Any] = {layer: field("layer") == layer for layer in self._all_layers}
        guarantees[None] = field("layer").is_null()
        self._wanted = set(may_match(guarantees, condition, _SCHEMA))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows of every wanted layer, then of the whole."""
        needs_values = "cosine" in self._schema.names
        whole = None in self._wanted
        total = np.zeros((len(self._a), len(self._b))) if whole and needs_values else None
        layers = [layer for layer in self._all_layers if layer in self._wanted or total is not None]
        if not len(self._a) or not len(self._b):
            return
        for group in self._affordable(layers) if needs_values else [layers]:
            directions = self._read(group) if needs_values else {}
            for layer in group:
                yield from self._of_layer(layer, directions.get(layer), total)
        if whole:
            yield from self._of_whole(total)

    def _of_layer(
        self, layer: int, directions: _Directions | None, total: NDArray[np.float64] | None
    ) -> Iterator[pa.RecordBatch]:
        for tile, at in self._tiles(self._has[:, self._all_layers.index(layer)] > 0):
            cosines = None if directions is None else directions.cosines(tile)
            if total is not None and cosines is not None:
                total[at] += cosines
            if layer in self._wanted:
                yield from self._rows(tile, tile.is_pair, layer, cosines)

    def _of_whole(self, total: NDArray[np.float64] | None) -> Iterator[pa.RecordBatch]:
        for tile, at in self._tiles(np.ones(len(self._profiles), dtype=bool)):
            counts = _common_layers(self._has[tile.a], self._has[tile.b])
            means = None if total is None else total[at] / np.maximum(counts, 1)
            yield from self._rows(tile, tile.is_pair & (counts > 0), None, means)

    def _matching(self, column: str, condition: Any) -> NDArray[np.int64]:
        if not mentions(condition, column):
            return np.arange(len(self._profiles))
        guarantees = {i: field(column) == name for i, name in enumerate(self._references.to_pylist())}
        return np.array(sorted(may_match(guarantees, condition, _SCHEMA)), dtype=np.int64)

    def _affordable(self, layers: Sequence[int]) -> Iterator[list[int]]:
        """Layers in groups whose directions memory may hold."""
        n_bytes = 4 * len(self._profiles) * self._profiles[0].record.n_neurons
        at_once = max(1, _HELD_BYTES // n_bytes)
        for start in range(0, len(layers), at_once):
            yield list(layers[start : start + at_once])

    def _read(self, layers: Sequence[int]) -> dict[int, _Directions]:
        """Directions of these layers of all profiles that are needed."""
        shape = (len(self._profiles), self._profiles[0].record.n_neurons)
        found = {layer: _Directions(np.zeros(shape, np.float32), np.ones(shape[0])) for layer in layers}
        for i in np.union1d(self._a, self._b).tolist():
            self._context.first_error.check()
            profile = self._profiles[i]
            directions = profile.read_directions()  # [L, J]
            for position, layer in enumerate(profile.record.layers):
                if layer in found:
                    found[layer].vectors[i] = directions[position]
                    found[layer].lengths[i] = np.linalg.norm(directions[position].astype(np.float64)) or 1.0
        return found

    def _tiles(self, has: NDArray[np.bool_]) -> Iterator[tuple[_Tile, tuple[NDArray[np.int64], ...]]]:
        """Tiles with pairs of the profiles that ``has`` is true of, and where they lie in an array of all."""
        a, b = (np.flatnonzero(has[profiles]) for profiles in (self._a, self._b))
        for i, j in itertools.product(range(0, len(a), _AT_ONCE), range(0, len(b), _AT_ONCE)):
            rows, columns = a[i : i + _AT_ONCE], b[j : j + _AT_ONCE]
            tile = _Tile(self._a[rows], self._b[columns])
            if tile.is_pair.any():
                self._context.first_error.check()
                yield tile, np.ix_(rows, columns)

    def _rows(
        self, tile: _Tile, chosen: NDArray[np.bool_], layer: int | None, cosines: NDArray[np.float64] | None
    ) -> Iterator[pa.RecordBatch]:
        a, b = np.nonzero(chosen)
        for start in range(0, len(a), BATCH_ROWS):
            rows, columns = a[start : start + BATCH_ROWS], b[start : start + BATCH_ROWS]
            arrays = {
                "profile_a": self._references.take(pa.array(tile.a[rows])),
                "profile_b": self._references.take(pa.array(tile.b[columns])),
                "layer": pa.repeat(pa.scalar(layer, pa.int32()), len(rows)),
            }
            if cosines is not None:
                arrays["cosine"] = pa.array(cosines[rows, columns])
            yield pa.RecordBatch.from_arrays([arrays[name] for name in self._schema.names], schema=self._schema)
