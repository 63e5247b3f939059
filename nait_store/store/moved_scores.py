"""Scores of a replaced segment: taken over by the replacement, and then gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nait_store.activations.redirects import Redirects
from nait_store.activations.replacement import Replacement
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import CarriedRows, carry_over
from nait_store.scoring.sidecar_files import delete_sidecar
from nait_store.storage.location import Location


def move_scores(
    location: Location, replaced: Replacement, redirects: Redirects, sidecars: Sequence[SidecarRecord]
) -> None:
    """Give a replacement the scores of the segment it stands for, zero for blank rows, and delete the old sidecars.

    Parameters
    ----------
    location, replaced, redirects
        The store, what was replaced, and the set's redirects.
    sidecars
        Records of the store's sidecars, asked for once.
    """
    old, new = replaced.old, replaced.new
    blank = np.zeros(old.n_rows, dtype=bool)
    blank[redirects.blank_rows(new.segment_id)] = True
    digest = old.digest()
    known = [record for record in sidecars if record.segment_sha256 == digest]
    carry_over(location, [CarriedRows(digest, np.arange(old.n_rows), blank)], new, known)
    for sidecar in known:
        delete_sidecar(location, sidecar.key)
