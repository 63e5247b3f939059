"""References: how users name a version of a set, profile or selection.

``pool`` is the latest version, ``pool@3`` a version, ``math@prod`` an alias; ``set:pool@3`` says the kind
where kinds can be confused. Names match ``[a-z0-9][a-z0-9._-]{0,63}``; an alias is never numeric nor ``latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nait_store.errors import InvalidInputError

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}\Z")


class Kind(StrEnum):
    """What a reference points at."""

    SET = "set"
    PROFILE = "profile"
    SELECTION = "selection"


COMMANDS = {Kind.SET: "sets", Kind.PROFILE: "profile", Kind.SELECTION: "selection"}
"""Group of commands that changes the versions of each kind: ``nait-store sets undelete``."""


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of ``version`` and ``alias`` is set, neither means the latest version.

    Attributes
    ----------
    kind
        What it points at.
    name
        Valid name of the set, profile or selection.
    version
        Version number, from 1.
    alias
        Movable name on a version.
    """

    kind: Kind
    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        suffix = self.version if self.version is not None else self.alias
        return self.name if suffix is None else f"{self.name}@{suffix}"

    @property
    def qualified(self) -> str:
        """The reference with its kind, ``profile:math@2``."""
        return f"{self.kind}:{self}"


def check_name(name: str, kind: Kind | str) -> str:
    """Return ``name`` if it is a valid name.

    Parameters
    ----------
    name
        What the user wrote.
    kind
        What it names, for the message.

    Raises
    ------
    InvalidInputError
        The name is empty, too long, or has characters outside ``a-z 0-9 . _ -``.
    """
    if _NAME.match(name):
        return name
    shown = name if len(name) <= 80 else name[:77] + "…"
    raise InvalidInputError(
        f"{shown!r} is not a valid {kind} name",
        next_step="use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, e.g. 'alpaca-52k'",
    )


def parse_reference(text: str, kind: Kind) -> Reference:
    """Parse ``name``, ``name@3``, ``name@alias``, each optionally with a ``kind:`` prefix.

    Parameters
    ----------
    text
        What the user wrote.
    kind
        The kind that is expected here.

    Returns
    -------
    Reference
        Checked for form only; whether it exists is for the store to say.

    Raises
    ------
    InvalidInputError
        Bad name, version or alias, or a prefix of another kind.
    """
    body = text
    prefix, colon, rest = text.partition(":")
    if colon and prefix in set(Kind):
        if prefix != kind:
            raise InvalidInputError(
                f"{text!r} names a {prefix} where a {kind} is expected", next_step=f"give a {kind}, e.g. '{kind}:NAME'"
            )
        body = rest
    name, at, suffix = body.partition("@")
    check_name(name, kind)
    if not at or suffix == "latest":
        return Reference(kind, name)
    if _NUMBER.match(suffix):
        return Reference(kind, name, version=int(suffix))
    if _NAME.match(suffix) and not suffix.isdigit():
        return Reference(kind, name, alias=suffix)
    raise InvalidInputError(
        f"{suffix!r} is not a version or alias in {text!r}",
        next_step=f"write '{name}' for the latest version, '{name}@1' for a version, '{name}@prod' for an alias",
    )
