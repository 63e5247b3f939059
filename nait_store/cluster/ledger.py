"""Which samples have been given to which worker, and what became of them: ids are the truth, not tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class Chunk:
    """Samples that are given to a worker together.

    Attributes
    ----------
    payload
        The samples, or where the cluster keeps them.
    pending
        Keys of the ids of those that are neither in an acknowledged segment nor rejected.
    n_deaths
        Workers that died while they had it.
    is_whole
        Whether all its samples are pending.
    """

    payload: Any
    pending: set[bytes]
    n_deaths: int = 0
    is_whole: bool = True


class Ledger:
    """The chunks that workers have."""

    def __init__(self) -> None:
        self._chunks: defaultdict[int, dict[bytes, Chunk]] = defaultdict(dict)

    def __len__(self) -> int:
        return sum(map(len, self._chunks.values()))

    def n_pending(self, worker: int) -> int:
        """Samples that a worker has and that are not settled."""
        return len(self._chunks[worker])

    def give(self, worker: int, chunk: Chunk) -> None:
        """Note that a worker has a chunk."""
        self._chunks[worker].update(dict.fromkeys(chunk.pending, chunk))

    def settle(self, worker: int, keys: Iterable[bytes]) -> int:
        """Note that samples are acknowledged or rejected.

        Returns
        -------
        int
            How many of them this worker had, and had not settled before.
        """
        given = self._chunks[worker]
        n_settled = 0
        for key in keys:
            chunk = given.pop(key, None)
            if chunk is not None:
                chunk.pending.discard(key)
                chunk.is_whole = False
                n_settled += 1
        return n_settled

    def lose(self, worker: int) -> list[Chunk]:
        """Take back what a dead worker had, in the order in which it was given."""
        chunks = list({id(chunk): chunk for chunk in self._chunks.pop(worker, {}).values()}.values())
        for chunk in chunks:
            chunk.n_deaths += 1
        return chunks
