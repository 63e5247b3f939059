"""Changes that undo: samples deleted from a set, and an old version restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.changes import Change, Contents
from nait_store.activations.sample_keys import find_sorted, keys_of
from nait_store.activations.set_version import SetVersion
from nait_store.activations.tombstones import Tombstones
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, InvalidInputError
from nait_store.refs import Kind, Reference
from nait_store.schemas.activation_set import Operation
from nait_store.storage import layout
from nait_store.storage.heartbeat import job
from nait_store.storage.provenance import new_ulid


@dataclass(frozen=True)
class Doomed:
    """Samples to be deleted, found in one version and known by their keys in every later one.

    Attributes
    ----------
    version
        Where they were found.
    rows
        Segment ordinal → ascending row indices there.
    keys
        [n] S16, sorted: keys of their ids.
    """

    version: SetVersion
    rows: Tombstones
    keys: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.keys)

    def rows_in(self, sets: ActivationSets, version: SetVersion) -> Tombstones:
        """Where they are in another version of the set; those that it does not have are left out."""
        if version.reference == self.version.reference:
            return self.rows
        return find_rows(sets, version, self.keys)

    def first_ids(self, limit: int) -> tuple[str, ...]:
        """Ids of the first of them, in the order of storage."""
        ids: list[str] = []
        for ref in self.version.refs:
            rows = self.rows.get(ref.ordinal, np.empty(0, np.int64))[: limit - len(ids)]
            if len(rows):
                ids += self.version.segment(ref).samples(["sample_id"]).column("sample_id").take(rows).to_pylist()
        return tuple(ids)


def find_rows(sets: ActivationSets, version: SetVersion, keys: NDArray[np.bytes_]) -> dict[int, NDArray[np.int64]]:
    """Find samples in a version.

    Parameters
    ----------
    sets, version
        The version, and the sets that it belongs to.
    keys
        [n] S16, sorted: keys of sample ids.

    Returns
    -------
    dict of int to ndarray
        Segment ordinal → ascending row indices, of the visible samples among them.
    """
    found = {}
    for ref, own in zip(version.refs, sets.visible_keys(version), strict=True):
        rows = own.rows[find_sorted(keys, own.ids) >= 0]
        if len(rows):
            found[ref.ordinal] = np.sort(rows).astype(np.int64)
    return found


def doomed_by_rows(sets: ActivationSets, version: SetVersion, rows: Tombstones) -> Doomed:
    """Mark the samples in these visible rows of a version for deletion."""
    keys = [np.empty(0, dtype="S16")]
    for ref in version.refs:
        if ref.ordinal in rows:
            mask = np.zeros(ref.n_rows, dtype=bool)
            mask[rows[ref.ordinal]] = True
            keys.append(sets.segment_keys(version, ref).only(mask).ids)
    return Doomed(version, rows, np.sort(np.concatenate(keys)))


def doomed_by_ids(sets: ActivationSets, version: SetVersion, ids: Sequence[str]) -> tuple[Doomed, list[str]]:
    """Mark samples for deletion by their ids, each given once; returns those that the version does not have, too."""
    given = keys_of(ids)
    order = np.argsort(given, kind="stable")
    keys = given[order]
    rows: dict[int, NDArray[np.int64]] = {}
    known = np.zeros(len(keys), dtype=bool)
    for ref, own in zip(version.refs, sets.visible_keys(version), strict=True):
        at = find_sorted(keys, own.ids)
        known[at[at >= 0]] = True
        if (at >= 0).any():
            rows[ref.ordinal] = np.sort(own.rows[at >= 0]).astype(np.int64)
    missing = [ids[place] for place in np.sort(order[~known])]
    return Doomed(version, rows, keys[known]), missing


def delete_samples(
    sets: ActivationSets, doomed: Doomed, *, details: Mapping[str, Any], message: str, allow_empty: bool
) -> tuple[SetVersion, int]:
    """Commit a version without some samples.

    Where another writer commits first, the samples are looked up again in the version that came: those that are
    gone already are passed over, and those that were appended meanwhile stay.

    Parameters
    ----------
    sets, doomed
        What to delete from.
    details, message
        For the history; the number of deleted samples is added to the details.
    allow_empty
        Whether the new version may have no sample at all.

    Returns
    -------
    version, n_deleted
        The new version, or the current one where none of the samples is left in it.

    Raises
    ------
    InvalidInputError
        No sample would be left.
    NotFoundError
        All versions of the set were deleted meanwhile.
    ConflictError
        Other writers kept winning for five minutes.
    """
    name = doomed.version.name
    n_deleted = 0

    def hide(current: SetVersion | None, next_ordinal: int) -> Change | None:  # noqa: ARG001
        nonlocal n_deleted
        if current is None:
            sets.resolve(Reference(Kind.SET, name))  # tells who deleted it
            raise ConflictError(f"set {name!r} is changing under us", next_step="run the same command again")
        hidden = doomed.rows_in(sets, current)
        n_deleted = sum(map(len, hidden.values()))
        if not n_deleted:
            return None
        require_some_left(current, n_deleted, allow_empty=allow_empty)
        return Change(
            operation=Operation.DELETE_SAMPLES,
            contents=Contents(current.features, current.layers),
            message=message,
            details={**details, "n_deleted": n_deleted},
            hidden=hidden,
        )

    version = sets.advance(name, hide)
    assert version is not None
    return version, n_deleted


def require_some_left(version: SetVersion, n_deleted: int, *, allow_empty: bool) -> None:
    """Refuse to delete all samples of a version by mistake.

    Raises
    ------
    InvalidInputError
        No sample would be left, and nobody said that this is meant.
    """
    if n_deleted == version.n_samples and not allow_empty:
        raise InvalidInputError(
            f"this would delete all {n_deleted:,} samples of {version.reference}",
            next_step="add --all if no sample is to be left, or delete the set itself with "
            f"'nait-store sets delete {version.name}'",
        )


def restore(sets: ActivationSets, name: str, number: int, *, message: str) -> tuple[SetVersion, bool]:
    """Commit a version that equals an old one, which may be deleted but not collected.

    Rows that were purged since stay away.

    Parameters
    ----------
    sets, name, number
        The old version.
    message
        For the history.

    Returns
    -------
    version, created
        The new version; the current one, and False, where that equals the old one already.

    Raises
    ------
    NotFoundError
        There is no such version, or gc has taken it.
    ConflictError
        gc took it meanwhile; or other writers kept winning for five minutes.
    """
    sets.log.require_kept(name, number)

    differs = False

    def again(current: SetVersion | None, next_ordinal: int) -> Change | None:  # noqa: ARG001
        nonlocal differs
        # Opened for every attempt: a purge may have come between.
        old = sets.version(name, number)
        differs = current is None or not _equal(current, old)
        if not differs:
            return None
        return Change(
            operation=Operation.RESTORE,
            contents=Contents(old.features, old.layers),
            message=message,
            details={"restored": number},
            refs=old.refs,
            tombstones=old.tombstones(),
        )

    # gc marks what it takes and then looks for jobs: either it sees this one, or we see the mark.
    with job(sets.location, layout.job_folder(name, new_ulid())):
        sets.log.require_kept(name, number)
        version = sets.advance(name, again)
    assert version is not None
    return version, differs


def _equal(version: SetVersion, other: SetVersion) -> bool:
    hidden, others = version.tombstones(), other.tombstones()
    return (
        version.refs == other.refs
        and hidden.keys() == others.keys()
        and all(np.array_equal(rows, others[ordinal]) for ordinal, rows in hidden.items())
    )
