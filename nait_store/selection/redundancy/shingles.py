"""Texts as sets of shingles: the hashes of every three words that follow each other.

Words are runs of letters and digits without regard to case. A character of a script that is written without spaces is a
word of its own. A text of one or two words is one shingle, and so is one of none, whose characters are hashed instead.
Many texts are cut up at once, with NumPy: prefix sums of a polynomial give the hash of every word.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORDS_PER_SHINGLE = 3
_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
_WEIGHTS = np.array([0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB], np.uint64)
_APART, _WORD, _ALONE = 0, 1, 2
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),  # ideographs
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True)
class Shingles:
    """Sets of shingles of some texts.

    Attributes
    ----------
    hashes
        uint32, those of each text ascending and without repeats, one text after the other.
    offsets
        [n + 1] int64: where each text's begin.
    """

    hashes: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, number: int) -> NDArray[np.uint32]:
        """Of one text."""
        return self.hashes[self.offsets[number] : self.offsets[number + 1]]


def shingles_of(texts: Sequence[str]) -> Shingles:
    """Cut texts up; some megabytes of them at once is best."""
    n = len(texts)
    lowered = [text.casefold() for text in texts]
    # One separator after each text, so that no word reaches over its end.
    ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    joined = " ".join([*lowered, ""]) if n else ""
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)  # [c]
    classes = _classes()[points]
    previous = np.concatenate([np.zeros(1, np.uint8), classes[:-1]])
    starts = np.flatnonzero((classes == _ALONE) | ((classes == _WORD) & (previous != _WORD)))
    is_last = np.concatenate([classes[1:], np.zeros(1, np.uint8)]) != _WORD
    stops = np.flatnonzero((classes == _ALONE) | ((classes == _WORD) & is_last)) + 1
    sums = _prefix_sums(points)
    words = _mixed((sums[stops] - sums[starts]) * _powers(int(_INVERSE), len(points))[starts])
    texts_of_words = np.searchsorted(ends, starts, side="right")
    n_words = np.bincount(texts_of_words, minlength=n)
    first_words = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_words)])
    # Every word begins a shingle if two more of its text follow, or if it is the first of a text of fewer words.
    places = np.arange(len(words)) - first_words[texts_of_words]
    n_after = n_words[texts_of_words] - places
    begins = (n_after >= WORDS_PER_SHINGLE) | (places == 0)
    shingles = np.zeros(len(words), np.uint64)
    for i, weight in enumerate(_WEIGHTS):
        reaches = np.flatnonzero(begins & (n_after > i))
        shingles[reaches] += words[reaches + i] * weight
    found, owners = shingles[begins], texts_of_words[begins]
    wordless = np.flatnonzero(n_words == 0)
    if len(wordless):
        begin = ends[wordless] - [len(lowered[i]) + 1 for i in wordless]
        whole = (sums[ends[wordless] - 1] - sums[begin]) * _powers(int(_INVERSE), len(points) + 1)[begin]
        found, owners = np.concatenate([found, _mixed(whole)]), np.concatenate([owners, wordless])
    hashes = _mixed(found) >> np.uint64(32)
    keyed = np.sort((owners.astype(np.uint64) << np.uint64(32)) | hashes)  # np.unique takes ten times as long
    keyed = keyed[np.concatenate([np.ones(min(len(keyed), 1), bool), keyed[1:] != keyed[:-1]])]
    offsets = np.searchsorted(keyed, np.arange(n + 1, dtype=np.uint64) << np.uint64(32))
    return Shingles((keyed & np.uint64(0xFFFFFFFF)).astype(np.uint32), offsets.astype(np.int64))


def _prefix_sums(points: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """[c + 1] Σ of the points before each, times powers of the base, modulo 2⁶⁴."""
    sums = np.zeros(len(points) + 1, np.uint64)
    # 1 is added so that a zero counts.
    np.cumsum((points.astype(np.uint64) + np.uint64(1)) * _powers(int(_BASE), len(points)), out=sums[1:])
    return sums


_KNOWN: dict[int, NDArray[np.uint64]] = {}


def _powers(base: int, n: int) -> NDArray[np.uint64]:
    """[n] base⁰, base¹ …, modulo 2⁶⁴; kept, for the next texts are about as long."""
    known = _KNOWN.get(base)
    if known is None or len(known) < n:
        factors = np.full(max(n, 1 << 16), base, np.uint64)
        factors[0] = 1
        known = _KNOWN[base] = np.cumprod(factors)
    return known[:n]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread over all bits: the finalizer of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(33))
    return mixed


@functools.cache
def _classes() -> NDArray[np.uint8]:
    """[1,114,112] What each character is to a word."""
    marks = ("Mn", "Mc")
    found = np.fromiter(
        (
            _WORD if (one := chr(point)).isalnum() or unicodedata.category(one) in marks else _APART
            for point in range(sys.maxunicode + 1)
        ),
        np.uint8,
        sys.maxunicode + 1,
    )
    for low, high in _UNSPACED:
        found[low : high + 1][found[low : high + 1] == _WORD] = _ALONE
    return found
