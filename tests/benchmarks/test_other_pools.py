"""Pools of public records: labels, no record on both sides, the same bytes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.json_lines import read_json_lines, write_json_lines
from benchmarks.training import other_pools

SITES = {"1_CancerGov_QA": 30, "6_NINDS_QA": 30, "9_CDC_QA": 30, "10_MPlus_ADAM_QA": 5}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    shared = [
        {"id": f"{source}-{i}", "source": source, "instruction": f"Do {i}.", "input": "", "output": f"{source} {i}"}
        for source in ("alpaca", "gsm8k", "code")
        for i in range(20)
    ]
    write_json_lines(folder / "pool.jsonl", shared)
    code = [{"instruction": f"Write {i}.", "input": "", "output": f"print({i % 40})"} for i in range(50)]
    (folder / "code.json").write_text(json.dumps([*code, {"instruction": "?", "input": "", "output": ""}]))
    for site, n in SITES.items():
        (folder / "medquad" / site).mkdir(parents=True)
        for i in range(n):
            kind = "treatment" if i % 3 == 0 else "causes"
            (folder / "medquad" / site / f"{i:03}.xml").write_text(
                "<Document><QAPairs><QAPair>"
                f'<Question qtype="{kind}">What of\n  {i}?</Question><Answer> {site}\n {i} </Answer>'
                '</QAPair><QAPair><Question qtype="causes">Why?</Question><Answer> </Answer></QAPair>'
                "</QAPairs></Document>"
            )
    return folder


def made(inputs: Path, out: Path) -> dict[str, list[dict[str, Any]]]:
    arguments = {"data": inputs, "medquad": inputs / "medquad", "codealpaca": inputs / "code.json", "out": out}
    other_pools.main([part for name, value in arguments.items() for part in (f"--{name}", str(value))])
    return {f"{path.parent.name}/{path.stem}": read_json_lines(path) for path in sorted(out.glob("*/*.jsonl"))}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_pools, "_IN_DOMAIN", 6)


@pytest.mark.usefixtures("few")
def test_in_domain_records_have_one_label_and_are_not_in_the_pool(inputs: Path, tmp_path: Path) -> None:
    found = made(inputs, tmp_path)
    for pool, names in (("mixed", ("medical", "code")), ("medical", ("neurology", "treatment"))):
        candidates = {record["output"]: record["source"] for record in found[f"{pool}/pool"]}
        assert len(candidates) == len(found[f"{pool}/pool"])
        for name in names:
            known = found[f"{pool}/in_domain_{name}"]
            assert len(known) == 6
            assert {record["source"] for record in known} == {name}
            assert name in candidates.values()
            assert not candidates.keys() & {record["output"] for record in known}


@pytest.mark.usefixtures("few")
def test_medical_questions_are_labelled_by_site_and_kind(inputs: Path, tmp_path: Path) -> None:
    pool = made(inputs, tmp_path)["medical/pool"]
    for record in pool:
        site, number = record["output"].split(" ")
        expected = "treatment" if int(number) % 3 == 0 else site.split("_")[1].lower()
        assert record["source"] == ("neurology" if "NINDS" in site else expected)
        assert record["instruction"] == f"What of {number}?"
    # Sites from 10 on have no answers that may be published.
    assert {record["output"].split("_")[0] for record in pool} == {"1", "6", "9"}


@pytest.mark.usefixtures("few")
def test_the_same_inputs_give_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    for out in ("first", "second"):
        made(inputs, tmp_path / out)
    for path in (tmp_path / "first").glob("*/*"):
        assert path.read_bytes() == (tmp_path / "second" / path.parent.name / path.name).read_bytes()
