"""Every kind of damage, mended or told of; the store is sound afterwards, or the report says what is not."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nait_store
from nait_store.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.selection.choosing import Selection
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import parse_profiles
from nait_store.storage import layout
from nait_store.storage.heartbeat import job
from nait_store.storage.labels import LabelKind
from nait_store.storage.location import Location
from nait_store.store.repair.repairing import RepairReport
from nait_store.testing.fake_capture import FakeCapture

IDS = [f"r{i}" for i in range(12)]


BOTH = pytest.mark.parametrize("store", ["local", "memory"], indirect=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a set of three segments, a profile, scores, a selection, labels, a rejected record."""
    folder = tmp_path_factory.mktemp("repair")
    made = nait_store.open(str(folder / "store"), create=True)
    records = [{"id": i, "instruction": f"do {i}", "output": f"done {i}"} for i in IDS]
    bad = {"id": "bad", "instruction": "<empty>", "output": ""}
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*records[:8], bad]))
    (folder / "b.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[8:]))
    for name in "ab":
        _ingest(made.location, folder / f"{name}.jsonl")
    made.profiles.build("math", source="pool", method="mean")
    made.score("pool", "math")
    labels = made.sets.versions.log.labels
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    rows = pa.table({"rank": [1, 2], "sample_id": ["r1", "r9"], "score": [2.0, 1.0]}, schema=SELECTION_SCHEMA)
    request = SelectionRequest("pool@2", parse_profiles("math@1"), top=2)
    made.selections.save("best", Selection(rows, request, 12, "SELECT"))
    assert made.verify().ok
    return folder


@pytest.fixture
def store(
    request: pytest.FixtureRequest, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nait_store.Store:
    """A copy of it, on the local disk or in memory, and of its sources."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    if getattr(request, "param", "local") == "local":
        return nait_store.open(str(tmp_path / "store"))
    location = Location(f"memory://repair-{uuid.uuid4().hex[:12]}")
    for path in sorted((tmp_path / "store").rglob("*")):
        if path.is_file() and not path.name.startswith("catalog.duckdb"):
            location.write_bytes(str(path.relative_to(tmp_path / "store")), path.read_bytes())
    return nait_store.open(location.url)


def _ingest(location: Location, source: Path, name: str = "pool") -> None:
    request = IngestRequest((str(source),), name, id_field="id", on_error="skip", flush=FlushPolicy(rows=4))
    ingest(location, FakeCapture(batch_samples=4), request)


def _path(store: nait_store.Store, pattern: str, which: int = 0) -> str:
    import fnmatch

    found = [path for path, _ in store.location.walk() if fnmatch.fnmatch(path, pattern)]
    assert found, pattern
    return found[which]


def _flip(store: nait_store.Store, path: str, *, times: int = 1) -> None:
    data = bytearray(store.location.read_bytes(path))
    for i in range(times):
        data[(len(data) // 2 + 7 * i) % len(data)] ^= 2
    store.location.write_bytes(path, bytes(data))


def _repair(store: nait_store.Store, **options: Any) -> RepairReport:
    report = nait_store.open(store.url).repair(**options)
    if not options.get("dry_run"):
        assert [f"{f.path}: {f.problem}" for f in report.remaining] == [
            f"{f.path}: {f.problem}" for f in nait_store.open(store.url).verify().errors
        ]
    return report


def _ids(store: nait_store.Store, reference: str = "pool") -> list[str]:
    return sorted(nait_store.open(store.url).sets.open(reference).sample_ids(), key=lambda i: int(i[1:]))


def _features(store: nait_store.Store) -> dict[str, bytes]:
    version = nait_store.open(store.url).sets.open("pool")
    return {
        sample_id: segment.read(Feature.MEAN)[row].tobytes()
        for segment in version.segments
        for row, sample_id in enumerate(segment.samples(["sample_id"]).column(0).to_pylist())
        if sample_id
    }


def _lines(path: str = "repair-rejects.jsonl") -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in Path(path).read_text().splitlines())


SMALL = [
    "store.json",
    "activations/pool/set.json",
    "activations/pool/versions/1.json",
    "activations/pool/versions/2.json",
    "activations/pool/segments/*/segment.json",
    "activations/pool/segments/*/samples.parquet",
    "activations/pool/segments/*/data.zarr/mean/zarr.json",
    "activations/pool/segments/*/data.zarr/mean/c/0/1/0",
    "activations/pool/segments/*/data.zarr/mean_norms/c/0/0",
    "activations/pool/ingests/*/plan.json",
    "activations/pool/ingests/*/outcome.json",
    "activations/pool/ingests/*/flushed/*.json",
    "activations/pool/ingests/*/rejects.jsonl",
    "activations/pool/aliases/prod/2.json",
    "profiles/math/versions/1.json",
    "profiles/math/payloads/*/profile.json",
    "profiles/math/payloads/*/directions.zarr/directions/c/0/0",
    "selections/best/versions/1.json",
    "selections/best/payloads/*/selection.json",
    "selections/best/payloads/*/selection.parquet",
]


@pytest.mark.parametrize("pattern", SMALL)
def test_one_flipped_bit_of_a_small_file_is_put_right(store: nait_store.Store, pattern: str) -> None:
    path = _path(store, pattern)
    whole = store.location.read_bytes(path)
    _flip(store, path)
    if pattern == "store.json":
        with pytest.raises(FormatError):
            nait_store.open(store.url)
        report = store.repair()
    else:
        report = _repair(store)
    assert report.ok
    assert report.found
    assert store.location.read_bytes(path) == whole
    assert report.lost == ()
    assert report.n_dropped == 0


def test_nothing_is_done_to_a_sound_store(store: nait_store.Store) -> None:
    before = {path: store.location.read_bytes(path) for path, _ in store.location.walk()}
    report = _repair(store)
    assert report.ok
    assert (report.found, report.mended, report.deleted, report.lost, report.versions) == ((), (), (), (), ())
    assert {path: store.location.read_bytes(path) for path, _ in store.location.walk()} == before


@BOTH
@pytest.mark.parametrize("damage", ["missing", "rotten"])
def test_rows_of_a_damaged_chunk_are_dropped_and_the_sound_rows_kept(store: nait_store.Store, damage: str) -> None:
    before = _features(store)
    path = _path(store, "activations/pool/segments/*/data.zarr/mean/c/0/1/0")
    if damage == "missing":
        store.location.delete(path)
    else:
        _flip(store, path, times=3)
    report = _repair(store)
    assert report.ok
    assert report.n_dropped == 4
    assert report.versions == ("pool@3",)
    left = IDS[4:]
    assert _ids(store) == left
    assert _ids(store, "pool@1") == IDS[4:8]
    assert {i: v for i, v in _features(store).items() if i in left} == {i: before[i] for i in left}
    assert [line["sample_id"] for line in _lines()] == IDS[:4]
    assert [line["record"]["instruction"] for line in _lines()] == [f"do {i}" for i in IDS[:4]]
    assert nait_store.open(store.url).sets.open("pool").manifest.operation is Operation.REPAIR


def test_only_the_damaged_block_is_dropped(store: nait_store.Store) -> None:
    from nait_store.testing.stores import build_set

    build_set(store.location, "blocks", 10, chunk_rows=4)
    _flip(store, _path(store, "activations/blocks/segments/*/data.zarr/mean/c/1/0/0"), times=3)
    report = _repair(store)
    assert report.ok
    assert report.n_dropped == 4
    left = nait_store.open(store.url).sets.open("blocks").sample_ids()
    assert left == [f"s{i:06d}" for i in (0, 1, 2, 3, 8, 9)]


@BOTH
def test_lost_sample_rows_cost_their_segment(store: nait_store.Store) -> None:
    store.location.delete(_path(store, "activations/pool/segments/*/samples.parquet"))
    report = _repair(store)
    assert report.ok
    assert report.n_dropped == 4
    assert _ids(store) == IDS[4:]
    assert [line["sample_id"] for line in _lines()] == [None] * 4


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_lost_segment_record_costs_its_segment_but_its_rows_are_listed(store: nait_store.Store, damage: str) -> None:
    path = _path(store, "activations/pool/segments/*/segment.json")
    if damage == "missing":
        store.location.delete(path)
    else:
        store.location.write_bytes(path, store.location.read_bytes(path)[:200])
    report = _repair(store)
    assert report.ok
    assert _ids(store) == IDS[4:]
    assert [line["sample_id"] for line in _lines()] == IDS[:4]


def test_a_lost_segment_folder_is_stood_for_by_a_blank_one(store: nait_store.Store) -> None:
    segment_id = _path(store, "activations/pool/segments/*/segment.json").split("/")[3]
    store.location.delete(layout.segment_folder("pool", segment_id))
    report = _repair(store)
    assert report.ok
    assert _ids(store) == IDS[4:]
    assert _ids(store, "pool@1") == IDS[4:8]


@BOTH
def test_lost_metadata_and_norms_are_made_again(store: nait_store.Store) -> None:
    paths = [
        _path(store, f"activations/pool/segments/*/{name}")
        for name in ("data.zarr/zarr.json", "data.zarr/mean/zarr.json", "data.zarr/mean_norms/c/0/0")
    ]
    before = [store.location.read_bytes(path) for path in paths]
    for path in paths:
        store.location.delete(path)
    report = _repair(store)
    assert report.ok
    assert report.n_dropped == 0
    assert [store.location.read_bytes(path) for path in paths] == before
    assert report.versions == ()


@BOTH
@pytest.mark.parametrize("damage", ["missing", "rotten"])
def test_the_samples_of_a_lost_version_are_committed_again(store: nait_store.Store, damage: str) -> None:
    path = "activations/pool/versions/2.json"
    if damage == "missing":
        store.location.delete(path)
    else:
        _flip(store, path, times=3)
    report = _repair(store)
    assert report.ok
    assert _ids(store) == IDS
    assert _ids(store, "pool@1") == IDS[:8]
    assert report.versions == ("pool@3",)
    assert any("pool@2" in note.text for note in report.lost)
    with pytest.raises(NotFoundError):
        nait_store.open(store.url).sets.open("pool@2")
    with pytest.raises(NotFoundError, match="prod"):
        nait_store.open(store.url).sets.open("pool@prod")
    assert _repair(store).found == ()


def test_a_lost_first_version_takes_those_that_build_on_it_and_nothing_is_lost(store: nait_store.Store) -> None:
    _flip(store, "activations/pool/versions/1.json", times=3)
    report = _repair(store)
    assert report.ok
    assert _ids(store) == IDS
    assert nait_store.open(store.url).sets.versions.numbers("pool") == [3]


def test_a_lost_list_of_hidden_rows_is_told(store: nait_store.Store) -> None:
    store.sets.delete_samples("pool", ids=["r3"])
    _flip(store, _path(store, "activations/pool/tombstones/*.parquet"), times=3)
    report = _repair(store)
    assert report.ok
    assert any("hidden rows" in note.text for note in report.lost)
    assert _ids(store) == IDS  # what was deleted is there again: the report says so
    assert nait_store.open(store.url).sets.open("pool").number == 2


def test_a_lost_set_record_is_made_again_from_a_plan(store: nait_store.Store) -> None:
    before = store.sets.versions.record("pool")
    assert before is not None
    store.location.delete("activations/pool/set.json")
    assert _repair(store).ok
    after = nait_store.open(store.url).sets.versions.record("pool")
    assert after is not None
    assert after.model_copy(update={"provenance": before.provenance}) == before


def test_a_lost_set_record_without_any_plan_is_made_again_from_a_profile(store: nait_store.Store) -> None:
    store.location.delete("activations/pool/set.json")
    store.location.delete("activations/pool/ingests")
    assert _repair(store).ok
    assert _ids(store) == IDS


def test_a_set_record_of_which_nothing_tells_is_reported(store: nait_store.Store) -> None:
    for path in ("activations/pool/set.json", "activations/pool/ingests", "profiles", "selections"):
        store.location.delete(path)
    report = _repair(store)
    assert not report.ok
    assert any(note.path.endswith("set.json") and "copy" in note.text for note in report.lost)


def test_a_lost_redirect_is_made_again(store: nait_store.Store) -> None:
    store.purge("pool", ids=["r2"])
    _flip(store, _path(store, "activations/pool/redirects/*.json"), times=3)
    assert _repair(store).ok
    assert _ids(store) == [i for i in IDS if i != "r2"]


@pytest.mark.parametrize("file", ["plan.json", "outcome.json", "flushed/*.json", "rejects.jsonl", "heartbeat.json"])
def test_lost_journals_are_made_again(store: nait_store.Store, file: str) -> None:
    path = _path(store, f"activations/pool/ingests/*/{file}")
    _flip(store, path, times=3)
    assert _repair(store).ok
    assert _ids(store) == IDS


def test_a_dead_ingest_with_a_damaged_chunk_keeps_its_sound_segments(store: nait_store.Store, tmp_path: Path) -> None:
    _ingest(store.location, tmp_path / "a.jsonl", "dead")
    for name in ("versions", "ingests/*/outcome.json", "ingests/*/heartbeat.json"):
        pattern = f"activations/dead/{name}"
        store.location.delete(pattern if "*" not in pattern else _path(store, pattern))
    _flip(store, _path(store, "activations/dead/segments/*/data.zarr/mean/c/0/0/0"), times=3)
    report = _repair(store)
    assert report.ok
    assert report.n_dropped == 4
    _ingest(store.location, tmp_path / "a.jsonl", "dead")
    assert _ids(store, "dead") == IDS[:8]


def test_damaged_caches_go(store: nait_store.Store) -> None:
    store.sql("SELECT 1 FROM samples('pool')").fetchall()
    _flip(store, _path(store, "scores/*.parquet"), times=3)
    _flip(store, _path(store, "scores/*.json", 1), times=3)
    if store.location.is_file("catalog.duckdb"):
        _flip(store, "catalog.duckdb", times=50)
    assert _repair(store).ok
    opened = nait_store.open(store.url)
    assert opened.sql("SELECT count(*) FROM alignment('pool', 'math')").fetchall() == [(12,)]


def test_a_lost_move_of_an_alias_leaves_it_naming_nothing(store: nait_store.Store) -> None:
    _flip(store, "activations/pool/aliases/prod/2.json", times=3)
    report = _repair(store)
    assert report.ok
    assert any("pool@1" in note.text and "set it again" in note.text for note in report.lost)
    with pytest.raises(NotFoundError):
        nait_store.open(store.url).sets.open("pool@prod")


def test_a_damaged_deletion_marker_still_hides(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 1, "why")
    _flip(store, "activations/pool/versions/1.deleted.json", times=3)
    assert _repair(store).ok
    assert nait_store.open(store.url).sets.versions.numbers("pool") == [2]


@pytest.mark.parametrize("kind", ["profiles/math", "selections/best"])
def test_a_lost_version_document_is_made_again_from_its_payload(store: nait_store.Store, kind: str) -> None:
    _flip(store, f"{kind}/versions/1.json", times=3)
    assert _repair(store).ok
    opened = nait_store.open(store.url)
    assert opened.profiles.open("math").number == 1
    assert opened.selections.open("best").rows().num_rows == 2


def test_a_missing_version_of_a_profile_is_hidden_where_nothing_tells_its_payload(store: nait_store.Store) -> None:
    store.profiles.build("math", source="pool", method="pca")
    store.location.delete("profiles/math/versions/1.json")
    store.location.delete("profiles/math/payloads/" + min(store.location.names("profiles/math/payloads")))
    report = _repair(store)
    assert report.ok
    assert any("profile:math@1" in note.text and "build it again" in note.text for note in report.lost)
    assert nait_store.open(store.url).profiles.open("math").number == 2


@pytest.mark.parametrize("file", ["profiles/math/payloads/*/profile.json", "selections/best/payloads/*/*.parquet"])
def test_a_lost_payload_hides_its_version_and_says_what_to_do(store: nait_store.Store, file: str) -> None:
    store.location.delete(_path(store, file))
    report = _repair(store)
    assert report.ok
    assert any("again" in note.text for note in report.lost)
    opened = nait_store.open(store.url)
    item, name = (opened.profiles, "math") if "math" in file else (opened.selections, "best")
    with pytest.raises(NotFoundError):
        item.open(name)


@BOTH
def test_dropped_samples_alone_are_captured_again(store: nait_store.Store, tmp_path: Path) -> None:
    before = _features(store)
    _flip(store, _path(store, "activations/pool/segments/*/data.zarr/mean/c/0/0/0"), times=3)
    with (tmp_path / "a.jsonl").open("a") as source:
        source.write(json.dumps({"id": "new", "instruction": "never asked for", "output": ""}) + "\n")
    report = _repair(store, sources=[str(tmp_path / "a.jsonl")], capture=FakeCapture(), id_field="id")
    assert report.ok
    assert report.n_recaptured == 4
    assert _ids(store) == IDS
    assert _features(store) == before


def test_what_was_deleted_is_not_captured_again(store: nait_store.Store, tmp_path: Path) -> None:
    store.sets.delete_samples("pool", ids=["r1"])
    _flip(store, _path(store, "activations/pool/segments/*/data.zarr/mean/c/0/0/0"), times=3)
    report = _repair(store, sources=[str(tmp_path / "a.jsonl")], capture=FakeCapture(), id_field="id")
    assert report.n_recaptured == 3
    assert _ids(store) == [i for i in IDS if i != "r1"]


def test_a_dry_run_changes_nothing_and_tells(store: nait_store.Store) -> None:
    _flip(store, _path(store, "activations/pool/segments/*/data.zarr/mean/c/0/0/0"), times=3)
    _flip(store, "activations/pool/set.json")
    before = {path: store.location.read_bytes(path) for path, _ in store.location.walk()}
    report = _repair(store, dry_run=True)
    assert {path: store.location.read_bytes(path) for path, _ in store.location.walk()} == before
    assert not report.ok
    assert report.mended
    assert not Path("repair-rejects.jsonl").exists()


def test_nobody_else_may_write_meanwhile(store: nait_store.Store) -> None:
    _flip(store, _path(store, "activations/pool/segments/*/data.zarr/mean/c/0/0/0"), times=3)
    with job(store.location, layout.job_folder("pool", "01ARZ3NDEKTSV4RRFFQ69G5FAV")), pytest.raises(ConflictError):
        nait_store.open(store.url).repair()
    assert _ids(store) == IDS


def test_nonsense_is_refused(store: nait_store.Store) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'pool'"):
        store.repair(set="pol")
    with pytest.raises(InvalidInputError, match="both the sources and the model"):
        store.repair(sources=["a.jsonl"])


@BOTH
def test_everything_at_once(store: nait_store.Store) -> None:
    rng = np.random.default_rng(0)
    paths = [path for path, _ in store.location.walk() if path != "store.json"]
    for path in rng.choice(paths, 8, replace=False):
        _flip(store, str(path), times=int(rng.integers(1, 4)))
    report = _repair(store)
    assert report.ok, report.remaining
    opened = nait_store.open(store.url)
    for number in opened.sets.versions.numbers("pool"):
        assert set(opened.sets.open(f"pool@{number}").sample_ids()) <= set(IDS)
