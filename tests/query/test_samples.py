"""``samples(set)``: the user's fields as columns, whatever they are called and however segments differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nait_store.schemas.activation_set import ROW_BITS
from nait_store.storage.location import Location
from nait_store.testing.stores import build_set

Workbench = Any  # of conftest.py, which importlib mode cannot import
FIXED = ["n_tokens", "n_content_tokens", "truncated", "content_hash", "source_uri", "source_index", "row_id", "record"]


def types(bench: Workbench, reference: str = "pool") -> dict[str, str]:
    return {row[0]: row[1] for row in bench.rows(f"DESCRIBE FROM samples('{reference}')")}


def test_columns_are_the_id_the_users_fields_in_their_order_and_the_fixed_ones(empty: Workbench) -> None:
    empty.append("pool", [{"zebra": "z", "apple": 1}])
    empty.append("pool", [{"apple": 2, "more": True}], ["x"])
    assert empty.sql("FROM samples('pool')").columns == ["sample_id", "zebra", "apple", "more", *FIXED]


def test_fields_that_a_segment_lacks_are_null(empty: Workbench) -> None:
    empty.append("pool", [{"a": "x"}], ["1"])
    empty.append("pool", [{"b": 2}], ["2"])
    assert empty.rows("SELECT sample_id, a, b FROM samples('pool') ORDER BY 1") == [("1", "x", None), ("2", None, 2)]


def test_types_are_promoted_across_segments(empty: Workbench) -> None:
    empty.append("pool", [{"n": 1, "mixed": 5, "flag": True, "deep": {"k": [1]}, "text": "a"}], ["1"])
    empty.append("pool", [{"n": 2.5, "mixed": True, "flag": False, "deep": "flat", "text": "b"}], ["2"])

    found = types(empty)

    assert {name: found[name] for name in ("n", "mixed", "flag", "deep", "text")} == {
        "n": "DOUBLE",
        "mixed": "VARCHAR",
        "flag": "BOOLEAN",
        "deep": "VARCHAR",
        "text": "VARCHAR",
    }
    assert empty.rows("SELECT n, mixed, flag, deep FROM samples('pool') ORDER BY sample_id") == [
        (1.0, "5", True, '{"k": [1]}'),
        (2.5, "true", False, "flat"),
    ]
    assert types(empty, "pool@1")["n"] == "BIGINT"


HOSTILE = [
    "select",
    "with space",
    'quo"te',
    "apo'strophe",
    "semi;colon -- comment",
    "p.sample_id",
    "été 名前 🙂",
    "new\nline",
    "(paren",
    "$1",
    "?",
    "user.x",
    "0",
    "%s {x}",
    "back\\slash",
]


def test_hostile_field_names_are_columns_like_any_other(empty: Workbench) -> None:
    empty.append("pool", [{name: f"value of {name}" for name in HOSTILE}], ["1"])
    empty.profile("math", "pool")

    assert empty.sql("FROM samples('pool')").columns == ["sample_id", *HOSTILE, *FIXED]
    for name in HOSTILE:
        quoted = '"' + name.replace('"', '""') + '"'
        query = (
            f"SELECT s.{quoted} FROM samples('pool') s JOIN alignment('pool','math') a USING (sample_id) "
            f"WHERE s.{quoted} = $v"
        )
        assert empty.rows(query, {"v": f"value of {name}"}) == [(f"value of {name}",)]


def test_fields_that_clash_with_a_column_are_renamed(empty: Workbench) -> None:
    empty.append("pool", [{"record": "r", "Score": 1, "sample_id": "own", "user_record": "u", "row_id": 9}], ["1"])
    row = empty.sql("FROM samples('pool')").arrow().to_pylist()[0]
    assert row["sample_id"] == "1"
    assert row["user_sample_id"] == "own"
    assert row["user_Score"] == 1
    assert row["user_row_id"] == 9
    assert {row["user_record"], row["user_record_2"]} == {"r", "u"}


def test_fields_that_differ_in_case_only_are_all_there(empty: Workbench) -> None:
    empty.append("pool", [{"text": "lower", "Text": "title", "TEXT": "upper", "other": "o"}], ["1"])
    empty.append("pool", [{"TEXT": "upper 2", "text": "lower 2"}], ["2"])
    empty.append("pool", [{"text": "lower 3"}], ["3"])
    rows = empty.rows("SELECT sample_id, text, Text_2, TEXT_3, other FROM samples('pool') ORDER BY 1")
    assert rows == [
        ("1", "lower", "title", "upper", "o"),
        ("2", "lower 2", None, "upper 2", None),
        ("3", "lower 3", None, None, None),
    ]


def test_row_ids_say_segment_and_row(empty: Workbench) -> None:
    for i in range(3):
        empty.append("pool", [{"a": i}, {"a": i}, {"b": i}], [f"{i}-{row}" for row in range(3)])
    found = dict(empty.rows("SELECT sample_id, row_id FROM samples('pool')"))
    assert found == {f"{i}-{row}": (i << ROW_BITS) | row for i in range(3) for row in range(3)}


def test_the_record_is_the_users_own(empty: Workbench) -> None:
    empty.append("pool", [{"text": "a", "nested": {"k": [1, 2]}}], ["1"])
    assert empty.rows("SELECT record->>'$.nested.k[1]' FROM samples('pool')") == [("2",)]


def test_many_hidden_rows_are_left_out(empty: Workbench) -> None:
    n = 1200
    ids = [f"s{i:05d}" for i in range(n)]
    empty.append("pool", [{"text": i} for i in ids], ids)
    empty.append("pool", [{"text": i} for i in [*ids[100:], "new"]], [*ids[100:], "new"], seed=2)
    assert empty.rows("SELECT count(*), count(DISTINCT sample_id) FROM samples('pool')") == [(n + 1, n + 1)]


@pytest.mark.parametrize(
    "folder", ["a[b]c", "star*", "what?", "it's", 'dou"ble', "key=value", "sp ace", "ünï", "a{b,c}"]
)
def test_any_folder_name_will_do(folder: str, tmp_path: Path, bench: Workbench) -> None:
    location = Location(str(tmp_path / folder / "store"))
    build_set(location, "pool", 5, n_segments=2)
    other = type(bench)(location)
    other.profile("math", "pool")
    query = "SELECT instruction FROM alignment('pool','math') JOIN samples('pool') USING (sample_id)"
    assert other.sql(query + " ORDER BY score LIMIT 3").n_rows == 3
    assert other.rows("SELECT count(*) FROM samples('pool')") == [(5,)]
    assert "key" not in types(other)
    other.session.close()
