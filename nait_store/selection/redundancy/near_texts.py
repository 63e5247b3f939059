"""Near duplicates among texts that are known by their shingles.

MinHash signatures (of rensa) are cut into bands; texts that agree in a band are compared, exactly, by the Jaccard
similarity of their shingles. The bands are so narrow that a pair at the threshold misses all of them less than once in
a million times: what comes out is what comparing every pair would give, and does not depend on the library's hashes.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import MissingExtraError
from nait_store.selection.redundancy.duplicates import Duplicate, DuplicateKind
from nait_store.selection.redundancy.shingles import Shingles, shingles_of

_FEW_HASHES, _MANY_HASHES = 64, 128
_ENOUGH_IN_A_BAND = 3
"""With fewer hashes in a band, texts that are not alike at all agree in one too often."""

_MISSED = 1e-6
_SEED = 1
_MIXING = np.uint64(0x9E3779B97F4A7C15)


class NearTexts:
    """Shingles and bands of texts, and which of them are nearly what a better-ranked one is.

    Parameters
    ----------
    threshold
        Jaccard similarity from which on two texts are near duplicates.

    Raises
    ------
    MissingExtraError
        rensa is not installed.
    """

    def __init__(self, threshold: float) -> None:
        self._rensa = _load_rensa()
        self._threshold = threshold
        self._n_hashes = _FEW_HASHES
        self._in_a_band = _hashes_in_a_band(threshold, _FEW_HASHES)
        if self._in_a_band < _ENOUGH_IN_A_BAND:
            self._n_hashes, self._in_a_band = _MANY_HASHES, _hashes_in_a_band(threshold, _MANY_HASHES)
        # By number of the text, as they were added.
        self._shingles: list[Shingles] = []
        self._first_numbers: list[int] = []
        self._bands: list[NDArray[np.uint32]] = []  # [n, b] each
        self._n_texts = 0
        # Of those that stay, in rank order.
        self._numbers = np.empty(0, np.int64)
        self._positions = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._n_texts

    def add(self, texts: Sequence[str]) -> None:
        """Take the next texts, in any order."""
        shingles = shingles_of(texts)
        self._shingles.append(shingles)
        self._first_numbers.append(self._n_texts)
        self._bands.append(self._bands_of(shingles))
        self._n_texts += len(texts)

    def examine(self, numbers: NDArray[np.int64], positions: NDArray[np.int64]) -> list[Duplicate]:
        """Which of the next texts in rank order are near duplicates; these are no longer there for later ones.

        Parameters
        ----------
        numbers
            [m] Of the texts, as they were added.
        positions
            [m] In the ranking, ascending, above all earlier ones.
        """
        n_old = len(self._numbers)
        self._numbers, self._positions = (
            np.concatenate([old, new]) for old, new in ((self._numbers, numbers), (self._positions, positions))
        )
        found: dict[int, Duplicate] = {}
        rows, buckets = self._shared_buckets(n_old)
        starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
        members: dict[int, list[int]] = defaultdict(list)
        for start, stop in itertools.pairwise([*starts, len(rows)]):
            row, mine = int(rows[start]), buckets[start:stop].tolist()
            if row >= n_old:
                alike = self._first_alike(row, sorted({one for bucket in mine for one in members[bucket]}))
                if alike is not None:
                    of, similarity = alike
                    found[row] = Duplicate(
                        int(self._positions[row]), int(self._positions[of]), DuplicateKind.NEAR, similarity
                    )
                    continue
            for bucket in mine:
                members[bucket].append(row)
        stays = np.ones(len(self._numbers), bool)
        stays[list(found)] = False
        self._numbers, self._positions = self._numbers[stays], self._positions[stays]
        return list(found.values())

    def _bands_of(self, shingles: Shingles) -> NDArray[np.uint32]:
        """[n, b] Hashes of the bands of every signature."""
        matrix = self._rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.hashes.astype(np.uint64), shingles.offsets.astype(np.uint64), self._n_hashes, _SEED
        )
        signatures = np.array(matrix.to_rows(), np.uint64)  # [n, hashes]
        n_bands = self._n_hashes // self._in_a_band
        banded = signatures[:, : n_bands * self._in_a_band].reshape(len(signatures), n_bands, self._in_a_band)
        keys = np.zeros(banded.shape[:2], np.uint64)
        for i in range(self._in_a_band):
            keys = (keys ^ banded[:, :, i]) * _MIXING
            keys ^= keys >> np.uint64(29)
        # Chance agreement of half the bits costs a comparison, and no more.
        return (keys >> np.uint64(32)).astype(np.uint32)

    def _shared_buckets(self, n_old: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Pairs of a row and a bucket, for buckets with two rows at least, one of them new; ordered by row."""
        bands = np.concatenate(self._bands) if len(self._bands) > 1 else self._bands[0]
        self._bands = [bands]
        all_rows, all_buckets, n_buckets = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0
        for band in range(bands.shape[1]):
            keys = bands[self._numbers, band]
            order = np.argsort(keys, kind="stable")
            in_order = keys[order]
            bucket = np.cumsum(in_order[1:] != in_order[:-1], dtype=np.int32)
            bucket = np.concatenate([np.zeros(1, np.int32), bucket])
            is_shared = np.bincount(bucket) > 1
            has_new = np.zeros(len(is_shared), bool)
            has_new[bucket[order >= n_old]] = True
            is_shared &= has_new
            # Numbered anew, so that they are few.
            number = np.cumsum(is_shared, dtype=np.int32) - 1 + n_buckets
            mine = is_shared[bucket]
            all_rows.append(order[mine].astype(np.int32))
            all_buckets.append(number[bucket[mine]].astype(np.int32))
            n_buckets += int(is_shared.sum())
        rows, buckets = np.concatenate(all_rows), np.concatenate(all_buckets)
        del all_rows, all_buckets
        order = np.argsort(rows, kind="stable")
        return rows[order], buckets[order]

    def _first_alike(self, row: int, others: list[int]) -> tuple[int, float] | None:
        """The best-ranked of some rows that is similar enough, and how similar."""
        mine = self._shingles_of(row)
        for other in others:
            theirs = self._shingles_of(other)
            few, many = (mine, theirs) if len(mine) < len(theirs) else (theirs, mine)
            if len(few) < self._threshold * len(many):
                continue
            places = np.searchsorted(many, few)
            places[places == len(many)] = 0
            n_common = int(np.count_nonzero(many[places] == few))
            similarity = n_common / (len(few) + len(many) - n_common)
            if similarity >= self._threshold:
                return other, similarity
        return None

    def _shingles_of(self, row: int) -> NDArray[np.uint32]:
        number = int(self._numbers[row])
        block = bisect_right(self._first_numbers, number) - 1
        return self._shingles[block].of(number - self._first_numbers[block])


def _hashes_in_a_band(threshold: float, n_hashes: int) -> int:
    """The most under which a pair at the threshold is not missed."""
    found = 1
    for n_in_a_band in range(2, n_hashes + 1):
        if (1 - threshold**n_in_a_band) ** (n_hashes // n_in_a_band) > _MISSED:
            break
        found = n_in_a_band
    return found


def _load_rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise MissingExtraError(
            "near duplicates of texts need rensa (MinHash), which is not installed",
            next_step="pip install 'nait-store[dedup]', or compare with exact or cosine",
        ) from error
    return rensa
