"""Make two more pools for benchmarks/fidelity.py of what others publish: ``python -m benchmarks.training.other_pools``.

``mixed``: everyday and maths records of ``--data``, and medical and code records of other origins; capabilities
``medical`` and ``code``. ``medical``: medical records alone, so that everything reads alike; the capabilities are a
subject, ``neurology`` (what one institute's site says), and a kind of question, ``treatment`` (of all other sites).
Medical records are the answered questions of MedQuAD (https://github.com/abachaa/MedQuAD, CC BY 4.0), code records
those of ``data/new_codealpaca.json`` in https://github.com/sahil280114/codealpaca. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.json_lines import read_json_lines, write_json_lines
from benchmarks.recipes import in_domain_file

_SEED = 20261126
_IN_DOMAIN = 512
_OF_SOURCE = 1000
"""Records of each of its capabilities' sources in ``mixed``."""

_MATHS = 500
_OTHERS, _NEUROLOGY, _TREATMENT = 4700, 500, 800
"""Records in ``medical``."""

Record = dict[str, str]


@dataclass(frozen=True)
class Question:
    """An answered medical question.

    Attributes
    ----------
    site, kind
        Where it is from, ``NINDS``, and what it asks about, ``treatment``.
    text, answer
        With single spaces.
    """

    site: str
    kind: str
    text: str
    answer: str

    def record(self, source: str) -> Record:
        """It as a record of the layout of Alpaca."""
        return {"source": source, "instruction": self.text, "input": "", "output": self.answer}

    @property
    def source(self) -> str:
        """Its label among other medical records."""
        if self.site == "NINDS":
            return "neurology"
        return "treatment" if self.kind == "treatment" else self.site.lower()


def main(argv: list[str] | None = None) -> None:
    """Write the folders ``mixed`` and ``medical``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with pool.jsonl: source, instruction, …")
    parser.add_argument("--medquad", type=Path, required=True, help="a checkout of MedQuAD")
    parser.add_argument("--codealpaca", type=Path, required=True, help="new_codealpaca.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the folders")
    given = parser.parse_args(argv)
    pool = read_json_lines(given.data / "pool.jsonl")
    shared = [{key: record[key] for key in ("source", "instruction", "input", "output")} for record in pool]
    questions = list(read_questions(given.medquad))
    code = list(read_code(given.codealpaca))
    chance = random.Random(_SEED)
    chance.shuffle(code)
    write_mixed(given.out / "mixed", shared, code, questions, chance)
    write_medical(given.out / "medical", questions, chance)


def read_questions(folder: Path) -> Iterator[Question]:
    """Questions of MedQuAD's folders 1 to 9, whose answers it may publish; the first of those with equal answers."""
    seen = set()
    for path in sorted(folder.glob("[0-9]_*/*.xml"), key=str):
        for pair in ElementTree.parse(path).iter("QAPair"):
            answer = " ".join((pair.findtext("Answer") or "").split())
            question = pair.find("Question")
            if question is None or not answer or answer in seen:
                continue
            seen.add(answer)
            site = path.parent.name.split("_")[1]
            yield Question(site, question.get("qtype") or "", " ".join((question.text or "").split()), answer)


def read_code(path: Path) -> Iterator[Record]:
    """Records with an answer; the first of those with equal answers."""
    seen = set()
    for record in json.loads(path.read_text(encoding="utf-8")):
        if record["output"] and record["output"] not in seen:
            seen.add(record["output"])
            yield {"source": "code", **{key: record[key] for key in ("instruction", "input", "output")}}


def write_mixed(
    folder: Path, shared: list[Record], code: list[Record], questions: list[Question], chance: random.Random
) -> None:
    """Write what the models can tell apart by its looks."""
    medical = [question.record("medical") for question in questions]
    chance.shuffle(medical)
    within = slice(_IN_DOMAIN, _IN_DOMAIN + _OF_SOURCE)
    everyday = [record for record in shared if record["source"] == "alpaca"]
    maths = [record for record in shared if record["source"] == "gsm8k"]
    pool = [*everyday, *code[within], *medical[within], *maths[:_MATHS]]
    chance.shuffle(pool)
    write(folder, pool, {"medical": medical[:_IN_DOMAIN], "code": code[:_IN_DOMAIN]})


def write_medical(folder: Path, questions: list[Question], chance: random.Random) -> None:
    """Write what reads alike."""
    records = [question.record(question.source) for question in questions]
    chance.shuffle(records)
    of = {name: [record for record in records if record["source"] == name] for name in ("neurology", "treatment")}
    others = [record for record in records if record["source"] not in of]
    pool = others[:_OTHERS]
    for (_, found), n in zip(of.items(), (_NEUROLOGY, _TREATMENT), strict=True):
        pool += found[_IN_DOMAIN : _IN_DOMAIN + n]
    chance.shuffle(pool)
    write(folder, pool, {name: found[:_IN_DOMAIN] for name, found in of.items()})


def write(folder: Path, pool: list[Record], in_domain: dict[str, list[Record]]) -> None:
    """Write a pool and its in-domain files, as ``--data`` of benchmarks/fidelity.py wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json_lines(folder / "pool.jsonl", pool)
    for name, records in in_domain.items():
        write_json_lines(folder / in_domain_file(name), records)


if __name__ == "__main__":
    main()
