"""``store.sets`` changes and tells the history of sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

import nait_store
from nait_store.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import Operation, RedirectRecord
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.provenance import current_provenance
from nait_store.storage.versions import VersionLog
from nait_store.store.set_history import in_words
from nait_store.testing.stores import build_set


@pytest.fixture
def store(store: nait_store.Store) -> Iterator[nait_store.Store]:
    """With a second version of pool: 30 samples, then 5 more."""
    build_set(store.location, "pool", 5, first=500, seed=9)
    yield store
    store.session.close()


def n_rows(store: nait_store.Store, query: str) -> int:
    return store.sql(query).n_rows


def test_the_history_tells_what_each_operation_was_asked_to_do(store: nait_store.Store) -> None:
    store.sets.delete_samples("pool", where="kind = 'code'", message="no code")
    store.sets.delete_samples("pool", ids=["s000001", "s000003", "s000001"])
    store.sets.restore("pool@1")
    found = [(one.reference, one.n_samples, one.change, one.operation, one.what) for one in store.sets.history("pool")]
    assert found == [
        ("pool@1", 30, 30, "ingest", ""),
        ("pool@2", 35, 5, "ingest", ""),
        ("pool@3", 20, -15, "delete-samples", "15 samples where kind = 'code'"),
        ("pool@4", 18, -2, "delete-samples", "2 samples, listed by id"),
        ("pool@5", 30, 12, "restore", "restored pool@1"),
    ]
    assert [one.message for one in store.sets.history("pool")][2] == "no code"


def test_collected_versions_keep_their_numbers_in_the_history(store: nait_store.Store) -> None:
    store.sets.delete("pool@1", reason="old")
    store.sets.versions.log.collect("pool", 1)
    store.location.delete("activations/pool/versions/1.json")
    first, second = store.sets.history("pool")
    assert (first.reference, first.operation, first.n_samples, first.collected) == ("pool@1", "collected", None, True)
    assert (second.n_samples, second.change, second.collected) == (35, None, False)


def test_the_history_counts_what_a_purge_left(store: nait_store.Store) -> None:
    version = store.sets.open("pool@1")
    [segment] = version.segments
    build_set(store.location, "spare", 30)
    [other] = store.sets.open("spare").segments  # stands for a copy with blank rows: only its record is looked at
    redirect = RedirectRecord(
        segment_id=segment.segment_id,
        replacement=other.segment_id,
        record_sha256=other.record.digest(),
        n_rows=30,
        blank_rows=(1, 2),
        operation=Operation.PURGE,
        provenance=current_provenance(),
    )
    store.sets.versions.redirects("pool").add(redirect)
    assert [(one.n_samples, one.change) for one in store.sets.history("pool")] == [(28, 28), (33, 5)]


def test_results_are_frozen(store: nait_store.Store) -> None:
    results: list[Any] = [
        store.sets.history("pool")[0],
        store.sets.diff("pool@1", "pool@2"),
        store.sets.delete_samples("pool", ids=["s000001"], dry_run=True),
        store.sets.restore("pool@1"),
        store.sets.tag("pool@2", "paper"),
        store.sets.delete("pool@1"),
    ]
    for result in results:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, None)


def test_a_diff_gives_every_id(store: nait_store.Store) -> None:
    store.sets.delete_samples("pool", where="kind = 'code'")
    diff = store.sets.diff("pool@1", "pool")
    changes = list(diff.ids())
    assert [one for change, one in changes if change == "added"] == [f"s{i:06d}" for i in range(500, 505)]
    assert [one for change, one in changes if change == "removed"] == [f"s{i:06d}" for i in range(0, 30, 2)]
    assert (diff.n_added, diff.n_removed, diff.n_changed, diff.n_kept) == (5, 15, 0, 15)
    assert (diff.added, diff.same_capture) == (tuple(f"s{i:06d}" for i in range(500, 505)), True)


@pytest.mark.parametrize(("ids", "says"), [([], "empty"), (["\ud800"], "not a sample id"), ([7], "not a sample id")])
def test_ids_that_are_none(store: nait_store.Store, ids: list[Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        store.sets.delete_samples("pool", ids=ids)


def test_ids_may_come_from_anything_that_yields_them(store: nait_store.Store) -> None:
    report = store.sets.delete_samples("pool", ids=(f"s{i:06d}" for i in range(3)))
    assert (report.from_ref, report.set_ref, report.n_deleted, report.n_left) == ("pool@2", "pool@3", 3, 32)


def test_a_condition_looks_at_the_version_of_its_time(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that are appended between the look and the commit stay, whatever the condition says of them."""
    import nait_store.query.rows

    look = nait_store.query.rows.matching_rows

    def append_then(*arguments: Any) -> Any:
        found = look(*arguments)
        build_set(store.location, "pool", 2, first=700, seed=4, user_fields={"kind": ["code", "code"]})
        return found

    monkeypatch.setattr(nait_store.query.rows, "matching_rows", append_then)
    report = store.sets.delete_samples("pool", where="kind = 'code'")
    assert (report.set_ref, report.n_deleted, report.n_left) == ("pool@4", 15, 22)
    assert n_rows(store, "FROM samples('pool') WHERE kind = 'code'") == 2


def test_an_open_session_sees_that_a_version_was_deleted(store: nait_store.Store) -> None:
    assert n_rows(store, "FROM samples('pool@1')") == 30
    store.sets.delete("pool@1")
    with pytest.raises(NotFoundError, match="pool@1 was deleted"):
        store.sql("FROM samples('pool@1')")
    store.sets.undelete("pool@1")
    assert n_rows(store, "FROM samples('pool@1')") == 30


