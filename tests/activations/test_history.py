"""Differences between versions, samples deleted, old versions restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nait_store.activations.difference import SampleChange, compare_samples
from nait_store.activations.history import delete_samples, doomed_by_ids, doomed_by_rows, restore
from nait_store.activations.sample_keys import SegmentKeys
from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.activation_set import Operation, SegmentRecord
from nait_store.schemas.capture import Feature
from nait_store.storage.location import Location
from nait_store.testing.stores import build_segment, fake_identity, fake_row, fake_set_record


@pytest.fixture
def sets(location: Location) -> ActivationSets:
    sets = ActivationSets(location)
    sets.create(fake_set_record("pool", n_layers=1, n_neurons=4))
    return sets


def segment(
    sets: ActivationSets,
    samples: Mapping[str, str] | Iterable[str],
    name: str = "pool",
    features: tuple[Feature, ...] = (Feature.MEAN,),
    **options: Any,
) -> SegmentRecord:
    """A segment of samples, id → text."""
    texts = samples if isinstance(samples, Mapping) else dict.fromkeys(samples, "text")
    rows = [fake_row(sample_id, i, {"text": text}) for i, (sample_id, text) in enumerate(texts.items())]
    arrays = {feature: np.ones((len(rows), 1, 4), np.float32) for feature in features}
    return build_segment(sets.location, name, rows, arrays, **options)


def add(sets: ActivationSets, *samples: Mapping[str, str] | Iterable[str], name: str = "pool") -> SetVersion:
    return sets.commit(name, [segment(sets, one, name) for one in samples], ingest_ids=())


def remove(sets: ActivationSets, *ids: str, name: str = "pool", **options: Any) -> SetVersion:
    doomed, missing = doomed_by_ids(sets, sets.open(name), ids)
    assert missing == []
    given = {"details": {"n_ids": len(ids)}, "message": "", "allow_empty": True} | options
    return delete_samples(sets, doomed, **given)[0]


def differing(sets: ActivationSets, first: str, second: str) -> dict[str, list[str]]:
    found = compare_samples(sets, sets.open(first), sets.open(second))
    return {change.value: list(found.of(change).ids()) for change in SampleChange} | {"kept": [str(found.n_kept)]}


def test_what_was_added_removed_and_kept(sets: ActivationSets) -> None:
    add(sets, "ab", "cd")
    add(sets, "ef")
    remove(sets, "b", "e")
    assert differing(sets, "pool@1", "pool@3") == {"added": ["f"], "removed": ["b"], "changed": [], "kept": ["3"]}
    assert differing(sets, "pool@3", "pool@1") == {"added": ["b"], "removed": ["f"], "changed": [], "kept": ["3"]}


def test_an_id_that_came_back_with_another_text_is_changed(sets: ActivationSets) -> None:
    add(sets, {"a": "old", "b": "old"})
    remove(sets, "a")
    add(sets, {"a": "new", "c": "new"})
    assert differing(sets, "pool@1", "pool@3") == {"added": ["c"], "removed": [], "changed": ["a"], "kept": ["1"]}


def test_a_sample_that_only_lies_elsewhere_is_no_difference(sets: ActivationSets) -> None:
    add(sets, "ab", "cd")
    remove(sets, "b")
    add(sets, "b")
    assert differing(sets, "pool@1", "pool@3") == {"added": [], "removed": [], "changed": [], "kept": ["4"]}


def test_sets_of_different_models_are_compared_by_sample(sets: ActivationSets) -> None:
    other = fake_identity("another")
    sets.create(fake_set_record("other", identity=other, n_layers=1, n_neurons=4))
    add(sets, {"a": "x", "b": "x", "c": "x"})
    sets.commit("other", [segment(sets, {"d": "x", "c": "y", "b": "x"}, "other", identity=other)], ingest_ids=())
    assert differing(sets, "pool", "other") == {"added": ["d"], "removed": ["a"], "changed": ["c"], "kept": ["1"]}


def test_what_two_versions_share_is_not_read(sets: ActivationSets, monkeypatch: pytest.MonkeyPatch) -> None:
    add(sets, "ab", "cd")
    add(sets, "ef")
    fresh = ActivationSets(sets.location)
    read: list[str] = []
    original = SegmentKeys.read.__func__  # type: ignore[attr-defined]

    def counted(cls: type[SegmentKeys], reader: Any) -> SegmentKeys:
        read.append(reader.segment_id)
        return original(cls, reader)  # type: ignore[no-any-return]

    monkeypatch.setattr(SegmentKeys, "read", classmethod(counted))
    assert differing(fresh, "pool@1", "pool@2")["added"] == ["e", "f"]
    assert read == [fresh.open("pool").refs[2].segment_id]
    assert differing(fresh, "pool@2", "pool@2")["kept"] == ["6"]
    assert len(read) == 1


_SAMPLES = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["one", "two"]), min_size=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_SAMPLES, second=_SAMPLES, cut=st.integers(1, 7))
def test_the_difference_is_that_of_two_dicts(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, str], second: dict[str, str], cut: int
) -> None:
    sets = ActivationSets(Location(str(tmp_path_factory.mktemp("store"))))
    for name, samples in (("pool", first), ("other", second)):
        sets.create(fake_set_record(name, n_layers=1, n_neurons=4))
        parts = [dict(list(samples.items())[:cut]), dict(list(samples.items())[cut:])]
        add(sets, *(part for part in parts if part), name=name)
    found = {change: sorted(ids) for change, ids in differing(sets, "pool", "other").items()}
    both = first.keys() & second.keys()
    assert found == {
        "added": sorted(second.keys() - first.keys()),
        "removed": sorted(first.keys() - second.keys()),
        "changed": sorted(one for one in both if first[one] != second[one]),
        "kept": [str(sum(first[one] == second[one] for one in both))],
    }


def test_deleted_samples_are_gone_from_the_new_version_only(sets: ActivationSets) -> None:
    add(sets, "ab", "cd")
    version = remove(sets, "d", "a", message="no good")
    assert version.sample_ids() == ["b", "c"]
    assert sets.open("pool@1").sample_ids() == ["a", "b", "c", "d"]
    assert version.manifest.operation is Operation.DELETE_SAMPLES
    assert version.manifest.details == {"n_ids": 2, "n_deleted": 2}
    assert (version.manifest.parent, version.manifest.message) == (1, "no good")


def test_deletions_add_up(sets: ActivationSets) -> None:
    add(sets, "abc", "de")
    remove(sets, "a")
    remove(sets, "e")
    assert remove(sets, "b").sample_ids() == ["c", "d"]


def test_missing_ids_come_back_in_the_order_given(sets: ActivationSets) -> None:
    add(sets, "abc")
    remove(sets, "b")
    doomed, missing = doomed_by_ids(sets, sets.open("pool"), ["z", "c", "b", "y", "ümlaut", "new\nline"])
    assert missing == ["z", "b", "y", "ümlaut", "new\nline"]
    assert doomed.first_ids(5) == ("c",)


def test_the_first_ids_come_in_the_order_of_storage(sets: ActivationSets) -> None:
    add(sets, "hgf", "edc")
    doomed, _ = doomed_by_ids(sets, sets.open("pool"), list("cdefgh"))
    assert doomed.first_ids(4) == tuple("hgfe")
    assert doomed.first_ids(100) == tuple("hgfedc")


def test_rows_and_ids_mark_the_same_samples(sets: ActivationSets) -> None:
    version = add(sets, "abc", "de")
    by_rows = doomed_by_rows(sets, version, {0: np.array([0, 2]), 1: np.array([1])})
    by_ids, _ = doomed_by_ids(sets, version, ["e", "c", "a"])
    assert (by_rows.keys == by_ids.keys).all()
    assert {o: list(rows) for o, rows in by_rows.rows.items()} == {o: list(rows) for o, rows in by_ids.rows.items()}


def test_deleting_everything_must_be_meant(sets: ActivationSets) -> None:
    add(sets, "ab")
    with pytest.raises(InvalidInputError, match="all 2 samples of pool@1") as caught:
        remove(sets, "a", "b", allow_empty=False)
    assert "sets delete pool" in str(caught.value.next_step)
    assert sets.numbers("pool") == [1]
    assert remove(sets, "a", "b", allow_empty=True).n_samples == 0


def test_an_emptied_set_takes_its_samples_in_again(sets: ActivationSets) -> None:
    add(sets, "ab")
    remove(sets, "a", "b")
    version = add(sets, "ab", "c")
    assert (version.number, version.sample_ids()) == (3, ["a", "b", "c"])


def test_a_loser_looks_the_ids_up_again(sets: ActivationSets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody deletes one of the two samples and ingests the other anew, under another ordinal."""
    add(sets, "abc")
    doomed, _ = doomed_by_ids(sets, sets.open("pool"), ["a", "b"])
    others = ActivationSets(sets.location)
    remove(others, "a", "b")
    add(others, {"b": "another text"})
    version, n_deleted = delete_samples(sets, doomed, details={}, message="", allow_empty=False)
    assert (version.number, version.sample_ids(), n_deleted) == (4, ["c"], 1)


