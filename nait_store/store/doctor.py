"""A look at installation, machine and store: what is there, what is wrong, what to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nait_store.errors import NaitStoreError, NotFoundError

if TYPE_CHECKING:
    from nait_store.store.facade import Store

State = Literal["ok", "note", "problem"]
_PACKAGES = ("torch", "transformers", "duckdb", "pyarrow", "zarr", "numba", "numpy", "fsspec", "pydantic", "typer")
_LOW_DISK_BYTES = 1 << 30
_TORCH_SECONDS = 120
_ASK_TORCH = """
import json, torch
devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
if torch.backends.mps.is_available():
    devices.append("mps")
print(json.dumps({"torch": torch.__version__, "devices": devices, "threads": torch.get_num_threads()}))
"""


@dataclass(frozen=True)
class Check:
    """One fact.

    Attributes
    ----------
    topic
        ``python``, ``packages``, ``device``, ``cpu``, ``cache``, ``store``, ``ingests``, ``garbage`` …
    state
        ``ok``, ``note`` (works, but worth knowing) or ``problem``.
    text
        What was found.
    advice
        What to do about it, empty if nothing.
    """

    topic: str
    state: State
    text: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """All facts, in the order in which to read them."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return all(check.state != "problem" for check in self.checks)


def examine(store: Store | None, problem: NaitStoreError | None = None) -> DoctorReport:
    """Examine installation, machine and store.

    Parameters
    ----------
    store
        The store, or None where it could not be opened.
    problem
        Why it could not.
    """
    checks = [*_installation(), *_machine()]
    if store is not None:
        checks += _store(store)
    elif problem is not None:
        state: State = "note" if isinstance(problem, NotFoundError) else "problem"
        checks.append(Check("store", state, problem.what, problem.next_step or ""))
    return DoctorReport(tuple(checks))


def _installation() -> list[Check]:
    checks = [
        Check("nait-store", "ok", f"{_version('nait-store')} in {Path(__file__).parent}"),
        Check("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform(terse=True)}"),
    ]
    missing = [name for name in _PACKAGES if _version(name) is None]
    checks.append(Check("packages", "ok", ", ".join(f"{n} {_version(n)}" for n in _PACKAGES if n not in missing)))
    if missing:
        advice = "install again: pip install --force-reinstall nait-store"
        checks.append(Check("packages", "problem", f"not installed: {', '.join(missing)}", advice))
    return checks


def _machine() -> list[Check]:
    checks = [_device()]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{threads} of {os.cpu_count()} threads, {platform.machine()}"
    features = _cpu_features()
    if features is None:
        checks.append(Check("cpu", "ok", text))
    elif "f16c" in features or "fphp" in features:
        shown = ", ".join(f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "f16c", "fphp") if f in features)
        checks.append(Check("cpu", "ok", f"{text}, {shown}"))
    else:
        checks.append(Check("cpu", "note", f"{text}, no half-precision conversion", "scoring works, but slower"))
    checks.append(_cache())
    return checks


def _device() -> Check:
    # In a process of its own: a torch that does not fit its driver may take the whole process down.
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("device", "problem", f"torch did not answer: {error}", "try: python -c 'import torch'")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("device", "problem", f"torch does not work: {reason}", "install again: pip install torch")
    answer = json.loads(done.stdout.splitlines()[-1])
    devices = answer["devices"]
    if devices:
        return Check("device", "ok", f"{', '.join(devices)}; torch {answer['torch']}")
    text = f"cpu, {answer['threads']} threads; torch {answer['torch']}"
    return Check("device", "note", text, "no accelerator: ingest works, a large model will be slow")


def _cpu_features() -> set[str] | None:
    """Flags that Linux names; None elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return None


def _cache() -> Check:
    from nait_store.storage.cache_folder import cache_folder

    folder = cache_folder()
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if os.access(nearest, os.W_OK):
        return Check("cache", "ok", str(folder))
    advice = "set NAIT_STORE_CACHE to a folder you may write to; without it fingerprints and kernels are redone"
    return Check("cache", "note", f"{folder} cannot be written", advice)


def _store(store: Store) -> list[Check]:
    from nait_store.store.leftovers import leftovers

    location, record = store.location, store.record
    checks = []
    text = f"{store.url}, format {record.format_version}, id {record.store_id}"
    if location.can_create_atomically:
        checks.append(Check("store", "ok", text))
    else:
        checks.append(Check("store", "note", f"{text}, read-only here", "see 'nait-store ingest' for the reason"))
    free = location.free_bytes()
    if free is not None:
        low = free < _LOW_DISK_BYTES
        advice = "an ingest that does not fit is refused before it starts" if low else ""
        checks.append(Check("disk", "note" if low else "ok", f"{free / 1e9:,.1f} GB free", advice))
    try:
        sets = store.sets.list()
        size = sum(summary.size_bytes for summary in sets)
        checks.append(
            Check(
                "contents",
                "ok",
                f"{len(sets)} sets ({sum(s.n_samples for s in sets):,} samples, {size / 1e6:,.1f} MB), "
                f"{len(store.profiles.names())} profiles, {len(store.selections.names())} selections",
            )
        )
    except NaitStoreError as error:
        checks.append(Check("contents", "problem", error.what, "run 'nait-store verify'"))
    try:
        n_sets = store.sql("SELECT count(*) FROM activation_sets").fetchall()[0][0]
        path = store.catalog.path_for_reading()
        where = "kept in memory: nowhere to write it" if path is None else str(path)
        checks.append(Check("catalog", "ok", f"{where}, lists {n_sets} sets"))
    except NaitStoreError as error:
        checks.append(Check("catalog", "problem", error.what, error.next_step or "run 'nait-store verify'"))
    return [*checks, *leftovers(store)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
