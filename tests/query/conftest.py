"""A small store with everything that SQL looks at, on a local folder and in memory."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nait_store.activations.history import delete_samples, doomed_by_ids
from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.catalog.build import Catalog
from nait_store.progress import ProgressEvent
from nait_store.query.session import QuerySession
from nait_store.refs import Kind
from nait_store.registry.profiles import Profile, ProfileRegistry
from nait_store.registry.recipes import RECIPES, choose_recipe
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, build_set, fake_identity, fake_row, fake_set_record

N_LAYERS, N_NEURONS = 2, 8


@dataclass
class Workbench:
    """A store, its parts, and what its scans reported."""

    location: Location
    events: list[ProgressEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sets = ActivationSets(self.location)
        self.registry = ProfileRegistry(self.location)
        self.session = self.new_session()

    def new_session(self, location: Location | None = None) -> QuerySession:
        where = location or self.location
        return QuerySession(where, self.sets, self.registry, Catalog(where), self.events.append)

    def sql(self, query: str, params: Any = None, **options: Any) -> Any:
        return self.session.sql(query, params, **options)

    def rows(self, query: str, params: Any = None, **options: Any) -> list[tuple[Any, ...]]:
        return self.sql(query, params, **options).fetchall()

    def profile(self, name: str, source: str = "pool", **options: Any) -> Profile:
        recipe = RECIPES["default"] if not options else choose_recipe(**options)
        return self.registry.build(
            name, self.sets.open(source), recipe=recipe, rows=None, where=None, limit=None, seed=0, background=None
        )[0]

    def sidecars(self) -> list[str]:
        return [name for name in self.location.names("scores") if name.endswith(".parquet")]

    def append(
        self, name: str, fields: list[dict[str, Any]], ids: list[str] | None = None, seed: int = 1
    ) -> SetVersion:
        """Commit one more segment with these user fields."""
        self.sets.create(fake_set_record(name, n_layers=N_LAYERS, n_neurons=N_NEURONS))
        ids = ids or [f"{name}-{len(self.sets.numbers(name))}-{i}" for i in range(len(fields))]
        rows = [fake_row(sample_id, i, values) for i, (sample_id, values) in enumerate(zip(ids, fields, strict=True))]
        array = np.random.default_rng(seed).standard_normal((len(rows), N_LAYERS, N_NEURONS), dtype=np.float32)
        record = build_segment(self.location, name, rows, {Feature.MEAN: array})
        return self.sets.commit(name, [record], ingest_ids=())

    def delete(self, name: str, ids: list[str]) -> SetVersion:
        """Commit a version of a set without these samples."""
        doomed, missing = doomed_by_ids(self.sets, self.sets.open(name), ids)
        assert missing == []
        return delete_samples(self.sets, doomed, details={}, message="", allow_empty=False)[0]

    def stored(self, set_ref: str, feature: Feature = Feature.MEAN) -> dict[int, tuple[str, NDArray[np.float64]]]:
        """row_id → sample id and activations [L, J], visible samples only."""
        found = {}
        version = self.sets.open(set_ref)
        for segment in version.segments:
            visible = version.visible_rows(segment)
            array = segment.read(feature).astype(np.float64)  # [n, L, J]
            for row, sample_id in enumerate(segment.samples(["sample_id"]).column("sample_id").to_pylist()):
                if visible is None or visible[row]:
                    found[version.row_id(segment.ordinal, row)] = sample_id, array[row]
        return found

    def bytes_read(self) -> int:
        """Of activations, by the last scan."""
        return self.events[-1].bytes_done if self.events else 0

    def expected_scores(self, set_ref: str, profile: Profile) -> dict[str, float]:
        """Scores in float64 from the stored arrays, by sample id, visible samples only."""
        target = profile.target()
        scores = {}
        version = self.sets.open(set_ref)
        for segment in version.segments:
            array = segment.read(target.feature).astype(np.float64)  # [n, L, J]
            products = np.einsum("nlj,lj->nl", array, target.directions.astype(np.float64))
            if target.metric.value == "cosine":
                products = products / np.linalg.norm(array, axis=2)
            visible = version.visible_rows(segment)
            ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
            for row, sample_id in enumerate(ids):
                if visible is None or visible[row]:
                    scores[sample_id] = float(products[row].sum())
        return scores


@pytest.fixture(autouse=True)
def cache_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return _location(request.param, tmp_path)


@pytest.fixture
def empty(location: Location) -> Iterator[Workbench]:
    """An empty store."""
    bench = Workbench(location)
    yield bench
    bench.session.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """A store of its own for a test that changes it."""
    bench = _filled(_location("local", tmp_path))
    yield bench
    bench.session.close()


@pytest.fixture(scope="module", params=["local", "memory"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """The same store for all tests that only ask."""
    bench = _filled(_location(request.param, tmp_path_factory.mktemp("shared")))
    yield bench
    bench.session.close()


@pytest.fixture(scope="module", params=["local", "memory"])
def wide_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """wide@3: 76 of 80 samples in 3 segments of 4 layers of 16 neurons, in chunks of 8 rows, float16 and float32."""
    bench = Workbench(_location(request.param, tmp_path_factory.mktemp("wide")))
    features = (Feature.MEAN, Feature.DRIFT)
    build_set(bench.location, "wide", 48, 4, 16, features, n_segments=2, chunk_rows=8)
    float32 = StoredDtype.FLOAT32
    build_set(bench.location, "wide", 32, 4, 16, features, seed=5, first=48, chunk_rows=8, dtype=float32)
    bench.delete("wide", ["s000000", "s000005", "s000030", "s000079"])
    yield bench
    bench.session.close()


@pytest.fixture
def wide(wide_store: Workbench) -> Workbench:
    """The same store for all tests of a module; what is read counts from the test's beginning."""
    wide_store.events.clear()
    return wide_store


@pytest.fixture
def press_ctrl_c() -> Callable[[], None]:
    """Call it before a query that takes long: Ctrl-C comes while that runs."""

    def press() -> None:
        while all(thread.name != "nait-query" for thread in threading.enumerate()):
            time.sleep(0.01)
        time.sleep(0.2)  # what it runs first, before the query itself, is done in less
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    return lambda: threading.Thread(target=press, daemon=True).start()


def _location(kind: str, folder: Path) -> Location:
    return Location(str(folder / "store") if kind == "local" else f"memory://query-{uuid.uuid4().hex}")


def _filled(location: Location) -> Workbench:
    """pool@1 (40 samples in 3 segments), pool@2 (60 in 4), elsewhere@1 (another model), math@1, math@2, code@1.

    The alias math@prod and the tag math@paper are on math@1.
    """
    bench = Workbench(location)
    domains = [("maths", "code", "chat")[i % 3] for i in range(60)]
    build_set(location, "pool", 40, N_LAYERS, N_NEURONS, n_segments=3, user_fields={"domain": domains[:40]})
    build_set(location, "pool", 20, N_LAYERS, N_NEURONS, seed=7, first=40, user_fields={"domain": domains[40:]})
    build_set(location, "elsewhere", 10, N_LAYERS, N_NEURONS, identity=fake_identity("another-model"))
    bench.profile("math", "pool@1")
    bench.profile("math", "pool@2")
    bench.profile("code", "pool@1", method="mean", metric="dot")
    labels = Labels(location, Kind.PROFILE)
    labels.put(LabelKind.ALIAS, "math", "prod", 1)
    labels.put(LabelKind.TAG, "math", "paper", 1, "table 2")
    return bench