def test_what_somebody_else_deleted_first_is_no_version(sets: ActivationSets) -> None:
    add(sets, "abc")
    doomed, _ = doomed_by_ids(sets, sets.open("pool"), ["a"])
    remove(ActivationSets(sets.location), "a")
    version, n_deleted = delete_samples(sets, doomed, details={}, message="", allow_empty=False)
    assert (version.reference, n_deleted) == ("pool@2", 0)


def test_a_set_that_was_deleted_meanwhile_says_so(sets: ActivationSets) -> None:
    add(sets, "abc")
    doomed, _ = doomed_by_ids(sets, sets.open("pool"), ["a"])
    sets.log.delete("pool", 1)
    with pytest.raises(NotFoundError, match="pool@1 was deleted"):
        delete_samples(sets, doomed, details={}, message="", allow_empty=False)


def test_a_restored_version_equals_the_old_one(sets: ActivationSets) -> None:
    add(sets, "ab", "cd")
    remove(sets, "a")
    add(sets, {"a": "another text", "e": ""})
    version, created = restore(sets, "pool", 2, message="as it was")
    assert (version.number, created) == (4, True)
    assert version.sample_ids() == sets.open("pool@2").sample_ids() == ["b", "c", "d"]
    assert version.refs == sets.open("pool@2").refs
    assert version.manifest.operation is Operation.RESTORE
    assert version.manifest.details == {"restored": 2}
    assert (version.manifest.parent, version.manifest.message) == (3, "as it was")


