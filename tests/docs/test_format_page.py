"""docs/format.md names what the records and schemas have; a new field without a word there fails here."""

from __future__ import annotations

import pytest

from nait_store.refs import Kind
from nait_store.schemas.json_schemas import DOCUMENTS
from nait_store.schemas.samples import SAMPLE_FIELDS
from nait_store.schemas.scores import scores_schema
from nait_store.schemas.selection import SELECTION_SCHEMA
from nait_store.schemas.store_record import FORMAT_VERSION
from nait_store.storage import layout
from tests.docs.pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
SEEN_IN_WORDS = {
    "ingest-plan": {"sources", "features", "layers", "dtype", "command", "ingest_id", "set_name", "capture_id"},
    "ingest-flushed": {"ingest_id", "segment_id", "n_rows", "record_sha256"},
    "ingest-outcome": {"ingest_id", "version"},
    "ingest-heartbeat": {"ingest_id"},
}


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_page_names_every_field_of_a_document(document: str) -> None:
    fields = set(DOCUMENTS[document].model_fields) - SEEN_IN_WORDS.get(document, set())
    assert {field for field in fields if f"`{field}`" not in PAGE} == set()


def test_page_names_every_column() -> None:
    columns = [field.name for field in SAMPLE_FIELDS] + scores_schema(1).names + SELECTION_SCHEMA.names
    assert {column for column in columns if f"`{column}`" not in PAGE} == set()


def test_page_draws_the_paths_that_the_layout_spells() -> None:
    paths = [
        layout.STORE_RECORD,
        layout.set_record("<set>"),
        layout.version_document(Kind.SET, "<set>", 1).replace("1.json", "<n>.json"),
        layout.tombstone_folder("<set>"),
        layout.segment_folder("<set>", "<ulid>"),
        layout.ingest_folder("<set>", "<ulid>"),
        layout.payload_folder(Kind.PROFILE, "<name>", "<ulid>"),
        layout.payload_folder(Kind.SELECTION, "<name>", "<ulid>"),
        layout.score_sidecar("<key>"),
        layout.score_record("<key>"),
    ]
    assert [path for path in paths if f"<root>/{path}" not in PAGE] == []


def test_page_is_about_the_current_version() -> None:
    assert PAGE.startswith(f"# On-disk format, version {FORMAT_VERSION}\n")
