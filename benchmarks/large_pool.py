"""A set of millions of samples of the size of instruction data, with tiny activations, written column by column.

`SegmentWriter` takes one Python object a sample, which costs a minute a million. This writes the same files from
Arrow columns; a test runs the full `verify` over them. The texts repeat, the ids and the numbers before them do not.
"""

from __future__ import annotations

import functools
import itertools
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nait_store.activations.chunks import (
    DATA_FOLDER,
    SAMPLES_FILE,
    SEGMENT_FILE,
    chunk_path,
    chunk_rows_for,
    norms_path,
    segment_metadata,
)
from nait_store.activations.set_version import SetVersion
from nait_store.activations.stored_values import largest_magnitude, row_norms
from nait_store.activations.versions import ActivationSets
from nait_store.schemas.activation_set import FeatureArray, SegmentRecord
from nait_store.schemas.capture import Feature, StoredDtype
from nait_store.schemas.record import FileDigest
from nait_store.schemas.samples import FieldType, samples_schema
from nait_store.storage import layout
from nait_store.storage.digests import HashedFile, write_payload_file
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.testing.stores import ENVIRONMENT, SETTINGS, fake_identity, fake_set_record

N_LAYERS, N_NEURONS = 1, 8
BYTES_PER_ROW = 300
"""About what a sample takes on the disk."""

_ROW_GROUP_ROWS = 8192  # as SegmentWriter's
_BATCH_ROWS = 16 * _ROW_GROUP_ROWS
FIELDS: dict[str, FieldType] = {"instruction": "string", "output": "string", "source": "string"}
SOURCES = ("alpaca", "code", "orca", "dolly")
"""Of the samples, in turn."""
_TEXT = (
    "name the largest river of a country explain why leaves fall write short poem about rain sort these numbers "
    "translate sentence into French give three reasons compare two cities describe how engine works summarise text"
)
_LENGTHS_WORDS = range(5, 80)
_INSTRUCTION_WORDS = 20


