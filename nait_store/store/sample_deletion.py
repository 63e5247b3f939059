"""Deleting samples from a set, by condition or by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nait_store.activations.history import (
    Doomed,
    doomed_by_ids,
    doomed_by_rows,
    require_some_left,
)
from nait_store.activations.history import (
    delete_samples as commit_deletion,
)
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.store.set_history import DeletedSamples

if TYPE_CHECKING:
    from nait_store.activations.versions import SetVersion
    from nait_store.store.facade import Store

_FIRST = 5
_SHOWN_CHARACTERS = 80


def delete_samples(
    store: Store,
    version: SetVersion,
    *,
    where: str | None,
    ids: Iterable[str] | None,
    ignore_missing: bool,
    allow_empty: bool,
    message: str,
    dry_run: bool,
) -> DeletedSamples:
    """Commit a version without some of the samples of the latest one; see :meth:`Sets.delete_samples`."""
    if (where is None) == (ids is None):
        raise InvalidInputError(
            "samples are deleted by a condition or by a list of ids",
            next_step="give exactly one of --where SQL and --ids FILE",
        )
    missing: Sequence[str] = ()
    details: dict[str, Any]
    if where is not None:
        from nait_store.query.rows import matching_rows  # needs DuckDB

        rows = matching_rows(store.session, version, where)
        doomed, details = doomed_by_rows(store.sets.versions, version, rows), {"where": where}
    else:
        wanted = list(dict.fromkeys(ids or ()))
        doomed, missing = _listed(store, version, wanted, ignore_missing=ignore_missing)
        details = {"n_ids": len(wanted)}
    n_deleted, result, n_left = len(doomed), version, version.n_samples - len(doomed)
    if not dry_run:
        store.location.require_writable()
        if n_deleted:
            require_some_left(version, n_deleted, allow_empty=allow_empty)
            result, n_deleted = commit_deletion(
                store.sets.versions, doomed, details=details, message=message, allow_empty=allow_empty
            )
            n_left = result.n_samples
    return DeletedSamples(
        from_ref=version.reference,
        set_ref=result.reference,
        n_deleted=n_deleted,
        n_left=n_left,
        sample_ids=doomed.first_ids(_FIRST),
        n_missing=len(missing),
        missing=tuple(missing[:_FIRST]),
        dry_run=dry_run,
    )


def _listed(
    store: Store, version: SetVersion, wanted: Sequence[str], *, ignore_missing: bool
) -> tuple[Doomed, Sequence[str]]:
    if not wanted:
        raise InvalidInputError("the list of ids is empty", next_step="give at least one sample id")
    for sample_id in wanted:
        if not isinstance(sample_id, str) or (not sample_id.isascii() and not _is_unicode(sample_id)):
            raise InvalidInputError(f"{_shown(sample_id)} is not a sample id", next_step="give ids as text")
    doomed, missing = doomed_by_ids(store.sets.versions, version, wanted)
    if missing and not ignore_missing:
        shown = ", ".join(map(_shown, missing[:_FIRST])) + (", …" if len(missing) > _FIRST else "")
        raise NotFoundError(
            f"{version.reference} has no sample {shown} ({len(missing):,} of {len(wanted):,} ids are not there)",
            next_step="correct the ids, or add --ignore-missing to delete the others",
        )
    return doomed, missing


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _shown(sample_id: object) -> str:
    text = repr(sample_id)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 2] + "…'"
