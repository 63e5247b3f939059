"""Ray is an extra: nothing but ``--ray`` loads it, and without it ``--ray`` says what to install."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.cli.main import main
from nait_store.cli.reference import commands
from nait_store.cluster.ray_cluster import ray_cluster
from nait_store.errors import InvalidInputError, MissingExtraError, StorageError
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import build_set


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as an import of what is not installed


def _store(folder: Path) -> nait_store.Store:
    store = nait_store.open(str(folder / "store"), create=True)
    build_set(store.location, "pool", 8)
    store.profiles.build("math", source="pool")
    return store


def test_scoring_without_ray_names_the_extra(tmp_path: Path, no_ray: None) -> None:
    store = _store(tmp_path)
    with pytest.raises(MissingExtraError) as caught:
        store.score("pool", "math", ray="local")
    assert caught.value.next_step == "pip install 'nait-store[ray]'"
    assert store.score("pool", "math")[0].n_computed == 1  # here it works


def test_ingesting_without_ray_names_the_extra(tmp_path: Path, no_ray: None) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    with pytest.raises(MissingExtraError, match="Ray"):
        _store(tmp_path).ingest(str(tmp_path / "a.jsonl"), set="new", model="m", ray="local")


def test_an_open_capture_session_cannot_travel(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    with pytest.raises(InvalidInputError, match="stays in its process"):
        _store(tmp_path).ingest(str(tmp_path / "a.jsonl"), set="new", model="m", capture=FakeCapture(), ray="local")


def test_workers_without_a_cluster_are_a_slip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _store(tmp_path)
    store = ("--store", str(tmp_path / "store"))
    assert main([*store, "ingest", "a.jsonl", "--set", "new", "--model", "m", "--ray-workers", "2"]) == 7
    assert "--ray local" in capsys.readouterr().err


def test_the_local_path_loads_neither_ray_nor_the_cluster_package(tmp_path: Path) -> None:
    _store(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    program = (
        "import sys, nait_store\n"
        "from nait_store.testing.fake_capture import FakeCapture\n"
        f"store = nait_store.open({str(tmp_path / 'store')!r})\n"
        "store.score('pool', 'math')\n"
        f"store.ingest({str(tmp_path / 'a.jsonl')!r}, set='new', model='m', capture=FakeCapture())\n"
        "print(sorted(name for name in sys.modules if name == 'ray' or name.startswith('nait_store.cluster')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _shown_commands() -> list[str]:
    text = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ nait-store")]


@pytest.mark.parametrize("line", _shown_commands())
def test_commands_of_the_page_about_scale_are_understood(line: str) -> None:
    """They take a cluster to run; here they are parsed."""
    arguments = shlex.split(line)[1:]
    if arguments[0] == "--store":
        arguments = arguments[2:]
    with commands()[arguments[0]].make_context(arguments[0], arguments[1:]) as parsed:
        assert parsed.params["ray"] in ("auto", "local")


class _Unreachable:
    """Stands in for Ray where there is no cluster."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("address", "raised", "error"),
    [
        ("10.0.0.1:6379", ConnectionError("nobody there"), StorageError),
        ("ray://10.0.0.1:10001", ImportError("no grpc"), MissingExtraError),
        ("nonsense", ValueError("no port"), InvalidInputError),
        ("10.0.0.1:6379", RuntimeError("Version mismatch: 2.9 and 2.60"), StorageError),
        ("local", Exception("The current node timed out during startup"), StorageError),
        ("", None, InvalidInputError),
    ],
)
def test_a_cluster_that_cannot_be_used_is_an_error_that_names_it(
    address: str, raised: Exception | None, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _Unreachable(raised or AssertionError()))
    monkeypatch.setattr("nait_store.cluster.ray_cluster.require_answer", lambda _address: None)
    with pytest.raises(error) as caught, ray_cluster(address):
        pass
    assert address in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize("variable", [False, True])
def test_an_address_where_nobody_answers_is_given_up_before_ray_asks(
    variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _Unreachable(AssertionError("Ray was asked")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(StorageError, match="no Ray cluster answers") as caught,
        ray_cluster("auto" if variable else address),
    ):
        pass
    assert caught.value.next_step
