"""Texts that have nothing in common but chance, and planted copies of some, exact and with one word changed."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nait_store.schemas.samples import samples_schema

COPY_EVERY, NEAR_EVERY = 50, 10
"""Every 50th text is that of the sample before it, and every tenth is that but for one word."""

_WORDS = 20_000
_LENGTHS_WORDS = (30, 80)
_INSTRUCTION_WORDS = 20


def originals(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] Number of the sample whose text each sample has, or nearly has; its own where that is nobody else's."""
    is_copy = (numbers % COPY_EVERY == 4) | (numbers % NEAR_EVERY == 9)
    return np.where(is_copy, numbers - 1, numbers)


class VariedTexts:
    """Samples with such texts; those of one call must begin with an original."""

    def relate(self, A: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Copies have the activations of what they copy, a tenth of theirs off."""
        copies = np.flatnonzero(originals(numbers) != numbers)
        A[copies] = A[copies - 1] + np.float32(0.1) * A[copies]

    def rows(self, first_index: int, numbers: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """Rows for the samples of these numbers, the first of which stands at ``first_index``."""
        from benchmarks.large_pool import FIELDS, SOURCES, hexadecimal

        n = len(numbers)
        lengths = rng.integers(*_LENGTHS_WORDS, n)
        copied = np.flatnonzero(originals(numbers) != numbers)
        lengths[copied] = lengths[copied - 1]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        words = rng.integers(0, _WORDS, bounds[-1])
        for row in copied.tolist():
            words[bounds[row] : bounds[row + 1]] = words[bounds[row - 1] : bounds[row]]
        near = np.flatnonzero(numbers % NEAR_EVERY == 9)
        words[bounds[near] + lengths[near] // 2] = _WORDS - 1 - rng.integers(0, 100, len(near))
        spelled = _vocabulary().take(pa.array(words))
        cut = np.stack([bounds[:-1], bounds[:-1] + _INSTRUCTION_WORDS], axis=1).ravel()
        halves = pa.ListArray.from_arrays(pa.array(np.append(cut, bounds[-1]).astype(np.int32)), spelled)
        joined = pc.binary_join(halves, " ")
        instructions, outputs = joined[0::2], joined[1::2]
        parts = ['{"instruction": "', instructions, '", "output": "', outputs, '"}']
        digests = np.frombuffer(rng.bytes(32 * n), np.uint8).reshape(n, 32)
        columns = [
            pa.array(np.arange(first_index, first_index + n)),
            hexadecimal(digests[:, :16]),
            hexadecimal(digests),
            pa.repeat(pa.scalar("pool.jsonl"), n),
            pa.array(numbers),
            pa.array(lengths.astype(np.int32) + np.int32(10)),
            pa.array(lengths.astype(np.int32)),
            pa.array(np.zeros(n, bool)),
            pc.binary_join_element_wise(*parts, ""),
            instructions,
            outputs,
            pa.array(SOURCES).take(pa.array(numbers % len(SOURCES))),
        ]
        return pa.Table.from_arrays(columns, schema=samples_schema(FIELDS))


@functools.cache
def _vocabulary() -> pa.Array:
    """Words of about the length of English ones."""
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    n = len(syllables)
    return pa.array([f"{syllables[i % n]}{syllables[i // n % n]}{'s' * (i // n**2)}" for i in range(_WORDS)])
