"""Tables that make their rows while DuckDB scans them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from nait_store.query.lazy_table import FirstError, LazyTable

SCHEMA = pa.schema([("number", pa.int64()), ("name", pa.string())])


class Numbers:
    """Counts how many batches of ten numbers it was asked for."""

    def __init__(self, n_batches: int = 100, breaks_at: int | None = None) -> None:
        self.n_made = 0
        self.n_closed = 0
        self._n_batches = n_batches
        self._breaks_at = breaks_at

    def __call__(self, names: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        try:
            for i in range(self._n_batches):
                if i == self._breaks_at:
                    raise OSError("a broken disk")
                self.n_made += 1
                numbers = list(range(10 * i, 10 * i + 10))
                columns = {"number": pa.array(numbers), "name": pa.array([str(number) for number in numbers])}
                yield pa.RecordBatch.from_arrays([columns[name] for name in names], names=list(names))
        finally:
            self.n_closed += 1


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


def test_rows_that_do_not_meet_a_condition_are_left_out(connection: duckdb.DuckDBPyConnection) -> None:
    connection.register("numbers", LazyTable(SCHEMA, Numbers(), FirstError()))
    rows = connection.sql("SELECT name FROM numbers WHERE number IN (7, 995, 2000)").fetchall()
    assert rows == [("7",), ("995",)]


def test_no_more_rows_are_made_than_a_limit_needs(connection: duckdb.DuckDBPyConnection) -> None:
    numbers = Numbers()
    connection.register("numbers", LazyTable(SCHEMA, numbers, FirstError()))
    assert len(connection.sql("FROM numbers LIMIT 3").fetchall()) == 3
    assert numbers.n_made < 20
    connection.sql("SELECT 1").fetchall()
    assert numbers.n_closed == 1


def test_having_enough_rows_is_no_error(connection: duckdb.DuckDBPyConnection) -> None:
    first_error = FirstError()
    connection.register("numbers", LazyTable(SCHEMA, Numbers(), first_error))
    connection.sql("FROM numbers LIMIT 3").fetchall()
    assert first_error.take() is None


def test_an_error_of_one_scan_ends_the_others(connection: duckdb.DuckDBPyConnection) -> None:
    first_error, numbers = FirstError(), Numbers()
    connection.register("broken", LazyTable(SCHEMA, Numbers(breaks_at=3), first_error))
    connection.register("numbers", LazyTable(SCHEMA, numbers, first_error))
    for table in ("broken", "numbers"):
        with pytest.raises((duckdb.Error, RuntimeError), match="a broken disk"):
            connection.sql(f"SELECT sum(number) FROM {table}").fetchall()
    assert numbers.n_made == 1
    assert isinstance(first_error.take(), OSError)
    assert connection.sql("SELECT count(*) FROM numbers").fetchall() == [(1000,)]
