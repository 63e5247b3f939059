"""What a new version of a set does to the one before, and the manifest that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nait_store.activations.set_version import SetVersion
from nait_store.activations.tombstones import Tombstones, merge_tombstones, write_tombstones
from nait_store.schemas.activation_set import Operation, SegmentRecord, SegmentRef, SetManifest, TombstoneRef
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance

FULL_MANIFEST_EVERY = 100


@dataclass(frozen=True)
class Contents:
    """What all segments of a version store.

    Attributes
    ----------
    features, layers
        In common.
    """

    features: tuple[Feature, ...]
    layers: tuple[int, ...]

    @classmethod
    def of(cls, records: Sequence[SegmentRecord], current: SetVersion | None = None) -> Contents:
        """Of these segments, and those of a version that is there already."""
        features = [set(record.features) for record in records]
        layers = [set(record.layers) for record in records]
        if current is not None and current.refs:
            features.append(set(current.features))
            layers.append(set(current.layers))
        return cls(
            tuple(f for f in Feature if all(f in stored for stored in features)),
            tuple(sorted(set.intersection(*layers))) if layers else (),
        )


@dataclass(frozen=True)
class Change:
    """The next version of a set, as a difference to the current one.

    Attributes
    ----------
    operation, message, details
        For the history.
    contents
        What all segments of the new version store.
    added
        Segments behind the current ones; their ordinals begin at the set's next.
    hidden
        Rows to be left out beside those that are left out already.
    refs
        All segments, instead of the current ones and ``added``; such a version is a full list.
    tombstones
        All rows to be left out, instead of the current ones and ``hidden``; needs ``refs``.
    ingest_ids
        Ingests that the version completes.
    """

    operation: Operation
    contents: Contents
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    added: tuple[SegmentRef, ...] = ()
    hidden: Tombstones = field(default_factory=dict)
    refs: tuple[SegmentRef, ...] | None = None
    tombstones: Tombstones | None = None
    ingest_ids: tuple[str, ...] = ()


def manifest_of(
    location: Location, name: str, current: SetVersion | None, number: int, next_ordinal: int, change: Change
) -> SetManifest:
    """Turn a change into the manifest of version ``number``, writing its tombstones.

    Parameters
    ----------
    location, name
        The store and the set.
    current
        The version that the change was made for.
    number
        The number to commit.
    next_ordinal
        Lowest ordinal that the set has never used before this change.
    change
        What to do.
    """
    current_refs = current.refs if current else ()
    refs = change.refs if change.refs is not None else current_refs + change.added
    base, listed = None, refs
    if change.refs is None and current is not None and number % FULL_MANIFEST_EVERY:
        base = current.number if current.manifest.base is None else current.manifest.base
        listed = change.added if current.manifest.base is None else current.manifest.segments + change.added
    earlier = current.tombstones() if current else {}
    hidden = change.tombstones if change.tombstones is not None else merge_tombstones(earlier, change.hidden)
    return SetManifest(
        set_name=name,
        number=number,
        parent=current.number if current else None,
        operation=change.operation,
        details=dict(change.details),
        message=change.message,
        features=change.contents.features,
        layers=change.contents.layers,
        base=base,
        segments=listed,
        tombstones=_tombstones(location, name, current, earlier, hidden),
        next_ordinal=max([next_ordinal, *(ref.ordinal + 1 for ref in refs)]),
        n_samples=sum(ref.n_rows for ref in refs) - sum(map(len, hidden.values())),
        ingest_ids=change.ingest_ids,
        provenance=current_provenance(),
    )


def _tombstones(
    location: Location, name: str, current: SetVersion | None, earlier: Tombstones, hidden: Tombstones
) -> TombstoneRef | None:
    same = hidden.keys() == earlier.keys() and all(len(rows) == len(earlier[o]) for o, rows in hidden.items())
    # Rows of a superset are as many only if they are the same; those of another list may be others.
    if same and current is not None and all((rows == earlier[o]).all() for o, rows in hidden.items()):
        written = current.manifest.tombstones
        if (written.n_rows if written else 0) == sum(map(len, hidden.values())):
            return written
    return write_tombstones(location, name, hidden)
