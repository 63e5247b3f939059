"""Samples made again from what a store keeps of them: record, id and content hash."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nait_store.capture.conversations import Sample, make_sample
from nait_store.capture.field_maps import FieldMap, find_field_map
from nait_store.capture.source_records import SourceRecord
from nait_store.errors import InvalidInputError, NaitStoreError

RECALLED_COLUMNS = ("sample_id", "content_hash", "source_uri", "source_index", "record")
"""Of ``samples.parquet``; what :meth:`RecalledSamples.recall` takes."""


class RecalledSamples:
    """Makes samples of stored rows. What ``--map`` renamed when they were ingested is found from the content hash.

    Parameters
    ----------
    field_map
        As given to the ingest; only needed where it named more than three fields.
    """

    def __init__(self, field_map: FieldMap | None = None) -> None:
        self._maps: list[FieldMap | None] = [None] if field_map is None else [field_map, None]

    def recall(self, row: Mapping[str, Any]) -> Sample:
        """Make one sample; it has the id and the content hash of the row.

        Parameters
        ----------
        row
            Values of :data:`RECALLED_COLUMNS`.

        Raises
        ------
        InvalidInputError
            No map gives the stored content hash.
        """
        record_json = str(row["record"])
        source = SourceRecord(
            json.loads(record_json), str(row["source_uri"]), int(row["source_index"]), record_json=record_json
        )
        for sample in self._attempts(source, str(row["content_hash"])):
            if sample.content_hash == row["content_hash"]:
                return dataclasses.replace(sample, sample_id=str(row["sample_id"]))
        raise InvalidInputError(
            f"sample {row['sample_id']!r} ({source.where}): the fields of its record had other names when it was "
            "ingested, and which ones does not show",
            next_step="give the --map of that ingest",
        )

    def _attempts(self, source: SourceRecord, content_hash: str) -> Iterator[Sample]:
        for known in self._maps:
            try:
                yield make_sample(source, field_map=known)
            except NaitStoreError:  # a map of other records
                continue
        found = find_field_map(source.record, content_hash)
        if found is not None:
            self._maps.insert(0, found)  # most likely that of the next one too
            yield make_sample(source, field_map=found)
