"""Files and frames that a query may read because they were handed to it by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest

from nait_store.errors import InvalidInputError, NotFoundError

Workbench = Any  # of conftest.py, which importlib mode cannot import
LABELS = {"sample_id": ["s000001", "s000002"], "label": ["good", "bad"]}
JOINED = "SELECT label FROM mine JOIN samples('pool') USING (sample_id) ORDER BY label"


def write(folder: Path, name: str) -> Path:
    path, table = folder / name, pa.table(LABELS)
    lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path)
    elif name.endswith(".csv"):
        path.write_text("sample_id,label\n" + "".join(f"{i},{x}\n" for i, x in zip(*LABELS.values(), strict=True)))
    elif name.endswith(".tsv"):
        path.write_text("sample_id\tlabel\n" + "".join(f"{i}\t{x}\n" for i, x in zip(*LABELS.values(), strict=True)))
    elif name.endswith(".json"):
        path.write_text(json.dumps(table.to_pylist()))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".arrow"):
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize(
    "name", ["l.parquet", "l.csv", "l.tsv", "l.json", "l.jsonl", "l.jsonl.gz", "l.arrow", "it's [1]*.csv", "L.CSV"]
)
def test_files_are_read_by_their_ending(shared: Workbench, tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name.lower())
    path = path.rename(tmp_path / name)
    assert shared.rows(JOINED, tables={"mine": path}) == [("bad",), ("good",)]
    assert shared.rows(JOINED, tables={"mine": str(path)}) == [("bad",), ("good",)]


def test_a_glob_names_several_files(shared: Workbench, tmp_path: Path) -> None:
    write(tmp_path, "a.csv"), write(tmp_path, "b.csv")
    assert shared.rows("SELECT count(*) FROM mine", tables={"mine": tmp_path / "*.csv"}) == [(4,)]


def test_a_remote_file_is_read_through_fsspec(shared: Workbench, tmp_path: Path) -> None:
    with fsspec.open("memory://labels/mine.csv", "wb") as file:
        file.write(write(tmp_path, "l.csv").read_bytes())
    assert shared.rows(JOINED, tables={"mine": "memory://labels/mine.csv"}) == [("bad",), ("good",)]


@pytest.mark.parametrize(
    "value",
    [
        pandas.DataFrame(LABELS),
        polars.DataFrame(LABELS),
        pa.table(LABELS),
        pyarrow.dataset.dataset(pa.table(LABELS)),
        LABELS,
    ],
    ids=["pandas", "polars", "arrow", "dataset", "dict"],
)
def test_frames_are_read_by_name(shared: Workbench, value: Any) -> None:
    assert shared.rows(JOINED, tables={"mine": value}) == [("bad",), ("good",)]


@pytest.mark.parametrize(
    ("name", "path", "error", "message"),
    [
        ("mine", "absent.csv", NotFoundError, "there is no file /.*absent.csv"),
        ("mine", "labels.xlsx", InvalidInputError, "ends in none of"),
        ("mine", "labels", InvalidInputError, "ends in none of"),
        ("mine", "", InvalidInputError, "ends in none of"),
        ("profiles", "l.csv", InvalidInputError, "taken by the store"),
        ("All_Samples", "l.csv", InvalidInputError, "taken by the store"),
        ("alignment", "l.csv", InvalidInputError, "taken by the store"),
        (" ", "l.csv", InvalidInputError, "cannot name a table"),
    ],
)
def test_unusable_files_are_refused(
    shared: Workbench, name: str, path: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        shared.sql("SELECT 1", tables={name: path})


def test_a_file_that_is_not_what_it_says_is_named(shared: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(InvalidInputError, match=r"'mine' cannot be read from .*broken.parquet"):
        shared.sql("FROM mine", tables={"mine": path})


def test_names_that_differ_in_case_only_are_refused(shared: Workbench) -> None:
    with pytest.raises(InvalidInputError, match="same to SQL"):
        shared.sql("FROM mine", tables={"mine": LABELS, "Mine": LABELS})


def test_a_file_is_forgotten_after_the_statement(shared: Workbench, tmp_path: Path) -> None:
    shared.sql("FROM mine", tables={"mine": write(tmp_path, "l.csv")})
    with pytest.raises(NotFoundError, match="no table 'mine'"):
        shared.sql("FROM mine")
