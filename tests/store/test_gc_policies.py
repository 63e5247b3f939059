"""Deleting old versions by policy, and options that gc refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import nait_store
from nait_store.errors import InvalidInputError
from nait_store.storage.labels import LabelKind
from nait_store.store.garbage.collection import ExpiryPolicy, gc
from tests.store.gc_stores import NO_GRACE, collect, contents, files, grown_set


@pytest.fixture
def store(url: str) -> nait_store.Store:
    """A store with a set of four versions."""
    made = nait_store.open(url, create=True)
    grown_set(made, "pool", 4)
    return made


def expired(report: Any) -> list[str]:
    return [one.reference for one in report.expired]


def test_only_the_last_versions_stay(store: nait_store.Store) -> None:
    report = collect(store, policy=ExpiryPolicy(keep_last=2))
    assert expired(report) == ["pool@1", "pool@2"]
    assert store.sets.versions.numbers("pool") == [3, 4]


def test_old_versions_go_and_the_latest_never(store: nait_store.Store) -> None:
    assert expired(collect(store, policy=ExpiryPolicy(older_than=timedelta(days=31)))) == []
    assert expired(collect(store, policy=ExpiryPolicy(older_than=timedelta(days=29)))) == ["pool@1", "pool@2", "pool@3"]


def test_with_both_a_version_must_be_old_and_not_among_the_last(store: nait_store.Store) -> None:
    assert expired(collect(store, policy=ExpiryPolicy(3, timedelta(days=31)))) == []
    assert expired(collect(store, policy=ExpiryPolicy(3, timedelta(days=29)))) == ["pool@1"]


def test_the_data_go_with_a_later_run_even_without_grace(store: nait_store.Store) -> None:
    policy = ExpiryPolicy(keep_last=1)
    assert collect(store, policy=policy, grace=NO_GRACE).garbage == ()
    report = collect(store, policy=policy, grace=NO_GRACE)
    assert [item.name for item in report.garbage if item.kind == "version"] == ["1", "2", "3"]


def test_what_was_expired_can_be_brought_back(store: nait_store.Store) -> None:
    before = contents(store)
    collect(store, policy=ExpiryPolicy(keep_last=1))
    for number in (1, 2, 3):
        store.sets.versions.log.undelete("pool", number)
    assert contents(store) == before


def test_the_history_tells_the_policy(store: nait_store.Store) -> None:
    gc(store, policy=ExpiryPolicy(keep_last=1))
    deletion = store.sets.versions.log.deletion("pool", 2)
    assert deletion is not None
    assert deletion.reason == "gc: not among the last 1"


def test_what_something_names_is_not_expired(store: nait_store.Store) -> None:
    store.sets.versions.log.labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    store.profiles.build("math", source="pool@2")
    assert expired(collect(store, policy=ExpiryPolicy(keep_last=1))) == ["pool@3"]


def test_a_policy_may_be_for_one_set(store: nait_store.Store) -> None:
    grown_set(store, "other", 3, first=500)
    assert expired(collect(store, policy=ExpiryPolicy(keep_last=1), set_name="other")) == ["other@1", "other@2"]


def test_a_dry_run_expires_nothing(store: nait_store.Store) -> None:
    before = files(store)
    assert expired(collect(store, policy=ExpiryPolicy(keep_last=3), dry_run=True)) == ["pool@1"]
    assert files(store) == before


@pytest.mark.parametrize(
    "options",
    [
        {"grace": timedelta(seconds=-1)},
        {"grace": timedelta(days=40_000)},
        {"expire_older_than": timedelta(days=-1)},
        {"expire_older_than": timedelta.max},
        {"keep_last": 0},
        {"keep_last": -3},
        {"set": "../escape"},
    ],
    ids=str,
)
def test_unsafe_options_are_refused(store: nait_store.Store, options: dict[str, Any]) -> None:
    store.sets.versions.log.delete("pool", 4)
    before = files(store)
    with pytest.raises(InvalidInputError):
        store.gc(**options)
    assert files(store) == before


def test_the_facade_passes_everything_on(store: nait_store.Store) -> None:
    store.sets.versions.log.delete("pool", 4)
    report = store.gc(grace=NO_GRACE, keep_last=2, set="pool")
    assert (report.dry_run, report.grace_seconds, expired(report)) == (False, 0.0, ["pool@1"])
    assert {item.kind.value for item in report.garbage} == {"segment", "version"}
