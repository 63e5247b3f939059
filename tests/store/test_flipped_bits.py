from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nait_store.store.repair.flipped_bits import LARGEST_BYTES, unflip, unflip_document
from nait_store.testing.stores import fake_set_record

_DOCUMENT = fake_set_record("pool").to_json_bytes()


def _flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position // 8 % len(data)] ^= 1 << position % 8
    return bytes(changed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8 * len(_DOCUMENT) - 1))
def test_any_one_bit_of_a_document_is_put_right(position: int) -> None:
    assert unflip_document(_flipped(_DOCUMENT, position)) == _DOCUMENT


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 10_000))
def test_any_one_bit_of_a_file_of_known_digest_is_put_right(data: bytes, position: int) -> None:
    assert unflip(_flipped(data, position), hashlib.sha256(data).hexdigest()) == data


@pytest.mark.parametrize(
    "damaged",
    [_DOCUMENT[:-1], _DOCUMENT[:50], b"", _flipped(_flipped(_DOCUMENT, 900), 1203)],
    ids=["last byte lost", "most lost", "empty", "two bits"],  # the bytes differ from process to process
)
def test_other_damage_is_left_alone(damaged: bytes) -> None:
    assert unflip_document(damaged) is None


def test_a_file_that_is_too_large_is_not_tried() -> None:
    data = bytes(LARGEST_BYTES + 1)
    assert unflip(_flipped(data, 3), hashlib.sha256(data).hexdigest()) is None
