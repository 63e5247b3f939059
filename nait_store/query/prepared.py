"""A statement between being parsed and being run: every name in it means something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nait_store.query.composition import Composition, compose
from nait_store.query.names import StatementNames
from nait_store.query.sources import Source
from nait_store.query.statement import Statement, parameters_in


@dataclass(frozen=True)
class PreparedStatement:
    """A statement whose names are all resolved.

    Attributes
    ----------
    statement
        As parsed.
    names
        What its references mean.
    sources
        What stands for each call of a table function.
    parameters
        Values of all.
    remaining
        Values of those that still occur once the calls are replaced.
    problems
        What the metadata views that it reads leave out.
    """

    statement: Statement
    names: StatementNames
    sources: tuple[Source, ...]
    parameters: dict[str, Any]
    remaining: dict[str, Any]
    problems: tuple[str, ...]

    @cached_property
    def composition(self) -> Composition:
        """The statement with its calls replaced by what stands for them."""
        return compose(self.statement, self.sources)

    @property
    def columns(self) -> list[str]:
        """Columns of the statement's calls, to suggest near ones."""
        return list(dict.fromkeys(name for source in self.sources for name in source.columns))


def remaining_parameters(statement: Statement, sources: Sequence[Source], parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters that still occur once the calls with constant arguments are replaced."""
    used = parameters_in([node for s in sources if s.is_constant for node in s.call.arguments.values()])
    return {name: value for name, value in parameters.items() if statement.parameters.get(name, 0) > used[name]}
