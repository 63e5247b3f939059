"""What a process of the sandbox runs queries with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sources import WantedScores


@dataclass(frozen=True, eq=False)
class UntrustedQuery:
    """A query and all that belongs to it.

    Attributes
    ----------
    text
        As its author wrote it.
    parameters
        Values by name.
    tables
        The caller's own tables.
    """

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answer:
    """Rows on their way.

    Attributes
    ----------
    reader
        The rows.
    duckdb_types
        DuckDB's type of each column.
    warnings
        What to know about the rows.
    """

    reader: pa.RecordBatchReader
    duckdb_types: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class PreparedQuery(Protocol):
    """A query that was found harmless and whose names are resolved; nothing of it has run."""

    @property
    def missing(self) -> Sequence[WantedScores]:
        """Scores that somebody who may write the store must compute before it can run."""

    def run(self) -> Answer:
        """Run it, with DuckDB locked down."""


class Runner(Protocol):
    """Runs one query, in a process that ends afterwards."""

    def prepare(self, query: UntrustedQuery, limits: SandboxLimits) -> PreparedQuery:
        """Parse a query, check it against the allow-list and resolve its names.

        Raises
        ------
        ForbiddenError
            It says something that an untrusted query may not.
        NaitStoreError
            It cannot be run as it is.
        """
