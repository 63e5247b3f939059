"""The JSON Schemas of every record, generated from the models and checked in under ``schemas/json``.

``python -m nait_store.schemas.json_schemas DIRECTORY`` rewrites them; a test fails when they are stale.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from nait_store.schemas.activation_set import (
    FlushRecord,
    Heartbeat,
    IngestOutcome,
    IngestPlan,
    RedirectRecord,
    SegmentRecord,
    SetManifest,
    SetRecord,
)
from nait_store.schemas.history import CollectionRecord, DeletionRecord, LabelRecord, NoteRecord
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.profile_export import ProfileExport
from nait_store.schemas.quality_card import QualityCard
from nait_store.schemas.record import Document, Record
from nait_store.schemas.scores import ScoreKey, SidecarRecord
from nait_store.schemas.selection import SelectionManifest, SelectionRecord, SelectionRedirect
from nait_store.schemas.sharing import (
    Publication,
    PushRecord,
    ReferenceSamples,
    RegistryRecord,
    RemoteRecord,
    TrustRecord,
)
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord

DOCUMENTS: dict[str, type[Record]] = {
    "store": StoreRecord,
    "set": SetRecord,
    "segment": SegmentRecord,
    "set-version": SetManifest,
    "segment-redirect": RedirectRecord,
    "ingest-plan": IngestPlan,
    "heartbeat": Heartbeat,
    "ingest-flushed": FlushRecord,
    "ingest-outcome": IngestOutcome,
    "profile": ProfileRecord,
    "profile-version": ProfileManifest,
    "profile-export": ProfileExport,
    "quality-card": QualityCard,
    "selection": SelectionRecord,
    "selection-version": SelectionManifest,
    "selection-redirect": SelectionRedirect,
    "version-deleted": DeletionRecord,
    "version-collected": CollectionRecord,
    "label": LabelRecord,
    "note": NoteRecord,
    "registry": RegistryRecord,
    "publication": Publication,
    "reference-samples": ReferenceSamples,
    "remote": RemoteRecord,
    "push": PushRecord,
    "trusted-key": TrustRecord,
    "score-key": ScoreKey,
    "score-sidecar": SidecarRecord,
}


def json_schemas() -> dict[str, str]:
    """Return the schema text of every document, by file name."""
    texts = {}
    records = {one.__name__: one for one in _below(Record)}
    for name, record in DOCUMENTS.items():
        schema = record.model_json_schema(mode="serialization")
        _describe(schema, record)
        for title, definition in schema.get("$defs", {}).items():
            if title in records:
                _describe(definition, records[title])
        if issubclass(record, Document):
            schema["properties"]["_sha256"] = {
                "type": "string",
                "pattern": "^[0-9a-f]{64}$",
                "description": "SHA-256 of the document's bytes with 64 zeros in the place of this value",
            }
            schema["required"] = ["_sha256", *schema.get("required", [])]
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"nait-store:format-{FORMAT_VERSION}:{name}",
            **schema,
        }
        texts[f"{name}.schema.json"] = json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return texts


def _below(record: type[Record]) -> Iterator[type[Record]]:
    for one in record.__subclasses__():
        yield one
        yield from _below(one)


def _describe(schema: dict[str, Any], record: type[Record]) -> None:
    """Describe a record's properties with the docstrings of its fields, those that it inherits included.

    Not by pydantic's ``use_attribute_docstrings``: that reads every source file at every start.
    """
    for owner in reversed(record.__mro__):
        if not issubclass(owner, Record):
            continue
        body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
        for field, following in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and field.target.id in schema["properties"]
            ):
                text = inspect.cleandoc(str(following.value.value))
                schema["properties"][field.target.id]["description"] = text


def write_json_schemas(folder: Path) -> None:
    """Write every schema into ``folder``."""
    for name, text in json_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_json_schemas(Path(sys.argv[1]))
