"""Weights of samples in files: tables with the columns ``sample_id`` and ``weight``."""

from __future__ import annotations

from nait_store.capture.readers import read_records
from nait_store.capture.sources import open_sources
from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean
from nait_store.schemas.record import SourceFile
from nait_store.store.id_files import id_of_record

WEIGHT_COLUMN = "weight"


def read_weights(source: str) -> tuple[SourceFile, dict[str, float | None]]:
    """Read the weights of samples.

    Parameters
    ----------
    source
        A path or fsspec URL of a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file; all but Parquet may be
        compressed (.gz, .zst). Other columns are passed over.

    Returns
    -------
    SourceFile
        The file, with its digest.
    dict of str to float or None
        Weights by sample id; None where the file has none.

    Raises
    ------
    NotFoundError
        There is no such file, or it lacks one of the columns.
    InvalidInputError
        Not exactly one file; a weight is no number, or a sample has two; the message names the line.
    """
    found: dict[str, float | None] = {}
    files = open_sources([source])
    if len(files) != 1:
        raise InvalidInputError(f"{source} is {len(files)} files", next_step="name one file with all of the weights")
    for record in read_records(files[0].uri):
        sample_id = id_of_record(record.record, record.where)
        weight = _weight_of(record.record, record.where)
        if sample_id in found and found[sample_id] != weight:
            raise InvalidInputError(
                f"{record.where}: sample {sample_id} has another weight above", next_step="give each sample one weight"
            )
        found[sample_id] = weight
    return files[0], found


def _weight_of(record: dict[str, object], where: str) -> float | None:
    if WEIGHT_COLUMN not in record:
        raise NotFoundError(
            f"{where}: the record has no {WEIGHT_COLUMN}", next_step=did_you_mean(WEIGHT_COLUMN, map(str, record))
        )
    value = record[WEIGHT_COLUMN]
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)  # CSV has text only
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{where}: its {WEIGHT_COLUMN} is {value!r:.40}, not a number", next_step="give weights as numbers"
        ) from error
