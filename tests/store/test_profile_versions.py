"""Profiles over time: history, labels, deletion, search, and in what two versions differ."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import nait_store
from nait_store.errors import IncompatibleError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import StoredDtype
from nait_store.store.profiles import Profiles
from nait_store.testing.stores import build_set, fake_identity


@pytest.fixture
def profiles(store: nait_store.Store) -> Profiles:
    """Three versions of math, and one of chat."""
    store.profiles.build("math", source="maths", message="first", card="school arithmetic")
    store.profiles.build("math", source="maths", recipe="nait-paper", message="to the letter")
    store.profiles.build("math", source="maths", limit=12, seed=3)
    store.profiles.build("chat", source="pool", where="kind = 'chat'", card="small talk")
    return store.profiles


def references(found: object) -> list[str]:
    return [one.reference for one in found]  # type: ignore[attr-defined]


def test_history_tells_each_version_with_its_labels(profiles: Profiles) -> None:
    profiles.alias("math@2", "prod", reason="as published")
    profiles.tag("math@1", "paper")
    one, two, three = profiles.history("math")
    assert (one.reference, one.message, one.tags, one.parent) == ("math@1", "first", ("paper",), None)
    assert (two.aliases, two.parent) == (("prod",), 1)
    assert two.what == "nait-paper: centred pca of drift, candidates' mean, dot; 20 samples of maths@1"
    assert three.what.endswith("; 12 samples of maths@1, drawn with seed 3")


def test_every_move_of_an_alias_is_recorded(profiles: Profiles) -> None:
    profiles.alias("math@1", "prod", reason="the first")
    profiles.alias("math@3", "prod", reason="better")
    profiles.unalias("math", "prod", reason="not that good")
    (summary,) = profiles.labels("math")
    assert [(move.version, move.reason) for move in summary.moves] == [
        ("math@1", "the first"),
        ("math@3", "better"),
        (None, "not that good"),
    ]
    with pytest.raises(NotFoundError, match="has no alias or tag 'prod'"):
        profiles.open("math@prod")


def test_an_alias_is_scored_as_the_version_that_it_names(store: nait_store.Store, profiles: Profiles) -> None:
    profiles.alias("math@2", "prod")
    query = "SELECT score FROM alignment('pool', ?) ORDER BY sample_id"
    assert store.sql(query, ["math@prod"]).fetchall() == store.sql(query, ["math@2"]).fetchall()


def test_unalias_leaves_tags_alone(profiles: Profiles) -> None:
    profiles.tag("math@1", "paper")
    with pytest.raises(NotFoundError, match="has no alias 'paper'"):
        profiles.unalias("math", "paper")
    assert profiles.open("math@paper").number == 1


def test_deletion_waits_for_aliases_tags_and_selections(store: nait_store.Store, profiles: Profiles) -> None:
    profiles.alias("math@1", "prod")
    profiles.tag("math@2", "paper")
    store.selections.save("best", store.select("pool", profile="math@3", top=3))
    for reference, needed in (("math@1", "math@prod"), ("math@2", "math@paper"), ("math@3", "selection:best@1")):
        with pytest.raises(InvalidInputError, match=needed):
            profiles.delete(reference)
    profiles.delete("math@1", force=True)
    profiles.delete("math@3", force=True)
    with pytest.raises(InvalidInputError, match="paper"):
        profiles.delete("math@2", force=True)
    assert store.profiles.registry.numbers("math") == [2]


def test_a_deleted_version_says_how_to_bring_it_back(profiles: Profiles) -> None:
    report = profiles.delete("chat", reason="a detour")
    assert (report.deleted, report.left) == (("chat@1",), ())
    with pytest.raises(NotFoundError) as caught:
        profiles.open("chat@1")
    assert "'nait-store profile undelete chat'" in str(caught.value.next_step)
    (version,) = profiles.history("chat")
    assert version.deleted is not None
    assert version.deleted.reason == "a detour"
    assert profiles.undelete("chat") == ("chat@1",)
    assert profiles.open("chat").number == 1


def test_the_number_of_a_deleted_version_is_not_used_again(profiles: Profiles) -> None:
    profiles.delete("math@3")
    built, created = profiles.build("math", source="maths", method="mean")
    assert (built.number, created) == (4, True)


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        ("", {}, ["chat@1", "math@3"]),
        ("TALK", {}, ["chat@1"]),
        ("school arithmetic", {}, ["math@1"]),
        ("letter", {"all_versions": True}, ["math@2"]),
        ("letter", {}, []),
        ("math", {"all_versions": True}, ["math@1", "math@2", "math@3"]),
        ("100%", {}, []),
        ("'", {}, []),
        ("", {"label": "prod"}, ["math@1"]),
        ("prod", {}, ["math@1"]),
        ("", {"source": "pool"}, ["chat@1"]),
        ("", {"source": "pool@2"}, []),
        ("", {"source": "maths@1"}, ["math@1", "math@3"]),
        ("", {"model": "FAKE"}, ["chat@1", "math@1", "math@3"]),
        ("", {"model": "llama"}, []),
    ],
)
def test_search(profiles: Profiles, text: str, options: dict[str, object], found: list[str]) -> None:
    profiles.alias("math@1", "prod")
    assert references(profiles.search(text, **options)) == found  # type: ignore[arg-type]


def test_a_summary_has_what_the_record_has(profiles: Profiles) -> None:
    profiles.alias("math@3", "prod")
    summary = profiles.list()[1]
    record = profiles.open("math").record
    assert summary.recipe == record.recipe
    assert (summary.source, summary.n_samples, summary.n_layers, summary.n_neurons) == ("maths@1", 12, 2, 8)
    assert (summary.model, summary.aliases, summary.tags) == ("./fake-model", ("prod",), ())
    assert summary.created_at == record.provenance.created_at


def test_diff_of_two_versions(store: nait_store.Store, profiles: Profiles) -> None:
    diff = profiles.diff("math@1", "math@3")
    v, w = (profiles.open(f"math@{n}").directions().astype(np.float64) for n in (1, 3))
    for layer, cosine in diff.cosines.items():
        assert cosine == pytest.approx(v[layer] @ w[layer], abs=1e-6)
    assert (diff.n_added, diff.n_removed, diff.n_kept) == (0, 8, 12)
    ids = set(store.sets.open("maths").segments[0].samples(["sample_id"]).column("sample_id").to_pylist())
    drawn = sorted(ids, key=lambda sample_id: hashlib.sha256(f"3:{sample_id}".encode()).digest())[:12]
    assert diff.removed == tuple(sorted(ids - set(drawn))[:5])
    assert diff.settings == {"from": ("20 samples of maths@1", "12 samples of maths@1, drawn with seed 3")}


def test_diff_names_the_settings_that_differ(profiles: Profiles) -> None:
    settings = profiles.diff("math@1", "math@2").settings
    assert settings["recipe"] == ("default", "nait-paper")
    assert settings["metric"] == ("cosine", "dot")
    assert "method" not in settings


def test_diff_says_how_much_the_best_samples_differ(store: nait_store.Store, profiles: Profiles) -> None:
    overlap = profiles.diff("math@1", "chat", set="pool", top=10).overlap
    assert overlap is not None
    best = [
        {row[0] for row in store.sql(f"SELECT sample_id FROM alignment('pool', '{ref}') ORDER BY score DESC LIMIT 10")}
        for ref in ("math@1", "chat")
    ]
    assert (overlap.activation_set, overlap.n_best, overlap.n_common) == ("pool@1", 10, len(best[0] & best[1]))


def test_diff_where_the_samples_are_gone_says_so(store: nait_store.Store, profiles: Profiles) -> None:
    store.sets.delete_samples("maths", where="n_tokens > 0", allow_empty=True)
    store.sets.delete("maths@1", force=True)
    diff = profiles.diff("math@1", "math@2")
    assert (diff.n_added, diff.n_kept) == (None, None)
    assert "maths@1 was deleted" in diff.unknown
    assert len(diff.cosines) == 2


def test_directions_of_other_models_are_not_compared(store: nait_store.Store, profiles: Profiles) -> None:
    build_set(store.location, "other", 20, identity=fake_identity("another"))
    profiles.build("elsewhere", source="other")
    diff = profiles.diff("math", "elsewhere")
    assert (diff.comparable, diff.cosines) == (False, {})
    assert "capture" in diff.settings
    with pytest.raises(IncompatibleError):
        profiles.diff("math", "elsewhere", set="pool")


@pytest.mark.parametrize("call", ["history", "labels"])
def test_unknown_names_suggest_near_ones(profiles: Profiles, call: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        getattr(profiles, call)("mth")
    assert "'math'" in str(caught.value.next_step)


def test_a_profile_applies_to_sets_of_its_own_capture(profiles: Profiles) -> None:
    report = profiles.check("math", set="pool")
    assert (report.applies, report.severity, report.differences) == (True, None, ())
    assert {"model_fingerprint", "features", "layers", "compute_dtype", "dtype"} <= set(report.same)


def test_where_it_ran_and_how_it_is_stored_has_no_effect(store: nait_store.Store, profiles: Profiles) -> None:
    build_set(store.location, "wide", 5, dtype=StoredDtype.FLOAT32, first=500)
    report = profiles.check("math", set="wide")
    (found,) = report.differences
    assert (found.field, found.profile_value, found.set_value, found.severity) == (
        "dtype", "float16", "float32", "ignore",
    )  # fmt: skip
    assert report.applies


def test_another_model_is_refused_with_what_to_do(store: nait_store.Store, profiles: Profiles) -> None:
    build_set(store.location, "other", 20, identity=fake_identity("another"), n_layers=1)
    report = profiles.check("math", set="other")
    assert (report.applies, report.severity) == (False, "refuse")
    assert [one.field for one in report.differences] == ["model_fingerprint", "layers"]
    assert "nait-store ingest IN_DOMAIN.jsonl" in report.differences[0].advice


def test_a_profile_whose_source_is_gone_can_still_be_checked(store: nait_store.Store, profiles: Profiles) -> None:
    store.sets.delete("maths", force=True)
    report = profiles.check("math", set="pool")
    assert report.applies
    assert "dtype" not in report.same
