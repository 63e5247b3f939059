"""Which sets hold the samples of a profile, and which of a set's rows these are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.sample_keys import KnownSamples, content_key
from nait_store.activations.set_version import SetVersion
from nait_store.errors import ConflictError, InvalidInputError, NotFoundError
from nait_store.registry.in_domain import choose_rows, sample_ids_digest
from nait_store.schemas.capture import Feature

if TYPE_CHECKING:
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.schemas.profile import SampleSource
    from nait_store.store.facade import Store
    from nait_store.store.reference_samples import ReferenceSamples

_Words = tuple[str | None, int | None, int]
"""Condition, limit and seed, as a profile's record has them."""


@dataclass(frozen=True)
class RowChoice:
    """Rows of a set version, and how to say which.

    Attributes
    ----------
    rows
        Segment ordinal → ascending row indices.
    n_samples
        How many.
    where, limit, seed
        A condition that chooses exactly these, and the draw among what it chooses.
    """

    rows: dict[int, NDArray[np.int64]]
    n_samples: int
    where: str | None
    limit: int | None
    seed: int


def holding_set(
    store: Store, samples: ReferenceSamples, capture: CaptureSource, features: Sequence[Feature]
) -> SetVersion | None:
    """Find the set that holds the samples as this capture would measure them, and the least beside them."""
    found = []
    for version in _sets_of(store, capture, features):
        same_settings = all(segment.record.settings == capture.settings for segment in version.segments)
        if same_settings and _holds(store, version, samples):
            found.append(version)
    return min(found, key=lambda version: (version.n_samples, version.name), default=None)


def equal_set(
    store: Store, source: SampleSource, capture: CaptureSource, features: Sequence[Feature]
) -> SetVersion | None:
    """Find a set of this capture that has exactly the samples that a record means."""
    for version in _sets_of(store, capture, features):
        if version.n_samples == source.n_samples and choose_rows(version).sample_ids_sha256 == source.sample_ids_sha256:
            return version
    return None


def choose_samples(store: Store, version: SetVersion, samples: ReferenceSamples) -> RowChoice:
    """Find the samples among the rows of a set version, and the shortest words that choose exactly these.

    Raises
    ------
    InvalidInputError
        The version has none of them.
    ConflictError
        The set was purged meanwhile.
    """
    rows, ids = _rows_of(version, samples.contents)
    if not ids:
        raise InvalidInputError(f"{version.reference} has none of the samples", next_step="port into another set")
    wanted = sample_ids_digest(ids)
    for where, limit, seed in _wordings(samples, ids):
        try:
            subset = None
            if where is not None:
                from nait_store.query.rows import matching_rows

                subset = matching_rows(store.session, version, where)
            chosen = choose_rows(version, subset=subset, limit=limit, seed=seed)
        except (NotFoundError, InvalidInputError):  # a column that this set does not have; no such row
            continue
        if chosen.sample_ids_sha256 == wanted:
            return RowChoice(rows, len(ids), where, limit, seed)
    raise ConflictError(f"set {version.reference} changed while it was read", next_step="run the same command again")


def _sets_of(store: Store, capture: CaptureSource, features: Sequence[Feature]) -> Iterator[SetVersion]:
    """Latest versions of the sets that were captured so and store what the capture gives."""
    sets = store.sets.versions
    for name in sets.names():
        record = sets.record(name)
        if record is None or record.capture_id != capture.identity.capture_id or not sets.numbers(name):
            continue
        version = sets.open(name)
        if set(features) <= set(version.features) and set(capture.layers) <= set(version.layers):
            yield version


def _holds(store: Store, version: SetVersion, samples: ReferenceSamples) -> bool:
    """Whether a set version has every one of the samples, with the same content."""
    if version.n_samples < len(samples.contents):
        return False
    known = KnownSamples(store.sets.versions.visible_keys(version))
    return all(
        one is not None and one.content == content_key(content)
        for one, content in zip(known.find(list(samples.contents)), samples.contents.values(), strict=True)
    )


def _rows_of(version: SetVersion, wanted: Collection[str]) -> tuple[dict[int, NDArray[np.int64]], list[str]]:
    """Segment ordinal → rows of these samples; and the ids of those that are there."""
    rows: dict[int, NDArray[np.int64]] = {}
    ids: list[str] = []
    for segment in version.segments:
        column = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        visible = version.visible_rows(segment)
        here = [i for i, sample_id in enumerate(column) if sample_id in wanted and (visible is None or visible[i])]
        rows[segment.ordinal] = np.array(here, dtype=np.int64)
        ids += [column[i] for i in here]
    return rows, ids


def _wordings(samples: ReferenceSamples, ids: Collection[str]) -> Iterator[_Words]:
    """What may choose exactly these samples of a set that holds them, the shortest first; the last one always does."""
    source = samples.source
    seed = source.seed or 0
    yield None, None, 0
    yield source.where, source.limit, seed
    if samples.version is not None:
        condition = f" WHERE ({source.where})" if source.where is not None else ""
        chosen = f"SELECT sample_id FROM samples('{samples.version.reference}'){condition}"
        yield f"sample_id IN ({chosen})", source.limit, seed
    listed = ", ".join("'" + sample_id.replace("'", "''") + "'" for sample_id in sorted(ids))
    yield f"sample_id IN ({listed})", None, 0
