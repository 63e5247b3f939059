"""Scores of some rows of a set: kept ones, and for the others one pass over the chunks that hold the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.reader import SegmentReader
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.scoring.completion import compute_scores, missing_scores, read_scores
from nait_store.scoring.scan import scan, wanted_blocks
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.stored_targets import stored_feature
from nait_store.scoring.targets import ScoringTarget


def score_rows(
    sidecars: ScoreSidecars,
    segments: Sequence[SegmentReader],
    targets: Sequence[ScoringTarget],
    rows: Mapping[int, NDArray[np.int64]],
    progress: ProgressListener = ignore_progress,
) -> dict[int, NDArray[np.float64]]:
    """Score some rows.

    A segment whose scores are kept is not scanned. Of another one the blocks that hold none of the rows are not read,
    and what the others give is not kept: a sidecar has all rows of its segment. Where the rows need all its blocks, a
    segment is scored as ever, and its scores are kept.

    Parameters
    ----------
    sidecars
        Where scores are kept.
    segments
        Of a set version, so with ordinals.
    targets
        P of them.
    rows
        Segment ordinal → ascending row indices; segments that are absent are left alone.
    progress
        Told rows and bytes, of each of the passes that it takes.

    Returns
    -------
    dict of int to ndarray
        Segment ordinal → scores [n_rows, P] float64, in the order of the rows given.

    Raises
    ------
    NaitStoreError
        As :func:`~nait_store.scoring.completion.ensure_scores` does.
    """
    asked = [segment for segment in segments if len(rows.get(segment.ordinal, ()))]
    missing = missing_scores(sidecars, asked, targets)
    partly = [pair for pair in missing if _leaves_out_blocks(*pair, rows[pair[0].ordinal])]
    compute_scores(sidecars, [pair for pair in missing if pair not in partly], progress)
    out = {segment.ordinal: np.empty((len(rows[segment.ordinal]), len(targets))) for segment in asked}
    fresh: dict[str, NDArray[np.float64]] = {}  # of sidecars that there will not be: [n_rows]
    for found in scan(partly, progress, rows={segment.segment_id: rows[segment.ordinal] for segment in asked}):
        of_segment = rows[found.segment.ordinal]
        low, high = np.searchsorted(of_segment, (found.rows.start, found.rows.stop))
        key = sidecars.key(found.segment, found.target).key
        scores = fresh.setdefault(key, np.empty(len(of_segment)))
        scores[low:high] = found.scores.scores[of_segment[low:high] - found.rows.start]
    for segment in asked:
        for p, target in enumerate(targets):
            scored = fresh.get(sidecars.key(segment, target).key)
            if scored is None:
                column = read_scores(sidecars, segment, target, ["score"]).column("score")
                scored = column.to_numpy()[rows[segment.ordinal]]
            out[segment.ordinal][:, p] = scored
    return out


def _leaves_out_blocks(segment: SegmentReader, targets: Sequence[ScoringTarget], rows: NDArray[np.int64]) -> bool:
    features = {stored_feature(segment.record, target) for target in targets}
    return any(len(wanted_blocks(segment, f, rows)) < len(segment.blocks(f)) for f in features)
