"""``nait-store gc`` as users see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nait_store
from nait_store.cli.gc import parse_duration
from nait_store.errors import InvalidInputError
from tests.cli.conftest import Cli


@pytest.fixture
def deleted(store: Path) -> nait_store.Store:
    """The store with the latest version of pool deleted."""
    opened = nait_store.open(str(store))
    opened.sets.versions.log.delete("pool", 2, "a mistake")
    return opened


def test_nothing_to_do_is_said(cli: Cli, store: Path) -> None:
    run = cli("gc")
    assert (run.code, run.err) == (0, "")
    assert run.out == "freed 0 B (0 bytes) in 0 files\n"


def test_a_dry_run_shows_what_would_go(
    cli: Cli, deleted: nait_store.Store, store: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    before = snapshot(store)
    run = cli("gc", "--dry-run", "--grace", "0")
    assert run.code == 0
    assert "only collected versions had it: pool@2" in run.out
    assert "a mistake" in run.out
    assert run.out.splitlines()[-1].startswith("would free ")
    assert snapshot(store) == before


def test_the_bytes_of_the_dry_run_are_freed(cli: Cli, deleted: nait_store.Store, store: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in store.rglob("*") if path.is_file() and "collected" not in path.name)

    dry = cli("gc", "--dry-run", "--grace", "0", "--json").json
    before = size()
    real = cli("gc", "--grace", "0", "--json").json
    assert real["freed_bytes"] == dry["freed_bytes"] == before - size() > 0
    assert real["garbage"] == dry["garbage"]
    assert (dry["dry_run"], real["dry_run"]) == (True, False)
    assert {item["kind"] for item in real["garbage"]} == {"segment", "version"}


def test_what_stays_is_listed_with_the_reason(cli: Cli, deleted: nait_store.Store) -> None:
    run = cli("gc")
    assert "pool@2  deleted; kept until" in run.out
    assert "kept until" not in cli("gc", "--quiet").out


def test_a_policy_deletes_and_can_be_undone(cli: Cli, store: Path) -> None:
    run = cli("gc", "--keep-last", "1", "--set", "pool")
    assert "pool@1   gc: not among the last 1" in run.out
    assert cli("sets", "undelete", "pool@1").code == 0
    assert nait_store.open(str(store)).sets.versions.numbers("pool") == [1, 2]


def test_versions_that_expire_are_told_before(cli: Cli, store: Path) -> None:
    run = cli("gc", "--expire-older-than", "0", "--dry-run")
    assert "would be deleted" in run.out
    assert nait_store.open(str(store)).sets.versions.numbers("pool") == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grace", "-1d"), "not a duration"),
        (("--grace", "7"), "not a duration"),
        (("--grace", "soon"), "not a duration"),
        (("--grace", "9999999w"), "between 0 and 100 years"),
        (("--expire-older-than", "99999999999999d"), "not a duration"),
        (("--keep-last", "0"), "at least 1"),
        (("--set", "No Name"), "not a valid set name"),
    ],
)
def test_unsafe_input_is_refused(
    cli: Cli,
    deleted: nait_store.Store,
    store: Path,
    snapshot: Callable[[Path], dict[str, str]],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    before = snapshot(store)
    run = cli("gc", *arguments)
    assert (run.code, run.out) == (InvalidInputError.exit_code, "")
    assert message in run.err
    assert snapshot(store) == before


def test_an_unknown_set_is_told(cli: Cli, store: Path) -> None:
    run = cli("gc", "--set", "poool")
    assert run.code == 3
    assert "did you mean 'pool'" in run.err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0d", 0), ("45s", 45), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration("--grace", text).total_seconds() == seconds
