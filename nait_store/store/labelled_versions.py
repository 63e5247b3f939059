"""Aliases, tags and notes of versions, for queries of ours over the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nait_store.refs import Kind


def with_labels(kind: Kind) -> str:
    """Begin a query: ``labelled`` (name, version, aliases, tags) and ``noted`` (name, version, note) of one kind."""
    return f"""
WITH labels AS (
    SELECT name, version, 'alias' AS kind, alias AS label FROM aliases WHERE kind = '{kind.value}'
    UNION ALL SELECT name, version, 'tag', tag FROM tags WHERE kind = '{kind.value}'
),
labelled AS (
    SELECT name, version, list(label ORDER BY label) FILTER (kind = 'alias') AS aliases,
        list(label ORDER BY label) FILTER (kind = 'tag') AS tags
    FROM labels GROUP BY ALL
),
noted AS (SELECT name, version, note FROM notes WHERE kind = '{kind.value}')
"""


def written_at(microseconds: int) -> datetime:
    """The time that ``epoch_us`` gives: as a number, which needs no time zones of DuckDB's."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
