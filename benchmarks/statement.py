"""Eight profiles in one statement beside one profile, nothing scored before.

Every round begins without sidecars and with a new session, on a warm page cache: what is timed is a whole statement,
with opening the store, the pass over the arrays, writing the sidecars, and choosing the best samples of each profile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Options, Report, interleave, ratio, run, workspace
from benchmarks.scan import Size, write_set
from nait_store.activations.versions import ActivationSets
from nait_store.catalog.build import Catalog
from nait_store.progress import ProgressEvent
from nait_store.query.session import QuerySession
from nait_store.registry.profiles import ProfileRegistry
from nait_store.registry.recipes import RECIPES
from nait_store.storage.location import Location

N_PROFILES = 8
MUST = 1.6
BEST = 100
IN_DOMAIN_ROWS = 32
FULL = Size(2816, 32, 11008)  # 2 GB, which stay in the page cache
TOY = Size(512, 4, 704)


def body(options: Options, report: Report) -> None:
    """Build the store, check that the statements agree, time them and count what they read."""
    size = TOY if options.toy else FULL
    with workspace(options, size.n_bytes) as folder:
        location = Location(str(folder / "store"))
        names = build_store(location, size)

        def remove_sidecars(_case: str) -> None:
            shutil.rmtree(folder / "store" / "scores", ignore_errors=True)

        one, all_of_them = names[:1], names
        found = {}
        read_bytes = {}
        for case in (one, all_of_them):
            remove_sidecars("")
            found[len(case)], read_bytes[len(case)] = best_samples(location, case)
        check_agreement(found[1], found[N_PROFILES])
        cases: dict[str, Callable[[], object]] = {
            "1 profile": lambda: best_samples(location, one),
            f"{N_PROFILES} profiles, one statement": lambda: best_samples(location, all_of_them),
            f"{N_PROFILES} profiles, a statement each": lambda: [best_samples(location, [name]) for name in names],
        }
        times = interleave(cases, options.rounds, before=remove_sidecars)
    report.timings(
        f"Best {BEST} samples of each profile: {size.n:,} samples × {size.n_layers} layers × {size.n_neurons:,} "
        f"neurons, float16, {size.n_bytes / 1e9:.2f} GB",
        times,
        reference="1 profile",
        work_bytes=size.n_bytes,
    )
    report.table(
        "Activations read",
        ("what", "bytes", "passes over the set"),
        [
            (f"{n} profile{'s' * (n > 1)}, one statement", f"{n_bytes:,}", f"{n_bytes / size.n_bytes:.3f}")
            for n, n_bytes in read_bytes.items()
        ],
    )
    report.limit(
        f"{N_PROFILES} profiles in one statement / 1 profile",
        "≤",
        MUST,
        ratio(times[f"{N_PROFILES} profiles, one statement"], times["1 profile"]),
    )
    report.limit(
        f"passes over the activations for {N_PROFILES} profiles", "≤", 1, read_bytes[N_PROFILES] / size.n_bytes
    )


def build_store(location: Location, size: Size) -> list[str]:
    """Write the set ``pool`` and profiles of different rows of it; returns their names."""
    version = write_set(location, size)
    names = [f"domain-{i}" for i in range(N_PROFILES)]
    rng = np.random.default_rng(2)
    for name in names:
        rows = np.sort(rng.choice(min(64, size.n), IN_DOMAIN_ROWS, replace=False))
        ProfileRegistry(location).build(
            name,
            version,
            recipe=RECIPES["default"],
            rows={0: rows},
            where=None,
            limit=None,
            seed=0,
            background=None,
        )
    return names


def best_samples(location: Location, names: Sequence[str]) -> tuple[list[tuple[Any, ...]], int]:
    """Run one statement in a new session; returns its rows, and the bytes of activations that it read."""
    listed = ", ".join(f"'{name}'" for name in names)
    events: list[ProgressEvent] = []
    sets, registry, catalog = ActivationSets(location), ProfileRegistry(location), Catalog(location)
    with QuerySession(location, sets, registry, catalog, events.append) as session:
        rows = session.sql(
            f"SELECT profile, sample_id, score FROM alignment('pool', [{listed}]) QUALIFY row_number() OVER "
            f"(PARTITION BY profile ORDER BY score DESC, sample_id) <= {BEST} ORDER BY ALL"
        ).fetchall()
    return rows, bytes_scanned(events)


def check_agreement(alone: list[tuple[Any, ...]], together: list[tuple[Any, ...]]) -> None:
    """Require the same scores of a profile alone and beside others, to rounding: each has kernels of its own."""
    beside = [score for profile, _, score in together if profile == alone[0][0]]
    if not np.allclose(sorted(beside), sorted(score for _, _, score in alone), rtol=1e-6):
        raise ArithmeticError("a profile has other scores beside seven more than alone")


def bytes_scanned(events: Sequence[ProgressEvent]) -> int:
    """Bytes of activations that scans read, as they reported it; a scan's events count upwards."""
    total = last = 0
    for event in events:
        if event.stage == "score":
            total += event.bytes_done - (last if event.bytes_done >= last else 0)
            last = event.bytes_done
    return total


if __name__ == "__main__":
    run(__doc__, body, packages=("numba", "duckdb", "pyarrow"))
