from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest

from nait_store.schemas.json_schemas import DOCUMENTS, json_schemas
from nait_store.testing.stores import fake_set_record


def _checked_in() -> dict[str, str]:
    folder = resources.files("nait_store.schemas") / "json"
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".json")}


def test_the_checked_in_schemas_are_those_of_the_records() -> None:
    assert _checked_in() == json_schemas(), "run: python -m nait_store.schemas.json_schemas schemas/json"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_valid_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schemas()[f"{name}.schema.json"]))


def test_a_written_record_satisfies_its_schema_and_a_damaged_one_does_not() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(json_schemas()["set.schema.json"]))
    document = json.loads(fake_set_record("pool").to_json_bytes())
    validator.validate(document)
    del document["capture_id"]
    assert not validator.is_valid(document)
