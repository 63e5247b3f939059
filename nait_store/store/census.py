"""Every segment folder of a set, and whether anything refers to it."""

from __future__ import annotations

from dataclasses import dataclass

from nait_store.activations.versions import ActivationSets
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE
from nait_store.schemas.activation_set import FlushRecord, SegmentRef, SetManifest
from nait_store.storage import layout


@dataclass(frozen=True)
class SegmentCensus:
    """The segments of a set.

    Attributes
    ----------
    referenced
        Segments that a version, deleted ones included, or the journal of an unfinished ingest refers to; those that
        others stand for are not among them, the others are. Ordinals are of no meaning here.
    replaced
        Ids of segments that others stand for → SHA-256 of their records, where anything still says so.
    unreferenced
        Ids of segment folders that nothing refers to, whole or not.
    """

    referenced: tuple[SegmentRef, ...]
    replaced: dict[str, str | None]
    unreferenced: tuple[str, ...]


def take_census(sets: ActivationSets, name: str) -> SegmentCensus:
    """Look through the documents of a set.

    Parameters
    ----------
    sets
        The store's sets.
    name
        The set.

    Raises
    ------
    FormatError
        A version document or a flush record is damaged, so that nobody knows what it refers to.
    """
    named = {ref.segment_id: ref for ref in (*_of_versions(sets, name), *_of_ingests(sets, name))}
    redirects = sets.redirects(name)
    referenced = {ref.segment_id: ref for ref in redirects.follow_all(named.values())}
    digests = {segment_id: ref.record_sha256 for segment_id, ref in named.items()}
    digests |= {record.replacement: record.record_sha256 for record in redirects.records}
    replaced = {record.segment_id: digests.get(record.segment_id) for record in redirects.records}
    folders = sets.location.names(layout.segment_folder(name))
    return SegmentCensus(
        referenced=tuple(ref for _, ref in sorted(referenced.items())),
        replaced=replaced,
        unreferenced=tuple(i for i in folders if i not in referenced and i not in replaced),
    )


def _of_versions(sets: ActivationSets, name: str) -> list[SegmentRef]:
    listing = sets.log.listing(name)
    read: dict[int, SetManifest] = {}

    def manifest(number: int) -> SetManifest:
        if number not in read:
            read[number] = sets.log.read(name, number)
        return read[number]

    refs: dict[str, SegmentRef] = {}
    for number in listing.documents:
        if number in listing.collected:
            continue
        document = manifest(number)
        bases = () if document.base is None else manifest(document.base).segments
        refs.update((ref.segment_id, ref) for ref in (*bases, *document.segments))
    return list(refs.values())


def _of_ingests(sets: ActivationSets, name: str) -> list[SegmentRef]:
    location = sets.location
    refs = []
    for ingest_id in location.names(layout.ingest_folder(name)):
        folder = layout.ingest_folder(name, ingest_id)
        if location.exists(f"{folder}/{OUTCOME_FILE}"):
            continue
        for entry in location.names(f"{folder}/{FLUSHED_FOLDER}"):
            path = f"{folder}/{FLUSHED_FOLDER}/{entry}"
            flush = FlushRecord.from_json_bytes(location.read_bytes(path), location.url_of(path))
            refs.append(
                SegmentRef(
                    segment_id=flush.segment_id, ordinal=0, n_rows=flush.n_rows, record_sha256=flush.record_sha256
                )
            )
    return refs
