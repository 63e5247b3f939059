"""A real model: records captured, profiled and selected, and all of it made again from its files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nait_store
from nait_store.testing.tiny_models import save_tiny_model


def test_a_selection_by_a_real_model_is_made_again(cli: Any, folder: Path) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    for name, first, n in (("pool", 0, 24), ("maths", 100, 16)):
        records = [record(i, first + i) for i in range(n)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
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
