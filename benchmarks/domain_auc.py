"""How well scores, and what needs no neurons, put a set's samples of one label first: ROC-AUC and its intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nait_store.store.facade import Store

TOP = "10%"
EMBEDDING, LENGTH_MATCHED = "baseline: --strategy embedding", "baseline: --strategy length-matched"


@dataclass(frozen=True)
class Candidates:
    """Samples of a set, in the order of their ids.

    Attributes
    ----------
    reference
        Of the set.
    ids, labels, n_tokens
        [n] each.
    """

    reference: str
    ids: tuple[str, ...]
    labels: np.ndarray
    n_tokens: np.ndarray

    @classmethod
    def of(cls, store: Store, reference: str, label_field: str) -> Candidates:
        """Read them; ``label_field`` is a field of their records."""
        query = f"SELECT sample_id, record, n_tokens FROM samples('{reference}') ORDER BY sample_id"
        ids, records, n_tokens = zip(*store.sql(query).fetchall(), strict=True)
        return cls(reference, ids, labels_of(records, label_field), np.array(n_tokens))

    def alignment(self, store: Store, profile: str) -> np.ndarray:
        """[n] Scores against a profile, through SQL."""
        query = f"SELECT score FROM alignment('{self.reference}', '{profile}') ORDER BY sample_id"
        return np.array([score for (score,) in store.sql(query).fetchall()])

    def baselines(self, store: Store, profile: str) -> dict[str, np.ndarray]:
        """Scores [n] of the strategies that are to be beaten, as they run for a profile.

        A length-matched selection draws by chance, and so scores a sample by its chance to be drawn.
        """
        return {
            EMBEDDING: self._embedding(store, profile),
            LENGTH_MATCHED: self._length_matched(store, profile),
            "baseline: longest first": self.n_tokens.astype(float),
            "baseline: random": self.chance,
        }

    @property
    def chance(self) -> np.ndarray:
        """[n] Numbers in [0, 1) that depend on nothing but the sample."""
        return np.array([draw(sample_id, "random") for sample_id in self.ids])

    def _embedding(self, store: Store, profile: str) -> np.ndarray:
        rows = store.select(self.reference, profile=profile, strategy="embedding", top="100%").rows
        found = dict(zip(rows.column("sample_id").to_pylist(), rows.column("score").to_pylist(), strict=True))
        return np.array([found[sample_id] for sample_id in self.ids])

    def _length_matched(self, store: Store, profile: str) -> np.ndarray:
        from nait_store.selection.statements import Lengths

        chosen = store.select(self.reference, profile=profile, top=TOP).rows.column("sample_id").to_pylist()
        taken = np.isin(self.ids, chosen)
        lengths = Lengths.of(self.n_tokens[taken])
        classes = np.searchsorted(lengths.edges, self.n_tokens, side="left")
        inside = (self.n_tokens >= lengths.least) & (self.n_tokens <= lengths.most)
        n_classes = len(lengths.edges) + 1
        wanted = np.bincount(classes[taken], minlength=n_classes)
        there = np.bincount(classes[inside], minlength=n_classes)
        likely = np.where(inside, (wanted / np.maximum(1, there))[classes], 0.0)
        return likely + 1e-9 * self.chance  # chance decides among the equally likely


@dataclass(frozen=True)
class AucDifference:
    """Difference of two ROC-AUCs of the same candidates, with DeLong's 95 % interval.

    Attributes
    ----------
    value, half_width
        In units of AUC.
    """

    value: float
    half_width: float

    @classmethod
    def of(cls, ours: np.ndarray, theirs: np.ndarray, wanted: np.ndarray) -> AucDifference:
        """Of two scores [n] for labels [n]."""
        (won, kept), (won_there, kept_there) = (_placements(scores, wanted) for scores in (ours, theirs))
        difference = won - won_there
        variance = difference.var(ddof=1) / len(won) + (kept - kept_there).var(ddof=1) / len(kept)
        return cls(float(difference.mean()), float(1.96 * np.sqrt(variance)))

    @property
    def low(self) -> float:
        """Where the interval begins."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """Where it ends."""
        return self.value + self.half_width

    def __str__(self) -> str:
        """As in ``+0.012 ± 0.004``."""
        return f"{self.value:+.4f} ± {self.half_width:.4f}"


def _placements(scores: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of others below each wanted sample, and of wanted above each other; ties count half."""

    def share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        ordered = np.sort(others)
        return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (
            2 * len(others)
        )

    return share_below(scores[wanted], scores[~wanted]), 1 - share_below(scores[~wanted], scores[wanted])


def quality(scores: np.ndarray, wanted: np.ndarray, ids: Sequence[str]) -> tuple[float, float]:
    """ROC-AUC, and the share of wanted samples in the top 10 % (ties broken by sample id)."""
    won, _ = _placements(scores, wanted)
    top = np.lexsort((np.array(ids), -scores))[: -(-len(ids) // 10)]
    return float(won.mean()), float(wanted[top].mean())


def labels_of(records: Sequence[str], field: str) -> np.ndarray:
    """[n] What records of JSON hold in a field."""
    return np.array([json.loads(record)[field] for record in records])


def draw(sample_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on nothing but the sample."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{sample_id}".encode()).digest()[:8], "big") / 2**64
