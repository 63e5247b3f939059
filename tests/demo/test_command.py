"""``nait-store demo`` tells the story, finds maths well above its baselines, and uses an earlier run again."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nait_store.cli.demo import STEPS
from tests.warm_processes import warm_environment


class Run(NamedTuple):
    """What one run printed, and the folders it had."""

    text: str
    folder: Path
    elsewhere: Path


def nait_store(*arguments: str, elsewhere: Path, programs: Path) -> str:
    environment = warm_environment(programs) | {"NAIT_STORE": str(elsewhere), "NO_COLOR": "1"}
    command = [str(programs / "nait-store"), *arguments]
    done = subprocess.run(command, env=environment, cwd=elsewhere.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Run:
    folder, elsewhere = tmp_path_factory.mktemp("demo") / "tour", tmp_path_factory.mktemp("home") / "store"
    text = nait_store("demo", "--folder", str(folder), elsewhere=elsewhere, programs=programs)
    return Run(text, folder, elsewhere)


@pytest.fixture(scope="module")
def second(first: Run, programs: Path) -> dict[str, Any]:
    folder = str(first.folder)
    text = nait_store("demo", "--folder", folder, "--json", elsewhere=first.elsewhere, programs=programs)
    return dict(json.loads(text))


def test_every_command_is_shown_as_a_user_types_it(first: Run) -> None:
    shown = [line.removeprefix("$ ") for line in first.text.splitlines() if line.startswith("$ ")]
    assert shown == [str(step) for step in STEPS]


def test_precision_is_printed_beside_its_baselines(first: Run) -> None:
    table = first.text[first.text.index("maths among them") :]
    for name in ("top 10 % by the profile", "random 10 %", "longest 10 %", "lowest 10 % by the profile"):
        assert re.search(re.escape(name) + r"\s+200\s+[\d.]+%", table), table


def test_profile_finds_maths_and_baselines_do_not(second: dict[str, Any]) -> None:
    share = {row["chosen"]: row["share"] for row in second["precision"]}
    assert share["top 10 % by the profile"] >= 0.95
    assert share["lowest 10 % by the profile"] <= 0.05
    for baseline in ("random 10 %", "longest 10 %", "shortest 10 %"):
        assert share[baseline] == pytest.approx(0.2, abs=0.1)


def test_second_run_uses_the_first_ones_store(first: Run, second: dict[str, Any]) -> None:
    assert second["reused"] is True
    versions = first.folder / ".nait-store" / "activations" / "pool" / "versions"
    assert [path.name for path in versions.iterdir()] == ["1.json"]
    assert [path.name for path in (first.folder / ".nait-store" / "profiles" / "math" / "versions").iterdir()] == [
        "1.json"
    ]


def test_chosen_records_are_the_users_own_with_score_and_rank(first: Run, second: dict[str, Any]) -> None:
    lines = (first.folder / "math-10pct.jsonl").read_text(encoding="utf-8").splitlines()
    pool = set((first.folder / "pool.jsonl").read_text(encoding="utf-8").splitlines())
    records = [json.loads(line) for line in lines]
    assert [record["rank"] for record in records] == list(range(1, 201))
    assert sorted((record["score"] for record in records), reverse=True) == [record["score"] for record in records]
    for record in records:
        del record["score"], record["rank"]
    assert {json.dumps(record, ensure_ascii=False) for record in records} <= pool


def test_users_own_store_is_left_alone(first: Run, second: dict[str, Any]) -> None:
    assert not first.elsewhere.exists()
