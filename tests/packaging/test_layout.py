"""The checkout: hand-kept lists equal the folders, and the three links are as the design says."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LINKED = ["registry", "schemas", "cli"]


def python_sources() -> list[Path]:
    folders = [REPOSITORY / "nait_store", *(REPOSITORY / name for name in LINKED)]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def packages_on_disk() -> set[str]:
    found = set()
    for top, prefix in [("nait_store", "nait_store"), *((name, f"nait_store.{name}") for name in LINKED)]:
        for marker in (REPOSITORY / top).rglob("__init__.py"):
            parts = marker.parent.relative_to(REPOSITORY / top).parts
            if parts[:1] and top == "nait_store" and parts[0] in LINKED:
                continue  # Python 3.13 follows links in rglob; the linked folders are listed once, under their own top
            found.add(".".join([prefix, *parts]))
    return found


def test_packages_list_equals_the_folders() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_folder_with_code_is_a_package() -> None:
    bare = {path.parent for path in python_sources() if not (path.parent / "__init__.py").exists()}
    assert bare == set()


@pytest.mark.parametrize("name", LINKED)
def test_linked_package_points_at_its_top_level_folder(name: str) -> None:
    link = REPOSITORY / "nait_store" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert PROJECT["tool"]["setuptools"]["package-dir"][f"nait_store.{name}"] == name


def test_every_data_file_beside_the_code_is_declared() -> None:
    declared = PROJECT["tool"]["setuptools"]["package-data"]
    undeclared = []
    for top, package in [("nait_store", "nait_store"), *((name, f"nait_store.{name}") for name in LINKED)]:
        shipped = {
            path
            for owner, patterns in declared.items()
            if owner == package or owner.startswith(package + ".")
            for pattern in patterns
            for path in (REPOSITORY / top / Path(*owner.split(".")[len(package.split(".")) :])).glob(pattern)
        }
        for path in (REPOSITORY / top).rglob("*"):
            linked = path.relative_to(REPOSITORY / top).parts[0] in LINKED and top == "nait_store"
            generated = path.suffix in {".py", ".pyc"} or "__pycache__" in path.parts
            if path.is_file() and not generated and not linked and path not in shipped:
                undeclared.append(str(path.relative_to(REPOSITORY)))
    assert undeclared == []


def test_every_imported_distribution_is_declared() -> None:
    """What the code imports is in `dependencies`, or in an extra, and not merely brought along by something else."""
    known_as = {"huggingface_hub": "huggingface-hub", "ulid": "python-ulid"}
    project = PROJECT["project"]
    declared = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = {re.split(r"[<>=!~ \[;]", requirement)[0].lower().replace("_", "-") for requirement in declared}
    development_only = {"hypothesis", "moto", "pytest"}  # nait_store.testing serves test suites, which bring their own
    missing: dict[str, str] = {}
    for path in python_sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top == "nait_store":
                    continue
                distribution = known_as.get(top, top)
                if "testing" in path.parts and distribution in development_only:
                    continue
                if distribution not in names:
                    missing[distribution] = str(path.relative_to(REPOSITORY))
    assert missing == {}


def test_constraints_pin_every_direct_dependency() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    groups = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    assert {re.split(r"[<>=!~ \[;]", requirement)[0] for requirement in groups} <= pinned
