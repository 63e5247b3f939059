"""What samples say: the texts of their records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nait_store.activations.versions import SetVersion
from nait_store.capture.field_maps import FieldMap, find_field_map
from nait_store.capture.record_layouts import find_turns
from nait_store.errors import FormatError, InvalidInputError
from nait_store.query.spelling import literal
from nait_store.selection.ranked_records import StoredRecords
from nait_store.storage.location import Location

if TYPE_CHECKING:
    from nait_store.query.session import QuerySession

_SYSTEM = "system"
_BETWEEN = "\x1e"
_HERE = "its record"


class SampleTexts:
    """Texts of the samples of a set version.

    A sample's text is what its turns say, one after the other. System prompts are left out: many samples have theirs in
    common and are no duplicates for it.

    Parameters
    ----------
    location
        The store's root.
    session
        Tells which field of the records stands for which canonical one, by the content hash of one of each source.
    version
        The set version.
    """

    def __init__(self, location: Location, session: QuerySession, version: SetVersion) -> None:
        self._location = location
        self._version = version
        self._maps = _field_maps(session, version)

    def of(self, sample_ids: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
        """Texts of some samples with their places among the ids, in the order of storage.

        Raises
        ------
        InvalidInputError
            A record in which no text is to be found.
        FormatError
            Samples that are not there.
        """
        n_found = 0
        for places, records in StoredRecords(self._location, self._version, sample_ids.combine_chunks()):
            n_found += len(places)
            for place, record in zip(places.tolist(), records.to_pylist(), strict=True):
                try:
                    text = self._text(json.loads(record))
                except InvalidInputError as error:
                    raise InvalidInputError(
                        f"sample {sample_ids[place].as_py()!r} of {self._version.reference} has no text to compare: "
                        f"{error.what}",
                        next_step="leave such samples out with --where, or compare with --drop-duplicates cosine",
                    ) from error
                yield place, text
        if n_found < len(sample_ids):
            raise FormatError(
                f"{len(sample_ids) - n_found:,} ranked samples are not in {self._version.reference}",
                next_step="run 'nait-store verify'",
            )

    def _text(self, record: Mapping[str, Any]) -> str:
        for known in self._maps:
            try:
                turns = find_turns(known.apply(record, _HERE), _HERE, [name for name, _ in known.columns])
            except InvalidInputError:  # the map of other records
                continue
            break
        else:
            turns = find_turns(record, _HERE)
        return _BETWEEN.join([turn.content for turn in turns if turn.role != _SYSTEM])


def _field_maps(session: QuerySession, version: SetVersion) -> list[FieldMap]:
    """The maps that the sources were ingested with, found as :class:`RecalledSamples` does."""
    source = f"samples({literal(version.reference)})"
    first = f"SELECT min(row_id) FROM {source} GROUP BY source_uri"
    found = session.sql(f"SELECT record, content_hash FROM {source} WHERE row_id IN ({first})").fetchall()
    maps: dict[FieldMap, None] = {}
    for text, content_hash in found:
        if hashlib.sha256(text.encode()).hexdigest() != content_hash:
            known = find_field_map(json.loads(text), content_hash)
            if known is not None:
                maps.setdefault(known)
    return sorted(maps, key=lambda one: one.columns)
