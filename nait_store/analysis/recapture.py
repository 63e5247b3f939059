"""Some samples of a set captured again: alone, together, and in mixed company, beside what is stored of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.activations.stored_values import decode, encode, overflow_of
from nait_store.activations.tolerances import capture_tolerance, computing_tolerance, relative_errors
from nait_store.capture.recalled_samples import RECALLED_COLUMNS, RecalledSamples
from nait_store.capture.rendering import PreparedSample
from nait_store.errors import InvalidInputError, NaitStoreError
from nait_store.progress import ProgressEvent, ProgressListener
from nait_store.registry.in_domain import ChosenRows
from nait_store.schemas.capture import MEASURED_FEATURES, Feature

if TYPE_CHECKING:
    from nait_store.capture.conversations import Sample
    from nait_store.capture.session import CaptureSession

Features = dict[Feature, NDArray[np.float32]]
"""Feature → [n, L, J]."""

ALONE, TOGETHER, MIXED = "alone", "together", "mixed"
_MIXED_SAMPLES = 4


@dataclass(frozen=True)
class Disagreement:
    """The largest difference between two captures of the same samples.

    Attributes
    ----------
    error
        ‖a − b‖ / ‖a‖ of one sample's vector in one layer.
    sample_id, layer, feature
        Where it is.
    """

    error: float
    sample_id: str
    layer: int
    feature: str


@dataclass(frozen=True)
class BatchSpotCheck:
    """What the company of a sample in its batch does to its numbers.

    Attributes
    ----------
    n_samples
        Samples that were captured again.
    n_other_tokens
        Samples that have other tokens now than when they were captured.
    layout
        How batches are laid out, ``packed`` …; in ``single`` ones there is no company.
    from_stored
        Composition → its largest difference from the stored numbers, rounded as these are; empty where the set stores
        no activations.
    stored_tolerance
        What dtypes of computing and storing may bring about.
    from_alone
        Composition → its largest difference from each sample alone.
    computing_tolerance
        What the dtype of computing may bring about.
    """

    n_samples: int
    n_other_tokens: int
    layout: str
    from_stored: dict[str, Disagreement]
    stored_tolerance: float
    from_alone: dict[str, Disagreement]
    computing_tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether everything is within its tolerance, and made of the same tokens."""
        near = all(one.error <= self.stored_tolerance for one in self.from_stored.values())
        alike = all(one.error <= self.computing_tolerance for one in self.from_alone.values())
        return near and alike and not self.n_other_tokens


@dataclass(frozen=True, eq=False)
class Recaptured:
    """Samples that went through the model again.

    Attributes
    ----------
    rows
        Which they are.
    samples
        n of them, as the store recalls them, in the order of the rows.
    prepared
        Their tokens.
    alone
        All three features of each, captured in a batch of its own.
    layers
        Of axis 1.
    check
        What other batches give.
    """

    rows: ChosenRows = field(repr=False)
    samples: tuple[Sample, ...] = field(repr=False)
    prepared: tuple[PreparedSample, ...] = field(repr=False)
    alone: Features = field(repr=False)
    layers: tuple[int, ...]
    check: BatchSpotCheck


