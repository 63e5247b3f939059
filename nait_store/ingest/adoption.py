"""What dead ingests flushed: found, checked, and handed to the ingest that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nait_store.activations.reader import read_segment_record
from nait_store.errors import FormatError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE
from nait_store.schemas.activation_set import FlushRecord, SegmentRecord, SegmentRef
from nait_store.schemas.capture import Feature
from nait_store.storage import layout
from nait_store.storage.heartbeat import is_alive
from nait_store.storage.location import Location


@dataclass(frozen=True)
class AbandonedIngest:
    """A dead ingest that flushed segments and committed none.

    Attributes
    ----------
    ingest_id
        Its ULID.
    segments
        The flushed segments that can be taken over.
    complete
        Whether these are all that it flushed.
    """

    ingest_id: str
    segments: tuple[SegmentRecord, ...]
    complete: bool


def find_abandoned(
    location: Location, set_name: str, *, features: Sequence[Feature], layers: Sequence[int], capture_id: str
) -> tuple[list[AbandonedIngest], list[str]]:
    """Find the dead ingests of a set and what they flushed.

    Parameters
    ----------
    location, set_name
        Where to look.
    features, layers
        Segments that lack some of these are left where they are.
    capture_id
        Segments of another identity are too.

    Returns
    -------
    abandoned, warnings
        Oldest first; and what could not be read, in words.
    """
    abandoned: list[AbandonedIngest] = []
    warnings: list[str] = []
    for ingest_id in location.names(layout.ingest_folder(set_name)):
        folder = layout.ingest_folder(set_name, ingest_id)
        names = location.names(folder)
        if OUTCOME_FILE in names or FLUSHED_FOLDER not in names or is_alive(location, folder):
            continue
        segments = []
        complete = True
        for name in location.names(f"{folder}/{FLUSHED_FOLDER}"):
            path = f"{folder}/{FLUSHED_FOLDER}/{name}"
            try:
                flush = FlushRecord.from_json_bytes(location.read_bytes(path), location.url_of(path))
                record = read_segment_record(location, set_name, _as_ref(flush))
            except (FormatError, NotFoundError) as error:
                warnings.append(f"a segment that an interrupted ingest flushed cannot be used: {error.what}")
                complete = False
                continue
            covers = set(features) <= set(record.features) and set(layers) <= set(record.layers)
            if covers and record.capture_id == capture_id:
                segments.append(record)
            else:
                complete = False
        if segments:
            abandoned.append(AbandonedIngest(ingest_id, tuple(segments), complete))
    return abandoned, warnings


def _as_ref(flush: FlushRecord) -> SegmentRef:
    return SegmentRef(segment_id=flush.segment_id, ordinal=0, n_rows=flush.n_rows, record_sha256=flush.record_sha256)
