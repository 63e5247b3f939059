"""Samples made again from stored rows: the content hash says which fields had been renamed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from nait_store.capture.conversations import Sample, make_sample
from nait_store.capture.field_maps import FieldMap, find_field_map
from nait_store.capture.recalled_samples import RecalledSamples
from nait_store.capture.source_records import SourceRecord
from nait_store.errors import InvalidInputError

RECORD = {"frage": "1 + 1", "antwort": "2", "quelle": "book", "instruction": "not this"}


def ingested(record: dict[str, Any], mapping: dict[str, str] | None = None, id_field: str | None = None) -> Sample:
    field_map = FieldMap.of(mapping) if mapping else None
    return make_sample(SourceRecord(record, "maths.jsonl", 7), field_map=field_map, id_field=id_field)


def stored(sample: Sample) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "content_hash": sample.content_hash,
        "source_uri": sample.source_uri,
        "source_index": sample.source_index,
        "record": sample.record_json,
    }


@pytest.mark.parametrize(
    ("mapping", "id_field"),
    [
        (None, None),
        (None, "quelle"),
        ({"text": "frage"}, None),
        ({"instruction": "frage", "output": "antwort"}, "quelle"),
        ({"instruction": "frage", "input": "quelle", "output": "antwort"}, None),
    ],
)
def test_a_sample_comes_back_as_it_was(mapping: dict[str, str] | None, id_field: str | None) -> None:
    record = RECORD if mapping else {"instruction": "1 + 1", "output": "2", "quelle": "book"}
    sample = ingested(record, mapping, id_field)
    assert RecalledSamples().recall(stored(sample)) == sample


def test_samples_of_different_maps_come_back_from_one_set() -> None:
    recalled = RecalledSamples()
    maps = [
        {"instruction": "frage", "output": "antwort"},
        {"text": "frage"},
        {"instruction": "antwort", "output": "frage"},
    ]
    for mapping in [*maps, *maps]:
        sample = ingested(RECORD, mapping)
        assert recalled.recall(stored(sample)).turns == sample.turns


def test_a_map_of_more_fields_is_asked_for() -> None:
    mapping = {"instruction": "frage", "input": "quelle", "output": "antwort", "system": "instruction"}
    row = stored(ingested(RECORD, mapping))
    with pytest.raises(InvalidInputError, match=r"maths\.jsonl, record 7") as caught:
        RecalledSamples().recall(row)
    assert caught.value.next_step == "give the --map of that ingest"
    assert RecalledSamples(FieldMap.of(mapping)).recall(row).content_hash == row["content_hash"]


def test_a_given_map_is_no_harm_where_there_was_none() -> None:
    sample = ingested({"instruction": "1 + 1", "output": "2"})
    assert RecalledSamples(FieldMap.of({"instruction": "frage"})).recall(stored(sample)) == sample


def test_a_record_that_was_tampered_with_is_refused() -> None:
    row = stored(ingested({"instruction": "1 + 1", "output": "2"}))
    row["record"] = json.dumps({"instruction": "1 + 1", "output": "3"}, separators=(",", ":"))
    with pytest.raises(InvalidInputError):
        RecalledSamples().recall(row)


def test_no_map_is_looked_for_among_very_many_fields() -> None:
    record = {f"field{i}": str(i) for i in range(500)}
    hashed = ingested(record, {"text": "field3"}).content_hash
    assert find_field_map(record, hashed) is None


def test_ids_are_kept_whatever_the_field() -> None:
    sample = dataclasses.replace(ingested({"instruction": "a", "output": "b"}), sample_id="chosen elsewhere")
    assert RecalledSamples().recall(stored(sample)).sample_id == "chosen elsewhere"
