from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from nait_store.ingest.requests import FlushPolicy


@dataclass
class _Writer:
    n_rows: int
    chunk_rows: int = 256
    size_bytes: int = 0
    text_bytes: int = 0

    @property
    def n_buffered_rows(self) -> int:
        return self.n_rows % self.chunk_rows


_POLICY = FlushPolicy(seconds=100, size_bytes=1000, rows=10_000, text_bytes=500)


@pytest.mark.parametrize(
    ("writer", "age", "due"),
    [
        (_Writer(10), 99, False),
        (_Writer(10), 100, True),  # less than a chunk: it gets a chunk of its own size
        (_Writer(0), 1000, True),
        (_Writer(257), 100, False),  # 255 rows of padding for 257
        (_Writer(500), 100, True),  # 12 rows of padding
        (_Writer(512), 100, True),
        (_Writer(257), 200, True),  # patience has an end
        (_Writer(257, size_bytes=1000), 0, False),
        (_Writer(257, size_bytes=2000), 0, True),
        (_Writer(10_000), 0, True),
        (_Writer(257, text_bytes=500), 0, True),
    ],
)
def test_when_a_segment_is_due(writer: _Writer, age: float, due: bool) -> None:
    assert _POLICY.is_due(cast(Any, writer), age) is due
