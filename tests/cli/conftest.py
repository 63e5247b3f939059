"""The command line in this process, over a small store that is built once."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.cli.main import main
from nait_store.ingest.requests import IngestRequest
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_set, fake_identity

N_POOL, N_LAYERS, N_NEURONS = 40, 3, 8


@dataclass(frozen=True)
class Run:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, parsed."""
        return json.loads(self.out)


Cli = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder of a user with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAIT_STORE", raising=False)
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in the working folder."""

    def run(*arguments: str, stdin: str | None = None) -> Run:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sets pool (two versions) and maths, the profile math, and a profile of another model."""
    root = tmp_path_factory.mktemp("built") / ".nait-store"
    store = nait_store.open(str(root), create=True)
    location = Location(str(root))
    shift = np.ones((N_LAYERS, N_NEURONS), dtype=np.float32)
    shape: dict[str, Any] = {"n_layers": N_LAYERS, "n_neurons": N_NEURONS}
    both = (Feature.MEAN, Feature.DRIFT)
    kinds = [("code", "chat")[i % 2] for i in range(N_POOL)]
    half = N_POOL // 2
    build_set(location, "pool", half, seed=1, user_fields={"kind": kinds[:half]}, **shape)
    build_set(location, "pool", half, seed=2, first=half, user_fields={"kind": kinds[half:]}, **shape)
    build_set(location, "maths", 20, features=both, seed=3, first=1000, mean=shift, **shape)
    build_set(location, "other-model", 20, seed=4, first=2000, mean=shift, identity=fake_identity("other"), **shape)
    store.profiles.build("math", source="maths")
    store.profiles.build("foreign", source="other-model")
    return root


@pytest.fixture
def store(built: Path, folder: Path) -> Path:
    """A fresh copy of the built store, at the default place of the working folder."""
    return Path(shutil.copytree(built, folder / ".nait-store"))


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> FakeCapture:
    """Stands in for every model that an ingest asks for."""
    capture = FakeCapture(n_model_layers=N_LAYERS, n_neurons=N_NEURONS)

    def open_capture(model: str, request: IngestRequest, options: Any) -> FakeCapture:
        capture.features = request.features
        return capture

    monkeypatch.setattr("nait_store.store.ingesting.open_capture", open_capture)
    return capture


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    """Digest of every file of a store but the catalog, which is an index."""
    return _digests


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("catalog.duckdb"))
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def write_jsonl(folder: Path) -> Callable[..., str]:
    """Write records, by default ``n`` different instructions, into the working folder; returns the file's name."""

    def write(name: str, records: Sequence[Any] | None = None, *, n: int = 10) -> str:
        chosen = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in range(n)]
        lines = (json.dumps(record) + "\n" for record in (chosen if records is None else records))
        (folder / name).write_text("".join(lines), encoding="utf-8")
        return name

    return write
