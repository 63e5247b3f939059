"""Saved selections exported to trainers, read back by the trainer's own loader or as its documents say."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import nait_store
from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from nait_store.schemas.capture import Feature
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.selection.choosing import Selection
from nait_store.selection.requests import SelectionRequest, Strategy
from nait_store.testing.stores import build_segment, fake_row, fake_set_record

HOSTILE = 'line\none\r\n"quoted" \\ \u2028\u2029\u0085 \x0b\x1c é😀 {"a": 1} - x: y # z'
SINGLE = [
    {"instruction": "add", "input": "1 2", "output": "3"},
    {"instruction": HOSTILE, "input": HOSTILE, "output": HOSTILE},
    {"system": "Be brief.", "question": "why?", "answer": "so"},
    {"prompt": "Q", "completion": "A", 'topic, of "x"\n': 7},
]
MULTI = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": HOSTILE},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": HOSTILE},
        ]
    },
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"instruction": "add", "input": "1 2", "output": "3"},
]
TEXTS = [{"text": HOSTILE}, {"text": "Once upon a time"}]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nait_store.Store:
    monkeypatch.setenv("NAIT_STORE_CACHE", str(tmp_path / "cache"))
    return nait_store.open(str(tmp_path / "store"), create=True)


def saved(store: nait_store.Store, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Save a selection ``best@1`` of these records in this order; they are stored in the opposite one."""
    store.sets.versions.create(fake_set_record("pool"))
    ids = [f"s{i}" for i in range(len(records))]
    rows = [fake_row(one, i, dict(record)) for i, (one, record) in enumerate(zip(ids, records, strict=True))][::-1]
    arrays = np.random.default_rng(0).standard_normal((len(rows), 2, 8), dtype=np.float32)
    segment = build_segment(store.location, "pool", rows, {Feature.MEAN: arrays})
    store.sets.versions.commit("pool", [segment], ingest_ids=("01HZZZZZZZZZZZZZZZZZZZZZZZ",))
    table = pa.table(
        {"rank": list(range(1, len(ids) + 1)), "sample_id": ids, "score": [None] * len(ids)}, schema=SELECTION_SCHEMA
    )
    request = SelectionRequest("pool@1", strategy=Strategy.RANDOM, top=str(len(ids)), seed=3)
    selection = Selection(table, request, len(ids), "SELECT 1")
    store.selections.save("best", selection, message="for the first run")
    return ids