def test_an_open_session_sees_that_an_alias_moved(store: nait_store.Store) -> None:
    store.sets.alias("pool@1", "prod")
    assert n_rows(store, "FROM samples('pool@prod')") == 30
    store.sets.alias("pool@2", "prod")
    assert n_rows(store, "FROM samples('pool@prod')") == 35


def test_sql_lists_no_deleted_versions(store: nait_store.Store) -> None:
    store.sets.delete("maths")
    store.sets.delete("pool@1")
    assert store.sql("SELECT activation_set FROM activation_sets").fetchall() == [("pool",)]
    assert store.sql("SELECT reference FROM versions WHERE kind = 'set'").fetchall() == [("pool@2",)]


def test_undelete_brings_back_all_that_gc_has_not_taken(store: nait_store.Store) -> None:
    store.sets.delete("pool@1")
    store.sets.delete("pool")
    store.sets.versions.log.collect("pool", 1)
    assert store.sets.undelete("pool") == ("pool@2",)
    assert store.sets.undelete("pool") == ()
    with pytest.raises(NotFoundError, match="collected by gc"):
        store.sets.undelete("pool@1")


def test_what_was_committed_during_a_deletion_is_left(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = VersionLog.delete

    def append_first(self: Any, name: str, number: int, reason: str = "") -> None:
        if number == 1:
            build_set(store.location, "pool", 1, first=900)
        delete(self, name, number, reason)

    monkeypatch.setattr(VersionLog, "delete", append_first)
    report = store.sets.delete("pool")
    assert (report.deleted, report.left) == (("pool@1", "pool@2"), ("pool@3",))


def test_a_tag_that_came_during_a_deletion_wins(store: nait_store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = VersionLog.delete

    def tag_first(self: Any, name: str, number: int, reason: str = "") -> None:
        Labels(store.location, Kind.SET).put(LabelKind.TAG, name, "paper", number)
        delete(self, name, number, reason)

    monkeypatch.setattr(VersionLog, "delete", tag_first)
    with pytest.raises(ConflictError, match="pool@2 was tagged 'paper' meanwhile"):
        store.sets.delete("pool@2")
    assert store.sets.open("pool@paper").number == 2


def test_a_tag_on_what_was_deleted_meanwhile_is_taken_away(
    store: nait_store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Labels.put

    def delete_first(self: Any, kind: LabelKind, name: str, label: str, version: int, reason: str = "") -> Any:
        store.sets.versions.log.delete(name, version)
        return put(self, kind, name, label, version, reason)

    monkeypatch.setattr(Labels, "put", delete_first)
    with pytest.raises(NotFoundError, match="pool@1 was deleted"):
        store.sets.tag("pool@1", "paper")
    assert store.sets.labels("pool")[0].version is None


def test_an_alias_and_a_later_tag_of_one_name_are_told_apart(store: nait_store.Store) -> None:
    store.sets.alias("pool@1", "best")
    store.sets.untag("pool", "best")
    store.sets.tag("pool@2", "best")
    assert [(one.kind, one.version, len(one.moves)) for one in store.sets.labels("pool")] == [
        ("alias", None, 2),
        ("tag", "pool@2", 1),
    ]


def test_a_damaged_profile_stops_a_deletion_that_is_not_forced(store: nait_store.Store) -> None:
    profile, _ = store.profiles.build("math", source="maths")
    store.location.write_bytes(f"{profile.folder}/profile.json", b"{}")
    with pytest.raises(FormatError):
        store.sets.delete("pool@1")
    assert store.sets.delete("pool@1", force=True).deleted == ("pool@1",)


def test_exporting_a_selection_of_a_forcibly_deleted_version_says_how_to_go_on(store: nait_store.Store) -> None:
    selection = store.select("pool@1", strategy="random", top=3)
    saved = store.selections.save("best", selection)
    with pytest.raises(InvalidInputError, match=r"selection:best@1 \(was selected from it\)"):
        store.sets.delete("pool@1")
    store.sets.delete("pool@1", force=True)
    with pytest.raises(NotFoundError) as caught:
        store.export(saved.selection(), "top.jsonl")
    assert "sets undelete pool@1" in str(caught.value.next_step)


def test_an_emptied_set_is_described_scored_and_selected_from(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths")
    store.sets.delete_samples("pool", where="true", allow_empty=True)
    assert store.sets.show("pool").summary.n_samples == 0
    assert n_rows(store, "FROM alignment('pool', 'math')") == 0
    assert n_rows(store, "FROM samples('pool')") == 0
    assert store.verify().ok
    with pytest.raises(InvalidInputError):
        store.profiles.build("nothing", source="pool")
    with pytest.raises(InvalidInputError):
        store.select("pool", profile="math")


@pytest.mark.parametrize(
    ("operation", "details", "words"),
    [
        (Operation.INGEST, {}, ""),
        (Operation.COMPACT, {"segments": 12, "into": 2, "dropped_rows": 3}, "12 segments into 2 without 3 hidden rows"),
        (Operation.PURGE, {"n_purged": 1}, "1 sample gone for good"),
        (Operation.REPAIR, {"n_dropped": 3000}, "3,000 samples lost to damage"),
        (Operation.DELETE_SAMPLES, {"n_deleted": 2, "where": "a\nb"}, "2 samples where a\nb"),
        (Operation.DELETE_SAMPLES, {"n_deleted": "two"}, "n deleted two"),
        (Operation.RESTORE, {"restored": None}, "restored None"),
        (Operation.PURGE, {"by_whom": ["me"]}, "by whom ['me']"),
    ],
)
def test_details_in_words(store: nait_store.Store, operation: Operation, details: dict[str, Any], words: str) -> None:
    manifest = store.sets.open("pool").manifest
    assert in_words(manifest.model_copy(update={"operation": operation, "details": details})) == words
