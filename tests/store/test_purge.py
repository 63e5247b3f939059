from __future__ import annotations

import io
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.errors import ConflictError, InvalidInputError, NotFoundError
from nait_store.ingest.job import ingest
from nait_store.ingest.requests import FlushPolicy, IngestRequest
from nait_store.schemas.activation_set import Operation
from nait_store.schemas.capture import Feature
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.scoring.carrying import sidecar_records
from nait_store.selection.choosing import Selection
from nait_store.selection.requests import SelectionRequest
from nait_store.selection.strategies import parse_profiles
from nait_store.storage import layout
from nait_store.storage.heartbeat import job
from nait_store.storage.location import Location
from nait_store.store.garbage.references import SetReferences
from nait_store.testing.fake_capture import FakeCapture

SECRET = "zebra"
GONE = ["secret-1", "secret-4", "secret-bad"]


def _write(path: Path, numbers: range, *, broken: bool = False) -> None:
    records: list[dict[str, Any]] = []
    for i in numbers:
        secret = f"secret-{i}" in GONE
        text = f"the {SECRET} of person {i}" if secret else f"harmless {i}"
        record = {
            "id": f"secret-{i}" if secret else f"r{i}",
            "instruction": text,
            "output": f"done {i}",
            "group": i % 2,
        }
        if secret:
            record["zebra_field"] = "stripes"
        records.append(record)
    if broken:
        records.append({"id": "secret-bad", "instruction": f"<empty> {SECRET}", "output": ""})
        records.append({"id": "other-bad", "instruction": "<empty>", "output": ""})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _ingest(location: Location, source: Path, **options: Any) -> None:
    capture = FakeCapture(batch_samples=2, **options)
    request = IngestRequest((str(source),), "pool", id_field="id", on_error="skip", flush=FlushPolicy(rows=4))
    ingest(location, capture, request)


class _DeadError(Exception):
    pass


def _die(*_arguments: object, **_options: object) -> None:
    raise _DeadError


def _selection(ids: list[str], set_ref: str = "pool@1") -> Selection:
    rows = pa.table(
        {"rank": list(range(1, len(ids) + 1)), "sample_id": ids, "score": [1.0] * len(ids)}, schema=SELECTION_SCHEMA
    )
    return Selection(
        rows=rows,
        request=SelectionRequest(set_ref, parse_profiles("math@1"), top=len(ids)),
        n_candidates=9,
        query="SELECT 1",
    )


