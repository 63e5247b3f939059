"""The table functions of the SQL surface: their names, arguments, and what each argument may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ArgumentKind(StrEnum):
    """What the value of an argument must be."""

    NAME = "text"
    """A reference, a sample id, the name of a feature."""
    NAMES = "text or a list of texts"
    NUMBER = "a whole number, not negative"
    NUMBERS = "a whole number or a list of those, none negative"


@dataclass(frozen=True)
class Argument:
    """One argument of a table function.

    Attributes
    ----------
    name
        As in ``name := value``.
    kind
        What it may be.
    example
        A value in SQL, for messages.
    optional
        Whether it may be left out.
    by_name_only
        Whether it must be written ``name := value``.
    """

    name: str
    kind: ArgumentKind
    example: str
    optional: bool = False
    by_name_only: bool = False

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"{self.name} := {self.example}" if self.by_name_only else self.example


@dataclass(frozen=True)
class TableFunction:
    """One table function.

    Attributes
    ----------
    name
        What follows FROM.
    arguments
        In order; those by name only come last.
    follows_rows
        Whether arguments may depend on rows of the query; elsewhere all must be constants of the statement.
    """

    name: str
    arguments: tuple[Argument, ...]
    follows_rows: bool = False

    @property
    def positional(self) -> tuple[Argument, ...]:
        """Arguments that need no name."""
        return tuple(argument for argument in self.arguments if not argument.by_name_only)

    @property
    def required(self) -> tuple[Argument, ...]:
        """Arguments that must be given."""
        return tuple(argument for argument in self.arguments if not argument.optional)

    @property
    def usage(self) -> str:
        """A call as short as it can be."""
        return f"{self.name}({', '.join(argument.usage for argument in self.required)})"

    def argument(self, name: str) -> Argument | None:
        """The argument of this name."""
        return next((argument for argument in self.arguments if argument.name == name), None)


_SET = Argument("activation_set", ArgumentKind.NAME, "'pool'")
_SETS = Argument("activation_set", ArgumentKind.NAMES, "'pool'")
_PROFILES = Argument("profile", ArgumentKind.NAMES, "'math'")
_SAMPLE = Argument("sample_id", ArgumentKind.NAME, "'s000001'")
_LAYER = Argument("layer", ArgumentKind.NUMBER, "3")
_COUNT = Argument("k", ArgumentKind.NUMBER, "10", optional=True)
_LAYERS = Argument("layers", ArgumentKind.NUMBERS, "[3, 4]", optional=True, by_name_only=True)
_FEATURE = Argument("feature", ArgumentKind.NAME, "'mean'", optional=True, by_name_only=True)
_METRIC = Argument("metric", ArgumentKind.NAME, "'dot'", optional=True, by_name_only=True)

FUNCTIONS: dict[str, TableFunction] = {
    function.name: function
    for function in (
        TableFunction("samples", (_SET,)),
        TableFunction("alignment", (_SETS, _PROFILES, _FEATURE, _METRIC), follows_rows=True),
        TableFunction("alignment_all", (_SETS, _FEATURE, _METRIC)),
        TableFunction("alignment_layers", (_SETS, _PROFILES, _FEATURE, _METRIC)),
        TableFunction("neuron", (_SET, _LAYER, Argument("index", ArgumentKind.NUMBER, "17"), _FEATURE)),
        TableFunction("activation", (_SET, _LAYER, _FEATURE)),
        TableFunction("top_neurons", (_SET, _SAMPLE, _COUNT, _LAYERS, _FEATURE)),
        TableFunction("similar", (_SET, _SAMPLE, _COUNT, _LAYERS, _FEATURE)),
        TableFunction(
            "profile_similarity", (Argument("profiles", ArgumentKind.NAMES, "['math', 'code']", optional=True),)
        ),
    )
}
"""Every table function by name."""