def recapture(version: SetVersion, rows: ChosenRows, session: CaptureSession, progress: ProgressListener) -> Recaptured:
    """Capture samples again in three compositions of batches, and compare.

    Parameters
    ----------
    version
        The set version.
    rows
        Which of its samples.
    session
        Measures what the set does, all three features of its layers.
    progress
        Hears of the samples, stage ``"capture"``.

    Raises
    ------
    InvalidInputError
        A stored record is not understood any more.
    NaitStoreError
        A sample does not fit into memory, or gives NaN or infinity.
    """
    samples, stored_lengths = _recalled(rows)
    prepared = prepare_all(session, samples)
    lengths = [one.n_tokens for one in prepared]
    by_length = np.argsort(lengths, kind="stable").tolist()
    n_groups = -(-len(prepared) // _MIXED_SAMPLES)
    compositions = {
        TOGETHER: [list(range(len(prepared)))],
        # A short one beside long ones in every group.
        MIXED: [by_length[i::n_groups] for i in range(n_groups)],
    }
    alone = capture_in_groups(session, prepared, [[i] for i in range(len(prepared))])
    ids = [sample.sample_id for sample in samples]
    stored = _stored(version, rows, session.layers)
    from_stored = {ALONE: _largest(stored, _rounded(alone, rows, stored), session.layers, ids)} if stored else {}
    from_alone = {}
    for n_done, (name, groups) in enumerate(compositions.items(), start=2):
        again = capture_in_groups(session, prepared, groups)
        from_alone[name] = _largest(alone, again, session.layers, ids)
        if stored:
            from_stored[name] = _largest(stored, _rounded(again, rows, stored), session.layers, ids)
        progress(ProgressEvent("capture", n_done * len(prepared), (1 + len(compositions)) * len(prepared)))
    check = BatchSpotCheck(
        n_samples=len(samples),
        n_other_tokens=sum(
            (one.n_tokens, one.n_content_tokens) != lengths_then
            for one, lengths_then in zip(prepared, stored_lengths, strict=True)
        ),
        layout=session.environment.batch_layout,
        from_stored=from_stored,
        stored_tolerance=capture_tolerance(version),
        from_alone=from_alone,
        computing_tolerance=computing_tolerance(rows.rows[0][0].record.settings),
    )
    return Recaptured(rows, tuple(samples), tuple(prepared), alone, session.layers, check)


def prepare_all(session: CaptureSession, samples: Sequence[Sample]) -> list[PreparedSample]:
    """Tokenise samples that were once captured; InvalidInputError where one gives nothing now."""
    prepared: list[PreparedSample] = []
    for one in session.renderer.prepare(samples):
        if not isinstance(one, PreparedSample):
            raise InvalidInputError(
                f"sample {one.sample.sample_id} was captured, and cannot be any more: {one.reason}",
                next_step="look at the versions of transformers and tokenizers; 'nait-store reproduce' names the files",
            )
        prepared.append(one)
    return prepared


def capture_in_groups(
    session: CaptureSession, prepared: Sequence[PreparedSample], groups: Sequence[Sequence[int]]
) -> Features:
    """Capture samples, each in one of the groups; only those of one group may share a batch.

    Raises
    ------
    NaitStoreError
        A sample does not fit into memory, or gives NaN or infinity.
    """
    places = {id(one): i for i, one in enumerate(prepared)}
    found: Features = {}
    n_found = 0
    for group in groups:
        for batch in session.capture([prepared[i] for i in group]):
            n_found += len(batch.samples)
            rows = [places[id(sample)] for sample in batch.samples]
            for feature, values in batch.features.items():
                if feature not in found:
                    found[feature] = np.empty((len(prepared), *values.shape[1:]), dtype=np.float32)
                found[feature][rows] = values
    if n_found < len(prepared):
        reason = session.unfit[-1].reason if session.unfit else "the model gave nothing for a sample"
        raise NaitStoreError(reason, next_step="use another --device")
    if not all(np.isfinite(values).all() for values in found.values()):
        raise NaitStoreError(
            "captured again, a sample gives NaN or infinity, which no set stores", next_step="use another --device"
        )
    return found


def _recalled(rows: ChosenRows) -> tuple[list[Sample], list[tuple[int, int]]]:
    """The samples, and what is stored of their numbers of tokens and of content tokens."""
    recalled = RecalledSamples()
    samples: list[Sample] = []
    lengths: list[tuple[int, int]] = []
    for segment, indices in rows.rows:
        table = segment.samples([*RECALLED_COLUMNS, "n_tokens", "n_content_tokens"]).take(indices)
        for row in table.to_pylist():
            samples.append(recalled.recall(row))
            lengths.append((row["n_tokens"], row["n_content_tokens"]))
    return samples, lengths


def _stored(version: SetVersion, rows: ChosenRows, layers: Sequence[int]) -> Features:
    """What the set stores of the rows; empty for one that keeps no activations."""
    features = [feature for feature in MEASURED_FEATURES if feature in version.features]
    return {feature: np.stack([rows.gather(feature, layer) for layer in layers], axis=1) for feature in features}


def _rounded(captured: Features, rows: ChosenRows, features: Collection[Feature]) -> Features:
    """Captured values of the rows as their segments would store them: rounding is no difference."""
    found: Features = {}
    for feature in features:
        values = np.empty_like(captured[feature])
        start = 0
        for segment, indices in rows.rows:
            stop = start + len(indices)
            dtype = next(array.dtype for array in segment.record.arrays if array.feature is feature)
            most = 0.999 * overflow_of(dtype)  # what did not overflow at the time is not to do so now
            for place in range(values.shape[1]):
                part = np.clip(captured[feature][start:stop, place], -most, most)
                values[start:stop, place] = decode(*encode(part, dtype))
            start = stop
        found[feature] = values
    return found


def _largest(first: Features, second: Features, layers: Sequence[int], ids: Sequence[str]) -> Disagreement:
    """The largest relative error of a vector, over the features of the first of the two."""
    worst: Disagreement | None = None
    for feature, values in first.items():
        for place, layer in enumerate(layers):
            before, after = (one[:, place].astype(np.float64) for one in (values, second[feature]))
            errors = relative_errors(before, after)
            at = int(errors.argmax())
            if worst is None or errors[at] > worst.error:
                worst = Disagreement(float(errors[at]), ids[at], layer, feature.value)
    if worst is None:
        raise ValueError("there is no feature to compare")
    return worst