BOTH = pytest.mark.parametrize("store", ["local", "memory"], indirect=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in two versions, one of them deleted, a dead ingest, rejects, scores, a profile, a selection."""
    folder = tmp_path_factory.mktemp("purge")
    made = nait_store.open(str(folder / "store"), create=True)
    location = made.location
    _write(folder / "a.jsonl", range(3), broken=True)
    _write(folder / "b.jsonl", range(3, 6))
    _write(folder / "c.jsonl", range(1, 12))
    _ingest(location, folder / "a.jsonl")
    made.profiles.build("math", source="pool", method="mean")
    _ingest(location, folder / "b.jsonl")
    made.score("pool", "math")
    made.sets.versions.log.delete("pool", 2)
    made.selections.save("best", _selection(["r2", "secret-1", "r0"]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ActivationSets, "commit", _die)  # everything is flushed by then
        with pytest.raises(_DeadError):
            _ingest(location, folder / "c.jsonl")
    made.sql("SELECT * FROM samples('pool')").fetchall()
    assert _holders(location), "the test would prove nothing"
    return folder


@pytest.fixture
def store(
    request: pytest.FixtureRequest, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> nait_store.Store:
    """A copy of it, on the local disk or in memory, and of its sources."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    if getattr(request, "param", "local") == "local":
        return nait_store.open(str(tmp_path / "store"))
    location = Location(f"memory://purge-{uuid.uuid4().hex[:12]}")
    for path in sorted((tmp_path / "store").rglob("*")):
        if path.is_file():
            location.write_bytes(str(path.relative_to(tmp_path / "store")), path.read_bytes())
    return nait_store.open(location.url)


def _holders(location: Location) -> list[str]:
    """Files that hold a purged id or text, in Parquet after decompression."""
    found = []
    needles = [SECRET.encode(), *(f"secret-{i}".encode() for i in (1, 4, "bad"))]
    for file in [*location.files(), *location.leftovers()]:
        if file.path.endswith(".duckdb"):
            continue
        data = location.read_bytes(file.path)
        if file.path.endswith(".parquet"):
            table = pq.ParquetFile(io.BytesIO(data)).read()
            data += str(table.to_pydict()).encode() + str(table.schema.metadata).encode()
        if any(needle in data for needle in needles):
            found.append(file.path)
    return found


def _errors(store: nait_store.Store) -> list[str]:
    return [f"{f.path}: {f.problem}" for f in nait_store.open(store.url).verify().errors]


@BOTH
def test_a_purge_leaves_no_trace_of_the_samples(store: nait_store.Store) -> None:
    report = store.purge("pool", ids=GONE, reason="asked for")
    assert _holders(store.location) == []
    assert _errors(store) == []
    assert report.n_found == 3
    assert report.not_found == ()
    assert report.versions == ("pool@3",)
    assert any(source.endswith("b.jsonl") for source in report.sources)
    assert any("profile:math@1" in text for text in report.remains)


@BOTH
def test_every_version_lacks_the_samples_and_has_the_others(store: nait_store.Store) -> None:
    store.purge("pool", ids=GONE)
    sets = store.sets.versions
    assert sets.open("pool@1").sample_ids() == ["r0", "r2"]
    assert sets.version("pool", 2).sample_ids() == ["r0", "r2", "r3", "r5"]
    latest = sets.open("pool")
    assert latest.manifest.operation is Operation.PURGE
    assert latest.manifest.details == {"n_purged": 1}
    assert latest.sample_ids() == ["r0", "r2"]
    assert latest.n_samples == latest.manifest.n_samples == 2
    assert store.sql("SELECT count(*) FROM samples('pool@1')").fetchall() == [(2,)]


def test_a_dead_ingest_is_resumed_without_the_samples(store: nait_store.Store, tmp_path: Path) -> None:
    store.purge("pool", ids=GONE)
    (tmp_path / "c.jsonl").write_text("".join(
        line for line in (tmp_path / "c.jsonl").read_text().splitlines(keepends=True) if "secret" not in line
    ))  # fmt: skip
    capture = FakeCapture()
    request = IngestRequest((str(tmp_path / "c.jsonl"),), "pool", id_field="id")
    report = ingest(store.location, capture, request)
    assert report.resumed_samples > 0
    assert _holders(store.location) == []
    expected = {f"r{i}" for i in (0, 2, 3, *range(5, 12))}
    assert set(nait_store.open(store.url).sets.open("pool").sample_ids()) == expected


def test_without_cleaning_the_source_the_sample_comes_back(store: nait_store.Store, tmp_path: Path) -> None:
    store.purge("pool", ids=GONE)
    _ingest(store.location, tmp_path / "a.jsonl")
    assert "secret-1" in nait_store.open(store.url).sets.open("pool").sample_ids()


def test_kept_scores_move_to_the_replacement(store: nait_store.Store) -> None:
    before = dict(store.sql("SELECT sample_id, score FROM alignment('pool@1', 'math')").fetchall())
    store.purge("pool", ids=GONE)
    after = dict(store.sql("SELECT sample_id, score FROM alignment('pool@1', 'math')").fetchall())
    assert after == {sample_id: score for sample_id, score in before.items() if sample_id not in GONE}
    work, _ = store.score("pool", "math")
    assert work.n_computed == 0
    live = SetReferences(store.location, "pool").look().digests  # those of the dead ingest too: it scored them
    assert {record.segment_sha256 for record in sidecar_records(store.location)} <= live


def test_selections_lose_the_samples_and_keep_the_ranks(store: nait_store.Store) -> None:
    store.purge("pool", ids=GONE)
    saved = nait_store.open(store.url).selections.open("best")
    assert saved.rows().to_pylist() == [
        {"rank": 1, "sample_id": "r2", "score": 1.0},
        {"rank": 3, "sample_id": "r0", "score": 1.0},
    ]
    assert saved.record.n_selected == 2
    assert len(store.location.names("selections/best/payloads")) == 1


def test_selections_of_other_sets_stay(store: nait_store.Store) -> None:
    store.selections.save("theirs", _selection(["secret-1"], "other@1"))
    store.purge("pool", ids=["secret-1"])
    assert store.selections.open("theirs").rows().num_rows == 1


@BOTH
def test_lists_of_rejects_lose_their_lines_and_agree_with_the_outcome(store: nait_store.Store) -> None:
    report = store.purge("pool", ids=["secret-bad"])
    assert report.n_found == 1
    assert report.versions == ()  # no version ever held it
    (path,) = [path for path, _ in store.location.walk("activations/pool/ingests") if path.endswith(".jsonl")]
    assert [json.loads(line)["sample_id"] for line in store.location.read_bytes(path).splitlines()] == ["other-bad"]
    assert _errors(store) == []


@BOTH
def test_a_purge_again_has_nothing_to_do(store: nait_store.Store) -> None:
    store.purge("pool", ids=GONE)
    before = [(file.path, file.size_bytes) for file in store.location.files()]
    report = store.purge("pool", ids=GONE)
    assert (report.n_found, report.n_rows, report.versions, report.rewritten) == (0, 0, (), ())
    assert report.not_found == tuple(sorted(GONE))
    assert [(f.path, f.size_bytes) for f in store.location.files() if f.path != "catalog.duckdb"] == [
        f for f in before if f[0] != "catalog.duckdb"
    ]


def test_a_dry_run_changes_nothing_and_tells_the_same(store: nait_store.Store) -> None:
    before = {path: store.location.read_bytes(path) for path, _ in store.location.walk()}
    looked = store.purge("pool", ids=GONE, dry_run=True)
    assert {path: store.location.read_bytes(path) for path, _ in store.location.walk()} == before
    done = store.purge("pool", ids=GONE)
    for name in ("n_found", "n_rows", "sources", "rewritten", "not_found"):
        assert getattr(looked, name) == getattr(done, name), name


def test_samples_are_named_by_a_condition_on_a_version(store: nait_store.Store) -> None:
    store.sets.versions.log.undelete("pool", 2)
    report = store.purge("pool@2", where="\"group\" = 1 AND record LIKE '%zebra%'")
    assert report.n_asked == report.n_found == 1
    assert store.sets.versions.version("pool", 2).sample_ids() == ["r0", "r2", "r3", "secret-4", "r5"]
    manifest = store.sets.versions.open("pool").manifest
    assert b"zebra" not in manifest.to_json_bytes()


@BOTH
def test_everywhere_means_all_sets(store: nait_store.Store, tmp_path: Path) -> None:
    _write(tmp_path / "d.jsonl", range(2))
    request = IngestRequest((str(tmp_path / "d.jsonl"),), "other", id_field="id")
    ingest(store.location, FakeCapture(), request)
    report = store.purge(ids=GONE, everywhere=True)
    assert report.sets == ("other", "pool")
    assert report.versions == ("other@2", "pool@3")
    assert _holders(store.location) == []


def test_a_living_job_or_ingest_is_waited_for(store: nait_store.Store) -> None:
    with (
        job(store.location, layout.job_folder("pool", "01ARZ3NDEKTSV4RRFFQ69G5FAV")),
        pytest.raises(ConflictError, match="being written to"),
    ):
        store.purge("pool", ids=GONE)
    assert _holders(store.location)
    store.purge("pool", ids=GONE)
    assert store.location.names("activations/pool/jobs") == []


def test_documents_that_quote_an_id_are_named(store: nait_store.Store) -> None:
    store.profiles.build("some", source="pool", method="mean", where="sample_id <> 'secret-1'")
    report = store.purge("pool", ids=["secret-1"])
    assert any("profiles/some" in text and "quote" in text for text in report.remains)


def test_profiles_of_versions_without_the_samples_are_not_named(store: nait_store.Store) -> None:
    store.purge("pool", ids=["secret-1"])
    store.profiles.build("clean", source="pool", method="mean")
    report = store.purge("pool", ids=["secret-4"])
    assert all("profile:clean" not in text for text in report.remains)


def test_what_dead_writers_left_goes_too(store: nait_store.Store) -> None:
    folder = layout.segment_folder("pool", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    store.location.write_bytes(f"{folder}/samples.parquet", b"half of a zebra")
    store.location.write_bytes("activations/pool/segments/.tmp-1-2", b"zebra")
    store.purge("pool", ids=GONE)
    assert _holders(store.location) == []


@BOTH
def test_what_a_killed_purge_left_goes_with_the_next(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = Location.delete

    def fail(self: Location, path: str) -> None:
        if "/segments/" in path:
            raise _DeadError
        delete(self, path)

    monkeypatch.setattr(Location, "delete", fail)
    with pytest.raises(_DeadError):
        store.purge("pool", ids=GONE)
    monkeypatch.setattr(Location, "delete", delete)
    assert _holders(store.location)
    store.purge("pool", ids=GONE)
    assert _holders(store.location) == []
    assert store.sets.versions.open("pool").manifest.operation is Operation.PURGE
    assert _errors(store) == []


def test_nonsense_is_refused_before_anything_happens(store: nait_store.Store) -> None:
    with pytest.raises(InvalidInputError, match="which samples"):
        store.purge("pool")
    with pytest.raises(InvalidInputError, match="which samples"):
        store.purge("pool", ids=["r0"], where="true")
    with pytest.raises(InvalidInputError, match="none at all"):
        store.purge("pool", ids=[])
    with pytest.raises(InvalidInputError, match="which set"):
        store.purge(ids=["r0"])
    with pytest.raises(NotFoundError, match="did you mean 'pool'"):
        store.purge("pol", ids=["r0"])
    with pytest.raises(NotFoundError):
        store.purge("pool", where="no_column = 1")
    assert store.sets.versions.open("pool").number == 1


def test_the_numbers_of_other_samples_stay_as_they_were(store: nait_store.Store) -> None:
    before = store.sets.open("pool@1").segments[0].read(Feature.MEAN)
    store.purge("pool", ids=["secret-1"])
    after = store.sets.open("pool@1").segments[0].read(Feature.MEAN)
    assert (after[[0, 2]] == before[[0, 2]]).all()
    assert not np.any(after[1])


def test_an_open_session_sees_what_another_process_purged(store: nait_store.Store) -> None:
    asked = "SELECT count(*) FROM samples('pool@1') JOIN alignment('pool@1', 'math') USING (sample_id)"
    assert store.sql(asked).fetchall() == [(3,)]
    nait_store.open(store.url).purge("pool", ids=GONE)
    assert store.sql(asked).fetchall() == [(2,)]
