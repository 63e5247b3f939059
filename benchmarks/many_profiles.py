"""Listing and searching thousands of profiles.

Documents of many versions, made from one real profile's, without their arrays: nothing reads these here. Each command
runs in a fresh process, as a user runs it, and in an open store; beside it, a process that imports DuckDB.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

import nait_store
from benchmarks.harness import Options, Report, interleave, ratio_of, run, workspace
from benchmarks.startup import start
from nait_store.refs import Kind
from nait_store.schemas.profile import ProfileManifest
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.provenance import new_ulid
from nait_store.store.facade import Store
from nait_store.testing.stores import build_set

PROFILES, TOY_PROFILES = 5_000, 20
VERSIONS = 4
MUST_SECONDS = 0.5
_BYTES_PER_VERSION = 16_000
TOPICS = ("maths", "code", "law", "medicine", "physics", "chess", "poetry", "cooking", "history", "biology")


def body(options: Options, report: Report) -> None:
    """Write the documents, check that a search finds what it must, time it."""
    n_profiles = TOY_PROFILES if options.toy else PROFILES
    with workspace(options, n_profiles * VERSIONS * _BYTES_PER_VERSION) as folder:
        url = str(folder / "store")
        store = nait_store.open(url, create=True)
        write_profiles(store, n_profiles)
        found = store.profiles.search("chess word-7", all_versions=True)
        if {one.reference for one in found} != expected("chess", 7, n_profiles):
            raise SystemExit("the search finds something else")
        report.table("What there is", ("profiles", "versions"), [[f"{n_profiles:,}", f"{n_profiles * VERSIONS:,}"]])
        fresh = {
            "python -c 'import duckdb'": lambda: start(["-c", "import duckdb"]),
            "profile list": command(url, "list"),
            "profile search chess": command(url, "search", "chess"),
            "profile search --all word-7": command(url, "search", "--all", "word-7"),
        }
        cpu_seconds: dict[str, list[float]] = {name: [] for name in fresh}
        times = interleave({name: counting(call, cpu_seconds[name]) for name, call in fresh.items()}, options.rounds)
        report.timings("A fresh process", times, reference="python -c 'import duckdb'")
        rows = [
            [name, f"{statistics.median(found):.2f} s", f"{min(found):.2f} s"] for name, found in cpu_seconds.items()
        ]
        report.table("Processor time of these, whatever else the machine does", ("process", "median", "least"), rows)
        opened: dict[str, Callable[[], Any]] = {
            "list": store.profiles.list,
            "search": lambda: store.profiles.search("chess"),
        }
        report.timings("In an open store", interleave(opened, options.rounds), reference="list")
        seconds = [1.0] * options.rounds
        for name in list(fresh)[1:]:
            report.limit(f"nait-store {name}", "≤", MUST_SECONDS, ratio_of(times[name].seconds, seconds), " s")


def counting(call: Callable[[], Any], cpu_seconds: list[float]) -> Callable[[], Any]:
    """Note down the processor time of the processes that a call starts."""

    def counted() -> None:
        before = os.times()
        call()
        after = os.times()
        cpu_seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)

    return counted


def write_profiles(store: Store, n_profiles: int) -> None:
    """Write the documents of every version, and a label on one version of every hundredth profile."""
    build_set(store.location, "maths", 40)
    model, _ = store.profiles.build("p00000", source="maths")
    for i in range(n_profiles):
        name = f"p{i:05}"
        for number in range(1, VERSIONS + 1):
            if (i, number) != (0, 1):
                write_version(store, model, name, number, card=f"{TOPICS[i % len(TOPICS)]}, word-{i % 97}")
        if i % 100 == 0:
            store.profiles.alias(f"{name}@2", "prod", reason="the better one")


def write_version(store: Store, model: Any, name: str, number: int, card: str) -> None:
    """Write one version's two documents."""
    location, payload = store.location, new_ulid()
    recipe = sha256_bytes(f"{name}@{number}".encode())
    record = model.record.model_copy(update={"name": name, "card": card, "recipe_sha256": recipe})
    data = record.to_json_bytes()
    location.create_bytes(f"{layout.payload_folder(Kind.PROFILE, name, payload)}/profile.json", data)
    manifest = ProfileManifest(
        name=name,
        number=number,
        payload=payload,
        record_sha256=sha256_bytes(data),
        recipe_sha256=recipe,
        provenance=record.provenance,
    )
    location.create_bytes(layout.version_document(Kind.PROFILE, name, number), manifest.to_json_bytes())


def expected(topic: str, word: int, n_profiles: int) -> set[str]:
    """References of the versions whose cards have both words."""
    fit = [
        i for i in range(n_profiles) if TOPICS[i % len(TOPICS)] == topic and f"word-{i % 97}".startswith(f"word-{word}")
    ]
    return {f"p{i:05}@{number}" for i in fit for number in range(1, VERSIONS + 1)}


def command(url: str, *arguments: str) -> Callable[[], None]:
    """Run one of our commands in a fresh process."""
    return lambda: start(["-m", "nait_store.cli.main", "--store", url, "profile", *arguments])


if __name__ == "__main__":
    run(__doc__, body, packages=("duckdb",))
