"""The first and last content tokens of samples: whether they tell the samples apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nait_store.capture.rendering import PreparedSample

_FEW_SAMPLES = 8
"""Fewer may well begin or end alike by chance."""


class EdgeTokens:
    """Notices when every sample has the same t_1 or the same t_K: then the span is not the samples' own text."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._first: set[int] = set()
        self._last: set[int] = set()

    def looking_at(self, windows: Iterable[list[PreparedSample]]) -> Iterator[list[PreparedSample]]:
        """Take note of samples on their way through."""
        for window in windows:
            self.look_at(window)
            yield window

    def look_at(self, samples: Sequence[PreparedSample]) -> None:
        """Take note of samples."""
        self._n_samples += len(samples)
        # Two are enough to know that they are not all the same.
        for seen, edge in ((self._first, 0), (self._last, -1)):
            if len(seen) < 2:
                for sample in samples:
                    position = sample.content[0][0] if edge == 0 else sample.content[-1][1] - 1
                    seen.add(int(sample.token_ids[position]))

    def warnings(self) -> list[str]:
        """Return what the user should know."""
        if self._n_samples < _FEW_SAMPLES:
            return []
        return [
            f"all {self._n_samples:,} samples have the same {which} content token: {effect}; "
            "look at --span-edges, --span and --template"
            for seen, which, effect in (
                (self._first, "first", "A(t_1) says nothing about a sample"),
                (self._last, "last", "'last' and 'drift' look at the same token everywhere"),
            )
            if len(seen) == 1
        ]
