"""Kills ``nait-store ingest`` with a real, tiny model: at random times, and as soon as a segment is acknowledged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nait_store
from benchmarks.faults.trials import acknowledged_segments, verify_errors
from benchmarks.json_lines import write_json_lines
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.activation_set import Heartbeat
from nait_store.testing.tiny_models import save_tiny_model

if TYPE_CHECKING:
    from benchmarks.faults.kills import Tally

N_SAMPLES = 96
_ROWS = 16  # of a flush; the program's own policy would hold a tiny input in one segment
_PROGRAM = (
    "import sys; from nait_store.ingest import probe, requests; probe.PROBE_SAMPLES = 16; "
    f"requests.FlushPolicy.__init__.__defaults__ = (120.0, 1 << 30, {_ROWS}, 64 << 20, 256 << 20); "
    "from nait_store.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
_TIMEOUT_SECONDS = 300
_KILLS_OF_ONE_STORE = 5
EVERYTHING = frozenset(f"r{i}" for i in range(N_SAMPLES))


def kill_program(folder: Path, n_kills: int, seed: int) -> Tally:
    """Kill as often as asked, every other time at the end of a flush; what goes on may be killed again."""
    from benchmarks.faults.kills import Tally

    tally = Tally()
    model = save_tiny_model(folder / "model")
    records = [
        {"id": f"r{i}", "instruction": "add " * (1 + i % 7), "output": f"{i} and {2 * i}"} for i in range(N_SAMPLES)
    ]
    source = write_json_lines(folder / "real.jsonl", records)
    moments = random.Random(seed)
    while tally.kills < n_kills:
        store = folder / f"real-{tally.kills}"
        nait_store.open(str(store), create=True)
        safe: frozenset[str] = frozenset()
        for _ in range(_KILLS_OF_ONE_STORE):
            at_flush = tally.kills % 2 == 0
            if tally.kills == n_kills or not _kill(store, source, model, moments, at_flush=at_flush):
                break
            if at_flush:
                tally.between += 1
            else:
                tally.at_random += 1
            safe = _examine(f"kill {tally.kills}", store, safe, tally)
        if not _finish(store, source, model, safe, tally):
            break  # a program that cannot run to its end is never killed often enough
    return tally


def _kill(store: Path, source: Path, model: Path, moments: random.Random, *, at_flush: bool) -> bool:
    """Run the program and kill it; False where it ended before."""
    before = len(_flushed(store))
    process = subprocess.Popen(
        _command(store, source, model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    wanted = before + (1 if at_flush else 0)
    while process.poll() is None and (len(_flushed(store)) < wanted or not _is_at_work(store, process.pid)):
        time.sleep(0.002)
    if not at_flush:
        time.sleep(moments.uniform(0, 0.3))
    process.kill()
    return process.wait() == -signal.SIGKILL


def _examine(name: str, store: Path, safe: frozenset[str], tally: Tally) -> frozenset[str]:
    """Look at the store as a reader would; returns the samples that must never be lost again."""
    try:
        seen = _look(str(store))
    except Exception as error:
        tally.broken("unreadable", f"{name}: {error!r}")
        return safe
    if seen.errors:
        tally.broken("unreadable", f"{name}: {seen.errors}")
    for number, ids in seen.versions.items():
        if sorted(ids) != sorted(EVERYTHING):
            tally.broken("partial", f"{name}: pool@{number} has {len(ids)} samples")
    now = seen.acknowledged.union(*seen.versions.values())
    if safe - now:
        tally.broken("lost", f"{name}: {sorted(safe - now)} were acknowledged")
    return now


def _finish(store: Path, source: Path, model: Path, safe: frozenset[str], tally: Tally) -> bool:
    """Run the program to its end and look again; False where it failed."""
    done = subprocess.run(
        [*_command(store, source, model), "--json", "--quiet"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        env=_environment(),
        check=False,
    )
    if done.returncode:
        tally.broken("unreadable", f"{store.name}, resumed: {done.stderr}")
        return False
    seen = _look(str(store))
    if seen.errors:
        tally.broken("unreadable", f"{store.name}, resumed: {seen.errors}")
    ids = seen.versions[max(seen.versions)]
    if EVERYTHING - set(ids):
        tally.broken("lost", f"{store.name}, resumed: {sorted(EVERYTHING - set(ids))} are missing")
    if len(ids) != len(set(ids)):
        tally.broken("duplicates", f"{store.name}, resumed: {len(ids)} rows of {len(set(ids))} samples")
    n_missing = len(EVERYTHING - safe)
    n_captured = json.loads(done.stdout)["n_added"]
    if n_captured != n_missing:
        tally.broken("captured again", f"{store.name}: {n_captured} captured where {n_missing} were missing")
    return True


@dataclass(frozen=True)
class _Seen:
    versions: dict[int, list[str]]
    acknowledged: frozenset[str]
    errors: list[str]


def _look(url: str) -> _Seen:
    """Look at the store as a reader would."""
    store = nait_store.open(url)
    sets = ActivationSets(store.location)
    acknowledged = acknowledged_segments(store.location)
    return _Seen(
        {number: sets.open(f"pool@{number}").sample_ids() for number in sets.numbers("pool")},
        frozenset().union(*acknowledged.values()),
        verify_errors(url),
    )


def _command(store: Path, source: Path, model: Path) -> list[str]:
    arguments = ["ingest", str(source), "--store", str(store), "--set", "pool", "--model", str(model)]
    return [sys.executable, "-c", _PROGRAM, *arguments, "--id-field", "id", "--token-budget", "256", "--device", "cpu"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _flushed(store: Path) -> list[Path]:
    return list((store / "activations" / "pool" / "ingests").glob("*/flushed/*.json"))


def _is_at_work(store: Path, pid: int) -> bool:
    """Whether the process has begun its journal."""
    beats = (store / "activations" / "pool" / "ingests").glob("*/heartbeat.json")
    return any(Heartbeat.from_json_bytes(beat.read_bytes(), str(beat)).pid == pid for beat in beats)
