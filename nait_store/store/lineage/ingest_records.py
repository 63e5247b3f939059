"""What is recorded of an ingest: its plan, and of the segments that it wrote the model and the settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.activations.redirects import Redirects
from nait_store.errors import FormatError, InvalidInputError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE, PLAN_FILE
from nait_store.refs import Kind, Reference, parse_reference
from nait_store.schemas.activation_set import IngestOutcome, IngestPlan, SegmentRecord
from nait_store.storage import layout
from nait_store.storage.location import Location


@dataclass(frozen=True)
class RecordedIngest:
    """What is left of the records of an ingest.

    Attributes
    ----------
    plan
        Its sources, and what it was to measure.
    segment
        A segment that it wrote, or that was made from one of them: what it captured with. None where none is left.
    """

    plan: IngestPlan
    segment: SegmentRecord | None


def read_plan(location: Location, set_name: str, ingest_id: str) -> IngestPlan | None:
    """Read the plan of an ingest; None where gc has taken it, or nobody can read it."""
    path = f"{layout.ingest_folder(set_name, ingest_id)}/{PLAN_FILE}"
    try:
        return IngestPlan.from_json_bytes(location.read_bytes(path), location.url_of(path))
    except (NotFoundError, FormatError):
        return None


def recorded_ingest(location: Location, set_name: str, ingest_id: str) -> RecordedIngest | None:
    """Read the records of an ingest; None where its plan is gone."""
    plan = read_plan(location, set_name, ingest_id)
    if plan is None:
        return None
    folder = f"{layout.ingest_folder(set_name, ingest_id)}/{FLUSHED_FOLDER}"
    written = [name.removesuffix(".json") for name in location.names(folder) if name.endswith(".json")]
    return RecordedIngest(plan, next(_segments_from(location, set_name, written), None))


def sets_read(plan: IngestPlan) -> list[Reference]:
    """Versions of sets that an ingest took its samples from: a port captures those of another set again."""
    found = []
    for source in plan.sources:
        if source.uri.startswith(f"{Kind.SET}:"):
            with contextlib.suppress(InvalidInputError):
                parsed = parse_reference(source.uri, Kind.SET)
                found += [parsed] if parsed.version is not None else []
    return found


def ingests_of(location: Location, set_name: str, number: int) -> list[str]:
    """Ids of the finished ingests that say that their samples came in with a version, oldest first."""
    found = []
    for ingest_id in location.names(layout.ingest_folder(set_name)):
        path = f"{layout.ingest_folder(set_name, ingest_id)}/{OUTCOME_FILE}"
        try:
            outcome = IngestOutcome.from_json_bytes(location.read_bytes(path), location.url_of(path))
        except (NotFoundError, FormatError):
            continue
        if outcome.version == number:
            found.append(ingest_id)
    return sorted(found)


def _segments_from(location: Location, set_name: str, written: list[str]) -> Iterator[SegmentRecord]:
    """Records of these segments as they are now, then of others that a compaction made from them."""
    redirects = Redirects(location, set_name)
    redirects.refresh()
    stand_ins = {record.segment_id: record.replacement for record in redirects.records}
    for segment_id in written:
        at, seen = segment_id, {segment_id}
        while (following := stand_ins.get(at)) is not None and following not in seen:
            seen.add(following)
            at = following
        if (record := _read_segment(location, set_name, at)) is not None:
            yield record
    for segment_id in location.names(layout.segment_folder(set_name)) if written else ():
        record = _read_segment(location, set_name, segment_id)
        if record is not None and not set(record.replaces).isdisjoint(written):
            yield record


def _read_segment(location: Location, set_name: str, segment_id: str) -> SegmentRecord | None:
    path = f"{layout.segment_folder(set_name, segment_id)}/{SEGMENT_FILE}"
    try:
        return SegmentRecord.from_json_bytes(location.read_bytes(path), location.url_of(path))
    except (NotFoundError, FormatError):
        return None
