"""Sets and profiles by alias and tag in SQL, and the views that list these."""

from __future__ import annotations

from typing import Any

import pytest

from nait_store.errors import NotFoundError
from nait_store.refs import Kind
from nait_store.registry.profiles import ProfileRegistry
from nait_store.schemas.profile import ProfileManifest
from nait_store.storage.labels import LabelKind, Labels
from nait_store.storage.versions import VersionLog

Workbench = Any  # of conftest.py, which importlib mode cannot import


@pytest.fixture
def labelled(bench: Workbench) -> Workbench:
    """pool@prod and pool@paper are pool@1; math@prod and math@paper are math@1."""
    bench.sets.log.labels.put(LabelKind.ALIAS, "pool", "prod", 1)
    bench.sets.log.labels.put(LabelKind.TAG, "pool", "paper", 1)
    return bench


@pytest.mark.parametrize("pool", ["pool@prod", "pool@paper", "set:pool@prod"])
@pytest.mark.parametrize("math", ["math@prod", "math@paper", "profile:math@prod"])
def test_an_alignment_by_labels_is_that_of_the_versions_they_name(labelled: Workbench, pool: str, math: str) -> None:
    found = labelled.rows(f"FROM alignment('{pool}', '{math}') ORDER BY sample_id")
    assert found == labelled.rows("FROM alignment('pool@1', 'math@1') ORDER BY sample_id")
    assert {(row[0], row[1]) for row in found} == {("pool@1", "math@1")}
    assert len(found) == 40


@pytest.mark.parametrize("label", ["prod", "paper"])
def test_samples_by_a_label_are_those_of_the_version_it_names(labelled: Workbench, label: str) -> None:
    assert labelled.rows(f"SELECT count(*) FROM samples('pool@{label}')") == [(40,)]


def test_labels_are_taken_as_parameters(labelled: Workbench) -> None:
    query = "SELECT DISTINCT activation_set, profile FROM alignment($pool, $math)"
    assert labelled.rows(query, {"pool": "pool@prod", "math": "math@paper"}) == [("pool@1", "math@1")]


def test_labels_are_taken_from_a_view_where_the_scores_are_stored(labelled: Workbench) -> None:
    labelled.rows("SELECT max(score) FROM alignment('pool@1', 'math@1')")
    found = labelled.rows(
        "SELECT DISTINCT l.label_reference, a.profile "
        "FROM aliases l, LATERAL (FROM alignment('pool@prod', l.label_reference)) a WHERE l.kind = 'profile'"
    )
    assert found == [("math@prod", "math@1")]


@pytest.mark.parametrize(
    ("query", "what", "next_step"),
    [
        ("FROM samples('pool@prd')", "set 'pool' has no alias or tag 'prd'", "did you mean 'prod'?"),
        ("FROM samples('pool@papr')", "set 'pool' has no alias or tag 'papr'", "did you mean 'paper'?"),
        ("FROM alignment('pool', 'math@prd')", "profile 'math' has no alias or tag 'prd'", "did you mean 'prod'?"),
        ("FROM alignment('pool', 'math@xyz')", "profile 'math' has no alias or tag 'xyz'", "these exist: paper, prod"),
        ("FROM alignment('pool', 'code@prod')", "profile 'code' has no alias or tag 'prod'", "use a version: code@1"),
        ("FROM alignment('pool', 'mth@prod')", "there is no profile 'mth'", "did you mean 'math'?"),
        ("FROM alignment('pool', (SELECT 'math@prd'))", "profile 'math' has no alias or tag 'prd'", "'prod'?"),
    ],
)
def test_a_label_that_is_not_there_is_an_error_with_near_ones(
    labelled: Workbench, query: str, what: str, next_step: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        labelled.sql(query)
    assert what in caught.value.what
    assert next_step in str(caught.value.next_step)


def test_a_move_is_seen_by_the_next_statement(labelled: Workbench) -> None:
    query = "SELECT DISTINCT activation_set, profile FROM alignment('pool@prod', 'math@prod')"
    assert labelled.rows(query) == [("pool@1", "math@1")]
    labelled.sets.log.labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    Labels(labelled.location, Kind.PROFILE).put(LabelKind.ALIAS, "math", "prod", 2)
    assert labelled.rows(query) == [("pool@2", "math@2")]


def test_a_label_means_one_version_throughout_a_statement(labelled: Workbench) -> None:
    names = labelled.session._names
    statement = names.begin()
    assert (statement.version("pool@prod").reference, statement.profile("math@prod").reference) == ("pool@1", "math@1")
    labelled.sets.log.labels.put(LabelKind.ALIAS, "pool", "prod", 2)
    Labels(labelled.location, Kind.PROFILE).put(LabelKind.ALIAS, "math", "prod", 2)
    assert (statement.version("pool@prod").reference, statement.profile("math@prod").reference) == ("pool@1", "math@1")
    later = names.begin()
    assert (later.version("pool@prod").reference, later.profile("math@prod").reference) == ("pool@2", "math@2")


def test_an_alias_of_a_known_profile_does_not_open_it_again(
    labelled: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT count(*) FROM alignment('pool', '{}')"
    expected = labelled.rows(query.format("math@1"))

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(ProfileRegistry, "open", refuse)
    assert labelled.rows(query.format("math@prod")) == labelled.rows(query.format("math@paper")) == expected


def test_a_label_of_a_deleted_version_is_an_error_that_says_so(labelled: Workbench) -> None:
    VersionLog(labelled.location, Kind.PROFILE, ProfileManifest).delete("math", 1)
    with pytest.raises(NotFoundError, match="math@1 was deleted"):
        labelled.sql("FROM alignment('pool', 'math@prod')")
    labelled.sets.log.delete("pool", 1)
    with pytest.raises(NotFoundError, match="pool@1 was deleted"):
        labelled.sql("FROM samples('pool@prod')")


def test_an_unreadable_label_is_a_warning_about_the_views(labelled: Workbench) -> None:
    labelled.location.write_bytes("profiles/math/aliases/prod/1.json", b"{ broken")
    result = labelled.sql("SELECT label_reference FROM aliases")
    assert result.fetchall() == [("pool@prod",)]
    assert [warning.startswith("alias 'prod' of profile 'math' is left out") for warning in result.warnings] == [True]
