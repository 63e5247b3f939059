"""What Ctrl-C left, in words."""

from __future__ import annotations

from nait_store.errors import IngestInterrupted
from nait_store.ingest.requests import IngestReport


def stopped_at_once(n_kept: int) -> IngestInterrupted:
    """Say what the last Ctrl-C left, where nothing was committed.

    Parameters
    ----------
    n_kept
        Samples that are flushed, and in no version.
    """
    if not n_kept:
        return IngestInterrupted(
            "interrupted before anything was captured; the store is as it was",
            next_step="run the same command again",
        )
    return IngestInterrupted(
        f"stopped at once; {n_kept:,} samples are flushed and kept",
        next_step="run the same command again: it commits what is in no version yet, and goes on from there",
    )


def interrupted(n_held: int, report: IngestReport) -> IngestInterrupted:
    """Say what an ingest that was stopped in good order has committed.

    Parameters
    ----------
    n_held
        Samples of the version.
    report
        What was done until then.
    """
    earlier = f" and {report.resumed_samples:,} of earlier runs" if report.resumed_samples else ""
    return IngestInterrupted(
        f"interrupted; {report.set_ref} holds {n_held:,} samples, with the {report.n_added:,} "
        f"that were captured now{earlier}",
        next_step="run the same command again: it goes on from there",
    )
