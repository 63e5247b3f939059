"""What the score cache holds, whose it is, and what a prune takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nait_store
from nait_store.activations.compaction import compact
from nait_store.activations.reader import SegmentReader
from nait_store.errors import InvalidInputError, NotFoundError, ReadOnlyError
from nait_store.schemas.capture import Feature
from nait_store.schemas.scores import SidecarRecord
from nait_store.scoring.completion import ensure_scores
from nait_store.scoring.layer_plans import SegmentScores
from nait_store.scoring.sidecars import ScoreSidecars
from nait_store.storage import layout
from nait_store.storage.provenance import now
from nait_store.store import score_cache
from nait_store.store.garbage import collection
from nait_store.store.garbage.items import GarbageKind
from nait_store.store.score_cache import CachedScores, PruneReport
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.scores import random_target
from nait_store.testing.stores import build_segment, build_set, fake_row

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    """pool@1 (2 segments, scored under math@1 and math@2), pool@2 (one more, not scored), maths@1 (under math@2)."""
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return filled(nait_store.open(str(tmp_path / "store"), create=True))


def filled(made: nait_store.Store) -> nait_store.Store:
    build_set(made.location, "pool", 20, n_segments=2)
    build_set(made.location, "maths", 20, first=100, seed=1)
    made.profiles.build("math", source="maths")
    made.profiles.build("math", source="maths", method="mean")
    made.score("pool", "math@1", "math@2")
    made.score("maths", "math@2")
    build_set(made.location, "pool", 5, first=20, seed=2)
    return made


def lines(store: nait_store.Store, **options: Any) -> set[tuple[Any, ...]]:
    """Set, profiles and coverage of each entry."""
    return {
        (one.set_ref, one.profiles, f"{one.n_covered}/{one.n_segments}")
        for one in store.score_cache.list(**options).scores
    }


def only(found: tuple[CachedScores, ...], **values: Any) -> CachedScores:
    (one,) = (one for one in found if all(getattr(one, name) == value for name, value in values.items()))
    return one


def prune(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch, *, after: timedelta = DAY, **options: Any
) -> PruneReport:
    """Prune as if it were later; a dry run before tells the same and changes nothing."""
    monkeypatch.setattr(score_cache, "now", lambda: now() + after)
    before = files(store)
    told = store.score_cache.prune(dry_run=True, **options)
    assert files(store) == before
    done = store.score_cache.prune(**options)
    assert (told.pruned, told.n_left, told.left_bytes) == (done.pruned, done.n_left, done.left_bytes)
    listing = store.score_cache.list()
    assert (done.n_left, done.left_bytes) == (listing.n_sidecars, listing.size_bytes)
    assert sum(before.values()) - sum(files(store).values()) == done.freed_bytes
    return done


def files(store: nait_store.Store) -> dict[str, int]:
    return dict(store.location.walk(layout.SCORES))


def reasons(report: PruneReport) -> dict[str, int]:
    found = [item.reason for item in report.pruned]
    return {reason: found.count(reason) for reason in found}


def path_of(store: nait_store.Store, set_ref: str, profile: str, segment: int = 0) -> str:
    reader = store.sets.open(set_ref).segments[segment]
    return layout.score_sidecar(ScoreSidecars.key(reader, store.profiles.open(profile).target()).key)


def record_of(path: str) -> str:
    return path.replace(".parquet", ".json")


def set_time(store: nait_store.Store, path: str, time: datetime) -> None:
    for one in (path, record_of(path)):
        os.utime(Path(store.url, one), (time.timestamp(), time.timestamp()))


# --- list --------------------------------------------------------------------------------------------------------


def test_each_set_and_profile_is_a_line_with_the_segments_that_are_covered(store: nait_store.Store) -> None:
    assert lines(store) == {
        ("pool@2", ("math@1",), "2/3"),
        ("pool@2", ("math@2",), "2/3"),
        ("maths@1", ("math@2",), "1/1"),
    }


def test_rows_bytes_and_times_are_those_of_the_files(store: nait_store.Store) -> None:
    path = path_of(store, "pool@1", "math@1")
    early = now() - 3 * DAY
    set_time(store, path, early)
    listing = store.score_cache.list()
    one = only(listing.scores, set="pool", profiles=("math@1",))
    mine = [p for i in range(2) for p in [path_of(store, "pool@1", "math@1", i)] for p in (p, record_of(p))]
    assert (one.n_sidecars, one.n_rows) == (2, 20)
    assert one.size_bytes == sum(store.location.size_bytes(p) for p in mine)
    assert one.oldest_at is not None
    assert abs(one.oldest_at - early) < timedelta(seconds=1)
    assert one.newest_at is not None
    assert now() - one.newest_at < timedelta(hours=1)
    assert (one.feature, one.metric) == ("mean", "cosine")
    assert listing.n_sidecars == 5
    assert listing.size_bytes == sum(files(store).values())
    assert listing.scores[-1].set == "maths"  # the largest first


def test_profiles_of_the_same_directions_stand_in_one_line(store: nait_store.Store) -> None:
    store.profiles.build("again", source="maths")
    assert ("pool@2", ("again@1", "math@1"), "2/3") in lines(store)


def test_scores_of_segments_that_only_older_versions_have_are_counted(store: nait_store.Store) -> None:
    store.score("pool", "math@1")
    compact(store.sets.versions, "pool")
    one = only(store.score_cache.list().scores, set_ref="pool@3", profiles=("math@1",))
    assert (one.n_covered, one.n_segments, one.n_sidecars) == (1, 1, 4)


def test_what_belongs_to_nothing_is_unknown(store: nait_store.Store) -> None:
    score_strangers(store)
    found = store.score_cache.list().scores
    assert only(found, set=None).set_ref is None
    assert only(found, profiles=()).set == "pool"


def test_versions_that_can_be_brought_back_are_named(store: nait_store.Store) -> None:
    store.sets.delete("pool", reason="a detour")
    store.profiles.registry.log.delete("math", 2)
    assert lines(store) == {
        (None, ("math@1",), "0/0"),
        (None, ("math@2",), "0/0"),
        ("maths@1", ("math@2",), "1/1"),
    }
    assert {one.set for one in store.score_cache.list().scores} == {"pool", "maths"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"set": "maths"}, {("maths@1", ("math@2",), "1/1")}),
        ({"set": "set:pool"}, {("pool@2", ("math@1",), "2/3"), ("pool@2", ("math@2",), "2/3")}),
        ({"set": "pool@1"}, {("pool@1", ("math@1",), "2/2"), ("pool@1", ("math@2",), "2/2")}),
        ({"set": "pool@latest", "profile": "math@1"}, {("pool@2", ("math@1",), "2/3")}),
        ({"profile": "math@1"}, {("pool@2", ("math@1",), "2/3")}),
        ({"profile": "math", "set": "maths"}, {("maths@1", ("math@2",), "1/1")}),
    ],
)
def test_one_set_or_profile_can_be_looked_at(store: nait_store.Store, options: Any, expected: Any) -> None:
    assert lines(store, **options) == expected


@pytest.mark.parametrize("verb", ["list", "prune"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set": "pol"}, "no set 'pol'"),
        ({"set": "pool@9"}, "no version 9"),
        ({"profile": "mth"}, "no profile 'mth'"),
        ({"profile": "math@9"}, "no version 9"),
    ],
)
def test_an_unknown_name_is_an_error(store: nait_store.Store, verb: str, options: Any, message: str) -> None:
    with pytest.raises(NotFoundError, match=message):
        getattr(store.score_cache, verb)(**options)
    assert len(files(store)) == 10


def test_a_store_without_scores_has_none(tmp_path: Path) -> None:
    empty = nait_store.open(str(tmp_path / "empty"), create=True)
    listing = empty.score_cache.list()
    assert (listing.scores, listing.unusable, listing.size_bytes) == ((), (), 0)
    assert empty.score_cache.prune().pruned == ()


# --- what is of no use -------------------------------------------------------------------------------------------


def score_strangers(store: nait_store.Store) -> None:
    """Scores of a segment that no version has, and of directions that no profile has."""
    stray = build_segment(store.location, "pool", [fake_row("x")], {Feature.MEAN: np.ones((1, 2, 8), np.float32)})
    one = SegmentScores(np.zeros(1), np.zeros((1, 2), np.float32))
    target = store.profiles.open("math@1").target()
    ScoreSidecars(store.location).write(SegmentReader(store.location, stray), target, one)
    ensure_scores(store.location, store.sets.open("pool"), [random_target(7)])


def truncate(store: nait_store.Store, path: str) -> None:
    store.location.write_bytes(path, store.location.read_bytes(path)[:-1])


def damage_record(store: nait_store.Store, path: str) -> None:
    store.location.write_bytes(record_of(path), b"{}")


def lose_record(store: nait_store.Store, path: str) -> None:
    store.location.delete(record_of(path))


def lose_parquet(store: nait_store.Store, path: str) -> None:
    store.location.delete(path)


def make_old(store: nait_store.Store, path: str) -> None:
    """As an earlier release would have written it, under a key of its own."""
    record = SidecarRecord.from_json_bytes(store.location.read_bytes(record_of(path)), path)
    older = record.model_copy(update={"kernel_revision": 0})
    store.location.write_bytes(layout.score_sidecar(older.key), store.location.read_bytes(path))
    store.location.write_bytes(layout.score_record(older.key), older.to_json_bytes())
    store.location.delete(path)
    store.location.delete(record_of(path))


DAMAGES = {
    truncate: "it has 1,",
    damage_record: "its record is damaged",
    lose_record: "its record is missing",
    lose_parquet: "its Parquet file is missing",
    make_old: "an earlier release computed it",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_no_reader_would_believe_is_listed_and_goes(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch, damage: Callable[[nait_store.Store, str], None]
) -> None:
    damage(store, path_of(store, "pool@1", "math@1"))
    listing = store.score_cache.list()
    assert len(listing.unusable) == 1
    assert listing.unusable[0].reason.startswith(DAMAGES[damage])
    assert only(listing.scores, set="pool", profiles=("math@1",)).n_covered == 1
    assert listing.size_bytes == sum(files(store).values())
    assert prune(store, monkeypatch, after=timedelta(minutes=59)).pruned == ()
    assert [item.reason for item in prune(store, monkeypatch).pruned] == [listing.unusable[0].reason]
    assert store.score_cache.list().unusable == ()
    assert len(files(store)) == 8


def test_what_nothing_can_ask_for_goes_after_an_hour(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    score_strangers(store)
    assert prune(store, monkeypatch, after=timedelta(minutes=59)).pruned == ()
    report = prune(store, monkeypatch, after=timedelta(minutes=61))
    assert reasons(report) == {"its segment does not exist": 1, "no profile has its directions": 3}
    assert len(files(store)) == 10


def test_scores_of_versions_that_can_be_brought_back_stay(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.sets.delete("pool", reason="a detour")
    store.profiles.registry.log.delete("math", 1)
    assert prune(store, monkeypatch).pruned == ()


def test_gc_takes_the_same_once_its_grace_period_is_over(store: nait_store.Store) -> None:
    score_strangers(store)
    for i, damage in enumerate((truncate, lose_record, make_old)):
        damage(store, path_of(store, ("pool@1", "pool@1", "maths@1")[i], "math@2", i % 2))
    later = now() + 30 * DAY
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_cache, "now", lambda: later)
        pruned = store.score_cache.prune(dry_run=True).pruned
    collected = collection.gc(store, dry_run=True, clock=later).garbage
    assert len(pruned) == 7
    assert {item for item in collected if item.kind is GarbageKind.SCORES} == set(pruned)


@pytest.mark.parametrize("path", ["activations/pool/versions/2.json", "profiles/math/versions/1.json"])
def test_what_cannot_be_judged_stays(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    score_strangers(store)
    store.location.write_bytes(path, b"{}")
    listing = store.score_cache.list()
    kind, name = ("set", "set pool") if "pool" in path else ("profile", "profile:math@1")
    assert [held.what for held in listing.unknown] == [name]
    report = prune(store, monkeypatch)
    left = {"set": {"no profile has its directions": 3}, "profile": {"its segment does not exist": 1}}
    assert reasons(report) == left[kind]
    assert report.unknown == listing.unknown


# --- what is chosen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"set": "pool"}, {("maths@1", ("math@2",), "1/1")}),
        ({"set": "pool@1", "profile": "math@2"}, {("pool@2", ("math@1",), "2/3"), ("maths@1", ("math@2",), "1/1")}),
        ({"profile": "math@2"}, {("pool@2", ("math@1",), "2/3")}),
        ({"profile": "math"}, set()),
        ({"everything": True}, set()),
    ],
)
def test_all_that_is_chosen_goes_however_young(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch, options: Any, left: Any
) -> None:
    prune(store, monkeypatch, after=timedelta(), **options)
    assert lines(store) == left


def test_what_was_written_earlier_goes(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for set_ref in ("pool@1", "maths@1"):
        set_time(store, path_of(store, set_ref, "math@2"), now() - 3 * DAY)
    assert prune(store, monkeypatch, after=timedelta(), older_than=4 * DAY).pruned == ()
    report = prune(store, monkeypatch, after=timedelta(), older_than=2 * DAY, set="pool")
    assert reasons(report) == {"written more than 2d ago": 1}
    assert lines(store, profile="math@2") == {("pool@2", ("math@2",), "1/3"), ("maths@1", ("math@2",), "1/1")}


def test_beyond_a_size_what_serves_no_latest_version_goes_first_then_the_oldest(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, middle = path_of(store, "pool@1", "math@2", 1), path_of(store, "pool@1", "math@2", 0)
    set_time(store, oldest, now() - 3 * DAY)
    set_time(store, middle, now() - 2 * DAY)
    superseded = {path_of(store, "pool@1", "math@1", i) for i in range(2)}
    total = sum(files(store).values())
    order = []
    for _ in range(4):
        total -= 1
        report = prune(store, monkeypatch, after=timedelta(), max_bytes=total)
        (item,) = report.pruned
        order.append(item.path)
        total = report.left_bytes
    assert set(order[:2]) == superseded
    assert order[2:] == [oldest, middle]
    assert prune(store, monkeypatch, after=timedelta(), max_bytes=total).pruned == ()
    assert lines(store) == {("maths@1", ("math@2",), "1/1")}


def test_a_size_may_be_that_of_one_set(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report = prune(store, monkeypatch, after=timedelta(), max_bytes=1, set="pool", profile="math@1")
    assert reasons(report) == {"more than 1 bytes were kept": 2}
    assert len(files(store)) == 6


def test_a_sidecar_that_is_being_written_stays(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = path_of(store, "pool@1", "math@1")
    store.location.delete(record_of(path))
    prune(store, monkeypatch, after=timedelta(), everything=True)
    assert set(files(store)) == {path}
    prune(store, monkeypatch, after=timedelta(), max_bytes=0)
    assert set(files(store)) == {path}
    prune(store, monkeypatch, everything=True)
    assert files(store) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"everything": True, "set": "pool"}, "cannot be chosen at once"),
        ({"everything": True, "max_bytes": 0}, "cannot be chosen at once"),
        ({"older_than": -DAY}, "cannot be negative"),
        ({"max_bytes": -1}, "cannot be negative"),
    ],
)
def test_nonsense_is_refused(store: nait_store.Store, options: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        store.score_cache.prune(**options)
    assert len(files(store)) == 10


def test_a_store_that_cannot_be_written_is_listed_and_not_pruned(store: nait_store.Store) -> None:
    closed = nait_store.open(store.url)
    closed.location = closed.location.read_only("closed", "open it")
    assert lines(closed) == lines(store)
    assert len(closed.score_cache.prune(everything=True, dry_run=True).pruned) == 5
    with pytest.raises(ReadOnlyError, match="closed"):
        closed.score_cache.prune(everything=True)


def test_what_was_pruned_is_computed_again(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT score FROM alignment('pool', 'math') ORDER BY row_id"
    expected = store.sql(query).fetchall()
    prune(store, monkeypatch, everything=True)
    for one in (store, nait_store.open(store.url)):  # the first session knew the sidecars
        # Not bit by bit: how many profiles share a pass decides in which order terms are added.
        np.testing.assert_allclose(one.sql(query).fetchall(), expected, rtol=1e-5)


def test_progress_counts_sidecars_and_bytes(store: nait_store.Store) -> None:
    events: list[Any] = []
    report = nait_store.open(store.url, progress=events.append).score_cache.prune(everything=True)
    assert [(event.stage, event.done, event.total) for event in events] == [("prune", i, 5) for i in range(1, 6)]
    assert events[-1].bytes_done == report.freed_bytes


def test_on_an_object_store(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    store = filled(nait_store.open(object_store.new_url(), create=True))
    damage_record(store, path_of(store, "pool@1", "math@1"))
    assert ("pool@2", ("math@1",), "1/3") in lines(store)
    assert reasons(prune(store, monkeypatch)) == {"its record is damaged": 1}
    assert len(prune(store, monkeypatch, set="pool").pruned) == 3
    assert lines(store) == {("maths@1", ("math@2",), "1/1")}
