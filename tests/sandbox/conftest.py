"""Sandboxes: over a small store in a folder that is watched, and over nothing but tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import nait_store
from nait_store.query.result import QueryResult
from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import SandboxAnswer, SandboxPool
from nait_store.query.sandbox.processes import RunnerSource
from nait_store.query.sandbox.runner import UntrustedQuery
from nait_store.registry.recipes import RECIPES
from nait_store.store.facade import Store
from nait_store.testing.stores import build_set

SMALL = SandboxLimits(wall_seconds=10, memory_bytes=192 << 20, output_bytes=1 << 20)
SECRET = "the secret of the host"


@dataclass
class Bench:
    """A store with ``pool@1`` (40 samples in 2 segments) and ``math@1``, scored."""

    store: Store
    tree: Path

    @property
    def places(self) -> dict[str, str]:
        """What attacks name."""
        root = self.store.location.local_path()
        assert root is not None
        return {"{tree}": str(self.tree), "{store}": str(root), "{segment}": str(min(root.rglob("samples.parquet")))}

    def sql(self, query: str, params: Any = None, limits: SandboxLimits = SMALL, **options: Any) -> QueryResult:
        return self.store.sql(query, params, sandbox=limits, **options)

    def fingerprint(self) -> dict[str, str]:
        """Digest of everything below the watched folder."""
        return {
            str(path.relative_to(self.tree)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
            for path in sorted(self.tree.rglob("*"))
        }


@dataclass
class Tables:
    """A pool that runs queries over tables that come with them."""

    pool: SandboxPool

    def sql(self, query: str, parameters: Any = None, limits: SandboxLimits = SMALL, **tables: Any) -> SandboxAnswer:
        return self.pool.run(UntrustedQuery(query, parameters or {}, tables), limits)

    def rows(self, query: str, parameters: Any = None, **options: Any) -> list[tuple[Any, ...]]:
        table: pa.Table = self.sql(query, parameters, **options).table
        return [tuple(row.values()) for row in table.to_pylist()]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    tree = tmp_path_factory.mktemp("watched")
    (tree / "secret.csv").write_text(f"a\n{SECRET}\n", encoding="utf-8")
    store = nait_store.open(str(tree / "store"), create=True)
    domains = ["maths", "code"] * 20
    build_set(store.location, "pool", 40, 2, 8, n_segments=2, user_fields={"domain": domains})
    version = store.sets.versions.open("pool")
    store.profiles.registry.build(
        "math", version, recipe=RECIPES["default"], rows=None, where=None, limit=None, seed=0, background=None
    )
    store.sql("FROM alignment('pool', 'math'), profiles")  # scores and catalog are there
    return Bench(store, tree)


@pytest.fixture(scope="session")
def tables() -> Iterator[Tables]:
    with SandboxPool(RunnerSource("tests.sandbox.tables_runner:open_runner")) as pool:
        yield Tables(pool)
