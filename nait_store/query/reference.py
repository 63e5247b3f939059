"""The column tables of docs/sql.md, made from the comments of the views.

``python -m nait_store.query.reference docs/sql.md`` rewrites the tables below the ``<!-- columns: VIEW -->`` marks (a
test compares).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import duckdb

from nait_store.catalog.build import definition
from nait_store.catalog.rows import TABLES
from nait_store.query.views import VIEWS, create_views

_MARK = re.compile(r"<!-- columns: (?P<view>[a-z_]+) -->\n(?:\n(?:\|.*\n)+)?")


def column_tables() -> dict[str, str]:
    """View → its columns, types and comments as a Markdown table."""
    with duckdb.connect() as connection:
        connection.execute(definition()).fetchall()
        create_views(connection)
        described = connection.sql(
            "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
        ).fetchall()
        order = {view: connection.table(view).columns for view in (*TABLES, *VIEWS)}
    told = {(view, column): (kind, comment or "") for view, column, kind, comment in described}
    tables = {}
    for view in order:
        lines = ["| column | type | what |", "|---|---|---|"]
        for column in order[view]:
            kind, comment = told[view, column]
            kind = kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
            lines.append(f"| `{column}` | {kind} | {comment.replace('|', chr(92) + '|')} |")
        tables[view] = "\n".join(lines) + "\n"
    return tables


def rewrite(text: str) -> str:
    """Replace the table below every mark of a page.

    Raises
    ------
    ValueError
        A view has no mark, or a mark names no view.
    """
    tables = column_tables()
    marked = [match["view"] for match in _MARK.finditer(text)]
    if sorted(marked) != sorted(tables):
        raise ValueError(f"marks without view or views without mark: {sorted(set(marked) ^ set(tables))}")
    return _MARK.sub(lambda match: f"<!-- columns: {match['view']} -->\n\n{tables[match['view']]}", text)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(rewrite(page.read_text(encoding="utf-8")), encoding="utf-8")
