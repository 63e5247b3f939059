"""The samples that a profile was made from, found again: in the store, or in files."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nait_store.activations.set_version import SetVersion
from nait_store.capture.conversations import Sample, make_sample
from nait_store.capture.field_maps import FieldMap
from nait_store.capture.readers import open_sources, read_records
from nait_store.capture.recalled_samples import RECALLED_COLUMNS, RecalledSamples
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.ingest.requests import GivenSamples
from nait_store.registry.in_domain import ChosenRows, choose_rows, draw, sample_ids_digest
from nait_store.registry.sharing.reference_samples import stored_reference
from nait_store.schemas.record import SourceFile

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile
    from nait_store.schemas.profile import SampleSource
    from nait_store.schemas.sharing import ReferenceSamples as PulledReference
    from nait_store.store.facade import Store

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ReferenceFiles:
    """Where to look for samples that the store does not hold, and how to understand what is found.

    Attributes
    ----------
    sources
        As for an ingest.
    field_map, id_field
        As given to the ingest that first read them.
    """

    sources: tuple[str, ...] = ()
    field_map: FieldMap | None = None
    id_field: str | None = None


@dataclass(frozen=True)
class ReferenceSamples:
    """The samples that a profile's record means, as far as they were found.

    Attributes
    ----------
    source
        What the record says of them.
    version
        The set version that they were chosen from; None where the store does not have it.
    contents
        Sample id → content hash, of those that were found.
    given
        The same as samples, for an ingest.
    found_in
        For the plan of that ingest: ``set:gsm8k@2``, ``profile:math@3`` where they came with it, or files with digests.
    """

    source: SampleSource
    version: SetVersion | None
    contents: Mapping[str, str] = field(repr=False)
    given: GivenSamples = field(repr=False)
    found_in: tuple[SourceFile, ...]

    @property
    def n_missing(self) -> int:
        """How many were not found."""
        return self.source.n_samples - len(self.contents)


def find_in_domain_samples(store: Store, profile: Profile, files: ReferenceFiles) -> ReferenceSamples:
    """Find the samples that a profile was made from: in the store, with a pulled profile, or in files.

    The record has a digest of their ids, by which it is certain that all of them are found. Where some were purged
    from the store's set, the others are still known to be theirs, unless they were a draw. A pulled profile has brought
    the samples along, or hashes of their contents, or neither.

    Parameters
    ----------
    store, profile
        The profile, and where it is.
    files
        Where to look for what the store does not hold.

    Returns
    -------
    ReferenceSamples
        All of them, or those that are left.

    Raises
    ------
    InvalidInputError
        The store does not hold them, and files were not named or do not hold exactly these; or the profile was not
        built from samples.
    NotFoundError
        A file does not exist.
    CorruptChunkError, FormatError
        What was pulled with the profile is damaged.
    """
    source = in_domain_source(profile)
    return _find(store, profile.reference, source, files, stored_reference(store.location, profile))


def in_domain_source(profile: Profile) -> SampleSource:
    """Which samples a profile was built from; InvalidInputError where it was made of something else."""
    source = profile.record.source
    if source is None:
        combined = profile.record.parts is not None
        raise InvalidInputError(
            f"{profile.reference} was made from {profile.record.made_from}, so there are no samples that another model "
            "could be shown",
            next_step="port its parts, and combine their sisters"
            if combined
            else "port the profile that the file is of",
        )
    return source


def find_background_samples(store: Store, profile: Profile, files: ReferenceFiles) -> ReferenceSamples:
    """Find the background's samples of a contrastive profile; otherwise as :func:`find_in_domain_samples`."""
    source = profile.record.background
    if source is None:
        raise InvalidInputError(f"profile {profile.reference} has no background")
    return _find(store, f"the background of {profile.reference}", source, files, None)


def _find(
    store: Store, whose: str, source: SampleSource, files: ReferenceFiles, pulled: PulledReference | None
) -> ReferenceSamples:
    stored = _in_store(store, source)
    if stored is not None and stored[1].sample_ids_sha256 == source.sample_ids_sha256:
        here = _of_rows(source, *stored, files.field_map)
        # ids that users gave may stand for other records in another team's set of the same name
        if pulled is None or sorted(here.contents.values()) == list(pulled.content_sha256):
            return here
    if pulled is not None and pulled.samples:
        return _of_pulled(source, whose, pulled, files.field_map)
    partial = None
    if stored is not None and pulled is None and _are_what_is_left(source, *stored):
        partial = _of_rows(source, *stored, files.field_map)
    found = None
    if files.sources:
        hashes = None if pulled is None else pulled.content_sha256
        found = _in_files(source, whose, files, partial, hashes)
    if found is not None:
        return found
    if partial is not None:
        return partial
    made_from = f"{whose} was made from {source.in_words}"
    if not files.sources:
        brought = ""
        if pulled is not None:
            brought = ": hashes of them came with the profile, by which they are known in a file"
        raise InvalidInputError(
            f"{made_from}, and this store does not hold them{brought}",
            next_step="say where they are: --reference-file FILE",
        )
    only = ", and with no records but those that its condition chose" if source.where else ""
    raise InvalidInputError(
        f"{made_from}, and {', '.join(files.sources)} has other samples, or not all of these",
        next_step=f"give the files that the set was ingested from, with the --map and --id-field of that ingest{only}",
    )


