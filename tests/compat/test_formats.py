"""Stores that earlier releases wrote, read and written by this one; made by make_store.py."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import ReadOnlyError, UnsupportedVersionError
from nait_store.schemas.record import document_bytes
from nait_store.schemas.store_record import FORMAT_VERSION
from nait_store.testing.fake_capture import FakeCapture

_FORMATS = sorted(path.parent for path in Path(__file__).parent.glob("format-*/store.zip"))


@pytest.fixture(params=_FORMATS, ids=lambda path: path.name)
def expected(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(request.param / "store.zip") as packed:
        packed.extractall(tmp_path / "store")
    found: dict[str, Any] = json.loads((request.param / "expected.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def store(expected: dict[str, Any], tmp_path: Path) -> nait_store.Store:
    return nait_store.open(str(tmp_path / "store"))


def _rewrite_store_record(folder: Path, **changes: Any) -> None:
    path = folder / "store" / "store.json"
    path.write_bytes(document_bytes(json.loads(path.read_bytes()) | changes))


def test_there_is_a_store_of_the_current_format() -> None:
    assert f"format-{FORMAT_VERSION}" in [path.name for path in _FORMATS]


def test_every_version_has_its_samples(store: nait_store.Store, expected: dict[str, Any]) -> None:
    for name, versions in expected["versions"].items():
        assert [str(n) for n in store.sets.versions.numbers(name)] == list(versions)
        for number, ids in versions.items():
            assert sorted(store.sets.open(f"{name}@{number}").sample_ids()) == ids


def test_labels_and_operations_are_read(store: nait_store.Store, expected: dict[str, Any]) -> None:
    assert {label: store.sets.open(f"pool@{label}").reference for label in expected["labels"]} == expected["labels"]
    assert [m.operation.value for m in store.sets.versions.manifests("pool")] == expected["operations"]


@pytest.mark.parametrize("cached", [True, False])
def test_scores_are_those_that_were_written_down(
    store: nait_store.Store, expected: dict[str, Any], tmp_path: Path, cached: bool
) -> None:
    if not cached:
        for sidecar in (tmp_path / "store" / "scores").iterdir():
            sidecar.unlink()
    for profile, scores in expected["scores"].items():
        rows = store.sql("SELECT sample_id, score FROM alignment('pool', $profile)", {"profile": profile}).fetchall()
        assert dict(rows) == pytest.approx(scores, rel=1e-4, abs=1e-5)


def test_the_selection_is_read(store: nait_store.Store, expected: dict[str, Any]) -> None:
    assert store.selections.open("best").rows().column("sample_id").to_pylist() == expected["selection"]


def test_the_store_verifies(store: nait_store.Store, expected: dict[str, Any]) -> None:
    assert store.verify().errors == ()


def test_this_release_goes_on_writing_it(store: nait_store.Store, expected: dict[str, Any], tmp_path: Path) -> None:
    waiting = expected["waiting"]
    records = [{"id": i, "instruction": f"solve {i[1:]} über {'x' * (int(i[1:]) % 4)}"} for i in waiting]
    records = [
        {**record, "output": f"it is {record['id'][1:]}", "level": int(record["id"][1:]) % 3} for record in records
    ]
    (tmp_path / "third.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    report = store.ingest(str(tmp_path / "third.jsonl"), set="pool", model="fake", capture=FakeCapture(), id_field="id")
    assert report.resumed_samples > 0
    before = max(expected["versions"]["pool"], key=int)
    assert sorted(store.sets.open("pool").sample_ids()) == sorted(expected["versions"]["pool"][before] + waiting)
    assert store.verify().errors == ()


_WRITERS: dict[str, Callable[[nait_store.Store], object]] = {
    "build": lambda store: store.profiles.build("new", source="pool"),
    "delete-samples": lambda store: store.sets.delete_samples("pool", ids=["r0"]),
    "restore": lambda store: store.sets.restore("pool@3"),
    "delete": lambda store: store.sets.delete("pool@2", force=True),
    "undelete": lambda store: store.sets.undelete("pool@1"),
    "tag": lambda store: store.sets.tag("pool@2", "kept"),
    "alias": lambda store: store.sets.alias("pool@2", "prod"),
    "compact": lambda store: store.sets.compact("pool"),
    "convert": lambda store: store.sets.convert("pool", "int8"),
    "gc": lambda store: store.gc(),
    "purge": lambda store: store.purge("pool", ids=["r0"]),
    "repair": lambda store: store.repair(),
    "save": lambda store: store.selections.save("more", store.select("pool", profile="math", top=3)),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float32"])
def test_its_sets_are_converted(store: nait_store.Store, expected: dict[str, Any], tmp_path: Path, dtype: str) -> None:
    earlier, latest = sorted(expected["versions"]["pool"], key=int)[-2:]
    store.sets.convert("pool", dtype)
    assert sorted(store.sets.open("pool").sample_ids()) == expected["versions"]["pool"][latest]
    assert sorted(store.sets.open(f"pool@{earlier}").sample_ids()) == expected["versions"]["pool"][earlier]
    opened = nait_store.open(str(tmp_path / "store"))
    assert opened.record.reader_features == opened.record.writer_features == ("dtypes",)
    assert opened.verify().errors == ()


@pytest.mark.parametrize("write", _WRITERS)
def test_an_unknown_writer_feature_makes_the_store_read_only(
    expected: dict[str, Any], tmp_path: Path, write: str
) -> None:
    _rewrite_store_record(tmp_path, writer_features=["from-the-future"])
    store = nait_store.open(str(tmp_path / "store"))
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    with pytest.raises(ReadOnlyError, match="unknown writer features from-the-future"):
        _WRITERS[write](store)
    after = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert after == before


def test_a_store_with_an_unknown_writer_feature_is_read(expected: dict[str, Any], tmp_path: Path) -> None:
    _rewrite_store_record(tmp_path, writer_features=["from-the-future"])
    store = nait_store.open(str(tmp_path / "store"))
    rows = store.sql("SELECT sample_id, score FROM alignment('pool', 'math@1')").fetchall()
    assert dict(rows) == pytest.approx(expected["scores"]["math@1"], rel=1e-4, abs=1e-5)
    assert store.verify().errors == ()


@pytest.mark.parametrize("change", [{"reader_features": ["sparse"]}, {"format_version": 99}])
def test_what_this_release_cannot_read_is_refused(
    expected: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    _rewrite_store_record(tmp_path, **change)
    with pytest.raises(UnsupportedVersionError, match="written by a newer release"):
        nait_store.open(str(tmp_path / "store"))
