"""Kept scores are those of what is stored now, whatever happened to sets, profiles and files in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.compaction import compact
from nait_store.activations.versions import ActivationSets
from nait_store.progress import ProgressEvent
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.carrying import sidecar_records
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.testing.scores import plain_projections
from nait_store.testing.stores import build_set
from tests.store.gc_stores import NO_GRACE, collect

N_LAYERS, N_NEURONS = 2, 8
ROW_BYTES = N_LAYERS * N_NEURONS * 2
QUERY = "SELECT sample_id, score FROM alignment($set, $profile)"


def asked(store: nait_store.Store, set_ref: str = "pool", profile: str = "math") -> dict[str, float]:
    """Scores as a query gives them."""
    return dict(store.sql(QUERY, {"set": set_ref, "profile": profile}).fetchall())


def plain(store: nait_store.Store, set_ref: str = "pool", profile: str = "math") -> dict[str, float]:
    """Scores in float64 of what is on the disk now, each file compared with its digest."""
    fresh = nait_store.open(store.url)
    version = ActivationSets(fresh.location, verify=True).open(set_ref)
    target = fresh.profiles.open(profile).target()
    found: dict[str, float] = {}
    for segment in version.segments:
        visible = version.visible_rows(segment)
        ids = segment.samples(["sample_id"]).column("sample_id").to_pylist()
        values = plain_projections(segment, target).sum(axis=1)
        found |= {ids[i]: float(values[i]) for i in range(len(ids)) if visible is None or visible[i]}
    return found


def assert_true(store: nait_store.Store, set_ref: str = "pool", profile: str = "math") -> None:
    """In the session at hand, and in a new one."""
    expected = plain(store, set_ref, profile)
    for one in (store, nait_store.open(store.url)):
        assert asked(one, set_ref, profile) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.fixture
def scored(store: nait_store.Store) -> nait_store.Store:
    """The store with the profile math of the set maths, and the scores of pool under it."""
    store.profiles.build("math", source="maths")
    assert_true(store)
    return store


@pytest.fixture
def read_bytes(scored: nait_store.Store) -> Callable[[], int]:
    """Bytes of activations that queries of a new session read; a scan that reads nothing would be one too."""

    def of_a_query() -> int:
        events: list[ProgressEvent] = []
        fresh = nait_store.open(scored.url, progress=events.append)
        asked(fresh)
        scans = [event for event in events if event.stage == "score"]
        assert bool(scans) == any(event.bytes_done for event in scans)
        return max((event.bytes_done for event in scans), default=0)

    return of_a_query


# --- what changes under a name -----------------------------------------------------------------------------------


def test_a_rebuilt_profile_has_scores_of_its_own(scored: nait_store.Store) -> None:
    before = asked(scored)
    scored.profiles.build("math", source="maths", method="mean", metric="dot")
    assert_true(scored, profile="math")
    assert_true(scored, profile="math@1")
    assert asked(scored, profile="math@1") == before != asked(scored)


def test_two_profiles_of_the_same_directions_share_their_scores(scored: nait_store.Store) -> None:
    scored.profiles.build("again", source="maths")
    work, _ = scored.score("pool", "again")
    assert (work.n_computed, work.n_cached) == (0, 1)
    assert_true(scored, profile="again")


def test_a_set_that_was_deleted_and_made_again_has_scores_of_its_own(scored: nait_store.Store) -> None:
    before = asked(scored)
    scored.sets.delete("pool")
    collect(scored, grace=NO_GRACE)
    build_set(scored.location, "pool", 30, seed=77)
    assert_true(scored)
    after = asked(scored)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


def test_a_compacted_set_keeps_its_scores(scored: nait_store.Store, read_bytes: Callable[[], int]) -> None:
    build_set(scored.location, "pool", 10, first=30, seed=5)
    scored.sets.delete_samples("pool", ids=["s000003", "s000033"])
    before = asked(scored)
    compact(scored.sets.versions, "pool")
    assert read_bytes() == 0
    assert asked(nait_store.open(scored.url)) == before
    assert_true(scored)


def test_a_purge_changes_no_other_score(scored: nait_store.Store, read_bytes: Callable[[], int]) -> None:
    before = asked(scored)
    scored.purge("pool", ids=["s000004", "s000021"])
    assert read_bytes() == 0
    assert_true(scored)
    assert_true(scored, "pool@1")
    left = {sample_id: score for sample_id, score in before.items() if sample_id not in ("s000004", "s000021")}
    assert asked(scored) == left


def test_a_purged_sample_that_comes_back_as_another_is_scored_as_it_is_now(scored: nait_store.Store) -> None:
    before = asked(scored)["s000004"]
    scored.purge("pool", ids=["s000004"])
    build_set(scored.location, "pool", 1, first=4, seed=99)
    assert_true(scored)
    assert asked(scored)["s000004"] != before


# --- what changes in files ---------------------------------------------------------------------------------------


def flip(location: Location, path: str) -> None:
    data = bytearray(location.read_bytes(path))
    data[3] ^= 0x04  # in the exponent of a number of the first row, be it float16 or float32
    location.write_bytes(path, bytes(data))


@pytest.mark.parametrize("array", ["mean/c/0/0/0", "mean_norms/c/0/0"])
@pytest.mark.parametrize("lost", [False, True], ids=["mended", "with rows lost"])
def test_scores_of_damaged_arrays_do_not_outlive_their_repair(
    store: nait_store.Store, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, array: str, lost: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    store.profiles.build("math", source="maths", metric="cosine")
    (ref,) = build_set(store.location, "large", 64, N_LAYERS, N_NEURONS, chunk_rows=32).refs
    folder = f"{layout.segment_folder('large', ref.segment_id)}/data.zarr"
    flip(store.location, f"{folder}/{array}")
    if lost:
        store.location.write_bytes(f"{folder}/mean/c/1/0/0", b"\0" * 32 * N_NEURONS * 2)
    wrong = asked(nait_store.open(store.url), "large")
    report = store.repair()
    assert report.ok
    assert report.n_dropped == (32 if lost else 0)
    assert_true(store, "large")
    right = asked(store, "large")
    assert any(right[sample_id] != pytest.approx(wrong[sample_id], rel=1e-3) for sample_id in right)
    assert any("computed from damaged arrays" in note.text for note in report.deleted)


def test_a_repair_keeps_the_scores_of_rows_that_were_sound(
    scored: nait_store.Store, read_bytes: Callable[[], int], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (ref,) = build_set(scored.location, "large", 64, N_LAYERS, N_NEURONS, chunk_rows=32).refs
    before = asked(scored, "large")
    folder = f"{layout.segment_folder('large', ref.segment_id)}/data.zarr"
    scored.location.write_bytes(f"{folder}/mean/c/1/0/0", b"\0" * 32 * N_NEURONS * 2)
    assert scored.repair().n_dropped == 32
    work, _ = scored.score("large", "math")
    assert work.n_computed == 0
    assert asked(scored, "large") == {sample_id: before[sample_id] for sample_id in sorted(before)[:32]}


def parquet(store: nait_store.Store, profile: str) -> str:
    key = ScoreSidecars.key(store.sets.open("pool").segments[0], store.profiles.open(profile).target())
    return layout.score_sidecar(key.key)


def record_of(path: str) -> str:
    return path.replace(".parquet", ".json")


def exchange(store: nait_store.Store, first: str, second: str) -> None:
    one, other = (store.location.read_bytes(path) for path in (first, second))
    store.location.write_bytes(first, other)
    store.location.write_bytes(second, one)


def exchanged_parquets(store: nait_store.Store) -> None:
    exchange(store, parquet(store, "math"), parquet(store, "code"))


def exchanged_records(store: nait_store.Store) -> None:
    exchange(store, record_of(parquet(store, "math")), record_of(parquet(store, "code")))


def exchanged_pairs(store: nait_store.Store) -> None:
    exchanged_parquets(store)
    exchanged_records(store)


def truncated(store: nait_store.Store) -> None:
    path = parquet(store, "math")
    store.location.write_bytes(path, store.location.read_bytes(path)[:-9])


def truncated_record(store: nait_store.Store) -> None:
    path = record_of(parquet(store, "math"))
    store.location.write_bytes(path, store.location.read_bytes(path)[:-9])


def flipped(store: nait_store.Store) -> None:
    path = parquet(store, "math")
    data = bytearray(store.location.read_bytes(path))
    data[data.index(np.float64(asked(store)["s000000"]).tobytes()) + 6] ^= 8
    store.location.write_bytes(path, bytes(data))


def flipped_footer(store: nait_store.Store) -> None:
    path = parquet(store, "math")
    data = bytearray(store.location.read_bytes(path))
    data[-12] ^= 1
    store.location.write_bytes(path, bytes(data))


def flipped_record(store: nait_store.Store) -> None:
    path = record_of(parquet(store, "math"))
    data = store.location.read_bytes(path)
    store.location.write_bytes(path, data.replace(b'"n_rows":30', b'"n_rows":31'))


def of_an_older_kernel(store: nait_store.Store) -> None:
    path = record_of(parquet(store, "math"))
    record = SidecarRecord.from_json_bytes(store.location.read_bytes(path), path)
    store.location.write_bytes(path, record.model_copy(update={"kernel_revision": 0}).to_json_bytes())


DAMAGES = [
    exchanged_parquets,
    exchanged_records,
    exchanged_pairs,
    truncated,
    truncated_record,
    flipped,
    flipped_footer,
    flipped_record,
    of_an_older_kernel,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_sidecar_that_lies_is_reported_not_believed_and_made_again(
    scored: nait_store.Store, damage: Callable[[nait_store.Store], None]
) -> None:
    scored.profiles.build("code", source="pool", method="mean")
    assert_true(scored, profile="code")
    path = parquet(scored, "math")
    damage(scored)
    assert {finding.path for finding in scored.verify().errors} & {path, record_of(path)}
    fresh = nait_store.open(scored.url)
    for profile in ("math", "code"):
        assert_true(fresh, profile=profile)
    assert scored.verify().errors == ()


# --- what is read again ------------------------------------------------------------------------------------------


def test_after_an_append_only_the_new_segment_is_read(scored: nait_store.Store, read_bytes: Callable[[], int]) -> None:
    assert read_bytes() == 0
    build_set(scored.location, "pool", 3, first=30, seed=5)
    assert read_bytes() == 3 * ROW_BYTES
    assert read_bytes() == 0
    assert_true(scored)


def test_after_a_deletion_of_samples_nothing_is_read(scored: nait_store.Store, read_bytes: Callable[[], int]) -> None:
    scored.sets.delete_samples("pool", ids=["s000000", "s000017"])
    assert read_bytes() == 0
    assert len(asked(scored)) == 28
    assert_true(scored)


def test_after_a_restore_nothing_is_read(scored: nait_store.Store, read_bytes: Callable[[], int]) -> None:
    scored.sets.delete_samples("pool", ids=["s000000"])
    scored.sets.restore("pool@1")
    assert read_bytes() == 0
    assert_true(scored)


def test_another_feature_or_metric_is_another_key(store: nait_store.Store) -> None:
    both = (Feature.MEAN, Feature.DRIFT)
    build_set(store.location, "both", 10, features=both)
    store.profiles.build("math", source="maths")
    profile = store.profiles.open("math")
    (segment,) = store.sets.open("both").segments
    keys = set()
    for metric in Metric:
        target = profile.target(metric)
        keys.add(ScoreSidecars.key(segment, target).key)
    assert len(keys) == len(Metric)
    for method in ("mean", "pca"):
        for feature in both:
            built, _ = store.profiles.build(f"{method}-{feature.value}", source="maths", method=method, feature=feature)
            keys.add(ScoreSidecars.key(segment, built.target()).key)
    store.score("both", *(f"{method}-{feature.value}" for method in ("mean", "pca") for feature in both))
    for feature in both:
        assert_true(store, "both", f"mean-{feature.value}")
        assert_true(store, "both", f"pca-{feature.value}")
    stored = {(r.directions_sha256, r.feature, r.metric) for r in sidecar_records(store.location)}
    assert len(stored) == 4
    assert len(keys) == len(Metric) + 4 - 1  # one of the four is the default recipe, and so the first of the metrics


# --- what goes while it is used ----------------------------------------------------------------------------------


def test_a_query_whose_sidecars_go_between_its_scan_and_its_reading_gives_the_scores(
    scored: nait_store.Store,
) -> None:
    build_set(scored.location, "pool", 10, first=30, seed=5)
    n_deleted = 0

    def delete(event: ProgressEvent) -> None:
        nonlocal n_deleted
        if event.stage == "score" and not n_deleted:
            n_deleted = len(scored.location.names(layout.SCORES))
            scored.location.delete(layout.SCORES)

    found = asked(nait_store.open(scored.url, progress=delete))
    assert n_deleted
    assert found == pytest.approx(plain(scored), rel=1e-4, abs=1e-5)


def test_queries_beside_somebody_who_deletes_sidecars_all_the_time_give_the_scores(
    scored: nait_store.Store,
) -> None:
    expected = plain(scored)
    over = threading.Event()

    def delete() -> None:
        elsewhere = Location(scored.url)
        while not over.is_set():
            for name in elsewhere.names(layout.SCORES):
                elsewhere.delete(f"{layout.SCORES}/{name}")

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(10):
            assert asked(nait_store.open(scored.url)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    finally:
        over.set()
        thread.join()
