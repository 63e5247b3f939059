"""None of the attacks succeeds: refused or killed, nothing is written, and the next honest query is answered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from nait_store.errors import NaitStoreError
from tests.sandbox.attacks import ATTACKS, Attack

Bench = Any  # of conftest.py, which importlib mode cannot import


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_fails(bench: Bench, attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.tree)
    query = attack.query
    for name, path in bench.places.items():
        query = query.replace(name, str(path))
    before = bench.fingerprint()

    with pytest.raises(NaitStoreError) as caught:
        bench.sql(query)

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
            bench.sql(next(attack.query for attack in ATTACKS if attack.name == name))
        assert bench.rows("SELECT 42") == [(42,)]


def test_no_process_is_left_behind(bench: Bench) -> None:
    bench.rows("SELECT 42")
    children = psutil.Process(os.getpid()).children(recursive=True)
    workers = [
        child for child in children if child.ppid() != os.getpid() and "fork_server" in " ".join(child.cmdline())
    ]
    assert workers == []


def test_nothing_was_written_beside_the_folder(bench: Bench) -> None:
    assert not Path("/tmp/out.csv").exists()
