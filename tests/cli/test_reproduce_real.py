"""A real model: records captured, profiled and selected, and all of it made again from its files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nait_store
from nait_store.testing.tiny_models import save_tiny_model

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def write(path: Path, first: int, n: int) -> None:
    """Records of different lengths, so that batches are padded or packed."""
    records = [
        {
            "instruction": f"add {WORDS[i % 10]} and {WORDS[(i * 3) % 7]}",
            "output": f"number {first + i} " * (i % 5 + 1),
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def test_a_selection_by_a_real_model_is_made_again(cli: Any, folder: Path) -> None:
    write(folder / "pool.jsonl", 0, 24)
    write(folder / "maths.jsonl", 100, 16)
    save_tiny_model(folder / "model")
    store = nait_store.open(".nait-store", create=True)
    for name in ("pool", "maths"):
        store.ingest(f"{name}.jsonl", set=name, model="./model", layers=(0, 2), compute_dtype="float32", device="cpu")
    store.profiles.build("math", source="maths")
    store.selections.save("best", store.select("pool", profile="math", top="25%"))

    run = cli("reproduce", "best", "--run")
    assert run.code == 0, run.out + run.err
    assert "selection:best@1 was made again" in run.out
    errors = [float(one) for one in re.findall(r"largest relative error (\S+) of", run.out)]
    assert len(errors) == 2
    assert max(errors) <= 2e-3  # of float16, and of float32 in batches of another composition
