"""Makes a small store with one of everything, and writes down what must be read from it.

    python tests/compat/make_store.py tests/compat/format-1

Run once for each on-disk format that was released; what it made is checked in and never made again, so that later
releases are tested against stores that they did not write. The expected scores are computed here with NumPy in
float64, not by the store.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import nait_store
from nait_store.activations.versions import ActivationSets
from nait_store.errors import NaitStoreError
from nait_store.ingest.requests import FlushPolicy
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.provenance import package_version
from nait_store.testing.fake_capture import FakeCapture
from nait_store.testing.scores import plain_projections
from nait_store.testing.stores import build_set

PURGED, DELETED = "r3", "r5"


def write_records(path: Path, first: int, count: int) -> str:
    """Write records ``r<first>`` onwards; every seventh cannot be captured."""
    lines = []
    for i in range(first, first + count):
        text = "<empty>" if i % 7 == 6 else f"solve {i} über {'x' * (i % 4)}"
        lines.append(json.dumps({"id": f"r{i}", "instruction": text, "output": f"it is {i}", "level": i % 3}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def fill(store: nait_store.Store, folder: Path) -> None:
    """Put one of everything into a new store."""

    def ingest(source: str, **options: Any) -> None:
        store.ingest(
            source, set="pool", model="fake", capture=FakeCapture(batch_samples=4), id_field="id", on_error="skip",
            flush=FlushPolicy(rows=5), **options,
        )  # fmt: skip

    ingest(write_records(folder / "first.jsonl", 0, 12), message="the beginning")
    ingest(write_records(folder / "second.jsonl", 8, 12))
    store.sets.delete_samples("pool", ids=[DELETED], message="wrong answer")
    store.sets.restore("pool@2")
    store.sets.tag("pool@3", "paper", reason="table 2")
    store.sets.alias("pool@2", "prod")
    store.sets.alias("pool@4", "prod", reason="all of it")
    store.sets.delete("pool@1", reason="too small")
    build_set(
        store.location, "maths", 20, features=(Feature.MEAN, Feature.DRIFT), n_segments=2, dtype=StoredDtype.FLOAT32
    )
    store.profiles.build("math", source="maths", message="first")
    store.profiles.build("math", source="maths", against="pool", where="n_tokens > 7")
    store.sets.compact("pool")
    store.purge("pool", ids=[PURGED])
    store.score("pool", "math@1", "math@2")
    store.selections.save("best", store.select("pool", profile="math@2", top=5), message="five")

    # Leaves flushed segments that wait for the next ingest.
    with mock.patch.object(ActivationSets, "commit", side_effect=NaitStoreError("made to fail")):
        try:
            ingest(write_records(folder / "third.jsonl", 40, 20))
        except NaitStoreError as error:
            if "made to fail" not in str(error):
                raise


def expectations(store: nait_store.Store) -> dict[str, Any]:
    """What every later release must read from the store."""
    scores = {}
    for reference in ("math@1", "math@2"):
        target = store.profiles.open(reference).target()
        found = {}
        version = store.sets.open("pool")
        for segment in version.segments:
            mask = version.visible_rows(segment)
            terms = plain_projections(segment, target).sum(axis=1)
            for row, sample_id in enumerate(segment.samples(["sample_id"]).column(0).to_pylist()):
                if mask is None or mask[row]:
                    found[sample_id] = float(terms[row])
        scores[reference] = found
    return {
        "written_by": f"nait-store {package_version()}",
        "versions": {
            name: {
                str(n): sorted(store.sets.open(f"{name}@{n}").sample_ids()) for n in store.sets.versions.numbers(name)
            }
            for name in store.sets.names()
        },
        "labels": {label: store.sets.open(f"pool@{label}").reference for label in ("paper", "prod")},
        "operations": [manifest.operation.value for manifest in store.sets.versions.manifests("pool")],
        "scores": scores,
        "selection": store.selections.open("best").rows().column("sample_id").to_pylist(),
        "waiting": sorted(f"r{i}" for i in range(40, 60) if i % 7 != 6),
    }


def main(target: Path) -> None:
    """Make the store and pack it."""
    os.environ["NAIT_STORE_AUTHOR"] = "compat"
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "store")
        store = nait_store.open(str(root), create=True)
        fill(store, Path(folder))
        expected = expectations(store)
        store.session.close()
        for leftover in root.glob("catalog.duckdb*"):
            leftover.unlink()
        with zipfile.ZipFile(target / "store.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(root).as_posix())
    (target / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
