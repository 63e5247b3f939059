from __future__ import annotations

from typing import Any

import pytest

from nait_store.schemas.samples import field_types, samples_schema, sql_column_name
from nait_store.testing.stores import fake_row


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "double"),
        ([True, False], "bool"),
        ([True, 1], "json"),
        (["a", "b"], "string"),
        (["a", 1], "json"),
        ([["x"], None], "json"),
        ([{"a": 1}], "json"),
        ([None, 3], "int64"),
        ([None, None], "string"),
        ([2**63], "json"),
        ([-(2**63)], "int64"),
        ([1, "a", 2.5], "json"),
    ],
)
def test_a_columns_type_holds_all_its_values(values: list[Any], kind: str) -> None:
    rows = [fake_row(str(i), fields={"x": value}) for i, value in enumerate(values)]
    assert field_types(rows) == {"x": kind}


def test_a_field_that_some_rows_lack_is_a_column() -> None:
    rows = [fake_row("a", fields={"x": 1}), fake_row("b", fields={"y": "t"})]
    assert field_types(rows) == {"x": "int64", "y": "string"}


def test_user_fields_cannot_clash_with_ours() -> None:
    schema = samples_schema({"sample_id": "string", "record": "json"})
    assert len(schema.names) == len(set(schema.names))
    assert "user.sample_id" in schema.names


@pytest.mark.parametrize(
    ("field", "column"), [("instruction", "instruction"), ("Record", "user_Record"), ("score", "user_score")]
)
def test_sql_names_do_not_clash_whatever_the_case(field: str, column: str) -> None:
    assert sql_column_name(field) == column
