"""Before an ingest writes anything: how much space it takes, and in which dtype."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np

from nait_store.activations.chunks import row_bytes
from nait_store.capture.readers import count_records
from nait_store.errors import StorageError
from nait_store.ingest.capture_source import Captured, CaptureSource
from nait_store.ingest.requests import IngestEstimate, IngestRequest
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.storage.location import Location

PROBE_SAMPLES = 256
_PROBE_BYTES = 256 << 20
_PROBE_SECONDS = 30.0
FLOAT16_HEADROOM = 65504.0 / 16
_TEXT_BYTES = 2048  # what a sample's row in samples.parquet takes, roughly


def estimate_size(
    location: Location, capture: CaptureSource, request: IngestRequest, uris: Sequence[str]
) -> IngestEstimate:
    """Say what an ingest will write, as far as can be told before it reads.

    Parameters
    ----------
    location
        The store's root.
    capture
        What will be measured.
    request
        What to ingest.
    uris
        Its sources, found.
    """
    counts = [count_records(uri) for uri in uris] if request.given is None else [request.given.n_samples]
    n_records = None if None in counts else sum(cast(Sequence[int], counts))
    if n_records is not None and request.limit is not None:
        n_records = min(n_records, request.limit)
    dtype = request.dtype or StoredDtype.FLOAT16  # where the probe has yet to decide: bfloat16 takes the same
    sample_bytes = len(request.features) * len(capture.layers) * row_bytes(capture.n_neurons, dtype)
    expected_bytes = None if n_records is None else n_records * (sample_bytes + _TEXT_BYTES)
    return IngestEstimate(n_records, sample_bytes, expected_bytes, location.free_bytes())


def require_space(estimate: IngestEstimate, n_known: int, url: str) -> None:
    """Refuse an ingest that the disk certainly cannot hold.

    Parameters
    ----------
    estimate
        What is expected.
    n_known
        Samples that the set holds: all of them may be in the input, so only what goes beyond is certain.
    url
        The store, for the message.

    Raises
    ------
    StorageError
        With the sizes.
    """
    if estimate.n_records is None or estimate.free_bytes is None:
        return
    n_new = max(0, estimate.n_records - n_known)
    certain_bytes = n_new * estimate.sample_bytes
    if certain_bytes > estimate.free_bytes:
        raise StorageError(
            f"{n_new:,} samples of {estimate.sample_bytes / 2**20:,.2f} MiB take about {certain_bytes / 1e9:,.1f} GB, "
            f"and {url} has {estimate.free_bytes / 1e9:,.1f} GB free",
            next_step="free some space, use a store elsewhere, or store less: --limit, --layers, fewer --features",
        )


def hold_back(batches: Iterator[Captured]) -> tuple[list[Captured], bool]:
    """Take the batches that decide the dtype: 256 samples, or what 256 MiB or 30 seconds give.

    Returns
    -------
    held, interrupted
        The batches, and whether Ctrl-C came meanwhile; what was captured by then is worth keeping.
    """
    held: list[Captured] = []
    n_samples = n_bytes = 0
    began = time.monotonic()
    try:
        for batch in batches:
            held.append(batch)
            n_samples += len(batch.samples)
            n_bytes += sum(array.nbytes for array in batch.features.values())
            waited_seconds = time.monotonic() - began
            if n_samples >= PROBE_SAMPLES or n_bytes >= _PROBE_BYTES or waited_seconds >= _PROBE_SECONDS:
                break
    except KeyboardInterrupt:
        return held, True
    return held, False


def draining(held: list[Captured], batches: Iterable[Captured]) -> Iterator[Captured]:
    """Yield the held batches, letting go of each, then the others."""
    held.reverse()
    while held:
        yield held.pop()
    yield from batches


def choose_dtype(held: Sequence[Captured], features: Sequence[Feature]) -> tuple[StoredDtype, str | None]:
    """Choose float16 unless the first samples come within a factor of 16 of its range.

    Returns
    -------
    dtype, warning
        bfloat16 comes with a warning that says why.
    """
    peak = 0.0
    for batch in held:
        for feature in features:
            array = batch.features[feature]  # [S, L, J]
            peaks = np.maximum(array.max(axis=(1, 2)), -array.min(axis=(1, 2)))
            peak = max(peak, float(np.max(peaks, where=np.isfinite(peaks), initial=0.0)))
    if peak <= FLOAT16_HEADROOM:
        return StoredDtype.FLOAT16, None
    return StoredDtype.BFLOAT16, (
        f"activations reach {peak:,.0f}, within a factor of 16 of the largest float16: they are stored as bfloat16, "
        "which has room for them and three bits less of precision; --dtype float32 keeps all of it in twice the space"
    )
