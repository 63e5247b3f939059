"""Reading what ``datasets`` holds: saved folders, and hub ids through a stand-in for the network."""

import sys
from datetime import datetime

import datasets
import pytest

from nait_store.capture.readers import open_sources, read_records
from nait_store.errors import InvalidInputError, MissingExtraError, NotFoundError

ROWS = [{"instruction": f"add {i}", "output": str(i)} for i in range(5)]


def records(source):
    return [item.record for item in read_records(source)]


@pytest.fixture
def saved(tmp_path):
    datasets.Dataset.from_list(ROWS, split="train").save_to_disk(str(tmp_path / "one"))
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:2])}
    )
    both.save_to_disk(str(tmp_path / "two"))
    return tmp_path


def test_a_saved_folder_is_recognised(saved):
    source = str(saved / "one")
    assert [item.uri for item in open_sources([source])] == [source]
    assert records(source) == ROWS


def test_a_folder_of_splits_gives_train_unless_another_is_named(saved):
    assert records(str(saved / "two")) == ROWS
    assert records(f"hf-datasets:{saved / 'two'}:test") == ROWS[:2]


def test_an_unknown_split_names_those_that_exist(saved):
    with pytest.raises(NotFoundError, match="tset") as caught:
        records(f"hf-datasets:{saved / 'two'}:tset")
    assert "'test'" in str(caught.value)
    with pytest.raises(NotFoundError, match="validation"):
        records(f"hf-datasets:{saved / 'one'}:validation")


def test_values_become_plain_json(tmp_path):
    rows = [{"text": "a", "at": datetime(2024, 1, 2), "parts": [{"x": 1}]}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "d"))
    assert records(str(tmp_path / "d")) == [{"text": "a", "at": "2024-01-02T00:00:00", "parts": [{"x": 1}]}]


def test_a_hub_id_is_streamed_with_its_configuration_and_split(monkeypatch):
    asked = []

    def load(name, config=None, *, streaming):
        asked.append((name, config, streaming))
        return datasets.IterableDatasetDict(
            {split: datasets.Dataset.from_list(ROWS).to_iterable_dataset() for split in ("train", "test")}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = "hf-datasets:openai/gsm8k@main:test"
    assert open_sources([source])[0].sha256 is None
    assert records(source) == ROWS
    assert asked == [("openai/gsm8k", "main", True)]


def test_a_hub_id_that_cannot_be_reached_is_not_found(monkeypatch):
    def load(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(NotFoundError, match="no route to the hub"):
        records("hf-datasets:owner/name")


def test_a_data_set_without_a_name_is_refused():
    with pytest.raises(InvalidInputError, match="names no data set"):
        records("hf-datasets::train")


def test_without_the_package_the_extra_to_install_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="datasets") as caught:
        records(str(saved / "one"))
    assert "nait-store[hub]" in str(caught.value)
