"""Lineages of profiles that came from other stores: back to the registry, and to no set that is only called alike."""

from __future__ import annotations

from nait_store.testing.stores import build_set
from tests.sharing.conftest import Teams


def test_a_pulled_profile_comes_from_its_registry_and_not_from_a_set_of_the_same_name(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    build_set(teams.theirs.location, "gsm8k", 5, seed=9)
    teams.theirs.remotes.pull("math", teams.registry)
    record = teams.ours.profiles.open("math@2").record
    found = teams.theirs.lineage("math")
    assert [(edge.relation, found.node(edge.source).kind.value) for edge in found.edges] == [
        ("pulled from", "shared"),
        ("built with", "model"),
    ]
    shared = next(node for node in found.nodes if node.kind == "shared")
    assert shared.id.endswith("#math@2")
    assert shared.digest == teams.ours.profiles.open("math@2").manifest.record_sha256
    model = next(node for node in found.nodes if node.kind == "model")
    assert model.digest == record.identity.model_fingerprint
    assert teams.theirs.lineage("gsm8k", "down").edges == ()


def test_a_pulled_profile_is_pulled_again(teams: Teams) -> None:
    teams.ours.remotes.push("math@2", teams.registry)
    teams.theirs.remotes.pull("math", teams.registry)
    again = teams.theirs.reproduce("math")
    (step,) = again.steps.steps
    assert step.arguments[:4] == ("pull", "--as", "math", "--")
    report = again.run()
    assert report.ok
    assert {check.what for check in report.checks} == {"recipe and inputs", "directions"}
