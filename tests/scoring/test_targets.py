from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Metric
from nait_store.scoring.targets import ScoringTarget, directions_sha256

V = np.array([[0.5, -1.25, 3.0], [0.1, 0.2, 0.3]], dtype=np.float32)


def target(
    directions: np.ndarray = V, offset: np.ndarray | None = None, layers: tuple[int, ...] = (0, 4)
) -> ScoringTarget:
    return ScoringTarget(directions, offset, layers, Feature.MEAN, Metric.DOT)


def test_the_digest_is_of_little_endian_floats_in_the_documented_order() -> None:
    offset = V[::-1] * 2
    numbers = [0.0, 4.0, *V.reshape(-1).tolist(), *offset.reshape(-1).tolist()]
    expected = hashlib.sha256(struct.pack(f"<{len(numbers)}f", *numbers)).hexdigest()
    assert directions_sha256((0, 4), V, offset) == expected
    assert target(offset=offset).directions_sha256 == expected


def test_the_digest_does_not_depend_on_memory_layout_or_byte_order() -> None:
    same = np.asfortranarray(V.astype(">f4"))
    assert directions_sha256((0, 4), same, None) == directions_sha256((0, 4), V, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        target(layers=(0, 5)),
        target(directions=np.nextafter(V, np.float32(9))),
        target(offset=np.zeros_like(V)),
    ],
    ids=["layers", "directions", "offset"],
)
def test_the_digest_tells_different_targets_apart(other: ScoringTarget) -> None:
    assert other.directions_sha256 != target().directions_sha256


def test_a_target_does_not_change_with_the_array_it_was_made_of() -> None:
    source = V.copy()
    made = target(source)
    source[0, 0] = 99
    assert made.directions[0, 0] == np.float32(0.5)
    with pytest.raises(ValueError, match="read-only"):
        made.directions[0, 0] = 1


def test_what_nobody_can_write_is_not_copied() -> None:
    source = np.frombuffer(V.tobytes(), np.float32).reshape(V.shape)
    assert np.shares_memory(target(source).directions, source)


def test_a_read_only_view_of_what_can_be_written_is_copied() -> None:
    owner = np.frombuffer(bytearray(V.tobytes()), np.float32).reshape(V.shape)
    view = owner[:]
    view.setflags(write=False)
    for source in (view, np.frombuffer(memoryview(bytearray(V.tobytes())).toreadonly(), np.float32).reshape(V.shape)):
        assert not np.shares_memory(target(source).directions, source)


@pytest.mark.parametrize(
    ("directions", "offset", "layers"),
    [
        (V, None, (0,)),
        (V[0], None, (0,)),
        (V[:, :0], None, (0, 1)),
        (V, V[:, :2], (0, 1)),
        (V, None, (1, 0)),
        (V, None, (1, 1)),
        (V, None, (-1, 1)),
        (V * np.float32(np.nan), None, (0, 1)),
        (V, V * np.float32(np.inf), (0, 1)),
    ],
)
def test_what_does_not_fit_together_is_refused(
    directions: np.ndarray, offset: np.ndarray | None, layers: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidInputError):
        target(directions, offset, layers)
