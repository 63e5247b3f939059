"""Option types that several commands share, and the parsing of their values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nait_store.errors import InvalidInputError

if TYPE_CHECKING:
    from nait_store.cli.console import Console
    from nait_store.progress import ProgressListener
    from nait_store.store.facade import Store

Message = Annotated[str, typer.Option(metavar="TEXT", help="Recorded with the version.", show_default=False)]
ReplaceOut = Annotated[
    bool, typer.Option("--force", "--overwrite", help="Replace the file of --out if it exists.", show_default=False)
]

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def open_store(console: Console, progress: ProgressListener | None = None) -> Store:
    """Open the store that the command line names."""
    import nait_store

    return nait_store.open(console.store_url, progress=progress)


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """``"0,2,5-7"`` → (0, 2, 5, 6, 7); None stays None."""
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.replace("–", "-").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(first) > int(last)):
            raise InvalidInputError(
                f"--layers {text!r}: {part.strip()!r} is not a layer or a range of layers",
                next_step="count layers from 0, e.g. --layers 0,2,5-7",
            )
        if len(last) > 6 or len(first) > 6:
            raise InvalidInputError(f"--layers {text!r}: no model has that many layers", next_step="count from 0")
        layers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(layers))


def parse_bytes(option: str, text: str) -> int:
    """``"1GB"`` → 1,000,000,000; ``"512 MiB"`` → 536,870,912; a bare number is bytes."""
    match = _SIZE.fullmatch(text.strip())
    n_bytes = 0 if match is None else int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
    if n_bytes < 1:
        raise InvalidInputError(f"{option} {text!r} is not a size", next_step=f"write e.g. {option} 500MB")
    return n_bytes


def parse_list(text: str) -> tuple[str, ...]:
    """``"mean, drift"`` → ("mean", "drift"); repetitions are dropped."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_pairs(option: str, texts: Sequence[str], example: str) -> dict[str, str]:
    """``["prompt=question"]`` → {"prompt": "question"}; each text may hold several pairs, separated by commas."""
    pairs: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not (key and equals and value) or key in pairs:
                problem = "is given twice" if key in pairs else "is not of the form KEY=VALUE"
                raise InvalidInputError(f"{option} {part.strip()!r} {problem}", next_step=f"write {option} {example}")
            pairs[key] = value
    return pairs


def parse_conditions(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``["math=source = 'gsm8k'"]`` → {"math": "source = 'gsm8k'"}; the condition may hold further equals signs."""
    conditions: dict[str, str] = {}
    for text in texts:
        name, equals, condition = (piece.strip() for piece in text.partition("="))
        if not (name and equals and condition) or name in conditions:
            problem = "is given twice" if name in conditions else "is not of the form PROFILE=SQL"
            raise InvalidInputError(
                f"{option} {text!r} {problem}", next_step=f"write e.g. {option} math=\"source = 'gsm8k'\""
            )
        conditions[name] = condition
    return conditions


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``["k=5", "layers=[3, 4]"]`` → {"k": 5, "layers": [3, 4]}: JSON where it reads as such, else text.

    Objects stay text, which is what functions over JSON take.
    """
    parameters: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.isidentifier() and equals) or key in parameters:
            problem = "is given twice" if key in parameters else "is not of the form NAME=VALUE"
            raise InvalidInputError(
                f"--param {text!r} {problem}", next_step="write --param k=5 and use $k in the query"
            )
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        parameters[key] = value if isinstance(parsed, dict) else parsed
    return parameters


def parse_tables(texts: Sequence[str]) -> dict[str, str]:
    """``["mine=labels.csv"]`` → {"mine": "labels.csv"}; the file's name may hold further equals signs."""
    tables: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name.strip() and equals and file.strip()) or name in tables:
            problem = "is given twice" if name in tables else "is not of the form NAME=FILE"
            raise InvalidInputError(
                f"--table {text!r} {problem}", next_step="write --table mine=labels.csv and read FROM mine in the query"
            )
        tables[name] = file
    return tables
