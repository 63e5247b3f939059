from __future__ import annotations

import random

import numpy as np
import pytest

from nait_store.activations.verify import Severity, verify_set
from nait_store.activations.versions import ActivationSets
from nait_store.progress import ProgressEvent
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, build_set, fake_row


@pytest.fixture
def sets(location: Location) -> ActivationSets:
    build_set(location, "pool", 20, 2, 8, (Feature.MEAN, Feature.DRIFT), n_segments=2, chunk_rows=4)
    build_set(location, "pool", 20, 2, 8, (Feature.MEAN, Feature.DRIFT), first=10, seed=1)
    return ActivationSets(location)


def _errors(sets: ActivationSets, *, quick: bool = False) -> list[str]:
    return [f.path for f in verify_set(sets, "pool", quick=quick) if f.severity is Severity.ERROR]


def test_a_healthy_set_has_no_findings(location: Location, sets: ActivationSets) -> None:
    assert verify_set(sets, "pool") == []
    assert verify_set(sets, "pool", quick=True) == []


def test_progress_ends_at_every_file_and_every_byte(location: Location, sets: ActivationSets) -> None:
    events: list[ProgressEvent] = []
    verify_set(sets, "pool", progress=events.append)
    sizes = [size for _, size in location.walk("activations/pool")]
    assert [e.done for e in events] == list(range(1, len(sizes) + 1))
    assert (events[-1].total, events[-1].bytes_done, events[-1].bytes_total) == (len(sizes), sum(sizes), sum(sizes))


def test_one_flipped_bit_in_any_file_is_found(location: Location, sets: ActivationSets) -> None:
    paths = [path for path, size in location.walk("activations/pool") if size]
    assert len(paths) > 40
    rng = random.Random(3)
    for path in paths:
        whole = location.read_bytes(path)
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        location.write_bytes(path, bytes(damaged))
        assert path in _errors(ActivationSets(location)), path
        location.write_bytes(path, whole)
    assert verify_set(ActivationSets(location), "pool") == []


def test_the_place_of_a_damaged_chunk_is_named(location: Location, sets: ActivationSets) -> None:
    segment = sets.open("pool").refs[0].segment_id
    path = f"activations/pool/segments/{segment}/data.zarr/drift/c/2/1/0"
    location.write_bytes(path, bytes(location.size_bytes(path)))
    (finding,) = verify_set(sets, "pool")
    assert (finding.path, finding.place) == (path, "drift of layer 1, rows 8\u20139")


def test_a_deleted_and_a_truncated_file_are_found_by_a_quick_look(location: Location, sets: ActivationSets) -> None:
    for path, size in list(location.walk("activations/pool")):
        if path.endswith("/versions/2.json"):
            continue  # nothing tells of the last version that it was there
        whole = location.read_bytes(path)
        location.delete(path)
        assert path in _errors(ActivationSets(location), quick=True), path
        location.write_bytes(path, whole[: size // 2])
        assert path in _errors(ActivationSets(location), quick=True), path
        location.write_bytes(path, whole)


def test_a_truncated_version_document_is_found(location: Location, sets: ActivationSets) -> None:
    path = "activations/pool/versions/2.json"
    location.write_bytes(path, location.read_bytes(path)[:-20])
    assert path in _errors(sets, quick=True)


def test_a_lost_base_version_is_found(location: Location, sets: ActivationSets) -> None:
    location.delete("activations/pool/versions/1.json")
    assert "activations/pool/versions/2.json" in _errors(sets, quick=True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n_samples": 29}, "it counts 29 samples where there are 30"),
        ({"set_name": "other"}, "names another set or version"),
        ({"number": 3}, "names another set or version"),
        ({"next_ordinal": 1}, "is not below next_ordinal"),
        ({"features": (Feature.MEAN,)}, "its features are not those"),
        ({"layers": (0,)}, "its layers are not those"),
        ({"parent": 7}, "its parent version 7 is missing"),
        ({"base": 2}, "its base version 2 is missing or is not a full list"),
        ({"tombstones": None}, "it counts 30 samples where there are 40"),
        ({"tombstones": None, "n_samples": 40}, "10 sample ids are visible more than once"),
    ],
)
def test_a_manifest_that_contradicts_the_data_is_found(
    location: Location, sets: ActivationSets, change: dict[str, object], problem: str
) -> None:
    path = "activations/pool/versions/2.json"
    manifest = sets.manifest("pool", 2)
    location.write_bytes(path, manifest.model_copy(update=change).to_json_bytes())
    findings = verify_set(sets, "pool")
    assert any(problem in f.problem and f.path == path for f in findings), findings


def test_a_segment_that_no_version_refers_to_is_an_info(location: Location, sets: ActivationSets) -> None:
    record = build_segment(location, "pool", [fake_row("x")], {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
    location.write_bytes("activations/pool/segments/01M83DCN8S9F7R4HA89RBFM39Z/data.zarr/mean/c/0/0/0", b"half")
    findings = verify_set(sets, "pool")
    assert {f.severity for f in findings} == {Severity.INFO}
    assert len(findings) == 2
    problems = {f.path.rsplit("/", 1)[-1]: f.problem for f in findings}
    assert "whole, not committed yet" in problems[record.segment_id]
    assert "not finished" in problems["01M83DCN8S9F7R4HA89RBFM39Z"]


def test_an_unlisted_file_in_a_segment_is_an_info(location: Location, sets: ActivationSets) -> None:
    segment = sets.open("pool").refs[0].segment_id
    location.write_bytes(f"activations/pool/segments/{segment}/notes.txt", b"hello")
    findings = verify_set(sets, "pool")
    assert [(f.severity, f.problem) for f in findings] == [(Severity.INFO, "no record lists this file")]


def test_a_missing_set_record_is_found(location: Location, sets: ActivationSets) -> None:
    location.delete("activations/pool/set.json")
    assert "activations/pool/set.json" in _errors(sets)
