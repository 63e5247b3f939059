"""Whether a saved selection is what its recorded set, profile and settings give: made again, and compared.

The integrity of its files is another matter, and that of ``verify``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.refs import Kind
from nait_store.store.ranking_checks import Check, ranking_checks
from nait_store.store.selection_details import missing_parents

if TYPE_CHECKING:
    from nait_store.selection.saved import SavedSelection
    from nait_store.store.facade import Store

TOLERANCE = 1e-4
"""In standard deviations of the scores: ten times what machines, kernels and devices differ by."""


@dataclass(frozen=True)
class SelectionVerification:
    """What came of making a selection again.

    Attributes
    ----------
    reference
        The version, resolved.
    checks
        What was compared, or why it could not be.
    identical
        Whether ids, order and scores are the same to the last bit.
    n_compared
        Samples of the selection that were compared.
    notes
        What is to be known of the comparison: samples that were purged since.
    """

    reference: str
    checks: tuple[Check, ...]
    identical: bool
    n_compared: int
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was made again, and is the same within the tolerance."""
        return all(check.ok for check in self.checks)


def verify_selection(store: Store, saved: SavedSelection) -> SelectionVerification:
    """Make a selection again and compare; see :meth:`~nait_store.store.selections.Selections.verify`."""
    from nait_store.selection.choosing import select
    from nait_store.selection.requests import SelectionRequest

    record, reference = saved.record, saved.reference
    rows = saved.rows()
    gone = missing_parents(store, saved)
    if gone:
        checks = [Check(parent.qualified, "existence", False, str(error)) for parent, error in gone.items()]
        return SelectionVerification(reference, tuple(checks), False, 0)
    version = store.sets.open(record.set_ref)
    n_left_set = version.manifest.n_samples - version.n_samples
    notes = _notes(saved, version.reference, n_left_set)
    if notes and not rows.num_rows:
        return SelectionVerification(reference, (), False, 0, notes)
    subject = f"{Kind.SELECTION}:{reference}"
    try:
        request = SelectionRequest.from_record(record)
        if notes and request.is_plain:  # a share of what a purge left would be another number
            request = replace(request, top=rows.num_rows)
        again = select(store.session, store.sets.versions, store.profiles.registry, request)
    except (NotFoundError, InvalidInputError, IncompatibleError) as error:
        return SelectionVerification(
            reference, (Check(subject, "recomputation", False, str(error)),), False, rows.num_rows, notes
        )
    found = []
    if not notes:
        detail = f"{again.n_candidates:,} where {record.n_candidates:,} were recorded"
        same = again.n_candidates == record.n_candidates
        found.append(Check(subject, "candidates", same, f"{record.n_candidates:,}" if same else detail))
    found += ranking_checks(subject, rows, again.rows, scored=record.has_scores, tolerance=TOLERANCE)
    compared = ["sample_id", "score"]  # ranks that a purge left have gaps
    identical = rows.select(compared).equals(again.rows.select(compared))
    return SelectionVerification(reference, tuple(found), identical, rows.num_rows, notes)


def _notes(saved: SavedSelection, set_ref: str, n_left_set: int) -> tuple[str, ...]:
    notes = []
    if saved.n_purged:
        notes.append(
            f"{saved.n_purged:,} of its samples were purged since: the {saved.record.n_selected:,} left are compared "
            f"with the first {saved.record.n_selected:,} of what {set_ref} has now"
        )
    elif n_left_set:
        notes.append(f"{n_left_set:,} samples of {set_ref}, none of them selected, were purged or repaired away since")
    return tuple(notes)
