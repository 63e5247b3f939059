"""Samples through the model batch by batch, within limits that shrink when the memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nait_store.capture.batches import BatchLimits, plan_batches
from nait_store.capture.memory import is_out_of_memory, release_memory
from nait_store.capture.reducers import PendingFeatures
from nait_store.capture.rendering import PreparedSample, UnpreparedSample
from nait_store.capture.taps import TappedDecoder
from nait_store.capture.token_budgets import TRIAL_SAMPLE_TOKENS
from nait_store.errors import NaitStoreError
from nait_store.schemas.capture import Feature

_HOPELESS = 32
"""So many samples in a row that do not fit even alone: something else has the memory, and more would only be lost."""


@dataclass(frozen=True, eq=False)
class CapturedBatch:
    """One batch that went through the model.

    Attributes
    ----------
    samples
        S samples.
    features
        Feature → [S, L, J] float32, as computed: not checked for NaN or infinity.
    n_tokens
        Tokens of the samples, padding not counted.
    """

    samples: list[PreparedSample]
    features: dict[Feature, NDArray[np.float32]]
    n_tokens: int


@dataclass(frozen=True, eq=False)
class _Launched:
    """A batch that may still be running."""

    samples: list[PreparedSample]
    features: PendingFeatures


class BatchRunner:
    """Plans batches and runs them.

    Parameters
    ----------
    tapped
        The decoder with its hooks.
    features
        What to collect.
    limits
        Of a batch, at first.
    device
        Where it runs.
    shrunk
        Told the new token budget, and why, when the memory ran out.

    Attributes
    ----------
    limits
        Of a batch, now.
    unfit
        Samples that do not fit into memory even alone, with the reason; grows while it runs.
    n_samples, n_tokens
        What was captured so far.
    """

    def __init__(
        self,
        tapped: TappedDecoder,
        features: Sequence[Feature],
        limits: BatchLimits,
        *,
        device: str,
        shrunk: Callable[[int, str], None],
    ) -> None:
        self.limits = limits
        self.unfit: list[UnpreparedSample] = []
        self.n_samples = 0
        self.n_tokens = 0
        self._tapped = tapped
        self._features = tuple(features)
        self._device = device
        self._shrunk = shrunk
        self._n_unfit_in_a_row = 0

    def run(self, windows: Iterable[Sequence[PreparedSample]]) -> Iterator[CapturedBatch]:
        """Capture samples, each once, in batches of like length.

        Where the device works on beside the host, a batch is waited for only when the next one has been launched.

        Parameters
        ----------
        windows
            Samples that may go through the model together. An empty one says that there are none at the moment: what
            was launched is waited for then.

        Raises
        ------
        NaitStoreError
            Many samples in a row do not fit into memory even alone.
        """
        launched: _Launched | None = None
        for window in windows:
            waiting = self.plan(window)
            if not waiting and launched is not None:
                yield self._finished(launched)
                launched = None
            while waiting:
                batch = waiting.pop()
                following = self._launch(batch)
                if launched is not None:
                    yield self._finished(launched)
                    launched = None
                    if isinstance(following, str):  # what that batch took is free now
                        following = self._launch(batch)
                if isinstance(following, str):
                    self._meet_shortage(batch, following)
                    if len(batch) > 1:
                        waiting = self.plan([sample for other in [batch, *reversed(waiting)] for sample in other])
                    continue
                self._n_unfit_in_a_row = 0
                if self._tapped.overlaps:
                    launched = following
                else:
                    yield self._finished(following)
        if launched is not None:
            yield self._finished(launched)

    def plan(self, samples: Sequence[PreparedSample]) -> list[list[PreparedSample]]:
        """Plan batches within the limits of now, the first one last."""
        planned = plan_batches([sample.n_tokens for sample in samples], self.limits)
        return [[samples[index] for index in batch] for batch in reversed(planned)]

    def try_out(self, n_tokens: int, *, vocabulary_size: int, sample_tokens: int) -> None:
        """Run one made-up batch, for the time and the memory that it takes.

        Parameters
        ----------
        n_tokens
            Of the batch.
        vocabulary_size
            Token ids are below it.
        sample_tokens
            Longest sample.
        """
        length = min(TRIAL_SAMPLE_TOKENS, sample_tokens, n_tokens)
        n_samples = n_tokens // length
        tokens = np.random.default_rng(0).integers(0, vocabulary_size, (n_samples, length), dtype=np.int32)
        contents = [((0, length),)] * n_samples
        self._tapped.capture(self.limits.layout, list(tokens), contents, self._features)

    def _finished(self, launched: _Launched) -> CapturedBatch:
        """Wait for a batch."""
        n_tokens = sum(sample.n_tokens for sample in launched.samples)
        features = launched.features.wait()
        if launched.features.infected:
            features = self._one_by_one(launched.samples, features)
        captured = CapturedBatch(launched.samples, features, n_tokens)
        self.n_samples += len(launched.samples)
        self.n_tokens += n_tokens
        return captured

    def _one_by_one(
        self, samples: Sequence[PreparedSample], together: dict[Feature, NDArray[np.float32]]
    ) -> dict[Feature, NDArray[np.float32]]:
        """Capture a batch's samples alone; what does not fit into memory now stays what it was together."""
        apart = {feature: values.copy() for feature, values in together.items()}
        for row, sample in enumerate(samples):
            launched = self._launch([sample])
            if not isinstance(launched, str):
                for feature, values in launched.features.wait().items():
                    apart[feature][row] = values[0]
        return apart

    def _launch(self, batch: list[PreparedSample]) -> _Launched | str:
        """Launch one batch; returns the allocator's words where the memory does not hold it."""
        try:
            return _Launched(
                batch,
                self._tapped.launch(
                    self.limits.layout,
                    [sample.token_ids for sample in batch],
                    [sample.content for sample in batch],
                    self._features,
                ),
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0] or type(error).__name__
        # Outside of the handler: the error's traceback keeps the tensors of the failed pass alive.
        release_memory(self._device)
        return message

    def _meet_shortage(self, batch: Sequence[PreparedSample], message: str) -> None:
        """Lower the limits after a batch that the memory does not hold, or leave its one sample out."""
        if len(batch) == 1:
            self._leave_out(batch[0], message)
            return
        n_tokens = sum(sample.n_tokens for sample in batch)
        budget = max(1, min(self.limits.token_budget, n_tokens) // 2)
        self.limits = replace(self.limits, token_budget=budget, max_samples=max(1, len(batch) // 2))
        self._shrunk(
            budget, f"a batch of {n_tokens:,} tokens did not fit into memory: the token budget is now {budget:,}"
        )

    def _leave_out(self, sample: PreparedSample, message: str) -> None:
        reason = f"its {sample.n_tokens:,} tokens are too much for the memory of {self._device}: {message}"
        self._n_unfit_in_a_row += 1
        advice = "lower --max-length, capture fewer --layers, or load the model with --compute-dtype bfloat16"
        if self._n_unfit_in_a_row >= _HOPELESS:
            raise NaitStoreError(
                f"{_HOPELESS} samples in a row did not fit into memory, even alone; the last: {reason}",
                next_step=f"see what else takes the memory; or {advice}",
            )
        self.unfit.append(UnpreparedSample(sample.sample, reason))
