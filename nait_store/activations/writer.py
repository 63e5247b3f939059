"""Writing a segment: one Zarr group, one Parquet of sample rows, and the record that says it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.chunks import (
    DATA_FOLDER,
    SAMPLES_FILE,
    SEGMENT_FILE,
    chunk_path,
    chunk_rows_for,
    norms_path,
    numpy_dtype,
    row_bytes,
    scales_path,
    segment_metadata,
)
from nait_store.activations.encoding import encode_layers
from nait_store.activations.sample_rows import samples_parquet
from nait_store.activations.stored_blocks import BlockListener, StoredBlock
from nait_store.activations.stored_values import encode, largest_magnitude, largest_scaled, overflow_of
from nait_store.errors import ConflictError, InvalidInputError
from nait_store.schemas.activation_set import FeatureArray, Projection, SegmentRecord
from nait_store.schemas.capture import CaptureEnvironment, CaptureIdentity, CaptureSettings, Feature, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.schemas.samples import SampleRow
from nait_store.schemas.store_record import DTYPES_FEATURE, PROJECTIONS_FEATURE
from nait_store.storage import layout
from nait_store.storage.digests import write_payload_file, write_payload_files
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.store_features import announce_feature


@dataclass(frozen=True)
class RejectedSample:
    """A sample whose activations cannot be stored.

    Attributes
    ----------
    sample_id, source_uri, source_index
        Which sample, and where it was read.
    reason
        Why, in words.
    """

    sample_id: str
    source_uri: str
    source_index: int
    reason: str


class SegmentWriter:
    """Writes one segment, chunk by chunk, in memory that does not depend on the number of samples.

    Activations gather layer-major in one buffer [L, chunk_rows, J] per feature, so that each chunk (rows, 1, J) is
    contiguous and goes to disk as it lies in memory. Nothing refers to the segment until ``segment.json`` is there,
    which :meth:`close` writes last.

    Parameters
    ----------
    location
        The store's root.
    set_name
        Set that the segment belongs to.
    identity, settings, environment
        What was measured, and how.
    layers
        Zero-based decoder layers, ascending; axis 1 of the arrays.
    n_neurons
        J, axis 2.
    features
        Features that every :meth:`append` brings.
    dtype
        Stored element type.
    expected_rows
        Rows that will probably come, to choose the chunk grid.
    chunk_rows
        Rows of a chunk where the choice shall not be made here.
    listener
        Shown every block of rows after it was written.
    projections
        What the last axis is, where the feature is ``projections``.

    Attributes
    ----------
    segment_id
        Fresh ULID.
    """

    def __init__(
        self,
        location: Location,
        set_name: str,
        *,
        identity: CaptureIdentity,
        layers: Sequence[int],
        n_neurons: int,
        features: Sequence[Feature],
        dtype: StoredDtype,
        settings: CaptureSettings,
        environment: CaptureEnvironment,
        expected_rows: int | None = None,
        chunk_rows: int | None = None,
        listener: BlockListener | None = None,
        projections: Sequence[Projection] = (),
    ) -> None:
        if not features or not layers or list(layers) != sorted(set(layers)):
            raise InvalidInputError("a segment needs at least one feature, and ascending layers without repetition")
        self.segment_id = new_ulid()
        self._location = location
        self._set_name = set_name
        self._identity = identity
        self._settings = settings
        self._environment = environment
        self._layers = tuple(layers)
        self._n_neurons = n_neurons
        self._features = tuple(features)
        self._dtype = StoredDtype(dtype)
        self._listener = listener
        self._projections = tuple(projections)
        self._chunk_rows = chunk_rows or chunk_rows_for(n_neurons, self._dtype, expected_rows)
        self._folder = layout.segment_folder(set_name, self.segment_id)
        shape = (len(self._layers), self._chunk_rows, n_neurons)
        # [L, chunk_rows, J] each; untouched pages of an empty array cost nothing
        self._buffers = {f: np.empty(shape, numpy_dtype(self._dtype)) for f in self._features}
        self._norms: dict[Feature, list[NDArray[np.float32]]] = {f: [] for f in self._features}
        self._scales: dict[Feature, list[NDArray[np.float32]]] = {f: [] for f in self._features}
        self._max_abs = dict.fromkeys(self._features, 0.0)
        self._rows: list[SampleRow] = []
        self._n_text_bytes = 0
        self._files: list[FileDigest] = []
        self._began = False

    @property
    def n_rows(self) -> int:
        """Rows accepted so far."""
        return len(self._rows)

    @property
    def chunk_rows(self) -> int:
        """Rows of a full chunk."""
        return self._chunk_rows

    @property
    def size_bytes(self) -> int:
        """Bytes accepted so far: activations, norms and the text of the samples."""
        per_row = len(self._features) * len(self._layers) * row_bytes(self._n_neurons, self._dtype)
        return self.n_rows * per_row + self._n_text_bytes

    @property
    def text_bytes(self) -> int:
        """About the bytes of the sample rows, which stay in memory until :meth:`close`."""
        return self._n_text_bytes

    @property
    def n_buffered_rows(self) -> int:
        """Rows that are not on disk yet; 0 right after a chunk was filled."""
        return self.n_rows % self._chunk_rows

    def append(
        self, rows: Sequence[SampleRow], features: Mapping[Feature, NDArray[np.float32]]
    ) -> list[RejectedSample]:
        """Add samples with their activations.

        Parameters
        ----------
        rows
            S samples.
        features
            Every feature of the segment as a float32 array [S, L, J].

        Returns
        -------
        list of RejectedSample
            Samples with NaN, infinity, or values too large for the stored type; the others are kept.

        Raises
        ------
        InvalidInputError
            A feature is missing or its array has another shape.
        StorageError
            A full chunk could not be written.
        """
        expected = (len(rows), len(self._layers), self._n_neurons)
        for feature in self._features:
            shape = features[feature].shape if feature in features else None
            if shape != expected:
                raise InvalidInputError(f"feature {feature.value!r} has shape {shape}, expected {expected}")
        if not rows:
            return []
        rejected, kept = self._check(rows, features)
        start = 0
        while start < len(kept):
            room = self._chunk_rows - self.n_rows % self._chunk_rows
            part = kept[start : start + room]
            self._buffer(part, [rows[i] for i in part], features)
            start += len(part)
            if self.n_rows % self._chunk_rows == 0:
                self._write_block(self.n_rows // self._chunk_rows - 1)
        return rejected

    def close(self) -> SegmentRecord | None:
        """Write what is left and the record, and return it; None, leaving nothing behind, where no row was accepted.

        Raises
        ------
        StorageError
            Something could not be written.
        ConflictError
            Its beginning was taken by gc meanwhile.
        """
        if not self._rows:
            self.discard()
            return None
        self._write_rest()
        self._write_per_row()
        for path, document in self._metadata().items():
            self._write(f"{DATA_FOLDER}/{path}", document)
        parquet, user_fields = samples_parquet(self._rows)
        self._write(SAMPLES_FILE, parquet)
        record = SegmentRecord(
            segment_id=self.segment_id,
            set_name=self._set_name,
            capture_id=self._identity.capture_id,
            n_rows=self.n_rows,
            layers=self._layers,
            n_neurons=self._n_neurons,
            arrays=tuple(
                FeatureArray(feature=f, dtype=self._dtype, chunk_rows=self._chunk_rows, max_abs=self._max_abs[f])
                for f in self._features
            ),
            user_fields=user_fields,
            files=tuple(sorted(self._files, key=lambda file: file.path)),
            settings=self._settings,
            environment=self._environment,
            n_tokens=sum(row.n_tokens for row in self._rows),
            n_truncated=sum(row.truncated for row in self._rows),
            projections=self._projections,
            provenance=current_provenance(),
        )
        self._location.create_bytes(f"{self._folder}/{SEGMENT_FILE}", record.to_json_bytes())
        self._buffers = {}
        self._require_beginning()
        return record

    def _require_beginning(self) -> None:
        """A machine that slept for days wakes up to find that gc took its first chunks for what a crash had left."""
        first = f"{self._folder}/{self._files[0].path}"
        if not self._location.is_file(first):
            raise ConflictError(
                f"{self._location.url_of(first)} was taken while its segment was being written",
                next_step="run the same command again: its samples are captured anew",
            )

    def discard(self) -> None:
        """Delete whatever was written; the writer cannot be used afterwards."""
        self._buffers = {}
        if self._began:
            self._location.delete(self._folder)

    def _check(
        self, rows: Sequence[SampleRow], features: Mapping[Feature, NDArray[np.float32]]
    ) -> tuple[list[RejectedSample], NDArray[np.intp]]:
        limit = overflow_of(self._dtype)
        good = np.ones(len(rows), dtype=bool)
        peaks = {}
        for feature in self._features:
            array = features[feature]
            # [S]; NaN wins in max() and in maximum(), so one comparison finds NaN, infinity and overflow alike
            peaks[feature] = np.maximum(array.max(axis=(1, 2)), -array.min(axis=(1, 2)))
            good &= peaks[feature] < limit
        rejected = [
            RejectedSample(rows[i].sample_id, rows[i].source_uri, rows[i].source_index, self._reason(i, peaks))
            for i in np.flatnonzero(~good).tolist()
        ]
        for feature, peak in peaks.items():
            if good.any():
                self._max_abs[feature] = max(self._max_abs[feature], self._rounded(peak[good].max()))
        return rejected, np.flatnonzero(good)

    def _rounded(self, peak: np.float32) -> float:
        """The largest magnitude that is stored where this one came."""
        stored, scales = encode(peak.reshape(1, 1), self._dtype)
        return largest_magnitude(stored) if scales is None else largest_scaled(scales)

    def _reason(self, i: int, peaks: Mapping[Feature, NDArray[np.float32]]) -> str:
        for feature, peak in peaks.items():
            if np.isnan(peak[i]):
                return f"NaN in feature {feature.value!r}"
            if np.isinf(peak[i]):
                return f"infinity in feature {feature.value!r}"
            if peak[i] >= overflow_of(self._dtype):
                return (
                    f"feature {feature.value!r} reaches {peak[i]:.4g}, beyond the range of {self._dtype.value}; "
                    f"--dtype {'bfloat16' if self._dtype is StoredDtype.FLOAT16 else 'float32'} holds it"
                )
        raise AssertionError("unreachable: only rejected samples have a reason")

    def _buffer(
        self, indices: NDArray[np.intp], rows: list[SampleRow], features: Mapping[Feature, NDArray[np.float32]]
    ) -> None:
        begin = self.n_rows % self._chunk_rows
        end = begin + len(indices)
        whole = bool(len(indices) == indices[-1] - indices[0] + 1)
        selector: Any = slice(int(indices[0]), int(indices[-1]) + 1) if whole else indices
        for feature in self._features:
            norms, factors = encode_layers(
                features[feature], selector, self._dtype, self._buffers[feature][:, begin:end]
            )
            self._norms[feature].append(norms)
            if factors is not None:
                self._scales[feature].append(factors)
        self._rows.extend(rows)
        self._n_text_bytes += sum(2 * len(row.record) for row in rows)

    def _write_block(self, block: int) -> None:
        for feature in self._features:
            self._write_chunks(feature, block)
            self._show(feature, self._chunk_rows)

    def _write_rest(self) -> None:
        rest = self.n_rows % self._chunk_rows
        if not rest:
            return
        block = self.n_rows // self._chunk_rows
        if block == 0:
            self._chunk_rows = rest  # never larger than the segment
        for feature in self._features:
            self._buffers[feature][:, rest:] = 0
            self._write_chunks(feature, block)
            self._show(feature, rest)

    def _write_chunks(self, feature: Feature, block: int) -> None:
        """Write a block of rows, one chunk for each layer."""
        self._announce()
        buffer = self._buffers[feature]
        chunks = [(chunk_path(feature, block, i), buffer[i, : self._chunk_rows].data) for i in range(len(self._layers))]
        self._files += write_payload_files(self._location, self._folder, chunks)

    def _show(self, feature: Feature, n_rows: int) -> None:
        """Show the listener the block that is in the buffer."""
        if self._listener is None:
            return
        scales = self._scales[feature]
        block = StoredBlock(
            feature,
            self._layers,
            self._buffers[feature][:, :n_rows],
            _last_rows(self._norms[feature], n_rows),
            _last_rows(scales, n_rows) if scales else None,
        )
        self._listener.block_written(block)

    def _write_per_row(self) -> None:
        for feature in self._features:
            self._write(norms_path(feature), np.concatenate(self._norms[feature]).data)
            if self._scales[feature]:
                self._write(scales_path(feature), np.concatenate(self._scales[feature]).data)

    def _metadata(self) -> dict[str, bytes]:
        return segment_metadata(
            self.segment_id,
            self.n_rows,
            self._layers,
            self._n_neurons,
            [(feature, self._dtype, self._chunk_rows) for feature in self._features],
            capture_id=self._identity.capture_id,
            hook_point=self._identity.hook_point,
            model=self._environment.model_label,
        )

    def _write(self, path: str, data: bytes | memoryview) -> None:
        self._announce()
        self._files.append(write_payload_file(self._location, self._folder, path, data))

    def _announce(self) -> None:
        """Have the store say which features its readers need, before the first file."""
        if not self._began and self._dtype.is_coded:
            announce_feature(self._location, DTYPES_FEATURE)
        if not self._began and self._projections:
            announce_feature(self._location, PROJECTIONS_FEATURE)
        self._began = True


def _last_rows(parts: Sequence[NDArray[np.float32]], n_rows: int) -> NDArray[np.float32]:
    """The last rows of arrays [n, L] that follow each other."""
    first = len(parts)
    missing = n_rows
    while missing > 0:
        first -= 1
        missing -= len(parts[first])
    return np.concatenate(parts[first:])[-missing:]
