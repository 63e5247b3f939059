"""The option tables of docs/cli.md, made from the commands themselves.

``python -m nait_store.cli.reference docs/cli.md`` rewrites the tables below the ``<!-- options: COMMAND -->`` marks;
with ``--check`` it only says whether they are current (a test does the same).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from nait_store.cli.app import app

_MARK = re.compile(r"<!-- options: (?P<command>[a-z -]+) -->\n(?:\n(?:\|.*\n)+)?")


def commands() -> dict[str, Any]:
    """Every command by its full name, ``profile build``; the program itself is ``nait-store``."""
    root: Any = typer.main.get_command(app)
    return {"nait-store": root, **dict(_below(root, ""))}


def _below(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def option_table(command: Any) -> str:
    """Arguments and options of one command as a Markdown table; a sentence where it has none."""
    hints = get_type_hints(inspect.unwrap(command.callback)) if command.callback is not None else {}
    rows = [_row(p, hints.get(p.name)) for p in command.params if "--help" not in p.opts]
    if not rows:
        return "| no arguments, and no options of its own |\n|---|\n"
    lines = ["| argument or option | meaning | default |", "|---|---|---|"]
    lines += [f"| {name} | {text} | {default} |" for name, text, default in rows]
    return "\n".join(lines) + "\n"


def rewrite(text: str) -> str:
    """Replace the table below every mark of a page.

    Raises
    ------
    ValueError
        A command has no mark, or a mark names no command.
    """
    known = commands()
    marked = [match["command"] for match in _MARK.finditer(text)]
    if sorted(marked) != sorted(known):
        raise ValueError(f"marks without command or commands without mark: {sorted(set(marked) ^ set(known))}")

    def fill(match: re.Match[str]) -> str:
        return f"<!-- options: {match['command']} -->\n\n{option_table(known[match['command']])}"

    return _MARK.sub(fill, text)


def help_texts(command: Any) -> Iterator[str]:
    """Help text of every parameter, as ``--help`` shows it."""
    for parameter in command.params:
        if getattr(parameter, "help", None):
            yield parameter.help


def _row(parameter: Any, hint: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
        value = "" if parameter.is_flag else f" {parameter.metavar or _choices(hint)}"
        name = ", ".join(f"`{option}{value}`" for option in names)
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.envvar:
        text += f" Environment variable: `{parameter.envvar}`."
    return name.replace("|", "\\|"), text, _default(parameter)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.is_flag if parameter.param_type_name == "option" else False:
        return ""
    value = parameter.default
    return "" if value in (None, "", (), []) or callable(value) else f"`{value}`"


def _choices(hint: Any) -> str:
    """``mlp|residual|attn`` of a Literal type, also of one that may be None; else nothing."""
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    return "|".join(filter(None, map(_choices, get_args(hint))))


def main(arguments: list[str]) -> int:
    """Rewrite or check one page; returns the exit code."""
    path = Path(next(argument for argument in arguments if not argument.startswith("--")))
    before = path.read_text(encoding="utf-8")
    after = rewrite(before)
    if "--check" in arguments:
        sys.stdout.write("current\n" if before == after else f"{path} is stale: run without --check\n")
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
