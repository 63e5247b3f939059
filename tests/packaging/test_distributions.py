"""What is uploaded and what arrives: contents of wheel and sdist, and the installed command, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

from nait_store.demo import files as demo_files

REPOSITORY = Path(__file__).resolve().parents[2]
DATA_FILES = [
    "nait_store/py.typed",
    *(f"nait_store/schemas/json/{path.name}" for path in (REPOSITORY / "schemas" / "json").glob("*.json")),
    *(f"nait_store/schemas/ddl/{path.name}" for path in (REPOSITORY / "schemas" / "ddl").glob("*.sql")),
    *(f"nait_store/demo/{path.relative_to(demo_files.FOLDER)}" for path in demo_files.shipped_files()),
]


def test_wheel_installs_one_top_level_package(distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nait_store"}


def test_wheel_holds_every_module_and_data_file(distributions) -> None:
    modules = {
        str(path.relative_to(REPOSITORY) if top == "nait_store" else Path("nait_store") / path.relative_to(REPOSITORY))
        for top in ("nait_store", "registry", "schemas", "cli")
        for path in (REPOSITORY / top).rglob("*.py")
    }
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = set(wheel.namelist())
    assert sorted((modules | set(DATA_FILES)) - names) == []


def test_wheel_holds_each_module_once_and_nothing_else(distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert [name for name in names if not name.endswith(".py") and name not in DATA_FILES] == []


def test_wheel_stays_small(distributions) -> None:
    assert distributions.wheel.stat().st_size < 6_000_000


def test_sdist_holds_sources_under_their_repository_names(distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    expected = {"README.md", "LICENSE", "pyproject.toml", "registry/__init__.py", "schemas/__init__.py",
                "cli/__init__.py", "nait_store/__init__.py", "nait_store/py.typed"}  # fmt: skip
    assert expected - names == set()
    assert {name for name in names if name.endswith(".schema.json")} == {
        f"schemas/json/{path.name}" for path in (REPOSITORY / "schemas" / "json").glob("*.json")
    }


def test_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "nait-store")]
    version = subprocess.run([*command, "--version"], cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert version.returncode == 0, version.stderr
    assert "0.1.0" in version.stdout
    made = subprocess.run(
        [*command, "--store", "store", "init"], cwd=tmp_path, env=clean(), capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "store" / "store.json").is_file()


def test_installed_library_is_the_wheels_and_works(installed: Path, tmp_path: Path) -> None:
    program = (
        "import json, sys, nait_store, nait_store.registry, nait_store.schemas, nait_store.cli as commands\n"
        "store = nait_store.open('store', create=True)\n"
        "paths = [module.__file__ for module in (nait_store, nait_store.registry, nait_store.schemas, commands)]\n"
        "print(json.dumps({'paths': paths, 'answer': list(store.sql('SELECT 6 * 7').fetchone()), 'top': sorted(\n"
        "    name for name in ('registry', 'schemas', 'cli') if name in sys.modules)}))\n"
    )
    done = subprocess.run(
        [str(installed / "python"), "-W", "error", "-c", program],
        cwd=tmp_path, env=clean(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert all(Path(path).is_relative_to(installed.parent) for path in seen["paths"])
    assert seen["answer"] == [42]
    assert seen["top"] == []


def test_bare_names_are_not_importable(installed: Path, tmp_path: Path) -> None:
    program = "import importlib.util as u; print([n for n in ('registry', 'schemas', 'cli') if u.find_spec(n)])"
    done = subprocess.run(
        [str(installed / "python"), "-c", program], cwd=tmp_path, env=clean(), capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def clean() -> dict[str, str]:
    """Environment of a user: none of our paths."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NAIT_", "VIRTUAL"))}
    return kept | {"PATH": os.defpath, "NO_COLOR": "1"}
