"""Saved selections in one line each, from the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nait_store.catalog.build import Catalog

_SUMMARIES = """
WITH labels AS (
    SELECT name, version, 'alias' AS kind, alias AS label FROM aliases WHERE kind = 'selection'
    UNION ALL SELECT name, version, 'tag', tag FROM tags WHERE kind = 'selection'
),
labelled AS (
    SELECT name, version, list(label ORDER BY label) FILTER (kind = 'alias') AS aliases,
        list(label ORDER BY label) FILTER (kind = 'tag') AS tags
    FROM labels GROUP BY ALL
),
noted AS (SELECT name, version, note FROM notes WHERE kind = 'selection')
SELECT reference, activation_set AS set_ref, profile AS profile_ref, strategy, top, condition AS where, seed,
    n_candidates, n_selected, message, coalesce(aliases, []) AS aliases, coalesce(tags, []) AS tags,
    coalesce(note, '') AS note, epoch_us(selections.created_at) AS written_us, selections.author
FROM selections LEFT JOIN labelled ON labelled.name = selection AND labelled.version = selections.version
LEFT JOIN noted ON noted.name = selection AND noted.version = selections.version
WHERE is_latest ORDER BY selection
"""


@dataclass(frozen=True)
class SelectionSummary:
    """One line about a version of a saved selection.

    Attributes
    ----------
    reference
        ``best@1``.
    set_ref, profile_ref
        Versions that it was selected from and ranked by, ``math@2, code@1`` where several; none by chance alone.
    strategy, top, where, seed
        As asked for.
    n_candidates, n_selected
        Samples to choose from, and chosen; purged ones are not counted among the chosen.
    message
        Of its author.
    aliases, tags
        On this version.
    note
        What is said about it now; empty for nothing.
    created_at, author
        When it was saved, and by whom.
    """

    reference: str
    set_ref: str
    profile_ref: str | None
    strategy: str
    top: str
    where: str | None
    seed: int | None
    n_candidates: int
    n_selected: int
    message: str
    aliases: tuple[str, ...]
    tags: tuple[str, ...]
    note: str
    created_at: datetime
    author: str


def list_selections(catalog: Catalog) -> list[SelectionSummary]:
    """Describe every saved selection at its latest version, by name."""
    return [_summary(row) for row in catalog.ask(_SUMMARIES)]


def _summary(row: dict[str, Any]) -> SelectionSummary:
    # As a number, which needs no time zones of DuckDB's.
    written = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row.pop("written_us"))
    return SelectionSummary(aliases=tuple(row.pop("aliases")), tags=tuple(row.pop("tags")), created_at=written, **row)
