"""Samples that repeat another's text: equal texts of all turns, whatever their ids and other fields."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nait_store.activations.set_version import SetVersion
from nait_store.capture.conversations import Sample
from nait_store.capture.recalled_samples import RECALLED_COLUMNS, RecalledSamples
from nait_store.progress import ProgressEvent, ProgressListener

_ROWS_AT_ONCE = 4096
_KEY = np.dtype("S16")


@dataclass(frozen=True)
class RepeatedTexts:
    """How many samples repeat others.

    Attributes
    ----------
    n_samples
        All of them.
    n_texts
        Different texts among them; a text is what the turns say, with their roles.
    n_records
        Different records, of all fields.
    largest
        Most samples with one text.
    examples
        Ids of the first samples that have the most frequent text; empty where none repeats.
    """

    n_samples: int
    n_texts: int
    n_records: int
    largest: int
    examples: tuple[str, ...]

    @property
    def n_repeats(self) -> int:
        """Samples that could go without a text being lost."""
        return self.n_samples - self.n_texts


def count_repeated_texts(version: SetVersion, progress: ProgressListener) -> RepeatedTexts:
    """Compare the texts of all samples by their digests; records are read piece by piece.

    Parameters
    ----------
    version
        With at least one sample.
    progress
        Hears of the samples read, stage ``"read"``.

    Raises
    ------
    InvalidInputError
        Which fields are the text is not known of a sample.
    """
    texts = np.empty(version.n_samples, dtype=_KEY)
    records = np.empty(version.n_samples, dtype=_KEY)
    n_done = 0
    for part in _parts(version):
        for sample in part:
            texts[n_done] = _text_key(sample)
            records[n_done] = bytes.fromhex(sample.content_hash[:32])
            n_done += 1
        progress(ProgressEvent("read", n_done, version.n_samples))
    keys, counts = np.unique(texts, return_counts=True)
    largest = int(counts.max())
    examples: tuple[str, ...] = ()
    if largest > 1:
        examples = _ids_at(version, np.flatnonzero(texts == keys[counts.argmax()])[:3])
    return RepeatedTexts(version.n_samples, len(keys), len(np.unique(records)), largest, examples)


def _parts(version: SetVersion) -> Iterator[list[Sample]]:
    recalled = RecalledSamples()
    for segment in version.segments:
        visible = version.visible_rows(segment)
        rows = np.arange(segment.n_rows) if visible is None else np.flatnonzero(visible)
        table = segment.samples(list(RECALLED_COLUMNS))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = table.take(rows[start : start + _ROWS_AT_ONCE])
            yield [recalled.recall(row) for row in part.to_pylist()]


def _text_key(sample: Sample) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for turn in sample.turns:
        for text in (turn.role, turn.content):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.digest()


def _ids_at(version: SetVersion, places: NDArray[np.int64]) -> tuple[str, ...]:
    ids = version.samples(["sample_id"]).column("sample_id")
    return tuple(ids.take(places).to_pylist())
