"""Who needs a version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nait_store
from nait_store.errors import FormatError
from nait_store.refs import Kind
from nait_store.storage.labels import LabelKind, Labels
from nait_store.store.dependents import Dependents
from nait_store.testing.stores import build_set


@pytest.fixture
def store(store: nait_store.Store) -> Iterator[nait_store.Store]:
    build_set(store.location, "pool", 5, first=500, seed=9)
    yield store
    store.session.close()


def test_a_version_that_nobody_needs(store: nait_store.Store) -> None:
    assert Dependents(store).of(Kind.SET, "pool", 1) == []


def test_labels_are_named_tags_first_with_their_reasons(store: nait_store.Store) -> None:
    labels = Labels(store.location, Kind.SET)
    labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    labels.put(LabelKind.TAG, "pool", "release", 1, "in the paper")
    labels.put(LabelKind.ALIAS, "pool", "next", 2)
    found = Dependents(store).of(Kind.SET, "pool", 1)
    assert [(one.reference, one.why, one.tag) for one in found] == [
        ("pool@release", "tag: in the paper", True),
        ("pool@prod", "alias", False),
    ]


def test_a_label_that_was_removed_needs_nothing(store: nait_store.Store) -> None:
    labels = Labels(store.location, Kind.SET)
    labels.put(LabelKind.TAG, "pool", "release", 1)
    labels.remove(LabelKind.TAG, "pool", "release")
    assert Dependents(store).of(Kind.SET, "pool", 1) == []


def test_selections_and_profiles_are_named_for_the_version_they_came_from(store: nait_store.Store) -> None:
    store.profiles.build("math", source="maths", against="pool@1")
    selection = store.select("pool@2", profile="math", top=2)
    store.selections.save("best", selection)
    every = Dependents(store)
    assert [str(one) for one in every.of(Kind.SET, "maths", 1)] == ["profile:math@1 (was built from it)"]
    assert [str(one) for one in every.of(Kind.SET, "pool", 1)] == ["profile:math@1 (was built against it)"]
    assert [str(one) for one in every.of(Kind.SET, "pool", 2)] == ["selection:best@1 (was selected from it)"]
    assert [str(one) for one in every.of(Kind.PROFILE, "math", 1)] == ["selection:best@1 (was selected by it)"]


def test_a_damaged_profile_is_an_error_because_what_it_needs_is_unknown(store: nait_store.Store) -> None:
    profile, _ = store.profiles.build("math", source="maths")
    store.location.write_bytes(f"{profile.folder}/profile.json", b"{}")
    with pytest.raises(FormatError):
        Dependents(store).of(Kind.SET, "pool", 1)
