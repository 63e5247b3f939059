"""``ingest`` with real (tiny) models, and with folders that are none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nait_store.testing.tiny_models import save_tiny_model

N_LAYERS = 2


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """The machine is shared."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "llama", num_hidden_layers=N_LAYERS)


@pytest.fixture
def model(saved_model: Path, folder: Path) -> Path:
    """A copy of a tiny model as ``./model``."""
    return Path(shutil.copytree(saved_model, folder / "model"))


def edit_config(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_main_job_end_to_end(cli: Any, folder: Path, model: Path, write_jsonl: Any) -> None:
    pool = [{"instruction": f"say {i}", "output": "blue sky " * (i % 7 + 1)} for i in range(30)]
    maths = [{"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}."} for i in range(20)]
    assert cli("init").code == 0
    run = cli("ingest", write_jsonl("pool.jsonl", pool), "--set", "pool", "--model", "./model")
    assert run.code == 0, run.err
    assert run.out.startswith("pool@1: 30 samples added")
    name = write_jsonl("maths.jsonl", maths)
    assert cli("ingest", name, "--set", "maths", "--model", "./model", "--features", "mean,drift").code == 0
    assert cli("profile", "build", "math", "--from", "maths", "--limit", "16").code == 0
    query = (
        "SELECT sample_id, instruction, score FROM alignment('pool', 'math') JOIN samples('pool') USING (sample_id) "
        "ORDER BY score DESC LIMIT 5"
    )
    rows = cli("sql", query, "--json").json
    assert len(rows) == 5
    run = cli("select", "--from", "pool", "--profile", "math", "--top", "10%", "--out", "top.jsonl")
    assert run.code == 0
    top = [json.loads(line) for line in (folder / "top.jsonl").read_text().splitlines()]
    assert [row["instruction"] for row in top] == [row["instruction"] for row in rows[:3]]
    again = cli("ingest", "pool.jsonl", "--set", "pool", "--model", "./model")
    assert "pool@1: 0 samples added (30 known)" in again.out
    assert cli("verify").code == 0


def test_a_subset_of_layers(cli: Any, model: Path, write_jsonl: Any) -> None:
    cli("init")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "model", "--layers", "1", "--hook", "residual")
    assert run.code == 0, run.err
    assert cli("sets", "show", "a", "--json").json["layers"] == [1]


def test_the_summary_says_how_the_model_was_run(cli: Any, model: Path, write_jsonl: Any) -> None:
    cli("init")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "model", "--device", "cpu")
    assert "packed batches of 4,096 tokens on cpu, peak memory" in run.out
    arguments = ("--set", "b", "--model", "model", "--device", "cpu", "--token-budget", "auto", "--json")
    usage = cli("ingest", "a.jsonl", *arguments).json["usage"]
    assert (usage["device"], usage["layout"]) == ("cpu", "packed")
    assert usage["token_budget"] >= 512
    assert usage["peak_memory_bytes"] > 0


def test_several_devices_share_an_ingest_and_the_summary_tells_their_shares(
    cli: Any, model: Path, write_jsonl: Any
) -> None:
    cli("init")
    name = write_jsonl("a.jsonl", n=40)
    arguments = ("ingest", name, "--model", "model", "--token-budget", "60")
    assert cli(*arguments, "--set", "a", "--device", "cpu").code == 0
    run = cli(*arguments, "--set", "b", "--devices", "cpu,cpu")
    assert run.code == 0, run.err
    shares = re.findall(r"^  cpu: (\d+) samples?, [\d,]+ tokens?$", run.out, re.MULTILINE)
    assert len(shares) == 2
    assert sum(map(int, shares)) == 40
    a, b = (cli("sets", "show", name, "--json").json for name in "ab")
    assert a["capture_id"] == b["capture_id"]
    ids = [cli("sql", f"SELECT sample_id FROM samples('{name}') ORDER BY row_id", "--json").json for name in "ab"]
    assert ids[0] == ids[1]


def test_devices_and_a_device_map_contradict_each_other(cli: Any, model: Path, write_jsonl: Any) -> None:
    cli("init")
    arguments = ("--set", "a", "--model", "model", "--devices", "cpu,cpu", "--device-map", "auto")
    run = cli("ingest", write_jsonl("a.jsonl"), *arguments)
    assert run.code == 7
    assert "contradicts --device-map" in run.err


@pytest.mark.parametrize("budget", ["0", "-1", "many"])
def test_a_token_budget_is_a_number_or_auto(cli: Any, model: Path, write_jsonl: Any, budget: str) -> None:
    cli("init")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "model", f"--token-budget={budget}")
    assert run.code == 7
    assert "'auto'" in run.err


def test_one_record_of_five_megabytes_is_truncated_and_counted(cli: Any, model: Path, write_jsonl: Any) -> None:
    cli("init")
    name = write_jsonl("a.jsonl", [{"text": "word " * 1_000_000}, {"text": "short"}])
    run = cli("ingest", name, "--set", "a", "--model", "model")
    assert run.code == 0, run.err
    assert "2 samples added (1 truncated)" in run.out


def without_weights(model: Path) -> None:
    for path in [*model.glob("*.safetensors"), *model.glob("*.bin")]:
        path.unlink()


def with_remote_code(model: Path) -> None:
    edit_config(
        model, model_type="houseblend", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    )
    (model / "code.py").write_text("raise RuntimeError('remote code was run')\n")


def of_no_known_architecture(model: Path) -> None:
    edit_config(model, model_type="houseblend", architectures=["HouseblendForCausalLM"])


def without_a_causal_head(model: Path) -> None:
    edit_config(model, model_type="vit", architectures=["ViTModel"])


def damaged(model: Path) -> None:
    path = next(model.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])


def without_configuration(model: Path) -> None:
    (model / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_weights, "weights"),
        (with_remote_code, "--trust-remote-code"),
        (of_no_known_architecture, "houseblend"),
        (without_a_causal_head, "vit"),
        (damaged, "model"),
        (without_configuration, "config.json"),
    ],
)
def test_unusable_models(
    cli: Any, folder: Path, model: Path, write_jsonl: Any, snapshot: Any, damage: Any, says: str
) -> None:
    cli("init")
    damage(model)
    before = snapshot(folder / ".nait-store")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "./model")
    assert run.code in (3, 7, 9), run.err
    assert "model" in run.err
    assert says in run.err
    assert "\n  → " in run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    assert snapshot(folder / ".nait-store") == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--layers", "7"), (3, 7), "7"),
        (("--hook-path", "nowhere.at.all"), (3, 7), "nowhere.at.all"),
        (("--device", "cuda:9"), (3, 7), "cuda"),
        (("--template", "chat"), (3, 7), "template"),
    ],
)
def test_options_that_do_not_fit_the_model(
    cli: Any, folder: Path, model: Path, write_jsonl: Any, snapshot: Any, arguments: Any, code: Any, says: str
) -> None:
    cli("init")
    before = snapshot(folder / ".nait-store")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "./model", *arguments)
    assert run.code in code, run.err
    assert says in run.err
    assert "\n  → " in run.err
    assert snapshot(folder / ".nait-store") == before


def test_a_model_that_is_not_there(cli: Any, folder: Path, write_jsonl: Any) -> None:
    cli("init")
    run = cli("ingest", write_jsonl("a.jsonl"), "--set", "a", "--model", "./modle")
    assert run.code in (3, 7)
    assert "./modle" in run.err
