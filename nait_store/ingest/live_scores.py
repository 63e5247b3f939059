"""Scores that an ingest computes of what it writes, and keeps as a scan would."""

from __future__ import annotations

import logging

from nait_store.activations.reader import SegmentReader
from nait_store.activations.stored_blocks import StoredBlock
from nait_store.errors import NaitStoreError
from nait_store.ingest.scored_profiles import ScoredProfiles
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.scoring.kernels import default_kernels
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.scoring.written_scores import WrittenScores, plan_features
from nait_store.storage.location import Location

logger = logging.getLogger(__name__)


class LiveScores:
    """Scores segment after segment while it is written, and writes the sidecars once it is acknowledged.

    Scores can be computed again, what a model was run for cannot: whatever goes wrong here ends the scoring with a
    warning, and nothing else.

    Parameters
    ----------
    location
        The store's root.
    profiles
        What to score against.

    Attributes
    ----------
    warning
        What went wrong; None if nothing did.
    """

    def __init__(self, location: Location, profiles: ScoredProfiles) -> None:
        self._location = location
        self._plans = plan_features(profiles.targets)
        self._sidecars = ScoreSidecars(location, in_memory=False)
        self._segment = WrittenScores(self._plans)
        self.warning: str | None = None

    @classmethod
    def of(cls, location: Location, profiles: ScoredProfiles) -> LiveScores | None:
        """None where there is nothing to score."""
        return cls(location, profiles) if profiles.targets else None

    @property
    def held_bytes(self) -> int:
        """Of the scores that wait for the end of the current segment."""
        return self._segment.size_bytes

    def prepare(self) -> None:
        """Load the kernels, which takes a second in a fresh process."""
        default_kernels()

    def block_written(self, block: StoredBlock) -> None:
        """Score a block of the current segment; see :class:`~nait_store.activations.stored_blocks.BlockListener`."""
        if self.warning is not None:
            return
        try:
            self._segment.block_written(block)
        except Exception as error:
            self._give_up(error)

    def keep(self, record: SegmentRecord) -> None:
        """Write the sidecars of the current segment, which has this record, and begin the next."""
        segment, self._segment = self._segment, WrittenScores(self._plans)
        if self.warning is not None:
            return
        reader = SegmentReader(self._location, record)
        try:
            for target, scores in segment.scores():
                self._sidecars.write(reader, target, scores)
        except Exception as error:
            self._give_up(error)

    def drop(self) -> None:
        """Forget the current segment, which will not be."""
        self._segment = WrittenScores(self._plans)

    def _give_up(self, error: Exception) -> None:
        reason = error.what if isinstance(error, NaitStoreError) else f"{type(error).__name__}: {error}"
        logger.debug("scoring at ingest ended", exc_info=error)
        self._segment = WrittenScores({})
        self.warning = f"not all scores were kept, the first query computes what is missing: {reason}"
