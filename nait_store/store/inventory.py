"""What a store's sets hold, in one line and at length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nait_store.activations.versions import SetVersion


@dataclass(frozen=True)
class SetSummary:
    """One line about a version of a set.

    Attributes
    ----------
    reference
        ``pool@3``.
    n_samples
        Visible samples.
    features
        Features that every segment stores.
    n_layers, n_neurons
        L and J of the stored arrays.
    dtypes
        Element types stored.
    size_bytes
        Of its segments, samples included.
    model
        Path or hub id given at ingest.
    hook_point
        Where the neurons were read.
    created_at
        When this version was committed.
    """

    reference: str
    n_samples: int
    features: tuple[str, ...]
    n_layers: int
    n_neurons: int
    dtypes: tuple[str, ...]
    size_bytes: int
    model: str
    hook_point: str
    created_at: datetime


@dataclass(frozen=True)
class SetDetails:
    """Everything to know about a version of a set; what is not explained here is as in :class:`SetSummary`.

    Attributes
    ----------
    versions
        Numbers of all versions of the set.
    layers
        Zero-based decoder layers that every segment stores.
    n_segments, n_rows
        Segments, and their rows: visible samples and hidden repetitions.
    n_tokens, n_truncated
        Over all rows.
    capture_id
        Hash of what is measured.
    fields
        Type of each user field; ``mixed`` where segments disagree.
    projections
        Of a set that keeps no activations: the profiles on which its samples are projected, in the order of the last
        axis, with feature and metric; ``math@1 (mean, cosine)``.
    note
        What is said about the version now; empty for nothing.
    warnings
        What may surprise.
    """

    summary: SetSummary
    versions: tuple[int, ...]
    layers: tuple[int, ...]
    n_segments: int
    n_rows: int
    n_tokens: int
    n_truncated: int
    capture_id: str
    model_type: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    template: str
    span: str
    span_edges: str
    hook_path: str | None
    moe_layout: str | None
    max_length_tokens: tuple[int, ...]
    compute_dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    fields: dict[str, str]
    message: str
    author: str
    warnings: tuple[str, ...]
    projections: tuple[str, ...] = ()
    note: str = ""


def summarise(version: SetVersion) -> SetSummary:
    """Summary of an opened version."""
    records = [segment.record for segment in version.segments]
    return SetSummary(
        reference=version.reference,
        n_samples=version.n_samples,
        features=tuple(feature.value for feature in version.features),
        n_layers=len(version.layers),
        n_neurons=version.record.n_neurons,
        dtypes=_distinct(array.dtype.value for record in records for array in record.arrays),
        size_bytes=sum(record.size_bytes for record in records),
        model=", ".join(_distinct(record.environment.model_label for record in records)),
        hook_point=version.record.identity.hook_point.value,
        created_at=version.manifest.provenance.created_at,
    )


def describe(version: SetVersion, numbers: Iterable[int], note: str = "") -> SetDetails:
    """Details of an opened version of a set that has these version numbers, and of the note on it."""
    from nait_store.scoring.stored_targets import describe_projections

    records = [segment.record for segment in version.segments]
    identity = version.record.identity
    fields: dict[str, str] = {}
    for record in records:
        for name, kind in record.user_fields.items():
            fields[name] = kind if fields.get(name, kind) == kind else "mixed"
    lengths = tuple(sorted({record.settings.max_length_tokens for record in records}))
    computed = _distinct(record.settings.compute_dtype for record in records)
    n_rows = sum(record.n_rows for record in records)
    n_truncated = sum(record.n_truncated for record in records)
    warnings = []
    if len(lengths) > 1:
        warnings.append(f"its segments were truncated at different lengths: {', '.join(map(str, lengths))} tokens")
    if len(computed) > 1:
        warnings.append(f"its segments were computed in different dtypes: {', '.join(computed)}")
    if n_truncated * 20 > n_rows:
        warnings.append(f"{n_truncated:,} of {n_rows:,} samples were truncated: consider --max-length")
    return SetDetails(
        projections=tuple(describe_projections([one]) for one in version.record.projections),
        summary=summarise(version),
        note=note,
        versions=tuple(numbers),
        layers=tuple(version.layers),
        n_segments=len(records),
        n_rows=n_rows,
        n_tokens=sum(record.n_tokens for record in records),
        n_truncated=n_truncated,
        capture_id=version.record.capture_id,
        model_type=", ".join(_distinct(record.environment.model_type for record in records)),
        model_fingerprint=identity.model_fingerprint,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        template=identity.template.name,
        span=identity.span.value,
        span_edges=identity.span_edges.value,
        hook_path=identity.hook_path,
        moe_layout=identity.moe_layout,
        max_length_tokens=lengths,
        compute_dtypes=computed,
        devices=_distinct(record.environment.device for record in records),
        fields=fields,
        message=version.manifest.message,
        author=version.manifest.provenance.author,
        warnings=tuple(warnings),
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
