"""A sandbox over a few tables, in a folder that is watched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nait_store.query.sandbox.limits import SandboxLimits
from nait_store.query.sandbox.pool import SandboxAnswer, SandboxPool
from nait_store.query.sandbox.processes import RunnerSource
from nait_store.query.sandbox.runner import UntrustedQuery

TABLES_RUNNER = RunnerSource("tests.sandbox.tables_runner:open_runner")
SMALL = SandboxLimits(wall_seconds=1.5, memory_bytes=192 << 20, output_bytes=1 << 20)
SECRET = "the secret of the host"


@dataclass
class Bench:
    pool: SandboxPool
    tree: Path

    @property
    def places(self) -> dict[str, Path]:
        return {"{tree}": self.tree, "{store}": self.tree, "{segment}": self.tree / "segment.parquet"}

    def sql(
        self, query: str, parameters: Any = None, limits: SandboxLimits = SMALL, **tables: pa.Table
    ) -> SandboxAnswer:
        tables = {"activation_sets": pa.table({"activation_set": ["pool"], "model": ["m"]}), **tables}
        return self.pool.run(UntrustedQuery(query, parameters, tables), limits)

    def rows(self, query: str, parameters: Any = None, **options: Any) -> list[tuple[Any, ...]]:
        table = self.sql(query, parameters, **options).table
        return [tuple(row.values()) for row in table.to_pylist()]

    def fingerprint(self) -> dict[str, str]:
        """Digest of everything below the watched folder."""
        return {
            str(path.relative_to(self.tree)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "folder"
            for path in sorted(self.tree.rglob("*"))
        }


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tree = tmp_path_factory.mktemp("watched")
    (tree / "secret.csv").write_text(f"a\n{SECRET}\n", encoding="utf-8")
    pq.write_table(pa.table({"a": [1]}), tree / "segment.parquet")
    with SandboxPool(TABLES_RUNNER) as pool:
        yield Bench(pool, tree)
