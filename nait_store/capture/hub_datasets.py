"""Records from Hugging Face ``datasets``: folders of ``save_to_disk`` and ids on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nait_store.capture import sources
from nait_store.capture.source_records import RejectedRecord, SourceRecord, accept
from nait_store.capture.table_records import plain_record
from nait_store.errors import InvalidInputError, MissingExtraError, NotFoundError, did_you_mean

DEFAULT_SPLIT = "train"


def read_dataset(source: str) -> Iterator[SourceRecord | RejectedRecord]:
    """Yield the rows of a data set.

    Parameters
    ----------
    source
        A folder written by ``save_to_disk``, or ``hf-datasets:ID[@CONFIG][:SPLIT]`` where ID is such a folder or
        an id on the hub (streamed, not downloaded whole). SPLIT is ``train`` unless there is only one.

    Raises
    ------
    MissingExtraError
        ``datasets`` is not installed.
    NotFoundError
        Unknown folder, id, configuration or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"reading {source} needs the 'datasets' package", next_step="pip install 'nait-store[hub]'"
        ) from error
    name, config, split = _parse(source)
    path = Path(name).expanduser()
    if path.is_dir() and sources.is_saved_dataset(path):
        found = datasets.load_from_disk(str(path))
    else:
        try:
            found = datasets.load_dataset(name, config, streaming=True)
        except (FileNotFoundError, ConnectionError, OSError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise NotFoundError(
                f"the data set {name!r} could not be opened: {first}",
                next_step="check the id (OWNER/NAME), the configuration after '@', and the network",
            ) from error
    for index, row in enumerate(_choose_split(found, split, source)):
        yield accept(plain_record(row), source, index, None, str(row)[:2_000])


def _parse(source: str) -> tuple[str, str | None, str | None]:
    """Split ``hf-datasets:ID[@CONFIG][:SPLIT]``; a bare folder is all name."""
    if not source.startswith(sources.DATASETS_PREFIX):
        return source, None, None
    body = source.removeprefix(sources.DATASETS_PREFIX)
    name, _, split = body.partition(":")
    name, _, config = name.partition("@")
    if not name:
        raise InvalidInputError(f"{source!r} names no data set", next_step="write hf-datasets:ID[@CONFIG][:SPLIT]")
    return name, config or None, split or None


def _choose_split(found: Any, split: str | None, source: str) -> Any:
    if not isinstance(found, dict):  # one split, saved by itself
        if split is None or split == str(found.split):
            return found
        raise NotFoundError(f"{source} has no split {split!r}", next_step=f"it holds one split, {found.split!s}")
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    wanted = split or DEFAULT_SPLIT
    if wanted not in found:
        raise NotFoundError(
            f"{source} has no split {wanted!r}",
            next_step=f"{did_you_mean(wanted, map(str, found))} Write hf-datasets:ID:SPLIT",
        )
    return found[wanted]
