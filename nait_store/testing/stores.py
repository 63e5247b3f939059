"""Small synthetic sets with random activations, written fast and without a model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.versions import ActivationSets, SetVersion
from nait_store.activations.writer import SegmentWriter
from nait_store.schemas.activation_set import SegmentRecord, SetRecord
from nait_store.schemas.capture import (
    CaptureEnvironment,
    CaptureIdentity,
    CaptureSettings,
    Feature,
    HookPoint,
    Span,
    SpanEdges,
    StoredDtype,
    TemplatePolicy,
)
from nait_store.schemas.record import json_digest
from nait_store.schemas.samples import SampleRow
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid

SETTINGS = CaptureSettings(max_length_tokens=128, compute_dtype="float32")
ENVIRONMENT = CaptureEnvironment(
    model_source="./fake-model",
    model_type="fake",
    n_parameters=1000,
    device="cpu",
    batch_layout="single",
    token_budget=1024,
    torch_version="0",
    transformers_version="0",
)
_APPEND_ROWS = 1024


def fake_identity(model: str = "fake-model", *, hook_point: HookPoint = HookPoint.MLP) -> CaptureIdentity:
    """Capture identity of a model that does not exist; another name is another identity."""
    return CaptureIdentity(
        model_fingerprint=json_digest(["model", model]),
        tokenizer_fingerprint=json_digest("tokenizer"),
        template=TemplatePolicy(name="plain", sha256=json_digest("template")),
        span=Span.ALL,
        span_edges=SpanEdges.CONTENT,
        hook_point=hook_point,
    )


def fake_set_record(
    name: str, *, identity: CaptureIdentity | None = None, n_layers: int = 2, n_neurons: int = 8
) -> SetRecord:
    """``set.json`` of a synthetic set."""
    identity = identity or fake_identity()
    return SetRecord(
        name=name,
        capture_id=identity.capture_id,
        identity=identity,
        n_neurons=n_neurons,
        n_model_layers=n_layers,
        provenance=current_provenance(),
    )


def fake_row(sample_id: str, index: int = 0, fields: Mapping[str, Any] | None = None) -> SampleRow:
    """A sample row whose content is a function of ``sample_id`` and ``fields``."""
    values = {"instruction": f"do {sample_id}", "output": f"done {sample_id}"} if fields is None else dict(fields)
    return SampleRow(
        sample_id=sample_id,
        content_hash=json_digest([sample_id, values]),
        source_uri="memory:synthetic.jsonl",
        source_index=index,
        n_tokens=7 + index % 5,
        n_content_tokens=4 + index % 5,
        truncated=index % 11 == 0,
        record=json.dumps(values, sort_keys=True, ensure_ascii=False),
        fields=values,
    )


def build_segment(
    location: Location,
    name: str,
    rows: Sequence[SampleRow],
    features: Mapping[Feature, NDArray[np.float32]],
    *,
    identity: CaptureIdentity | None = None,
    layers: Sequence[int] | None = None,
    dtype: StoredDtype = StoredDtype.FLOAT16,
    chunk_rows: int | None = None,
) -> SegmentRecord:
    """Write one segment from arrays [n, L, J]; nothing is committed."""
    first = next(iter(features.values()))
    writer = SegmentWriter(
        location,
        name,
        identity=identity or fake_identity(),
        layers=range(first.shape[1]) if layers is None else layers,
        n_neurons=first.shape[2],
        features=list(features),
        dtype=dtype,
        settings=SETTINGS,
        environment=ENVIRONMENT,
        expected_rows=len(rows),
        chunk_rows=chunk_rows,
    )
    for start in range(0, len(rows), _APPEND_ROWS):
        part = slice(start, start + _APPEND_ROWS)
        rejected = writer.append(rows[part], {f: a[part] for f, a in features.items()})
        if rejected:
            raise ValueError(f"synthetic activations were rejected: {rejected[0].reason}")
    record = writer.close()
    if record is None:
        raise ValueError("a segment needs at least one row")
    return record


def build_set(
    location: Location,
    name: str,
    n: int,
    n_layers: int = 2,
    n_neurons: int = 8,
    features: Sequence[Feature] = (Feature.MEAN,),
    seed: int = 0,
    *,
    n_segments: int = 1,
    first: int = 0,
    user_fields: Mapping[str, Sequence[Any]] | None = None,
    mean: NDArray[np.float32] | None = None,
    identity: CaptureIdentity | None = None,
    dtype: StoredDtype = StoredDtype.FLOAT16,
    chunk_rows: int | None = None,
) -> SetVersion:
    """Write and commit ``n`` synthetic samples as one new version.

    Parameters
    ----------
    location
        The store's root.
    name
        The set; created where it does not exist.
    n, n_segments
        Samples, and how many segments share them evenly.
    n_layers, n_neurons, features, dtype, chunk_rows
        Geometry of the arrays.
    seed
        Of the random activations.
    first
        Number of the first sample: ids are ``s000000`` onwards.
    user_fields
        Column name → ``n`` values, beside ``instruction`` and ``output``.
    mean
        Added to the standard normal activations; shape broadcasts to [L, J].
    identity
        Capture identity, :func:`fake_identity` if omitted.

    Returns
    -------
    SetVersion
        The committed version.
    """
    sets = ActivationSets(location)
    sets.create(fake_set_record(name, identity=identity, n_layers=n_layers, n_neurons=n_neurons))
    rng = np.random.default_rng(seed)
    records = []
    bounds = np.linspace(0, n, n_segments + 1).astype(int).tolist()
    for begin, end in itertools.pairwise(bounds):
        rows = []
        for i in range(begin, end):
            sample_id = f"s{first + i:06d}"
            values = {"instruction": f"do {sample_id}", "output": f"done {sample_id}"}
            values.update({field: column[i] for field, column in (user_fields or {}).items()})
            rows.append(fake_row(sample_id, first + i, values))
        arrays = {}
        for feature in features:
            array = rng.standard_normal((end - begin, n_layers, n_neurons), dtype=np.float32)
            arrays[Feature(feature)] = array if mean is None else array + mean
        records.append(
            build_segment(location, name, rows, arrays, identity=identity, dtype=dtype, chunk_rows=chunk_rows)
        )
    return sets.commit(name, records, ingest_ids=(new_ulid(),), message="synthetic")
