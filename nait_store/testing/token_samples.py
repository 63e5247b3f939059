"""Made-up samples, tokens only, and captured batches taken apart: for tests of capture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.batch_runner import CapturedBatch
from nait_store.capture.conversations import Sample
from nait_store.capture.rendering import PreparedSample
from nait_store.schemas.capture import Feature

Content = tuple[tuple[int, int], ...]


def sample_of_tokens(name: str, token_ids: Sequence[int], content: Content | None = None) -> PreparedSample:
    """Make a sample of given tokens; all of them are content unless told otherwise."""
    sample = Sample(name, "0" * 64, "made-up", 0, "{}", {}, ())
    spans = content or ((0, len(token_ids)),)
    return PreparedSample(
        sample, np.array(token_ids, dtype=np.int32), spans, sum(high - low for low, high in spans), truncated=False
    )


def random_content(generator: np.random.Generator, length: int) -> Content:
    """Draw one to three disjoint intervals within a sample, anywhere."""
    n_edges = 2 * int(generator.integers(1, 4))
    if length + 1 < n_edges:
        return ((0, length),)
    edges = sorted(int(edge) for edge in generator.choice(length + 1, n_edges, replace=False))
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def random_samples(lengths: Sequence[int], *, seed: int = 0, vocabulary: int = 500) -> list[PreparedSample]:
    """Make samples ``s0``, ``s1`` … of given lengths with random tokens and random spans."""
    generator = np.random.default_rng(seed)
    return [
        sample_of_tokens(
            f"s{number}", generator.integers(0, vocabulary, length).tolist(), random_content(generator, length)
        )
        for number, length in enumerate(lengths)
    ]


def by_sample_id(batches: Iterable[CapturedBatch]) -> dict[str, dict[Feature, NDArray[np.float32]]]:
    """Return sample id → feature → [L, J]."""
    return {
        sample.sample.sample_id: {feature: values[row] for feature, values in batch.features.items()}
        for batch in batches
        for row, sample in enumerate(batch.samples)
    }
