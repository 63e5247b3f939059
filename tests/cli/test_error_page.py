"""docs/errors.md is complete and true."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from nait_store import errors
from nait_store.cli import main as main_module
from nait_store.errors import NaitStoreError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")
]


def classes() -> list[type[NaitStoreError]]:
    return [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, NaitStoreError)]


def test_every_class_has_a_row_with_its_exit_code_and_kind() -> None:
    rows = {row[2].partition(" ")[0].strip("`"): (row[0], row[1]) for row in ROWS}
    for one in classes():
        code, kinds = rows[one.__name__]
        assert code == str(one.exit_code), one
        assert f"`{one.kind}`" in kinds, one


def test_every_kind_has_a_section() -> None:
    headings = set(re.findall(r"^## (\S+)", PAGE, re.MULTILINE))
    assert {one.kind for one in classes()} - {"error"} | {"usage", "Unexpected"} == headings


def test_every_exit_code_of_the_program_is_listed() -> None:
    codes = {value for name, value in vars(main_module).items() if name.startswith("EXIT_")}
    codes |= {one.exit_code for one in classes()} | {0}
    assert {int(row[0]) for row in ROWS if row[0].isdigit()} == codes


def test_kinds_are_stable() -> None:
    """Append here; never rename: scripts compare them."""
    assert [one.kind for one in classes()] == [
        "error",
        "not_found",
        "already_exists",
        "conflict",
        "incompatible",
        "invalid_input",
        "read_only",
        "format",
        "corrupt_chunk",
        "unsupported_version",
        "storage",
        "missing_extra",
        "interrupted",
        "forbidden",
        "limit_exceeded",
        "untrusted",
    ]


def test_the_json_example_is_json() -> None:
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    assert set(example["error"]) == {"kind", "message", "next_step", "exit_code"}