def loaded(path: str, tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    """Rows as ``datasets`` loads them, which LLaMA-Factory, Axolotl and TRL read files with."""
    datasets = pytest.importorskip("datasets")
    return list(datasets.load_dataset(path, split="train", cache_dir=str(tmp_path / "hf"), **options))


def as_llama_factory_reads(folder: Path, name: str, tmp_path: Path) -> list[list[tuple[str, str]]]:
    """What its documents say of dataset_info.json, columns and tags, as (role, content)."""
    info = json.loads((folder / "dataset_info.json").read_text(encoding="ascii"))[name]
    columns, found = info["columns"], []
    for row in loaded("json", tmp_path, data_files=str(folder / info["file_name"])):
        system = [("system", row[columns["system"]])] if "system" in columns and row[columns["system"]] else []
        if info.get("formatting", "alpaca") == "alpaca":
            query = row[columns["query"]]
            prompt = row[columns["prompt"]] + (f"\n{query}" if query else "")
            found.append([*system, ("user", prompt), ("assistant", row[columns["response"]])])
            continue
        tags, turns = info["tags"], []
        roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant"}
        for i, message in enumerate(row[columns["messages"]]):
            turns.append((roles[message[tags["role_tag"]]], message[tags["content_tag"]]))
            assert turns[-1][0] == ("user", "assistant")[i % 2]
        assert len(turns) % 2 == 0
        found.append([*system, *turns])
    return found


EXPECTED_SINGLE = [
    [("user", "add\n1 2"), ("assistant", "3")],
    [("user", f"{HOSTILE}\n{HOSTILE}"), ("assistant", HOSTILE)],
    [("system", "Be brief."), ("user", "why?"), ("assistant", "so")],
    [("user", "Q"), ("assistant", "A")],
]
EXPECTED_MULTI = [
    [("system", "Be kind."), ("user", HOSTILE), ("assistant", "b"), ("user", "c"), ("assistant", HOSTILE)],
    [("user", "a"), ("assistant", "b")],
    [("user", "add\n\n1 2"), ("assistant", "3")],
]


def test_llama_factory_alpaca(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    report = store.selections.export("best", str(tmp_path / "train"), to="llama-factory")
    assert (report.layout, report.name, report.n_samples) == ("alpaca", "best-1", 4)
    assert as_llama_factory_reads(tmp_path / "train", "best-1", tmp_path) == EXPECTED_SINGLE
    rows = loaded("json", tmp_path, data_files=report.data.url)
    assert list(rows[0]) == ["instruction", "input", "output", "system"]


def test_llama_factory_sharegpt(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, MULTI)
    report = store.selections.export("best", str(tmp_path / "train"), to="llama-factory", name="Mine_1")
    assert report.layout == "sharegpt"
    assert as_llama_factory_reads(tmp_path / "train", "Mine_1", tmp_path) == EXPECTED_MULTI


@pytest.mark.parametrize(("layout", "field"), [("messages", "messages"), ("sharegpt", "conversations")])
def test_axolotl(store: nait_store.Store, tmp_path: Path, layout: str, field: str) -> None:
    saved(store, MULTI)
    report = store.selections.export("best", str(tmp_path / "tr \"a'in"), to="axolotl", layout=layout)
    [data_set] = yaml.safe_load(Path(str(report.configuration)).read_text())["datasets"]
    assert (data_set["type"], data_set["field_messages"]) == ("chat_template", field)
    keys, roles = data_set["message_property_mappings"], {"human": "user", "gpt": "assistant"}
    rows = loaded(data_set["ds_type"], tmp_path, data_files=data_set["path"])
    found = [[(roles.get(m[keys["role"]], m[keys["role"]]), m[keys["content"]]) for m in row[field]] for row in rows]
    assert found == EXPECTED_MULTI


def test_axolotl_takes_the_layout_that_holds_system_prompts(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    assert store.selections.export("best", str(tmp_path / "a"), to="axolotl").layout == "messages"
    with pytest.raises(InvalidInputError, match="s2: it has a system prompt"):
        store.selections.export("best", str(tmp_path / "b"), to="axolotl", layout="alpaca")


def test_trl_messages(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, MULTI)
    report = store.selections.export("best", str(tmp_path / "train"), to="trl")
    rows = loaded("json", tmp_path, data_files=report.data.url)
    assert [list(row) for row in rows] == [["messages"]] * 3
    assert [[(m["role"], m["content"]) for m in row["messages"]] for row in rows] == EXPECTED_MULTI
    data_utils = pytest.importorskip("trl.data_utils")
    assert all(data_utils.is_conversational(row) for row in rows)


def test_trl_prompt_and_completion_of_turns(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, MULTI)
    report = store.selections.export("best", str(tmp_path / "train"), to="trl", layout="prompt-completion")
    rows = loaded("json", tmp_path, data_files=report.data.url)
    assert [list(row) for row in rows] == [["prompt", "completion"]] * 3
    found = [[(m["role"], m["content"]) for m in [*row["prompt"], *row["completion"]]] for row in rows]
    assert found == EXPECTED_MULTI
    assert all([m["role"] for m in row["completion"]] == ["assistant"] for row in rows)


def test_trl_prompt_and_completion_of_texts(store: nait_store.Store, tmp_path: Path) -> None:
    records = [{"prompt": HOSTILE, "completion": " A"}, {"prompt": "Q", "completion": HOSTILE, "more": 1}]
    saved(store, records)
    report = store.selections.export("best", str(tmp_path / "train"), to="trl", layout="prompt-completion")
    assert loaded("json", tmp_path, data_files=report.data.url) == [
        {"prompt": HOSTILE, "completion": " A"},
        {"prompt": "Q", "completion": HOSTILE},
    ]


@pytest.mark.parametrize("trainer", ["trl", "axolotl", "llama-factory"])
def test_bare_texts(store: nait_store.Store, tmp_path: Path, trainer: str) -> None:
    saved(store, TEXTS)
    report = store.selections.export("best", str(tmp_path / "train"), to=trainer)
    assert report.layout == "text"
    assert loaded("json", tmp_path, data_files=report.data.url) == TEXTS
    if trainer == "llama-factory":
        info = json.loads((tmp_path / "train" / "dataset_info.json").read_text())
        assert info == {"best-1": {"file_name": "best-1.jsonl", "columns": {"prompt": "text"}}}


@pytest.mark.parametrize("layout", [None, "messages", "alpaca"])
def test_a_folder_of_datasets(store: nait_store.Store, tmp_path: Path, layout: str | None) -> None:
    records = [{"instruction": HOSTILE, "input": "", "output": "b", "n": i} for i in range(5)]
    saved(store, records)
    store.selections.export("best", str(tmp_path / "train"), to="hf-datasets", layout=layout)
    rows = loaded(str(tmp_path / "train"), tmp_path)
    if layout is None:
        assert rows == records
    elif layout == "alpaca":
        assert rows == [{"instruction": HOSTILE, "input": "", "output": "b"}] * 5
    else:
        assert [[m["content"] for m in row["messages"]] for row in rows] == [[HOSTILE, "b"]] * 5


def test_a_folder_of_datasets_is_not_mixed_with_others(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, TEXTS)
    (tmp_path / "train" / "data").mkdir(parents=True)
    (tmp_path / "train" / "data" / "train-00001-of-00002.parquet").write_bytes(b"another's")
    with pytest.raises(InvalidInputError, match="would be loaded with it: train-00001-of-00002"):
        store.selections.export("best", str(tmp_path / "train"), to="hf-datasets", overwrite=True)


def test_single_files(store: nait_store.Store, tmp_path: Path) -> None:
    ids = saved(store, MULTI)
    store.selections.export("best", str(tmp_path / "a.jsonl"), to="jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == MULTI
    store.selections.export("best", str(tmp_path / "a.txt"), to="ids")
    assert (tmp_path / "a.txt").read_text().split() == ids
    store.selections.export("best", str(tmp_path / "a.parquet"), to="parquet", layout="messages")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [[(m["role"], m["content"]) for m in row["messages"]] for row in rows] == EXPECTED_MULTI


def test_the_side_file_says_what_the_data_file_is(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    report = store.selections.export("best", str(tmp_path / "train"), to="trl", shuffle=5)
    side = json.loads((tmp_path / "train" / "best-1.provenance.json").read_text())
    data = (tmp_path / "train" / "best-1.jsonl").read_bytes()
    assert side["data"] == {
        "file_name": "best-1.jsonl",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert report.data.sha256 == side["data"]["sha256"]
    origin = side["selection"]
    root = tmp_path / "store"
    document = (root / "activations" / "pool" / "versions" / "1.json").read_bytes()
    record = next((root / "selections" / "best" / "payloads").glob("*/selection.json")).read_bytes()
    assert (origin["reference"], origin["set_ref"], origin["profiles"]) == ("best@1", "pool@1", [])
    assert origin["set_sha256"] == hashlib.sha256(document).hexdigest()
    assert origin["record_sha256"] == hashlib.sha256(record).hexdigest()
    assert (origin["query"], origin["message"]) == ("SELECT 1", "for the first run")
    assert (origin["request"]["strategy"], origin["request"]["seed"], origin["request"]["top"]) == ("random", 3, "4")
    assert (side["n_samples"], side["left_out"]) == (4, [])
    assert side["export"]["shuffle"] == 5
    assert side["written_by"] == f"nait-store {nait_store.__version__}"


def test_the_order_is_the_rank_or_a_hash_of_seed_and_id(store: nait_store.Store, tmp_path: Path) -> None:
    ids = saved(store, [{"text": f"t{i}"} for i in range(30)])
    for seed in (None, 0, 7):
        out = tmp_path / f"{seed}.jsonl"
        store.selections.export("best", str(out), to="jsonl", shuffle=seed)
        found = [json.loads(line)["text"] for line in out.read_text().splitlines()]
        order = ids if seed is None else sorted(ids, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest())
        assert found == [f"t{one[1:]}" for one in order]


def test_a_sample_that_does_not_fit_stops_the_export_and_leaves_nothing(
    store: nait_store.Store, tmp_path: Path
) -> None:
    saved(store, [*SINGLE, MULTI[0], {"text": "x"}])
    with pytest.raises(InvalidInputError) as caught:
        store.selections.export("best", str(tmp_path / "train"), to="llama-factory", layout="alpaca")
    assert caught.value.what == (
        "2 of 6 samples cannot be written as alpaca for llama-factory without a loss: s4: it has 4 turns (user, "
        "assistant, user, assistant); s5: it is one bare text, without turns"
    )
    assert "--layout sharegpt or text" in str(caught.value.next_step)
    assert "--on-error skip" in str(caught.value.next_step)
    assert not (tmp_path / "train").exists()


def test_samples_that_do_not_fit_are_left_out_where_asked(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, [*SINGLE, MULTI[0], {"text": "x"}, {"neither": 1}])
    report = store.selections.export("best", str(tmp_path / "train"), to="llama-factory", on_error="skip")
    assert (report.layout, report.n_samples) == ("sharegpt", 5)
    side = json.loads((tmp_path / "train" / "best-1.provenance.json").read_text())
    assert [one["sample_id"] for one in side["left_out"]] == ["s5", "s6"]
    assert "no usable fields" in side["left_out"][1]["reason"]
    assert len(loaded("json", tmp_path, data_files=report.data.url)) == 5


def test_leaving_everything_out_is_refused(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, TEXTS)
    with pytest.raises(InvalidInputError, match="2 of 2 samples"):
        store.selections.export("best", str(tmp_path / "t"), to="trl", layout="messages", on_error="skip")


def test_an_existing_dataset_info_keeps_its_entries(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "dataset_info.json").write_text('{"other": {"file_name": "other.json"}}')
    store.selections.export("best", str(folder), to="llama-factory")
    store.selections.export("best", str(folder), to="llama-factory", name="second", layout="sharegpt")
    assert list(json.loads((folder / "dataset_info.json").read_text())) == ["other", "best-1", "second"]


@pytest.mark.parametrize(
    ("content", "error"),
    [('{"best-1": {"file_name": "mine.json"}}', AlreadyExistsError), ("{broken", InvalidInputError)],
)
def test_a_conflict_is_found_before_anything_is_written(
    store: nait_store.Store, tmp_path: Path, content: str, error: type[Exception]
) -> None:
    saved(store, SINGLE)
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(error):
        store.selections.export("best", str(folder), to="llama-factory")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("dataset_info.json", content)]


def test_exports_at_once_lose_no_entry(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    folder = str(tmp_path / "train")
    names = [f"n{i}" for i in range(8)]

    def export(name: str) -> None:
        nait_store.open(store.url).selections.export("best", folder, to="llama-factory", name=name)

    threads = [threading.Thread(target=export, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(json.loads((tmp_path / "train" / "dataset_info.json").read_text())) == set(names)


def test_a_file_in_the_way_is_kept(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "best-1.jsonl").write_text("precious")
    with pytest.raises(AlreadyExistsError):
        store.selections.export("best", str(folder), to="trl")
    assert (folder / "best-1.jsonl").read_text() == "precious"
    store.selections.export("best", str(folder), to="trl", overwrite=True)
    assert (folder / "best-1.jsonl").read_text() != "precious"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": "unsloth"}, "nothing is exported to 'unsloth'"),
        ({"to": "trl", "layout": "chatml"}, "'chatml' is not a layout"),
        ({"to": "trl", "layout": "alpaca"}, "trl has no layout alpaca"),
        ({"to": "ids", "layout": "alpaca"}, "ids has no layout alpaca"),
        ({"to": "trl", "name": "../x"}, "no name for a data set"),
        ({"to": "trl", "name": "a,b"}, "no name for a data set"),
        ({"to": "trl", "on_error": "ignore"}, "no way to treat a misfit"),
    ],
)
def test_bad_requests(store: nait_store.Store, tmp_path: Path, options: Any, says: str) -> None:
    saved(store, SINGLE)
    with pytest.raises(InvalidInputError, match=says):
        store.selections.export("best", str(tmp_path / "train"), **options)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("out", ["", "-"])
def test_standard_output_has_no_room_for_the_side_file(store: nait_store.Store, out: str) -> None:
    saved(store, SINGLE)
    with pytest.raises(InvalidInputError, match="no place for the data and its side file"):
        store.selections.export("best", out, to="jsonl")


def test_a_deleted_set_is_said_in_words(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, SINGLE)
    store.sets.delete("pool", force=True)
    with pytest.raises(NotFoundError, match="best@1 cannot be exported: set pool@1 was deleted") as caught:
        store.selections.export("best", str(tmp_path / "train"), to="trl")
    assert "undelete" in str(caught.value.next_step)


def test_fields_are_mapped_where_asked(store: nait_store.Store, tmp_path: Path) -> None:
    saved(store, [{"q": "why?", "a": "so"}])
    with pytest.raises(InvalidInputError, match="no usable fields"):
        store.selections.export("best", str(tmp_path / "x"), to="trl")
    mapping = {"instruction": "q", "output": "a"}
    report = store.selections.export("best", str(tmp_path / "x"), to="trl", map=mapping)
    [row] = [json.loads(line) for line in Path(report.data.url).read_text().splitlines()]
    assert [m["content"] for m in row["messages"]] == ["why?", "so"]


def test_an_export_to_a_url(store: nait_store.Store) -> None:
    import fsspec

    saved(store, SINGLE)
    report = store.selections.export("best", "memory://trained/on", to="llama-factory")
    with fsspec.open("memory://trained/on/dataset_info.json") as handle:
        assert list(json.load(handle)) == ["best-1"]
    with fsspec.open(report.data.url) as handle:
        assert len(handle.read().splitlines()) == 4
