from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nait_store.errors import CorruptChunkError, FormatError, UnsupportedVersionError
from nait_store.schemas.activation_set import FlushRecord, Operation, SegmentRef, SetManifest, SetRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.record import FileDigest, canonical_json, document_bytes, json_digest
from nait_store.schemas.store_record import FORMAT_VERSION, StoreRecord
from nait_store.storage.provenance import current_provenance, new_ulid, now
from nait_store.testing.stores import fake_identity, fake_set_record

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


_DOCUMENT = fake_set_record("pool").to_json_bytes()


@given(_JSON)
def test_canonical_json_is_json_and_is_stable(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(), min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert json_digest(value) == json_digest(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_json({"x": value})


def test_records_survive_their_own_bytes() -> None:
    record = fake_set_record("pool")
    data = record.to_json_bytes()
    assert type(record).from_json_bytes(data, "here") == record
    assert type(record).from_json_bytes(data, "here").to_json_bytes() == data
    assert data.endswith(b"}\n")


def test_unknown_fields_are_ignored() -> None:
    record = fake_set_record("pool")
    data = json.loads(record.to_json_bytes()) | {"added_in_1.1": 5}
    assert type(record).from_json_bytes(document_bytes(data), "here") == record


def test_a_document_holds_the_digest_of_its_other_bytes() -> None:
    data = fake_set_record("pool").to_json_bytes()
    held = json.loads(data)["_sha256"]
    assert data.startswith(b'{"_sha256":"' + held.encode())
    assert hashlib.sha256(data.replace(held.encode(), b"0" * 64, 1)).hexdigest() == held


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_every_flipped_bit_of_a_document_is_found(position: int, bit: int) -> None:
    data = bytearray(_DOCUMENT)
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(FormatError, match=r"set\.json"):
        SetRecord.from_json_bytes(bytes(data), "set.json")


@pytest.mark.parametrize("length", [0, 1, 12, 40, 76, 77, len(_DOCUMENT) - 1])
def test_a_truncated_document_is_found(length: int) -> None:
    with pytest.raises(CorruptChunkError, match=r"set\.json"):
        SetRecord.from_json_bytes(_DOCUMENT[:length], "set.json")


def test_a_document_without_its_digest_is_refused() -> None:
    fields = json.loads(_DOCUMENT)
    del fields["_sha256"]
    with pytest.raises(CorruptChunkError, match="not a document of a store"):
        SetRecord.from_json_bytes(canonical_json(fields), "set.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"1" * 100_000])
def test_bytes_that_are_no_record_are_a_format_error_that_names_the_file(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"store\.json is not a document of a store"):
        StoreRecord.from_json_bytes(data, "store.json")


@pytest.mark.parametrize("fields", [{}, {"format_version": "one"}, {"format_version": 1, "store_id": "../x"}])
def test_a_whole_document_of_another_kind_is_a_format_error_that_names_the_file(fields: dict[str, object]) -> None:
    with pytest.raises(FormatError, match=r"store\.json is not a valid StoreRecord"):
        StoreRecord.from_json_bytes(document_bytes(fields), "store.json")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/.", "a\\b", "a/", "x" * 600],
)
def test_hostile_paths_are_refused_in_records(path: str) -> None:
    data = json.dumps({"path": path, "size_bytes": 1, "sha256": "0" * 64}).encode()
    with pytest.raises(FormatError):
        FileDigest.from_json_bytes(data, "segment.json")


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 300, "A", "-x", ".x", "x/y", "x\n", "é"])
def test_hostile_names_are_refused_in_records(name: str) -> None:
    data = json.loads(fake_set_record("pool").to_json_bytes()) | {"name": name}
    with pytest.raises(FormatError):
        type(fake_set_record("pool")).from_json_bytes(document_bytes(data), "set.json")


@pytest.mark.parametrize(
    "ulid", ["", "../../x", "01M83DCN8S9F7R4HA89RBFM39Z/..", "01m83dcn8s9f7r4ha89rbfm39z", "8" * 26]
)
def test_hostile_ulids_are_refused_in_records(ulid: str) -> None:
    data = {"ingest_id": new_ulid(), "segment_id": ulid, "n_rows": 1, "record_sha256": "0" * 64}
    with pytest.raises(FormatError):
        FlushRecord.from_json_bytes(document_bytes(data), "flushed.json")


@pytest.mark.parametrize(
    "change", [{"number": 0}, {"n_samples": -1}, {"segments": [{"ordinal": 2**23}]}, {"operation": "unheard-of"}]
)
def test_impossible_numbers_are_refused_in_manifests(change: dict[str, object]) -> None:
    manifest = SetManifest(
        set_name="pool",
        number=1,
        parent=None,
        operation=Operation.INGEST,
        features=(Feature.MEAN,),
        layers=(0,),
        segments=(SegmentRef(segment_id=new_ulid(), ordinal=0, n_rows=1, record_sha256="0" * 64),),
        next_ordinal=1,
        n_samples=1,
        provenance=current_provenance(),
    )
    data = json.loads(manifest.to_json_bytes()) | change
    with pytest.raises(FormatError):
        SetManifest.from_json_bytes(document_bytes(data), "1.json")


def test_the_capture_id_is_a_function_of_every_field_of_the_identity() -> None:
    identity = fake_identity()
    assert identity.capture_id == fake_identity().capture_id
    assert len(identity.capture_id) == 32
    changes = {
        "model_fingerprint": "1" * 64,
        "tokenizer_fingerprint": "2" * 64,
        "template": {"name": "alpaca", "sha256": "3" * 64},
        "span": "response",
        "span_edges": "rendered",
        "hook_point": "attn",
        "hook_path": "mlp.down_proj",
        "moe_layout": "expert-flattened:8×16",
    }
    assert set(changes) == set(type(identity).model_fields)
    others = {
        type(identity).model_validate(identity.model_dump(mode="json") | {key: value}).capture_id
        for key, value in changes.items()
    }
    assert len(others | {identity.capture_id}) == len(changes) + 1


def test_a_newer_format_and_an_unknown_reader_feature_are_refused() -> None:
    known = StoreRecord(format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now())
    known.check_readable("here")
    for change in ({"format_version": FORMAT_VERSION + 1}, {"reader_features": ("sparse",)}):
        with pytest.raises(UnsupportedVersionError, match="written by a newer release"):
            known.model_copy(update=change).check_readable("here")


def test_an_unknown_writer_feature_does_not_keep_anyone_from_reading() -> None:
    record = StoreRecord(
        format_version=FORMAT_VERSION, store_id=new_ulid(), created_at=now(), writer_features=("purge-log",)
    )
    record.check_readable("here")
    assert record.unknown_writer_features() == ["purge-log"]
