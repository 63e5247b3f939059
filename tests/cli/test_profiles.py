"""``profile build|list|show`` through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_build_says_what_and_what_next(cli: Any, store: Path) -> None:
    run = cli("profile", "build", "new", "--from", "maths", "--limit", "16", "--where", "n_tokens > 7")
    assert run.code == 0
    first, second = run.out.splitlines()
    assert first.startswith("new@1: 3 directions of 8 neurons from 16 samples of maths@1 (recipe ")
    assert second.startswith("next: nait-store select --from SET --profile new")


def test_building_the_same_again_computes_nothing(cli: Any, store: Path, snapshot: Any) -> None:
    before = snapshot(store)
    run = cli("profile", "build", "math", "--from", "maths")
    assert "math@1 is this very recipe" in run.out
    assert snapshot(store) == before


def test_every_option_reaches_the_record(cli: Any, store: Path) -> None:
    run = cli(
        "profile", "build", "new", "--from", "maths@1", "--recipe", "nait-paper", "--metric", "cosine", "--no-center",
        "--layers", "0,2", "--limit", "18", "--seed", "5", "--where", "true", "--message", "why", "--card", "text",
        "--json",
    )  # fmt: skip
    record = run.json["profile"]
    assert record["recipe"] == {
        "name": "custom",
        "method": "pca",
        "center": False,
        "profile_feature": "drift",
        "feature": "mean",
        "metric": "cosine",
    }
    assert record["layers"] == [0, 2]
    assert (record["source"]["limit"], record["source"]["seed"], record["source"]["where"]) == (18, 5, "true")
    assert record["card"] == "text"


def test_feature_means_both_sides_unless_told(cli: Any, store: Path) -> None:
    both = cli("profile", "build", "a", "--from", "maths", "--feature", "drift", "--json").json["profile"]["recipe"]
    assert (both["profile_feature"], both["feature"]) == ("drift", "drift")
    arguments = ("--feature", "mean", "--profile-feature", "drift")
    mixed = cli("profile", "build", "b", "--from", "maths", *arguments, "--json").json["profile"]["recipe"]
    assert (mixed["profile_feature"], mixed["feature"]) == ("drift", "mean")


def test_a_later_component_is_named_wherever_the_recipe_is(cli: Any, store: Path) -> None:
    run = cli("profile", "build", "second", "--from", "maths", "--component", "2", "--json")
    assert run.json["profile"]["recipe"]["component"] == 2
    assert "custom: uncentred pca component 2 of mean" in cli("profile", "list").out
    assert "eigenvalue gap" in cli("profile", "show", "second").out
    assert cli("profile", "diff", "math", "second", "--json").json["settings"]["component"] == [1, 2]
    rows = cli("sql", "SELECT component FROM profiles WHERE profile IN ('math', 'second') ORDER BY 1", "--json").json
    assert [row["component"] for row in rows] == [1, 2]


def test_against_means_contrastive(cli: Any, store: Path) -> None:
    run = cli("profile", "build", "c", "--from", "maths", "--against", "pool", "--json").json["profile"]
    assert run["recipe"]["method"] == "contrastive"
    assert run["background"]["set_name"] == "pool"
    assert run["has_offset"] is True
    assert "against" in cli("profile", "show", "c").out


def test_warnings_go_to_standard_error(cli: Any, store: Path) -> None:
    run = cli("profile", "build", "few", "--from", "maths", "--limit", "3")
    assert run.err.startswith("warning: built from 3 samples")
    assert "warning" in cli("profile", "show", "few").err


def test_show_names_recipe_source_and_layers(cli: Any, store: Path) -> None:
    out = cli("profile", "show", "math").out
    for text in ("math@1", "20 samples of maths@1", "sign margin", "explained variance", "capture id"):
        assert text in out
    assert len(out.split("sign margin")[1].split("\n\n")[0].splitlines()) == 1 + 3


def test_list(cli: Any, store: Path) -> None:
    run = cli("profile", "list")
    assert [line.split()[0] for line in run.out.splitlines()] == ["profile", "foreign@1", "math@1"]
    assert [one["reference"] for one in cli("profile", "list", "--json").json] == ["foreign@1", "math@1"]


def test_list_of_an_empty_store_says_what_to_do(cli: Any) -> None:
    cli("init")
    assert "profile build NAME" in cli("profile", "list").out
    assert cli("profile", "list", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("new", "--from", "math"), 3, "'maths'"),
        (("new", "--from", "maths@4"), 3, "maths@1"),
        (("a b", "--from", "maths"), 7, "not a valid profile name"),
        (("", "--from", "maths"), 7, "not a valid profile name"),
        (("new", "--from", "maths", "--layers", "0,9"), 3, "9"),
        (("new", "--from", "pool", "--feature", "drift"), 3, "drift"),
        (("new", "--from", "maths", "--recipe", "nait"), 3, "nait-paper"),
        (("new", "--from", "maths", "--method", "contrastive"), 7, "--against"),
        (("new", "--from", "maths", "--method", "mean", "--center"), 7, "centring"),
        (("new", "--from", "maths", "--against", "pool", "--method", "pca"), 7, "no use"),
        (("new", "--from", "maths", "--method", "mean", "--component", "2"), 7, "no components"),
        (("new", "--from", "maths", "--component", "9"), 7, "fewer than 9 directions"),
        (("new", "--from", "maths", "--against", "other-model"), 6, "model_fingerprint"),
        (("new", "--from", "maths", "--where", "knd = 1"), 3, "knd"),
        (("new", "--from", "maths", "--where", "false"), 7, "no sample"),
    ],
)
def test_bad_builds(cli: Any, store: Path, snapshot: Any, arguments: tuple[str, ...], code: int, says: str) -> None:
    before = snapshot(store)
    run = cli("profile", "build", *arguments)
    assert run.code == code, run.err
    assert says in run.err
    assert "\n  → " in run.err
    assert snapshot(store) == before


@pytest.mark.parametrize(
    ("reference", "says"), [("mth", "'math'"), ("math@3", "math@1"), ("math@prod", "math@1"), ("A", "a-z")]
)
def test_unknown_profiles(cli: Any, store: Path, reference: str, says: str) -> None:
    run = cli("profile", "show", reference)
    assert run.code in (3, 7)
    assert says in run.err


def test_an_alias_is_set_moved_and_removed(cli: Any, store: Path) -> None:
    cli("profile", "build", "math", "--from", "maths", "--limit", "12")
    run = cli("profile", "alias", "set", "math", "prod", "1", "--reason", "as published")
    assert run.out == "math@prod is math@1\n"
    assert cli("profile", "alias", "set", "math", "prod", "2").out == "math@prod is math@2\n"
    assert cli("profile", "show", "math@prod", "--json").json["reference"] == "math@2"
    assert cli("profile", "alias", "remove", "math", "prod").out == "alias prod was taken away\n"
    assert cli("profile", "show", "math@prod").code == 3
    history = cli("profile", "history", "math", "--json").json
    assert [one["reference"] for one in history["versions"]] == ["math@1", "math@2"]
    assert [move["version"] for move in history["labels"][0]["moves"]] == ["math@1", "math@2", None]
    shown = cli("profile", "history", "math").out
    assert "as published" in shown
    assert "default: uncentred pca of mean, candidates' mean, cosine; 12 samples of maths@1, drawn with seed 0" in shown


def test_what_is_named_is_not_deleted(cli: Any, store: Path) -> None:
    cli("profile", "tag", "math@1", "paper")
    refused = cli("profile", "delete", "math")
    assert refused.code == 7
    assert "'nait-store profile untag math paper'" in refused.err
    cli("profile", "untag", "math", "paper")
    assert cli("profile", "delete", "math", "--force").out.splitlines() == [
        "deleted math@1; none is left",
        "until gc takes it: nait-store profile undelete math@1",
    ]
    assert "'nait-store profile undelete math'" in cli("profile", "show", "math").err
    assert cli("profile", "undelete", "math").out == "math@1 is back\n"


def test_tags_of_a_profile_without_any_say_how(cli: Any, store: Path) -> None:
    out = cli("profile", "tags", "math").out
    assert out.startswith("profile math has no alias and no tag\nnext: nait-store ")
    assert out.endswith("profile tag math@1 NAME --reason TEXT\n")


def test_search(cli: Any, store: Path) -> None:
    run = cli("profile", "search", "MATH", "default", "--from", "maths")
    assert [line.split()[0] for line in run.out.splitlines()] == ["profile", "math@1"]
    assert cli("profile", "search", "no such thing").out.splitlines()[0] == "no profile fits"
    assert cli("profile", "search", "no such thing", "--json").json == []


def test_diff(cli: Any, store: Path) -> None:
    cli("profile", "build", "math", "--from", "maths", "--limit", "12")
    out = cli("profile", "diff", "math@1", "math@2", "--set", "pool", "--top", "4").out
    assert out.startswith("math@1 → math@2: 0 in-domain samples added, 8 removed, 12 the same\n")
    assert "of the best 4 samples of pool@" in out
    assert len(out.split("cosine\n")[1].splitlines()) == 3
    value = cli("profile", "diff", "math@1", "math@2", "--json").json
    assert (value["n_removed"], len(value["cosines"])) == (8, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("alias", "set", "math", "7", "1"), 7, "numbers name versions"),
        (("alias", "set", "math", "prod", "9"), 3, "math@1"),
        (("alias", "set", "math@1", "prod", "1"), 7, "not a valid profile name"),
        (("alias", "set", "mth", "prod", "1"), 3, "'math'"),
        (("alias", "remove", "math", "prod"), 3, "no alias 'prod'"),
        (("history", "math@1"), 7, "give the profile: 'math'"),
        (("diff", "math", "mth"), 3, "'math'"),
        (("diff", "math", "foreign", "--set", "nothing"), 3, "nothing"),
        (("delete", "math@7"), 3, "math@1"),
        (("undelete", "math@7"), 3, "math@1"),
    ],
)
def test_bad_changes(cli: Any, store: Path, snapshot: Any, arguments: tuple[str, ...], code: int, says: str) -> None:
    before = snapshot(store)
    run = cli("profile", *arguments)
    assert (run.code, says in run.err) == (code, True), run.err
    assert snapshot(store) == before


def test_check_says_whether_it_applies(cli: Any, store: Path) -> None:
    run = cli("profile", "check", "math", "--set", "pool")
    assert (run.code, run.out.splitlines()[0]) == (0, "profile math@1 applies to set pool@2")
    refused = cli("profile", "check", "math", "--set", "other-model")
    assert refused.code == 6
    assert refused.out.splitlines()[0] == "profile math@1 does not apply to set other-model@1"
    assert "→ rebuild the profile" in refused.out
    assert cli("profile", "check", "math", "--set", "pol").code == 3


def test_show_has_the_card_in_sentences_and_the_samples(cli: Any, store: Path) -> None:
    cli("profile", "build", "new", "--from", "maths", "--limit", "19", "--card-against", "pool")
    out = cli("profile", "show", "new").out
    for text in ("stability ", "separation  area under the curve", "against 40 samples of pool@2", "halves agree"):
        assert text in out
    assert "in-domain samples with the lowest scores" in out
    value = cli("profile", "show", "new", "--json").json
    assert value["quality"]["separation"]["against"]["set_name"] == "pool"
    assert len(value["top"]) == len(value["bottom"]) == 5


def test_show_of_a_profile_without_a_card_says_how_to_measure_it(cli: Any, store: Path) -> None:
    cli("profile", "build", "new", "--from", "maths", "--limit", "18", "--no-quality-card")
    out = cli("profile", "show", "new").out
    assert "nothing was measured when it was built" in out
    assert "next: nait-store profile card new@1" in out
    assert cli("profile", "show", "new", "--json").json["quality"] is None


def test_build_that_was_there_says_that_nothing_was_measured(cli: Any, store: Path) -> None:
    run = cli("profile", "build", "math", "--from", "maths", "--card-against", "pool")
    assert "nothing was measured against pool; 'nait-store profile card math@1 --against pool' does" in run.err


def test_card_is_a_page_on_standard_output(cli: Any, store: Path, snapshot: Any) -> None:
    before = snapshot(store)
    run = cli("profile", "card", "math", "--against", "pool")
    assert run.out.startswith("# math@1\n")
    assert "samples of pool@2" in run.out
    assert snapshot(store) == before


def test_card_is_written_into_a_folder(cli: Any, store: Path, folder: Path) -> None:
    run = cli("profile", "card", "math", "--out", "card", "--no-pictures")
    assert run.out == f"written: {folder / 'card' / 'CARD.md'}\n"
    again = cli("profile", "card", "math", "--out", "card", "--no-pictures")
    assert again.code == 4
    assert "--force" in again.err
    assert cli("profile", "card", "math", "--out", "card", "--no-pictures", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nope",), 3, "nope"),
        (("math", "--against", "nope"), 3, "nope"),
        (("math", "--against", "other-model"), 6, "captured differently"),
        (("math", "--against", "maths"), 7, "nothing to tell them from"),
    ],
)
def test_bad_cards(cli: Any, store: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("profile", "card", *arguments)
    assert run.code == code
    assert says in run.err
