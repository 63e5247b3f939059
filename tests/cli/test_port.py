"""``profile port|family`` through the command line; what a port does is tested with the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.stores import ENVIRONMENT, fake_identity


@pytest.fixture
def opened(cli: Any, store: Path, write_jsonl: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What models are opened with, each a fake of its own; and the profile sum of ./llama, from ten samples of sums."""
    given: dict[str, Any] = {}

    def open_capture(model: str, request: Any, options: Any, *, longest_tokens: int | None = None) -> FakeCapture:
        given.update(options, longest_tokens=longest_tokens)
        environment = ENVIRONMENT.model_copy(update={"model_source": model})
        identity = fake_identity(model)
        return FakeCapture(n_model_layers=5, features=request.features, identity=identity, environment=environment)

    monkeypatch.setattr("nait_store.store.ingesting.open_capture", open_capture)
    assert cli("ingest", write_jsonl("sums.jsonl"), "--set", "sums", "--model", "./llama").code == 0
    assert cli("profile", "build", "sum", "--from", "sums").code == 0
    given.clear()
    return given


def test_port_says_what_was_built_and_captured(cli: Any, opened: dict[str, Any]) -> None:
    run = cli("profile", "port", "sum", "--model", "./Qwen")
    assert run.code == 0, run.err
    assert run.out.splitlines() == [
        "sum-qwen@1: the sister of sum@1 on ./Qwen, from 10 samples of sums-qwen@1",
        "  layers 0–4; 10 samples captured now",
        "next: nait-store profile family sum-qwen",
    ]
    again = cli("profile", "port", "sum", "--model", "./Qwen").out.splitlines()
    assert again[0] == "sum-qwen@1 is this very port of sum@1 already: nothing was computed"


def test_port_as_json(cli: Any, opened: dict[str, Any]) -> None:
    value = cli("profile", "port", "sum@1", "--model", "./qwen", "--json").json
    assert (value["profile"], value["created"], value["ported_from"]) == ("sum-qwen@1", True, "sum@1")
    assert (value["set_ref"], value["n_samples"], value["n_captured"], value["layers"]) == (
        "sums-qwen@1", 10, 10, [0, 1, 2, 3, 4],
    )  # fmt: skip


def test_the_profiles_capture_is_repeated(cli: Any, opened: dict[str, Any]) -> None:
    cli("profile", "port", "sum", "--model", "./qwen")
    assert {key: opened[key] for key in ("hook", "span", "span_edges", "template", "longest_tokens")} == {
        "hook": "mlp", "span": "all", "span_edges": "content", "template": "plain", "longest_tokens": 128,
    }  # fmt: skip


def test_options_of_the_model_reach_it(cli: Any, opened: dict[str, Any]) -> None:
    run = cli(
        "profile", "port", "sum", "--model", "./qwen", "--adapter", "./lora", "--quantization", "4bit",
        "--template", "alpaca", "--max-length", "77", "--device-map", "auto", "--max-memory", "0=1GiB",
        "--token-budget", "512", "--compute-dtype", "float32", "--hook-path", "mlp.down", "--trust-remote-code",
        "--name", "mine", "--set", "there",
    )  # fmt: skip
    assert run.out.splitlines()[0].startswith("mine@1: the sister of sum@1")
    assert "of there@1" in run.out
    expected = {
        "adapter": "./lora", "quantization": "4bit", "template": "alpaca", "max_length": 77, "device_map": "auto",
        "max_memory": {"0": "1GiB"}, "token_budget": 512, "compute_dtype": "float32", "hook_path": "mlp.down",
        "trust_remote_code": True,
    }  # fmt: skip
    assert {key: opened[key] for key in expected} == expected


def test_layers_are_a_list_or_all(cli: Any, opened: dict[str, Any]) -> None:
    cli("profile", "build", "some", "--from", "sums", "--layers", "0,2")
    refused = cli("profile", "port", "some", "--model", "./qwen")
    assert refused.code == 7
    assert "--layers 4,8-11, or take all: --layers all" in refused.err
    assert cli("profile", "port", "some", "--model", "./qwen", "--layers", "all", "--json").json["layers"] == [
        *range(5)
    ]


def test_family_lists_sisters_and_who_is_behind(cli: Any, opened: dict[str, Any]) -> None:
    cli("profile", "port", "sum", "--model", "./qwen")
    cli("profile", "build", "sum", "--from", "sums", "--metric", "dot")
    cli("profile", "port", "sum", "--model", "./gpt2")
    lines = cli("profile", "family", "sum-gpt2").out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["sum@2", "./llama"],
        ["sum-gpt2@1", "./gpt2"],
        ["sum-qwen@1", "./qwen"],
    ]
    assert lines[4:] == [
        "sum-qwen@1 repeats sum@1, and sum@2 is newer",
        "next: nait-store profile port sum --model ./qwen --name sum-qwen",
    ]
    cli("profile", "port", "sum", "--model", "./qwen", "--name", "sum-qwen")
    assert "is newer" not in cli("profile", "family", "sum").out
    versions = cli("profile", "family", "sum", "--all", "--json").json
    assert [one["reference"] for one in versions] == ["sum@1", "sum@2", "sum-gpt2@1", "sum-qwen@1", "sum-qwen@2"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("port", "sum"), 2, "--model"),
        (("port", "nope", "--model", "./qwen"), 3, "nope"),
        (("port", "sum", "--model", "./qwen", "--layers", "x"), 7, "not a layer"),
        (("port", "sum", "--model", "./qwen", "--map", "x"), 7, "KEY=VALUE"),
        (("port", "sum", "--model", "./qwen", "--name", "A B"), 7, "not a valid profile name"),
        (("port", "sum", "--model", "./llama"), 7, "nothing to port"),
        (("family", "nope"), 3, "nope"),
    ],
)
def test_slips(cli: Any, opened: dict[str, Any], arguments: tuple[str, ...], code: int, says: str) -> None:
    run = cli("profile", *arguments)
    assert run.code == code, run.err
    assert says in run.err
