"""What dead ingests flushed: found, checked, and handed to the ingest that goes on."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from ulid import ULID

from nait_store.activations.reader import SegmentReader, read_segment_record
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.capture.readers import open_sources
from nait_store.errors import FormatError, NaitStoreError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE, PLAN_FILE, write_outcome
from nait_store.schemas.activation_set import FlushRecord, IngestPlan, SegmentRecord, SegmentRef
from nait_store.schemas.capture import Feature
from nait_store.schemas.record import SourceFile
from nait_store.storage import layout
from nait_store.storage.heartbeat import is_alive

_CLOCK_SKEW = timedelta(days=1)  # hosts that write to one store agree on the time at least this well


@dataclass(frozen=True)
class AbandonedIngest:
    """A dead ingest that flushed segments and committed none.

    Attributes
    ----------
    ingest_id
        Its ULID.
    segments
        The flushed segments that can be taken over; where one was replaced since, its replacement.
    n_samples
        Rows of these that are not blank.
    complete
        Whether these are all that it flushed and that is in no version.
    sources
        Its input.
    """

    ingest_id: str
    segments: tuple[SegmentRecord, ...]
    n_samples: int
    complete: bool
    sources: tuple[SourceFile, ...]


def find_abandoned(
    sets: ActivationSets, set_name: str, *, features: Sequence[Feature], layers: Sequence[int], capture_id: str
) -> tuple[list[AbandonedIngest], list[str]]:
    """Find the dead ingests of a set and what they flushed.

    An ingest that died between its commit and its outcome is not among them, for samples that were deleted since
    would come back: it is given the outcome that it lacks.

    Parameters
    ----------
    sets, set_name
        Where to look.
    features, layers
        Segments that lack some of these are left where they are.
    capture_id
        Segments of another identity are too.

    Returns
    -------
    abandoned, warnings
        Oldest first; and what could not be read, or is left to others, in words.
    """
    warnings: list[str] = []
    dead: dict[str, list[str]] = {}
    for ingest_id, flushed in _unfinished(sets, set_name).items():
        if is_alive(sets.location, layout.ingest_folder(set_name, ingest_id)):
            warnings.append(
                f"another ingest into set {set_name!r} is running, or died less than a minute ago: what it has "
                "captured is left to it, and samples that both capture are kept once"
            )
        else:
            dead[ingest_id] = flushed
    committed = _Committed.since(sets, set_name, dead)
    redirects = sets.redirects(set_name)
    abandoned: list[AbandonedIngest] = []
    for ingest_id, flushed in dead.items():
        if ingest_id in committed.ingests:
            write_outcome(sets.location, set_name, ingest_id, committed.ingests[ingest_id])
            continue
        segments: list[SegmentRecord] = []
        n_samples = 0
        complete = True
        for path in flushed:
            try:
                flush = FlushRecord.from_json_bytes(sets.location.read_bytes(path), sets.location.url_of(path))
                if flush.segment_id in committed.segments:
                    continue
                record = read_segment_record(sets.location, set_name, redirects.follow(_as_ref(flush)))
            except (FormatError, NotFoundError) as error:
                warnings.append(f"a segment that an interrupted ingest flushed cannot be used: {error.what}")
                complete = False
                continue
            covers = set(features) <= set(record.features) and set(layers) <= set(record.layers)
            if covers and record.capture_id == capture_id:
                segments.append(record)
                blank = redirects.blank_rows(flush.segment_id)
                n_samples += record.n_rows - (0 if blank is None else len(blank))
            else:
                complete = False
        if segments:
            plan = _plan(sets, set_name, ingest_id)
            sources = plan.sources if plan is not None else ()
            abandoned.append(AbandonedIngest(ingest_id, tuple(segments), n_samples, complete, sources))
    return abandoned, list(dict.fromkeys(warnings))


def usable_keys(sets: ActivationSets, set_name: str, reader: SegmentReader) -> SegmentKeys:
    """Keys of the samples of a segment that is in no version yet, without its blank rows."""
    keys = sets.keys(reader)
    blank = sets.redirects(set_name).blank_rows(reader.segment_id)
    if blank is None or not len(blank):
        return keys
    usable = np.ones(reader.n_rows, dtype=bool)
    usable[blank] = False
    return keys.only(usable)


def still_abandoned(sets: ActivationSets, set_name: str, ingests: Sequence[AbandonedIngest]) -> list[AbandonedIngest]:
    """Leave out those that another ingest has committed meanwhile."""

    def outcome(ingest: AbandonedIngest) -> str:
        return f"{layout.ingest_folder(set_name, ingest.ingest_id)}/{OUTCOME_FILE}"

    return [ingest for ingest in ingests if not sets.location.exists(outcome(ingest))]


def commit_abandoned(
    sets: ActivationSets,
    set_name: str,
    ingests: Sequence[AbandonedIngest],
    *,
    segments: Sequence[SegmentRecord] = (),
    ingest_ids: Sequence[str] = (),
    message: str = "",
) -> SetVersion:
    """Commit what dead ingests flushed, with an ingest's own segments, and write the outcomes of the dead.

    Parameters
    ----------
    sets, set_name
        Where.
    ingests
        From :func:`find_abandoned`. Their samples give way where the set holds other content under the same id.
    segments, ingest_ids
        Further segments, and who wrote them.
    message
        For the history.

    Returns
    -------
    SetVersion
        The version that holds everything.
    """
    adopted = [record for ingest in ingests for record in ingest.segments]
    version = sets.commit(
        set_name,
        [*adopted, *segments],
        # the id of one that is not complete would keep the rest of it from ever being adopted
        ingest_ids=[*(ingest.ingest_id for ingest in ingests if ingest.complete), *ingest_ids],
        message=message,
        yielding=frozenset(record.segment_id for record in adopted),
    )
    for ingest in ingests:
        if ingest.complete:
            write_outcome(sets.location, set_name, ingest.ingest_id, version.number)
    return version


def find_sources(sets: ActivationSets, set_name: str, named: Sequence[str]) -> list[SourceFile]:
    """Find the input of an ingest. Where it is gone, what dead ingests had captured from it is committed.

    Raises
    ------
    NotFoundError, InvalidInputError
        As :func:`nait_store.capture.readers.open_sources`; says where the captured samples are.
    """
    try:
        return open_sources(named)
    except NotFoundError as error:
        record = sets.record(set_name)
        if record is None:
            raise
        current = sets.open(set_name) if sets.numbers(set_name) else None
        found, _ = find_abandoned(
            sets,
            set_name,
            features=current.features if current else (),
            layers=current.layers if current else (),
            capture_id=record.capture_id,
        )
        found = [ingest for ingest in found if any(_is_named(source, named) for source in ingest.sources)]
        if not found:
            raise
        sets.location.require_writable()
        version = commit_abandoned(sets, set_name, found, message="kept from an interrupted ingest")
        n_samples = sum(ingest.n_samples for ingest in found)
        raise NotFoundError(
            f"{error.what}; the {n_samples:,} samples that an interrupted ingest had captured from it are in "
            f"{version.reference}",
            next_step="put it back and run the same command again to go on, or leave the set as it is",
        ) from error


def changed_sources(ingests: Sequence[AbandonedIngest], sources: Sequence[SourceFile]) -> list[str]:
    """Warn of input that is not what it was when dead ingests read it."""
    now = {source.uri: source for source in sources}
    warnings = []
    for ingest in ingests:
        for source in ingest.sources:
            other = now.get(source.uri)
            if other is not None and (other.sha256, other.size_bytes) != (source.sha256, source.size_bytes):
                warnings.append(
                    f"{source.uri} has changed since an interrupted ingest captured {ingest.n_samples:,} samples: "
                    "they are kept as they were, and those that are new in it are captured now"
                )
    return list(dict.fromkeys(warnings))


@dataclass(frozen=True)
class _Committed:
    """Which ingests and segments versions have named since some moment."""

    ingests: dict[str, int]
    segments: set[str]

    @classmethod
    def since(cls, sets: ActivationSets, set_name: str, ingest_ids: Collection[str]) -> _Committed:
        """Read the versions, hidden ones too, that can have come after the oldest of some ingests."""
        ingests: dict[str, int] = {}
        segments: set[str] = set()
        if not ingest_ids:
            return cls(ingests, segments)
        oldest = min(ULID.from_str(ingest_id).datetime for ingest_id in ingest_ids) - _CLOCK_SKEW
        for number in reversed(sets.log.listing(set_name).documents):
            try:
                manifest = sets.log.read(set_name, number)
            except NotFoundError:  # gc took it meanwhile
                continue
            ingests.update((ingest_id, number) for ingest_id in manifest.ingest_ids)
            segments.update(ref.segment_id for ref in manifest.segments)
            if manifest.provenance.created_at < oldest:
                break
        return cls(ingests, segments)


def _unfinished(sets: ActivationSets, set_name: str) -> dict[str, list[str]]:
    """Paths of the flush records of every ingest without an outcome that has some."""
    folder = layout.ingest_folder(set_name)
    flushed: dict[str, list[str]] = {}
    over: set[str] = set()
    for path, _ in sets.location.walk(folder):
        ingest_id, _, name = path.removeprefix(f"{folder}/").partition("/")
        if name == OUTCOME_FILE:
            over.add(ingest_id)
        elif name.startswith(f"{FLUSHED_FOLDER}/"):
            flushed.setdefault(ingest_id, []).append(path)
    return {ingest_id: paths for ingest_id, paths in sorted(flushed.items()) if ingest_id not in over}


def _plan(sets: ActivationSets, set_name: str, ingest_id: str) -> IngestPlan | None:
    path = f"{layout.ingest_folder(set_name, ingest_id)}/{PLAN_FILE}"
    try:
        return IngestPlan.from_json_bytes(sets.location.read_bytes(path), sets.location.url_of(path))
    except NaitStoreError:
        return None  # it says what the segments say better


def _as_ref(flush: FlushRecord) -> SegmentRef:
    return SegmentRef(segment_id=flush.segment_id, ordinal=0, n_rows=flush.n_rows, record_sha256=flush.record_sha256)


def _is_named(source: SourceFile, named: Sequence[str]) -> bool:
    return any(source.uri == name or fnmatch.fnmatchcase(source.uri, name) for name in named)
