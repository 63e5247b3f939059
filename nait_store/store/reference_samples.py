"""The samples that a profile was made from, found again: in the store, or in files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
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
from nait_store.schemas.activation_set import SourceFile

if TYPE_CHECKING:
    from nait_store.schemas.profile import SampleSource
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
        For the plan of that ingest: ``set:gsm8k@2``, or files with their digests.
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


def find_samples(store: Store, whose: str, source: SampleSource, files: ReferenceFiles) -> ReferenceSamples:
    """Find the samples that a profile was made from.

    The record has a digest of their ids, by which it is certain that all of them are found. Where some were purged
    from the store's set, the others are still known to be theirs, unless they were a draw.

    Parameters
    ----------
    store
        Where the profile is.
    whose
        The profile, for messages.
    source
        From its record.
    files
        Where to look for what the store does not hold.

    Returns
    -------
    ReferenceSamples
        All of them, or those that are left.

    Raises
    ------
    InvalidInputError
        The store does not hold them, and files were not named or do not hold exactly these.
    NotFoundError
        A file does not exist.
    """
    stored = _in_store(store, source)
    if stored is not None and stored[1].sample_ids_sha256 == source.sample_ids_sha256:
        return _of_rows(source, *stored, files.field_map)
    partial = None
    if stored is not None and _are_what_is_left(source, *stored):
        partial = _of_rows(source, *stored, files.field_map)
    found = _in_files(source, files, partial) if files.sources else None
    if found is not None:
        return found
    if partial is not None:
        return partial
    made_from = f"{whose} was made from {source.in_words}"
    if not files.sources:
        raise InvalidInputError(
            f"{made_from}, and this store does not hold them", next_step="say where they are: --reference-file FILE"
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


def _in_files(source: SampleSource, files: ReferenceFiles, partial: ReferenceSamples | None) -> ReferenceSamples | None:
    """All of the samples, from files and what is left in the store; None where they are not exactly these."""
    opened = tuple(open_sources(files.sources))
    samples: dict[str, Sample] = {}
    for file in opened:
        for record in read_records(file.uri):
            sample = make_sample(record, field_map=files.field_map, id_field=files.id_field)
            samples.setdefault(sample.sample_id, sample)
    if partial is not None:
        samples |= {sample.sample_id: sample for sample in partial.given.read()}
    chosen = set(samples) if source.limit is None else draw(samples, source.limit, source.seed or 0)
    if sample_ids_digest(chosen) != source.sample_ids_sha256:
        return None
    found = [sample for sample_id, sample in samples.items() if sample_id in chosen]
    return ReferenceSamples(
        source,
        None,
        {sample.sample_id: sample.content_hash for sample in found},
        GivenSamples(len(found), lambda: iter(found)),
        opened,
    )