class Samples(Protocol):
    """Makes rows of ``samples.parquet``, and activations that have to do with them."""

    def relate(self, A: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Change activations [n, L, J] of the samples of these numbers that are not to be by chance alone."""

    def rows(self, first_index: int, numbers: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """Rows for the samples of these numbers, the first of which stands at ``first_index``."""


def build_pool(
    location: Location,
    name: str,
    n_rows: int,
    n_segments: int,
    seed: int = 0,
    *,
    n_neurons: int = N_NEURONS,
    samples: Samples | None = None,
) -> SetVersion:
    """Write and commit ``n_rows`` samples in ``n_segments`` segments of about the same length.

    Their texts repeat each other, unless ``samples`` makes the rows.
    """
    samples = _texts() if samples is None else samples
    sets = ActivationSets(location)
    sets.create(fake_set_record(name, n_layers=N_LAYERS, n_neurons=n_neurons))
    rng = np.random.default_rng(seed)
    bounds = np.linspace(0, n_rows, n_segments + 1).astype(int).tolist()
    records = [
        _write_segment(location, name, begin, end, rng, n_neurons, samples) for begin, end in itertools.pairwise(bounds)
    ]
    return sets.commit(name, records, ingest_ids=())


def _write_segment(
    location: Location, name: str, begin: int, end: int, rng: np.random.Generator, n_neurons: int, samples: Samples
) -> SegmentRecord:
    segment_id = new_ulid()
    folder = layout.segment_folder(name, segment_id)
    A = rng.standard_normal((end - begin, N_LAYERS, n_neurons), dtype=np.float32)  # [n, L, J]
    samples.relate(A, np.arange(begin, end))
    chunk_rows = chunk_rows_for(n_neurons, StoredDtype.FLOAT32, len(A))
    files = []
    for block in range(-(-len(A) // chunk_rows)):
        rows = A[block * chunk_rows : (block + 1) * chunk_rows]
        for layer in range(N_LAYERS):
            chunk = np.zeros((chunk_rows, n_neurons), np.float32)
            chunk[: len(rows)] = rows[:, layer]
            path = chunk_path(Feature.MEAN, block, layer)
            files.append(write_payload_file(location, folder, path, chunk.data))
    norms = np.stack([row_norms(A[:, layer]) for layer in range(N_LAYERS)], axis=1).astype("<f4")  # [n, L]
    files.append(write_payload_file(location, folder, norms_path(Feature.MEAN), norms.data))
    documents = segment_metadata(
        segment_id,
        len(A),
        range(N_LAYERS),
        n_neurons,
        [(Feature.MEAN, StoredDtype.FLOAT32, chunk_rows)],
        capture_id=fake_identity().capture_id,
        hook_point=fake_identity().hook_point,
        model=ENVIRONMENT.model_source,
    )
    files += [write_payload_file(location, folder, f"{DATA_FOLDER}/{p}", data) for p, data in documents.items()]
    written, n_tokens = _write_samples(location, folder, begin, end, rng, samples)
    files.append(written)
    array = FeatureArray(
        feature=Feature.MEAN, dtype=StoredDtype.FLOAT32, chunk_rows=chunk_rows, max_abs=largest_magnitude(A)
    )
    record = SegmentRecord(
        segment_id=segment_id,
        set_name=name,
        capture_id=fake_identity().capture_id,
        n_rows=len(A),
        layers=tuple(range(N_LAYERS)),
        n_neurons=n_neurons,
        arrays=(array,),
        user_fields=FIELDS,
        files=tuple(sorted(files, key=lambda file: file.path)),
        settings=SETTINGS,
        environment=ENVIRONMENT,
        n_tokens=n_tokens,
        n_truncated=0,
        provenance=current_provenance(),
    )
    location.create_bytes(f"{folder}/{SEGMENT_FILE}", record.to_json_bytes())
    return record


def _write_samples(
    location: Location, folder: str, begin: int, end: int, rng: np.random.Generator, samples: Samples
) -> tuple[FileDigest, int]:
    n_tokens = 0
    with PendingFile(location, f"{folder}/{SAMPLES_FILE}") as file:
        hashed = HashedFile(file.handle)
        with pq.ParquetWriter(hashed, samples_schema(FIELDS), compression="zstd") as writer:
            for start in range(begin, end, _BATCH_ROWS):
                table = samples.rows(start - begin, np.arange(start, min(start + _BATCH_ROWS, end)), rng)
                writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
                n_tokens += pc.sum(table.column("n_tokens")).as_py()
        file.publish()
    return FileDigest(path=SAMPLES_FILE, size_bytes=hashed.size_bytes, sha256=hashed.sha256), n_tokens


@functools.cache
def _texts() -> _Texts:
    return _Texts()


class _Texts:
    """Texts of 5 to 79 words, and rows made of them."""

    def __init__(self) -> None:
        vocabulary = _TEXT.split()
        n = len(vocabulary)
        words = [
            [vocabulary[(start * 7 + j * j) % n] for j in range(length)]
            for length in _LENGTHS_WORDS
            for start in range(n)
        ]
        self._instructions = pa.array([" ".join(text[:_INSTRUCTION_WORDS]) for text in words])
        self._outputs = pa.array([" ".join(text) for text in words])
        self._lengths = np.array([len(text) for text in words], np.int32)

    def relate(self, A: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """By chance alone."""

    def rows(self, first_index: int, numbers: NDArray[np.int64], rng: np.random.Generator) -> pa.Table:
        """Rows of ``samples.parquet`` for the samples of these numbers, the first at ``first_index``."""
        n = len(numbers)
        chosen = rng.integers(0, len(self._lengths), n)
        instructions = pc.binary_join_element_wise(
            pa.array(numbers).cast(pa.string()), self._instructions.take(pa.array(chosen)), ": "
        )
        outputs = self._outputs.take(pa.array(chosen))
        # The texts hold nothing that JSON escapes.
        parts = ['{"instruction": "', instructions, '", "output": "', outputs, '"}']
        record = pc.binary_join_element_wise(*parts, "")
        digests = np.frombuffer(rng.bytes(32 * n), np.uint8).reshape(n, 32)
        columns = [
            pa.array(np.arange(first_index, first_index + n)),
            hexadecimal(digests[:, :16]),
            hexadecimal(digests),
            pa.repeat(pa.scalar("pool.jsonl"), n),
            pa.array(numbers),
            pa.array(self._lengths[chosen] + np.int32(10)),
            pa.array(self._lengths[chosen]),
            pa.array(np.zeros(n, bool)),
            record,
            instructions,
            outputs,
            pa.array(SOURCES).take(pa.array(numbers % len(SOURCES))),
        ]
        return pa.Table.from_arrays(columns, schema=samples_schema(FIELDS))


def hexadecimal(digests: NDArray[np.uint8]) -> pa.Array:
    """Bytes [n, k] as n strings of 2k digits."""
    n, width = digests.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(2 * width)
    digits = digests.tobytes().hex().encode()
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))
