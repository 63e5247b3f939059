"""A wheel and an sdist built once from a copy of the checkout, and the wheel installed in a fresh environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ["nait_store", "registry", "schemas", "cli", "pyproject.toml", "README.md", "LICENSE"]


@dataclass(frozen=True)
class Distributions:
    """The two files that a release uploads."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    # The wheel is built from the sdist, as `python -m build` does for a release: what the sdist lacks, it lacks.
    folder = tmp_path_factory.mktemp("packaging")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, checkout / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(checkout)], cwd=folder)
    [wheel] = (folder / "dist").glob("*.whl")
    [sdist] = (folder / "dist").glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="session")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` folder of a fresh environment with the wheel installed; dependencies come from ours through a .pth."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run([sys.executable, "-m", "venv", str(environment)], cwd=environment.parent)
    python = environment / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
         str(distributions.wheel)], cwd=environment.parent)  # fmt: skip
    [site_packages] = environment.glob("lib/python*/site-packages")
    # A path line adds the folder itself without executing the .pth files in it, so our editable install stays out.
    (site_packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return environment / "bin"


def run(command: list[str], cwd: Path) -> str:
    """Run a command and return its output; a failure shows all of it."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
