"""Stores to collect garbage in, and what to compare afterwards."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.storage.provenance import now
from nait_store.store.garbage import collection
from nait_store.store.garbage.collection import GcReport
from nait_store.testing.stores import build_set

NO_GRACE = timedelta(0)
LATER = timedelta(days=30)


def collect(store: nait_store.Store, *, after: timedelta = LATER, **options: Any) -> GcReport:
    """Collect garbage as if it were later, and make sure that the store is sound then."""
    report = collection.gc(store, clock=now() + after, **options)
    assert problems(store) == []
    return report


def problems(store: nait_store.Store) -> list[str]:
    """What verification finds wrong."""
    fresh = nait_store.open(store.url)
    return [f"{finding.path}: {finding.problem}" for finding in fresh.verify().errors]


def files(store: nait_store.Store) -> dict[str, int]:
    """Every file of the store with its size, hidden ones included, but the catalog."""
    location = Location(store.url)
    found = [*location.files(), *location.leftovers()]
    return {file.path: file.size_bytes for file in found if not file.path.startswith("catalog.duckdb")}


def below(store: nait_store.Store, folder: str) -> set[str]:
    """Names of what lies directly in a folder."""
    return set(Location(store.url).names(folder))


def grown_set(store: nait_store.Store, name: str, n_versions: int, *, first: int = 0, n: int = 6) -> ActivationSets:
    """A set whose every version adds one segment of ``n`` samples."""
    for i in range(n_versions):
        build_set(store.location, name, n, first=first + i * n, seed=first + i)
    return store.sets.versions


def contents(store: nait_store.Store) -> dict[str, tuple[list[str], bytes]]:
    """Sample ids and activations of every visible version of every set, read anew."""
    sets = ActivationSets(Location(store.url), verify=True)
    found = {}
    for name in sets.names():
        for number in sets.numbers(name):
            version = sets.open(f"{name}@{number}")
            found[version.reference] = (version.sample_ids(), b"".join(_visible_bytes(version)))
    return found


def _visible_bytes(version: Any) -> list[bytes]:
    parts = []
    for segment in version.segments:
        mask = version.visible_rows(segment)
        values = segment.read(Feature.MEAN)
        parts.append(np.ascontiguousarray(values if mask is None else values[mask]).tobytes())
    return parts


def put_old_file(store: nait_store.Store, path: str, data: bytes = b"left over") -> None:
    """Write a file; :func:`collect` looks at it a month later."""
    local = store.location.local_path(path)
    if local is None:
        store.location.write_bytes(path, data)
    else:
        Path(local).parent.mkdir(parents=True, exist_ok=True)
        Path(local).write_bytes(data)
