"""Duplicates by text: equal texts, and texts that have most of their shingles in common."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nait_store.selection.redundancy.duplicates import Duplicate, DuplicateKind
from nait_store.selection.redundancy.near_texts import NearTexts
from nait_store.selection.redundancy.texts import SampleTexts

_DIGEST = np.dtype("V16")
_CHARACTERS_AT_ONCE = 1 << 18


class TextDuplicates:
    """Finds the samples whose text a better-ranked sample has, or nearly has.

    Parameters
    ----------
    texts
        Of the samples.
    threshold
        Jaccard similarity of near duplicates; None for equal texts only.

    Raises
    ------
    MissingExtraError
        Near duplicates need rensa, which is not installed.
    """

    def __init__(self, texts: SampleTexts, threshold: float | None) -> None:
        self._texts = texts
        self._near = None if threshold is None else NearTexts(threshold)
        self._digests = np.empty(0, _DIGEST)
        self._positions = np.empty(0, np.int64)  # of the best-ranked sample with each digest

    def examine(self, positions: NDArray[np.int64], sample_ids: pa.ChunkedArray) -> list[Duplicate]:
        """Look at the next samples in rank order; those that are found are no longer there for later ones.

        Parameters
        ----------
        positions
            [m] ascending, above all earlier ones.
        sample_ids
            Theirs.
        """
        digests, numbers = self._read(sample_ids)
        firsts = self._firsts(digests, positions)
        is_repeat = firsts != positions
        found = [
            Duplicate(position, of, DuplicateKind.EXACT, 1.0)
            for position, of in zip(positions[is_repeat].tolist(), firsts[is_repeat].tolist(), strict=True)
        ]
        if self._near is not None:
            found += self._near.examine(numbers[~is_repeat], positions[~is_repeat])
        return found

    def _read(self, sample_ids: pa.ChunkedArray) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """[m] Digests of texts, and [m] the number of each among the texts that are known for near duplicates."""
        n_known = 0 if self._near is None else len(self._near)
        places, hashed = array("q"), bytearray()
        block: list[str] = []
        n_characters = 0
        # As they lie: only a block of texts is in memory at a time.
        for place, text in self._texts.of(sample_ids):
            places.append(place)
            data = text.encode("utf-8", "surrogatepass")
            hashed += hashlib.blake2b(data, digest_size=_DIGEST.itemsize).digest()
            if self._near is None:
                continue
            block.append(text)
            n_characters += len(text)
            if n_characters > _CHARACTERS_AT_ONCE:
                self._near.add(block)
                block, n_characters = [], 0
        if self._near is not None and block:
            self._near.add(block)
        digests, numbers = np.empty(len(places), _DIGEST), np.empty(len(places), np.int64)
        digests[places] = np.frombuffer(hashed, _DIGEST)
        numbers[places] = np.arange(n_known, n_known + len(places))
        return digests, numbers

    def _firsts(self, digests: NDArray[np.void], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """[m] Position of the best-ranked sample with the digest of each."""
        n_known = len(self._digests)
        both = np.concatenate([self._digests, digests])
        # Positions ascend, and the first index of equal values is the lowest.
        _, first, of = np.unique(both, return_index=True, return_inverse=True)
        positions_of_both = np.concatenate([self._positions, positions])
        firsts: NDArray[np.int64] = positions_of_both[first][of]
        self._digests, self._positions = both[np.sort(first)], positions_of_both[np.sort(first)]
        return firsts[n_known:]
