"""What an ingest finds before it captures anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.activations.set_version import SetVersion
from nait_store.ingest.sample_stream import SampleStream
from nait_store.schemas.activation_set import SetRecord
from nait_store.schemas.capture import StoredDtype
from nait_store.schemas.record import SourceFile


@dataclass(frozen=True)
class IngestOutset:
    """What an ingest found before it captures anything.

    Attributes
    ----------
    sources
        Its input.
    wanted
        ``set.json``, as it is or will be.
    version
        The set's latest version, if it has one.
    stream
        The samples that have to be captured.
    n_records
        Records of the input, where that is cheap to tell.
    """

    sources: Sequence[SourceFile]
    wanted: SetRecord
    version: SetVersion | None
    stream: SampleStream
    n_records: int | None

    @property
    def expected_rows(self) -> int | None:
        """Samples that will probably be captured."""
        return None if self.n_records is None else max(1, self.n_records - self.stream.n_known)

    def known_dtype(self, asked: StoredDtype | None) -> StoredDtype | None:
        """What to store as, where that does not depend on the samples: as asked for, or as the set does."""
        if asked is not None:
            return StoredDtype(asked)
        if self.version is not None and self.version.refs:
            return self.version.segment(self.version.refs[-1]).record.arrays[0].dtype
        return None
