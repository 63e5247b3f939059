"""Saved selections: versions, names, integrity."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nait_store.errors import CorruptChunkError, InvalidInputError, NotFoundError, ReadOnlyError
from nait_store.selection.saved import SavedSelections
from nait_store.selection.verify import SelectionInspection
from nait_store.storage.location import Location
from nait_store.storage.verify import Finding, Inspection, Severity
from nait_store.testing.stores import build_set


def verify(location: Location, *, quick: bool = False) -> list[Finding]:
    inspection = Inspection(location, ["selections"], quick=quick)
    best = SelectionInspection(inspection, "best")
    best.structure()
    inspection.compare()
    best.contents()
    inspection.report_unlisted()
    return list(inspection.findings)


def test_saving_and_opening_gives_the_selection_back(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 5)
    selection = make_selection(version, ["s000003", "s000001"])
    saved = SavedSelections(location)
    reference = saved.save("best", selection, message="why", parameters={"top": "2"}).reference
    assert reference == "best@1"
    opened = saved.open("best")
    assert opened.selection().rows.equals(selection.rows)
    assert opened.selection().query == selection.query
    assert (opened.record.set_ref, opened.record.profile_ref) == ("pool@1", "math@1")
    assert opened.record.parameters == {"top": "2"}
    assert (opened.record.n_candidates, opened.record.n_selected) == (5, 2)
    assert saved.manifests("best")[0].message == "why"


def test_versions_count_up_and_stay(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 5)
    saved = SavedSelections(location)
    for ids in (["s000000"], ["s000001"]):
        saved.save("best", make_selection(version, ids))
    assert saved.names() == ["best"]
    assert saved.open("best@1").rows().column("sample_id").to_pylist() == ["s000000"]
    assert saved.open("selection:best").rows().column("sample_id").to_pylist() == ["s000001"]


def test_concurrent_saves_all_get_a_version(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3)
    selection = make_selection(version, ["s000000"])
    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(lambda _: SavedSelections(location).save("best", selection).number, range(12)))
    assert sorted(saved) == list(range(1, 13))


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300, "UPPER", "ä", "a/b", "-a"])
def test_bad_names_are_refused_and_nothing_is_written(location: Location, make_selection: Any, name: str) -> None:
    version = build_set(location, "pool", 3)
    before = dict(location.walk())
    with pytest.raises(InvalidInputError, match="not a valid selection name"):
        SavedSelections(location).save(name, make_selection(version, ["s000000"]))
    assert dict(location.walk()) == before


def test_unknown_names_and_versions_suggest(location: Location, make_selection: Any) -> None:
    saved = SavedSelections(location)
    saved.save("maths-top", make_selection(build_set(location, "pool", 3), ["s000000"]))
    with pytest.raises(NotFoundError) as caught:
        saved.open("math-top")
    assert "'maths-top'" in str(caught.value.next_step)
    with pytest.raises(NotFoundError, match="no version 7"):
        saved.open("maths-top@7")
    with pytest.raises(NotFoundError):
        saved.manifests("math-top")


def test_damage_is_found(location: Location, make_selection: Any) -> None:
    saved = SavedSelections(location)
    saved.save("best", make_selection(build_set(location, "pool", 3), ["s000000"]))
    assert verify(location) == []
    path = next(path for path, _ in location.walk("selections") if path.endswith("selection.parquet"))
    data = bytearray(location.read_bytes(path))
    data[len(data) // 2] ^= 1
    location.write_bytes(path, bytes(data))
    assert verify(location, quick=True) == []
    assert [(f.path, f.severity) for f in verify(location)] == [(path, Severity.ERROR)]
    with pytest.raises(CorruptChunkError):
        saved.open("best").rows()
    location.delete(path)
    assert [f.path for f in verify(location, quick=True)] == [path]


def test_a_changed_record_is_found(location: Location, make_selection: Any) -> None:
    saved = SavedSelections(location)
    saved.save("best", make_selection(build_set(location, "pool", 3), ["s000000"]))
    path = next(path for path, _ in location.walk("selections") if path.endswith("selection.json"))
    location.write_bytes(
        path, location.read_bytes(path).replace(b'"10', b'"11').replace(b'"n_selected":1', b'"n_selected":2')
    )
    with pytest.raises(CorruptChunkError):
        saved.open("best")
    assert [f.severity for f in verify(location)] == [Severity.ERROR]


def test_a_read_only_store_is_refused_before_anything_is_written(location: Location, make_selection: Any) -> None:
    version = build_set(location, "pool", 3)
    before = dict(location.walk())
    locked = location.read_only("locked", "unlock it")
    with pytest.raises(ReadOnlyError, match="locked"):
        SavedSelections(locked).save("best", make_selection(version, ["s000000"]))
    assert dict(location.walk()) == before
