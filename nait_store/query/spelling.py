"""Names and texts as SQL spells them, whatever characters they hold."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Spell a name in double quotes, with those inside it doubled."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Spell a text in single quotes, with those inside it doubled."""
    return "'" + text.replace("'", "''") + "'"


def without_wildcards(path: str) -> str:
    """Spell a path so that DuckDB takes no character of it for a wildcard."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
