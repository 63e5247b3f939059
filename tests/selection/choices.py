"""What a selection should be, computed with NumPy and plain loops from scores, ids, tokens and groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import nait_store
from nait_store.schemas.capture import Feature
from nait_store.testing.stores import build_set

PROFILES = ("math", "code", "chat")
SOURCES = ("alpaca", "code", "orca")
N_SAMPLES = 90


@dataclass(frozen=True, repr=False)  # which would be the longest part of a failing test's message
class Pool:
    """Columns of the candidates, each in the same order.

    Attributes
    ----------
    ids, sources
        [n] texts; a source may be None.
    n_tokens
        [n] int64.
    scores
        [P, n] float64, of :data:`PROFILES`.
    """

    ids: NDArray[np.object_]
    sources: NDArray[np.object_]
    n_tokens: NDArray[np.int64]
    scores: NDArray[np.float64]

    def where(self, kept: NDArray[np.bool_]) -> Pool:
        """Some of them."""
        return Pool(self.ids[kept], self.sources[kept], self.n_tokens[kept], self.scores[:, kept])

    def of(self, names: Sequence[str]) -> NDArray[np.float64]:
        """[p, n] Scores under some of the profiles."""
        return self.scores[[PROFILES.index(name) for name in names]]

    def order(self, keys: Sequence[tuple[float, ...]]) -> list[int]:
        """Candidates by their key, equal ones by id."""
        return sorted(range(len(self.ids)), key=lambda i: (*keys[i], self.ids[i]))

    def tokens_of(self, ids: Sequence[str]) -> int:
        """Of these samples together."""
        return int(self.n_tokens[np.isin(self.ids.astype(str), list(ids))].sum())

    def sources_of(self, ids: Sequence[str]) -> Counter[str | None]:
        """Source → how many of these samples."""
        found = dict(zip(self.ids, self.sources, strict=True))
        return Counter(found[one] for one in ids)


def build_pool(folder: Path, texts: Sequence[str] | None = None) -> tuple[nait_store.Store, Pool]:
    """A store with the set pool, of two segments, and three profiles; and its columns.

    Texts are cut in two at their first line's end, for instruction and output.
    """
    store = nait_store.open(str(folder / "store"), create=True)
    sources = [None if i % 13 == 5 else SOURCES[min(i * 7 % 10 // 4, 2)] for i in range(N_SAMPLES)]
    quality = [None if i % 13 == 5 else i / 10 for i in range(N_SAMPLES)]
    fields = {"source": sources, "it's": sources, "quality": quality}
    if texts is not None:
        halves = [text.partition("\n") for text in texts]
        fields |= {"instruction": [half[0] for half in halves], "output": [half[2] for half in halves]}
    build_set(store.location, "pool", N_SAMPLES, n_segments=2, user_fields=fields)
    for i, name in enumerate(PROFILES):
        build_set(store.location, f"of-{name}", 8, features=(Feature.MEAN,), seed=i + 1, first=1000)
        store.profiles.build(name, source=f"of-{name}", metric="dot" if name == "code" else "cosine")
    found = store.sql("SELECT sample_id, source, n_tokens FROM samples('pool') ORDER BY sample_id").fetchall()
    scores = [
        [
            score
            for (score,) in store.sql(f"SELECT score FROM alignment('pool', '{name}') ORDER BY sample_id").fetchall()
        ]
        for name in PROFILES
    ]
    ids, of_source, n_tokens = zip(*found, strict=True)
    pool = Pool(np.array(ids, object), np.array(of_source, object), np.array(n_tokens), np.array(scores))
    return store, pool


def standard_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[p, n] In standard deviations from the mean of each row."""
    z: NDArray[np.float64] = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    return z


def ranks_of(pool: Pool, scores: NDArray[np.float64], *, lowest: bool = False) -> NDArray[np.int64]:
    """[p, n] From 1, equal scores by id."""
    ranks = np.empty(scores.shape, dtype=np.int64)
    for p, row in enumerate(scores):
        for rank, i in enumerate(pool.order([(s if lowest else -s,) for s in row]), start=1):
            ranks[p, i] = rank
    return ranks


def union_order(ranks: NDArray[np.int64], weights: Sequence[float]) -> list[tuple[int, int]]:
    """Candidate and the profile that brought it, as profiles take turns and a sample comes once.

    A profile of weight w has its r-th turn at the time r / w; of equal times the one that was named first.
    """
    turns = sorted((ranks[p, i] / weights[p], p, i) for p in range(ranks.shape[0]) for i in range(ranks.shape[1]))
    order: list[tuple[int, int]] = []
    seen: set[int] = set()
    for _, p, i in turns:
        if i not in seen:
            seen.add(i)
            order.append((i, p))
    return order


def combined(
    pool: Pool, names: Sequence[str], weights: Sequence[float], combine: str, *, lowest: bool = False
) -> tuple[list[int], NDArray[np.float64], list[int] | None]:
    """Order of the candidates, score of each, and the profile that brought each of the order, if they take turns."""
    scores = pool.of(names)
    if len(names) == 1:
        sign = 1 if lowest else -1
        return pool.order([(sign * s,) for s in scores[0]]), scores[0], None
    z, ranks = standard_scores(scores), ranks_of(pool, scores, lowest=lowest)
    if combine == "union":
        order = union_order(ranks, weights)
        one = np.empty(len(pool.ids))
        for i, p in order:
            one[i] = z[p, i]
        return [i for i, _ in order], one, [p for _, p in order]
    if combine == "rrf":
        one = sum(w / (60 + r) for w, r in zip(weights, ranks, strict=True))
        return pool.order([(-s,) for s in one]), one, None
    if combine == "norm":
        one = np.sqrt(sum(w * s * s for w, s in zip(weights, scores, strict=True)))
        return pool.order([((s if lowest else -s),) for s in one]), one, None
    one = z.min(axis=0) if combine == "min" else sum(w * row for w, row in zip(weights, z, strict=True))
    return pool.order([((s if lowest else -s),) for s in one]), one, None


def take(order: Sequence[int], fits: Callable[[list[int], int], bool]) -> list[int]:
    """The longest beginning of an order of which every next one fits to those before it."""
    taken: list[int] = []
    for i in order:
        if not fits(taken, i):
            break
        taken.append(i)
    return taken


def take_by_group(
    order: Sequence[int], groups: Sequence[str | None], fits: Mapping[str | None, Callable[[list[int], int], bool]]
) -> list[int]:
    """The same within every group, put together in the order again."""
    kept = {i for group, fit in fits.items() for i in take([i for i in order if groups[i] == group], fit)}
    return [i for i in order if i in kept]


def share(text: str, n: int) -> int:
    """``"25%"`` of n, rounded up; or a number."""
    return math.ceil(int(text.removesuffix("%")) * n / 100) if text.endswith("%") else int(text)
