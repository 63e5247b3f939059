"""Exports: every original field in rank order, then score and rank."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nait_store.errors import FormatError, InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.selection import ranked_records
from nait_store.selection.destination import BytesTarget, Destination
from nait_store.selection.export import ExportFormat, ExportReport, export, format_for
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, build_set, fake_row, fake_set_record


def exported(
    location: Location, version: Any, selection: Any, form: ExportFormat, *, clean: bool = False
) -> tuple[bytes, ExportReport]:
    buffer = io.BytesIO()
    report = export(location, version, selection, BytesTarget(buffer, "out"), format=form, clean=clean)
    return buffer.getvalue(), report


def records(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def test_jsonl_holds_the_records_in_rank_order(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 40, n_segments=3)
    ids = [f"s{i:06d}" for i in random.Random(0).sample(range(40), 17)]
    data, report = exported(location, version, make_selection(version, ids), ExportFormat.JSONL)
    expected = [
        {"instruction": f"do {sample_id}", "output": f"done {sample_id}", "score": 10.0 - i, "rank": i + 1}
        for i, sample_id in enumerate(ids)
    ]
    assert records(data) == expected
    assert (report.n_samples, report.score_field, report.rank_field) == (17, "score", "rank")


def test_fields_keep_the_users_order(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3, user_fields={"alpha": [1, 2, 3]})
    data, _ = exported(location, version, make_selection(version, ["s000001"]), ExportFormat.JSONL)
    assert list(records(data)[0]) == ["instruction", "output", "alpha", "score", "rank"]


def test_clean_leaves_score_and_rank_out(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3)
    data, report = exported(location, version, make_selection(version, ["s000001"]), ExportFormat.JSONL, clean=True)
    assert records(data) == [{"instruction": "do s000001", "output": "done s000001"}]
    assert (report.score_field, report.rank_field) == (None, None)


@pytest.mark.parametrize("form", [ExportFormat.JSONL, ExportFormat.PARQUET])
def test_a_users_own_score_and_rank_are_kept(location: Location, make_selection: Any, form: ExportFormat) -> None:
    version = build_set(location, "pool", 3, user_fields={"score": ["A", "B", "C"], "Rank": [7, 8, 9]})
    data, report = exported(location, version, make_selection(version, ["s000002"]), form)
    rows = records(data) if form is ExportFormat.JSONL else pq.read_table(io.BytesIO(data)).to_pylist()
    assert rows[0]["score"] == "C"
    assert rows[0]["Rank"] == 9
    assert rows[0]["nait_score"] == 10.0
    assert rows[0]["nait_rank"] == 1
    assert (report.score_field, report.rank_field) == ("nait_score", "nait_rank")


def test_a_users_own_nait_score_is_kept_too(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 1, user_fields={"score": [1], "nait_score": [2]})
    data, _ = exported(location, version, make_selection(version, ["s000000"]), ExportFormat.JSONL)
    row = records(data)[0]
    assert (row["score"], row["nait_score"], row["nait_nait_score"]) == (1, 2, 10.0)


def test_without_a_profile_there_is_no_score(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3)
    made = make_selection(version, ["s000001"])
    selection = dataclasses.replace(made, request=dataclasses.replace(made.request, profiles=()))
    data, report = exported(location, version, selection, ExportFormat.JSONL)
    assert list(records(data)[0]) == ["instruction", "output", "rank"]
    assert report.score_field is None


def test_ids(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3)
    data, _ = exported(location, version, make_selection(version, ["s000002", "s000000"]), ExportFormat.IDS)
    assert data == b"s000002\ns000000\n"


def test_hidden_repetitions_are_not_exported(location: Location, make_selection: Any) -> None:
    """Of a sample in two segments, the visible row is exported once, and with its own record."""
    import numpy as np

    from nait_store.activations.versions import ActivationSets
    from nait_store.storage.provenance import new_ulid

    sets = ActivationSets(location)
    sets.create(fake_set_record("pool"))
    rng = np.random.default_rng(0)

    def segment(ids: list[str]) -> Any:
        rows = [fake_row(sample_id) for sample_id in ids]
        array = rng.standard_normal((len(ids), 2, 8), dtype=np.float32)
        return build_segment(location, "pool", rows, {Feature.MEAN: array})

    version = sets.commit("pool", [segment(["a", "b"]), segment(["b", "c"])], ingest_ids=(new_ulid(),))
    assert version.n_samples == 3
    data, _ = exported(location, version, make_selection(version, ["c", "b", "a"]), ExportFormat.JSONL)
    assert [row["instruction"] for row in records(data)] == ["do c", "do b", "do a"]


def test_a_sample_that_is_not_there_is_an_error_and_no_file(
    location: Location, make_selection: Any, tmp_path: Path
) -> None:
    version = build_set(location, "pool", 3)
    target = tmp_path / "top.jsonl"
    with pytest.raises(FormatError, match="1 of the 2 selected samples"):
        export(
            location,
            version,
            make_selection(version, ["s000001", "nobody"]),
            Destination(str(target)),
            format=ExportFormat.JSONL,
        )
    assert not target.exists()


def test_parquet_keeps_types_and_nesting(location: Location, make_selection: Any) -> None:
    messages = [[{"role": "user", "content": f"hi {i}"}] for i in range(4)]
    fields: dict[str, Any] = {
        "messages": messages,
        "n": [1, 2, None, 4],
        "x": [1, 2.5, 3, 4],
        "mixed": [1, "one", [1], None],
        "empty": [{}, {}, {}, {}],
        "nothing": [None] * 4,
        "flag": [True, False, None, True],
    }
    version = build_set(location, "pool", 4, user_fields=fields)
    ids = ["s000003", "s000000", "s000001", "s000002"]
    data, _ = exported(location, version, make_selection(version, ids), ExportFormat.PARQUET)
    table = pq.read_table(io.BytesIO(data))
    order = [3, 0, 1, 2]
    rows = table.to_pylist()
    for name in ("messages", "n", "x", "nothing", "flag"):
        assert [row[name] for row in rows] == [fields[name][i] for i in order]
    assert [None if row["mixed"] is None else json.loads(row["mixed"]) for row in rows] == [None, 1, "one", [1]]
    assert [json.loads(row["empty"]) for row in rows] == [{}] * 4
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("form", list(ExportFormat))
def test_batches_do_not_show(
    location: Location, make_selection: Any, monkeypatch: pytest.MonkeyPatch, form: ExportFormat
) -> None:
    """Whatever the sizes of batches and spool, the bytes are the same."""
    version = build_set(location, "pool", 60, n_segments=2, user_fields={"text": ["é" * i for i in range(60)]})
    ids = [f"s{i:06d}" for i in random.Random(1).sample(range(60), 60)]
    selection = make_selection(version, ids)
    whole, _ = exported(location, version, selection, form)
    monkeypatch.setattr(ranked_records, "_ROWS_PER_BATCH", 7)
    pieces, _ = exported(location, version, selection, form)
    assert pieces == whole


def test_format_is_told_by_the_name() -> None:
    assert format_for("a/b.parquet", None) is ExportFormat.PARQUET
    assert format_for("a/b.ids", None) is ExportFormat.IDS
    assert format_for("a/b.jsonl", None) is ExportFormat.JSONL
    assert format_for("a/b.parquet", "jsonl") is ExportFormat.JSONL
    with pytest.raises(InvalidInputError, match="not an export format"):
        format_for("a", "xml")