def test_ordinals_are_not_used_again_after_a_restore(sets: ActivationSets) -> None:
    add(sets, "ab")
    add(sets, "cd")
    restore(sets, "pool", 1, message="")
    assert [ref.ordinal for ref in add(sets, "ef").refs] == [0, 2]


def test_a_restored_version_stores_what_the_old_one_stored(sets: ActivationSets) -> None:
    both = (Feature.MEAN, Feature.DRIFT)
    sets.commit("pool", [segment(sets, "ab", features=both)], ingest_ids=())
    assert add(sets, "cd").features == (Feature.MEAN,)
    assert restore(sets, "pool", 1, message="")[0].features == both


def test_restoring_the_present_state_is_no_version(sets: ActivationSets) -> None:
    add(sets, "ab")
    version, created = restore(sets, "pool", 1, message="")
    assert (version.reference, created) == ("pool@1", False)
    assert sets.numbers("pool") == [1]


def test_a_deleted_version_can_be_restored_until_it_is_collected(sets: ActivationSets) -> None:
    add(sets, "ab")
    add(sets, "cd")
    add(sets, "ef")
    sets.log.delete("pool", 2)
    sets.log.delete("pool", 3)
    version, _ = restore(sets, "pool", 2, message="")
    assert (version.number, version.sample_ids()) == (4, ["a", "b", "c", "d"])
    sets.log.collect("pool", 3)
    with pytest.raises(NotFoundError, match="collected by gc"):
        restore(sets, "pool", 3, message="")


def test_a_set_whose_versions_are_all_deleted_can_be_restored(sets: ActivationSets) -> None:
    add(sets, "ab")
    sets.log.delete("pool", 1)
    version, created = restore(sets, "pool", 1, message="")
    assert (version.number, version.sample_ids(), created) == (2, ["a", "b"], True)
    assert version.manifest.parent is None


def test_a_restore_of_what_never_was(sets: ActivationSets) -> None:
    add(sets, "ab")
    with pytest.raises(NotFoundError, match="no version 7"):
        restore(sets, "pool", 7, message="")


def test_a_restore_leaves_no_heartbeat(sets: ActivationSets) -> None:
    add(sets, "ab")
    add(sets, "cd")
    restore(sets, "pool", 1, message="")
    assert sets.location.names("activations/pool/jobs") == []


def test_a_version_that_gc_takes_while_it_is_restored_is_refused(
    sets: ActivationSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc marks first and looks for jobs then; so a restore must look for marks once it is known as a job."""
    add(sets, "ab")
    add(sets, "cd")
    sets.log.delete("pool", 1)
    write = Location.write_bytes

    def collect(self: Location, path: str, data: bytes) -> None:
        if path.endswith("heartbeat.json"):
            assert ActivationSets(self).log.collect("pool", 1)
        write(self, path, data)

    monkeypatch.setattr(Location, "write_bytes", collect)
    with pytest.raises(NotFoundError, match="collected by gc"):
        restore(sets, "pool", 1, message="")
    assert sets.numbers("pool") == [2]


def test_an_ingest_into_a_set_that_was_deleted_begins_anew(sets: ActivationSets) -> None:
    add(sets, "ab")
    add(sets, "cd")
    for number in (1, 2):
        sets.log.delete("pool", number)
    version = add(sets, "ad")
    assert (version.number, version.manifest.parent, version.sample_ids()) == (3, None, ["a", "d"])
    assert [ref.ordinal for ref in version.refs] == [2]


def test_the_story_of_a_deleted_set_is_told(sets: ActivationSets) -> None:
    add(sets, "ab")
    sets.log.delete("pool", 1)
    with pytest.raises(NotFoundError, match="pool@1 was deleted on") as caught:
        sets.open("pool")
    assert "'nait-store sets undelete pool'" in str(caught.value.next_step)
