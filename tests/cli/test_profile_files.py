"""``profile export|import`` through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def foreign(folder: Path) -> str:
    """Directions of all three layers, none of length 1."""
    save_file({"vectors": np.full((3, 8), 2, np.float32)}, folder / "foreign.safetensors")
    return "foreign.safetensors"


def test_there_and_back(cli: Any, store: Path) -> None:
    run = cli("profile", "export", "math", "math.npz")
    assert run.out.startswith("math@1 written to ")
    assert cli("profile", "export", "math", "math.npz").code == 4
    assert cli("profile", "export", "math", "math.npz", "--force", "--json").json["format"] == "npz"
    run = cli("profile", "import", "copy", "math.npz")
    assert run.out.splitlines()[0] == (
        "copy@1: 3 directions of 8 neurons from the file math.npz (exported from math@1) "
        "(recipe imported: candidates' mean, cosine)"
    )
    shown = cli("profile", "show", "copy").out
    assert "default: uncentred pca of mean, candidates' mean, cosine; 20 samples of maths@1" in shown
    assert "sign margin" not in shown
    again = cli("profile", "import", "copy", "math.npz").out
    assert again.startswith("copy@1 has these very directions already: nothing was done\n")
    assert "the file math.npz (exported from math@1)" in cli("profile", "list").out


def test_what_was_changed_is_a_warning(cli: Any, store: Path, foreign: str) -> None:
    run = cli("profile", "import", "new", foreign, "--like", "pool")
    assert run.err.startswith("warning: 3 of 3 directions had another length than 1")


def test_every_option_reaches_the_record(cli: Any, store: Path, foreign: str) -> None:
    run = cli(
        "profile", "import", "new", foreign, "--like", "maths@1", "--layers", "0-2", "--feature", "drift",
        "--metric", "dot", "--message", "why", "--card", "text", "--json",
    )  # fmt: skip
    record = run.json["profile"]
    assert (record["recipe"]["feature"], record["recipe"]["metric"], record["card"]) == ("drift", "dot", "text")
    assert record["parameters"]["like"] == "set:maths@1"
    assert "why" in cli("profile", "history", "new").out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("import", "new", "foreign.safetensors"), 7, "--like SET"),
        (("import", "new", "foreign.safetensors", "--like", "nothing"), 3, "no set or profile"),
        (("import", "new", "foreign.safetensors", "--like", "set:pool", "--layers", "0,1"), 7, "2 layers were named"),
        (("import", "new", "foreign.safetensors", "--like", "set:pool", "--layers", "1-3"), 7, "layers 3"),
        (("import", "a b", "foreign.safetensors", "--like", "pool"), 7, "not a valid profile name"),
        (("import", "new", "forein.safetensors", "--like", "pool"), 3, "foreign.safetensors"),
        (("import", "new", "math.pt", "--like", "pool"), 7, "pickle"),
        (("import", "new", ".nait-store", "--like", "pool"), 7, "does not say its format"),
        (("export", "math", "there.txt"), 7, ".safetensors or .npz"),
        (("export", "mth", "there.npz"), 3, "'math'"),
        (("export", "math", "foreign.safetensors"), 4, "--force"),
    ],
)
def test_bad_files(
    cli: Any, store: Path, foreign: str, snapshot: Any, arguments: tuple[str, ...], code: int, says: str
) -> None:
    before = snapshot(store.parent)
    run = cli("profile", *arguments)
    assert (run.code, says in run.err) == (code, True), run.err
    assert "\n  → " in run.err
    assert snapshot(store.parent) == before
