"""Options that every command has, exit codes, and where output goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nait_store.cli.main import hoist_global_options


@pytest.mark.parametrize("place", ["before", "after", "equals"])
def test_store_may_stand_before_or_after_the_command(cli: Any, folder: Path, place: str) -> None:
    arguments = {
        "before": ("--store", "here", "init"),
        "after": ("init", "--store", "here"),
        "equals": ("init", "--store=here"),
    }[place]
    assert cli(*arguments).code == 0
    assert (folder / "here" / "store.json").is_file()


def test_store_comes_from_the_environment(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE", str(folder / "named"))
    run = cli("init")
    assert (folder / "named" / "store.json").is_file()
    assert "next: nait-store ingest" in run.out


def test_the_option_beats_the_environment(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAIT_STORE", str(folder / "named"))
    run = cli("init", "--store", "other")
    assert (folder / "other" / "store.json").is_file()
    assert not (folder / "named").exists()
    assert "next: nait-store --store other ingest" in run.out


def test_default_store_is_a_folder_here(cli: Any, folder: Path) -> None:
    assert cli("init").code == 0
    assert (folder / ".nait-store" / "store.json").is_file()


def test_hoisting_leaves_values_and_what_follows_a_double_dash_alone() -> None:
    given = ["sql", "--out", "x", "--json", "--store", "s", "--", "--json", "--store"]
    assert hoist_global_options(given) == ["--json", "--store", "s", "sql", "--out", "x", "--", "--json", "--store"]
    assert hoist_global_options(["ingest", "a", "--compute-dtype", "float32"]) == [
        "ingest",
        "a",
        "--compute-dtype",
        "float32",
    ]


def test_json_results_are_one_document_on_standard_output(cli: Any, store: Path) -> None:
    run = cli("sets", "list", "--json")
    assert [one["reference"] for one in run.json] == ["maths@1", "other-model@1", "pool@2"]
    assert run.err == ""


def test_json_errors_are_one_document_on_standard_error(cli: Any, store: Path) -> None:
    run = cli("sets", "show", "poool", "--json")
    error = json.loads(run.err)["error"]
    assert run.out == ""
    assert run.code == error["exit_code"] == 3
    assert error["kind"] == "not_found"
    assert "poool" in error["message"]
    assert "'pool'" in error["next_step"]


def test_quiet_leaves_summaries_out_but_not_results_or_errors(cli: Any, store: Path) -> None:
    assert cli("init", "--quiet").out == ""
    assert "pool@2" in cli("sets", "list", "--quiet").out
    assert "error: " in cli("sets", "show", "nope", "--quiet").err


def test_version(cli: Any) -> None:
    run = cli("--version")
    assert run.code == 0
    assert run.out.startswith("nait-store 0.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("selct",), "Did you mean 'select'"),
        (("ingest", "x.jsonl"), "Missing option '--set'"),
        (("ingest", "x", "--set", "a", "--model", "m", "--hook", "nose"), "'nose' is not one of"),
        (("sets", "show"), "Missing argument 'SET'"),
        (("select", "--frm", "pool"), "No such option"),
        (("ingest", "x", "--set", "a", "--model", "m", "--limit", "0"), "--limit"),
    ],
)
def test_wrong_command_lines_exit_with_2_and_name_the_help(cli: Any, arguments: tuple[str, ...], says: str) -> None:
    run = cli(*arguments)
    assert run.code == 2
    assert says in run.err
    assert "--help'" in run.err
    assert run.out == ""


def test_usage_errors_are_json_too(cli: Any) -> None:
    run = cli("--json", "selct")
    assert json.loads(run.err)["error"]["kind"] == "usage"


@pytest.mark.parametrize("arguments", [(), ("sets",), ("profile",)])
def test_a_group_without_a_command_shows_its_help(cli: Any, arguments: tuple[str, ...]) -> None:
    run = cli(*arguments)
    assert run.code == 2
    assert "Commands:" in run.err


def test_unexpected_errors_are_one_line_that_asks_for_debug(
    cli: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("nait_store.store.sets.Sets.list", fail)
    run = cli("sets", "list")
    assert run.code == 1
    assert run.err.splitlines()[0] == "error: unexpected RuntimeError: two lines"
    assert "--debug" in run.err
    with pytest.raises(RuntimeError):
        cli("--debug", "sets", "list")


def test_interrupts_exit_with_130(cli: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nait_store.store.sets.Sets.list", interrupt)
    run = cli("sets", "list")
    assert run.code == 130
    assert run.err == "error: interrupted\n"


def test_every_command_is_the_same_where_only_it_is_set_up() -> None:
    import typer

    from nait_store.cli.app import _needed, app
    from nait_store.cli.reference import commands

    for name, command in commands().items():
        words = name.split() if name != "nait-store" else []
        found: Any = typer.main.get_command(_needed(app, words))
        for word in words:
            assert list(found.commands) == [word]
            found = found.commands[word]
        assert [p.opts for p in found.params] == [p.opts for p in command.params], name


@pytest.mark.parametrize("words", [["prof"], ["profile", "lst"], ["profile"], []])
def test_what_names_no_command_is_told_by_the_whole_program(words: list[str]) -> None:
    import typer

    from nait_store.cli.app import _needed, app

    whole: Any = typer.main.get_command(app)
    found: Any = typer.main.get_command(_needed(app, words))
    for word in words[:1]:
        if word in whole.commands:
            whole, found = whole.commands[word], found.commands[word]
    assert list(found.commands) == list(whole.commands)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--store", "profile", "sets", "list"], ["sets", "list"]),
        (["--json", "--store=x", "profile", "show", "math"], ["profile", "show", "math"]),
        (["--version"], []),
    ],
)
def test_words_are_what_is_no_global_option(arguments: list[str], words: list[str]) -> None:
    from nait_store.cli.app import _words

    assert _words(arguments) == words
