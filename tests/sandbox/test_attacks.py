"""None of the attacks succeeds: refused or killed, nothing is written, and the next honest query is answered."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nait_store.errors import LimitExceededError, NaitStoreError
from nait_store.query.sandbox.limits import SandboxLimits
from tests.sandbox.attacks import ATTACKS, Attack

SMALL = SandboxLimits(wall_seconds=10, memory_bytes=192 << 20, output_bytes=1 << 20)
SHORT = replace(SMALL, wall_seconds=1)
Bench = Any  # of conftest.py, which importlib mode cannot import


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_fails(bench: Bench, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.tree)
    query = attack.query
    for name, path in bench.places.items():
        query = query.replace(name, path)
    before = bench.fingerprint()

    with pytest.raises(NaitStoreError) as caught:
        bench.sql(query, limits=SHORT if attack.ends_in is LimitExceededError else SMALL)

    assert type(caught.value) is attack.ends_in, caught.value
    assert "secret of the host" not in str(caught.value)
    assert all(c.isprintable() or c == "\n" for c in str(caught.value))
    assert bench.fingerprint() == before


def test_there_are_enough_of_them_and_each_has_its_own_name() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names)) >= 80


def test_the_next_honest_query_is_answered_after_a_kill(bench: Bench) -> None:
    for name in ("an_endless_cte", "a_constant_text", "a_flood_of_rows"):
        with pytest.raises(NaitStoreError):
            bench.sql(next(attack.query for attack in ATTACKS if attack.name == name), limits=SHORT)
        assert bench.sql("SELECT 42").fetchall() == [(42,)]


def test_no_process_is_left_behind(bench: Bench) -> None:
    bench.sql("SELECT 42")
    children = psutil.Process(os.getpid()).children(recursive=True)
    assert [child for child in children if is_worker(child)] == []


def is_worker(process: psutil.Process) -> bool:
    """Whether a process was forked by the fork server, and still runs."""
    try:
        return process.ppid() != os.getpid() and "fork_server" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_nothing_was_written_beside_the_folder(bench: Bench) -> None:
    assert not Path("/tmp/out.csv").exists()
