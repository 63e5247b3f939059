"""What a set version says of each sample, as one digest: equal before and after whatever must not change it."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from nait_store.activations.set_version import SetVersion
from nait_store.schemas.samples import SAMPLE_FIELDS


def sample_digests(version: SetVersion) -> dict[str, str]:
    """SHA-256 of each visible sample: stored numbers of every feature and layer, norms, and sample row.

    User fields are left out, because their types depend on the segment that a sample lies in; they are made from
    ``record``, which is in. Samples come in (ordinal, row) order. Reads one segment at a time into memory.
    """
    columns = [field.name for field in SAMPLE_FIELDS if field.name != "row_index"]
    digests: dict[str, str] = {}
    for segment in version.segments:
        visible = version.visible_rows(segment)
        rows = np.arange(segment.n_rows) if visible is None else np.flatnonzero(visible)
        arrays = [
            array
            for feature in sorted(segment.features)
            for array in (segment.read(feature), np.ascontiguousarray(segment.norms(feature)))
        ]
        samples = segment.samples(columns).to_pylist()
        for row in rows.tolist():
            digest = hashlib.sha256(json.dumps(samples[row], sort_keys=True).encode())
            for array in arrays:
                digest.update(f"{array.dtype.str}{array.shape[1:]}".encode())
                digest.update(array[row].tobytes())
            sample_id = samples[row]["sample_id"]
            if sample_id in digests:
                raise ValueError(f"sample {sample_id!r} is twice in {version.reference}")
            digests[sample_id] = digest.hexdigest()
    return digests