def _are_what_is_left(source: SampleSource, version: SetVersion, chosen: ChosenRows) -> bool:
    """Whether rows that are not all of the samples are the rest of them, and not those of another set of that name."""
    if source.limit is not None:  # nobody knows which came into the draw for those that are gone
        return False
    n_purged = version.manifest.n_samples - version.n_samples
    return 0 < source.n_samples - chosen.n_samples <= n_purged


def _in_store(store: Store, source: SampleSource) -> tuple[SetVersion, ChosenRows] | None:
    """What the record's choice gives now; None where there is no such version, or it chooses nothing."""
    try:
        version = store.sets.open(f"{source.set_name}@{source.version}")
        rows = None
        if source.where is not None:
            from nait_store.query.rows import matching_rows

            rows = matching_rows(store.session, version, source.where)
        return version, choose_rows(version, subset=rows, limit=source.limit, seed=source.seed or 0)
    except (NotFoundError, InvalidInputError):
        return None


def _of_rows(
    source: SampleSource, version: SetVersion, chosen: ChosenRows, field_map: FieldMap | None
) -> ReferenceSamples:
    contents: dict[str, str] = {}
    for segment, rows in chosen.rows:
        table = segment.samples(["sample_id", "content_hash"]).take(rows)
        ids, hashes = (table.column(name).to_pylist() for name in ("sample_id", "content_hash"))
        contents.update(zip(ids, hashes, strict=True))
    return ReferenceSamples(
        source,
        version,
        contents,
        GivenSamples(len(contents), functools.partial(_recall, chosen, field_map)),
        (SourceFile(uri=f"set:{version.reference}"),),
    )


def _recall(chosen: ChosenRows, field_map: FieldMap | None) -> Iterator[Sample]:
    recalled = RecalledSamples(field_map)
    for segment, rows in chosen.rows:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = segment.samples(list(RECALLED_COLUMNS)).take(rows[start : start + _ROWS_AT_ONCE])
            for row in part.to_pylist():
                yield recalled.recall(row)


def _of_pulled(
    source: SampleSource, whose: str, pulled: PulledReference, field_map: FieldMap | None
) -> ReferenceSamples:
    """The samples that a profile has brought along; what they are was checked when they arrived."""
    uri = f"profile:{whose}"

    def read() -> Iterator[Sample]:
        recalled = RecalledSamples(field_map)
        for place, one in enumerate(pulled.samples):
            yield recalled.recall(
                {
                    "sample_id": one.sample_id,
                    "content_hash": one.content_sha256,
                    "source_uri": uri,
                    "source_index": place,
                    "record": one.record,
                }
            )

    contents = {one.sample_id: one.content_sha256 for one in pulled.samples}
    return ReferenceSamples(source, None, contents, GivenSamples(len(contents), read), (SourceFile(uri=uri),))


def _in_files(
    source: SampleSource,
    whose: str,
    files: ReferenceFiles,
    partial: ReferenceSamples | None,
    hashes: Collection[str] | None,
) -> ReferenceSamples | None:
    """The samples that files hold, with what is left in the store; None where nobody can say which they are.

    With hashes of their contents each is known by itself. Without, only all of them together are.
    """
    opened = tuple(open_sources(files.sources))
    samples: dict[str, Sample] = {}
    for file in opened:
        for record in read_records(file.uri):
            sample = make_sample(record, field_map=files.field_map, id_field=files.id_field)
            samples.setdefault(sample.sample_id, sample)
    if partial is not None:
        samples |= {sample.sample_id: sample for sample in partial.given.read()}
    if hashes is not None:
        chosen = _with_contents(samples, frozenset(hashes))
    else:
        chosen = set(samples) if source.limit is None else draw(samples, source.limit, source.seed or 0)
    exact = sample_ids_digest(chosen) == source.sample_ids_sha256
    if not exact and (hashes is None or not chosen):
        return None
    if not exact and len(chosen) >= source.n_samples:
        raise InvalidInputError(
            f"{', '.join(files.sources)} has the {source.n_samples:,} records that {whose} was made from, under other "
            "sample ids",
            next_step="give the --id-field of the ingest that first read them, or leave it out as that did",
        )
    found = [sample for sample_id, sample in samples.items() if sample_id in chosen]
    return ReferenceSamples(
        source,
        None,
        {sample.sample_id: sample.content_hash for sample in found},
        GivenSamples(len(found), lambda: iter(found)),
        opened,
    )


def _with_contents(samples: Mapping[str, Sample], hashes: Collection[str]) -> set[str]:
    """Ids of the samples whose content is one of these; of several with the same content the first one's."""
    by_content: dict[str, str] = {}
    for sample_id, sample in samples.items():
        if sample.content_hash in hashes:
            by_content.setdefault(sample.content_hash, sample_id)
    return set(by_content.values())
