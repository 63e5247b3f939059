"""Families of profiles: who is a sister of whom, whatever they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nait_store
from nait_store.errors import InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import ENVIRONMENT, fake_identity


def model(name: str) -> dict[str, Any]:
    """A fake model, as an ingest and a port take it."""
    environment = ENVIRONMENT.model_copy(update={"model_source": f"./{name}"})
    both = (Feature.MEAN, Feature.DRIFT)
    capture = FakeCapture(features=both, n_model_layers=3, identity=fake_identity(name), environment=environment)
    return {"model": f"./{name}", "capture": capture}


@pytest.fixture
def sums(tmp_path: Path) -> str:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i} + 1", "completion": f"{i + 1}"}) + "\n" for i in range(18)))
    return str(path)


@pytest.fixture
def family(store: nait_store.Store, sums: str) -> nait_store.Store:
    """math, built twice; a sister ported from each of its versions, a sister's sister, and a stranger."""
    store.ingest(sums, set="sums", features=["mean", "drift"], **model("llama"))
    store.profiles.build("math", source="sums")
    store.profiles.port("math", **model("qwen"))
    store.profiles.build("math", source="sums", metric="dot")
    store.profiles.port("math", **model("gpt2"))
    store.profiles.port("math-qwen", **model("opt"))
    store.profiles.build("chat", source="pool", where="kind = 'chat'")
    return store


def references(store: nait_store.Store, of: str, **options: Any) -> list[str]:
    return [one.reference for one in store.profiles.family(of, **options)]


def test_everybody_of_a_family_names_it(family: nait_store.Store) -> None:
    for member in ("math", "math@1", "math-qwen", "math-gpt2@1", "math-opt"):
        assert references(family, member) == ["math@2", "math-gpt2@1", "math-opt@1", "math-qwen@1"], member


def test_all_gives_every_version(family: nait_store.Store) -> None:
    assert references(family, "math", all_versions=True)[:2] == ["math@1", "math@2"]


def test_each_says_what_it_was_ported_from(family: nait_store.Store) -> None:
    ported = {one.reference: (one.ported_from, one.model) for one in family.profiles.family("math")}
    assert ported == {
        "math@2": (None, "./llama"),
        "math-gpt2@1": ("math@2", "./gpt2"),
        "math-opt@1": ("math-qwen@1", "./opt"),
        "math-qwen@1": ("math@1", "./qwen"),
    }
    assert family.sql("SELECT profile FROM profiles WHERE ported_from = 'math@2'").fetchall() == [("math-gpt2",)]


def test_a_profile_alone_is_its_family(family: nait_store.Store) -> None:
    assert references(family, "chat") == ["chat@1"]


def test_who_was_built_from_the_same_samples_is_a_sister_without_a_port(family: nait_store.Store, sums: str) -> None:
    family.ingest(sums, set="own", **model("bloom"))
    family.profiles.build("arithmetic", source="own")
    assert "arithmetic@1" in references(family, "math")
    assert "math@2" in references(family, "arithmetic")


def test_the_same_samples_under_another_recipe_are_another_family(family: nait_store.Store) -> None:
    family.profiles.build("literal", source="sums", recipe="nait-paper")
    assert references(family, "literal") == ["literal@1"]


def test_sisters_stay_sisters_when_the_first_is_deleted(family: nait_store.Store) -> None:
    family.profiles.delete("math", reason="replaced", force=True)
    assert references(family, "math-qwen") == ["math-opt@1", "math-qwen@1"]


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [("maht", NotFoundError, "math"), ("math@9", NotFoundError, "math@2"), ("set:math", InvalidInputError, "profile")],
)
def test_slips(family: nait_store.Store, reference: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        family.profiles.family(reference)


def test_the_lineage_of_a_sister_leads_to_the_profile_and_its_samples(family: nait_store.Store) -> None:
    lineage = family.lineage("profile:math-opt@1")
    edges = {(edge.source, edge.relation, edge.target) for edge in lineage.edges}
    assert ("profile:math-qwen@1", "ported from", "profile:math-opt@1") in edges
    assert ("profile:math@1", "ported from", "profile:math-qwen@1") in edges
    assert ("set:sums@1", "samples of, captured again", "set:sums-qwen@1") in edges
    assert lineage.gaps == ()
