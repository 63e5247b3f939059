"""Exporting a selection to a trainer: data file, what the trainer's configuration says of it, and the side file."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from nait_store.activations.versions import SetVersion
from nait_store.capture.conversations import FieldMap
from nait_store.errors import InvalidInputError
from nait_store.selection.choosing import Selection
from nait_store.selection.destination import Destination
from nait_store.selection.export import write_ids
from nait_store.selection.ranked_records import RankedRecords
from nait_store.selection.trainers import axolotl, llama_factory
from nait_store.selection.trainers.data_file import Rows, write_bytes, write_rows
from nait_store.selection.trainers.layouts import AS_THEY_ARE, LAYOUTS, Columns, Layout, Trainer, row_of
from nait_store.selection.trainers.provenance import DataFile, ExportOptions, SelectionOrigin, side_file
from nait_store.selection.trainers.survey import LeftOut, Survey
from nait_store.storage.location import Location

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SHARD = "train-00000-of-00001.parquet"
_ONE_FILE = frozenset({Trainer.JSONL, Trainer.PARQUET, Trainer.IDS})


@dataclass(frozen=True)
class TrainerRequest:
    """What to write, and where.

    Attributes
    ----------
    trainer
        Who is to read it.
    out
        Folder, or for JSON lines, Parquet and ids the file; path or fsspec URL.
    name
        Of the data set, and so of its files in a folder.
    layout
        Of the rows; None: the first that holds every sample, or the records as they are.
    shuffle
        Seed of the order; None: by rank.
    skip
        Whether samples that the layout has no place for are left out.
    field_map
        The one that the records were ingested with.
    overwrite
        Whether files, and an entry of ``dataset_info.json``, may be replaced.
    """

    trainer: Trainer
    out: str
    name: str
    layout: Layout | None = None
    shuffle: int | None = None
    skip: bool = False
    field_map: FieldMap | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class TrainerExport:
    """What was written.

    Attributes
    ----------
    trainer, layout, name
        For whom and how; layout None: the records as they are, or their ids.
    n_samples
        Rows of the data file.
    left_out
        Samples that the layout had no place for.
    data
        The data file.
    provenance
        Where the side file is.
    configuration
        Where ``dataset_info.json``, or the YAML stanza, is; None where the trainer needs none.
    """

    trainer: Trainer
    layout: Layout | None
    name: str
    n_samples: int
    left_out: tuple[LeftOut, ...]
    data: DataFile
    provenance: str
    configuration: str | None


def export_to_trainer(
    location: Location, version: SetVersion, selection: Selection, origin: SelectionOrigin, request: TrainerRequest
) -> TrainerExport:
    """Write a selection for a trainer; see :meth:`nait_store.store.selections.Selections.export`."""
    targets = _Targets(request)
    if request.shuffle is not None:
        selection = dataclasses.replace(selection, rows=shuffled(selection.rows, request.shuffle))
    layout: Layout | None = None
    left_out: Sequence[LeftOut] = ()
    columns = Columns()
    if request.trainer is Trainer.IDS:
        data, n_samples = _write_ids(targets.data, selection), selection.n_selected
    else:
        with RankedRecords(location, version, selection.rows) as records:
            if request.layout is None and request.trainer in AS_THEY_ARE:
                rows: Rows = lambda: (ranked.record for ranked in records)  # noqa: E731
            else:
                asked = (request.layout,) if request.layout is not None else LAYOUTS[request.trainer]
                survey = Survey(records, request.trainer, asked, request.field_map)
                layout = chosen = survey.choose(skip=request.skip)
                columns, left_out = survey.columns(chosen), survey.left_out(chosen)
                rows = _spelled(survey, records, chosen, request.trainer, columns)
            targets.check(layout, columns)
            as_parquet = request.trainer in (Trainer.PARQUET, Trainer.HF_DATASETS)
            data, n_samples = write_rows(targets.data, rows, as_parquet=as_parquet)
    options = ExportOptions(
        request.trainer,
        layout,
        request.name,
        request.shuffle,
        "skip" if request.skip else "stop",
        request.field_map.columns if request.field_map else (),
    )
    write_bytes(targets.provenance, side_file(origin, options, data, n_samples, left_out))
    configuration = targets.configure(layout, columns)
    return TrainerExport(
        request.trainer,
        layout,
        request.name,
        n_samples,
        tuple(left_out),
        data,
        targets.provenance.url,
        configuration,
    )


def shuffled(rows: pa.Table, seed: int) -> pa.Table:
    """Put ranked samples into the order of SHA-256 over seed and id: the same on every machine and in every release."""
    ids = rows.column("sample_id").to_pylist()
    keys = [hashlib.sha256(f"{seed}:{sample_id}".encode()).digest() for sample_id in ids]
    return rows.take(pa.array(sorted(range(len(ids)), key=keys.__getitem__), pa.int64()))


def _spelled(survey: Survey, records: RankedRecords, layout: Layout, trainer: Trainer, columns: Columns) -> Rows:
    def rows() -> Iterator[dict[str, Any]]:
        return (row_of(dialogue, layout, trainer, columns) for dialogue in survey.dialogues(records, layout))

    return rows


def _write_ids(destination: Destination, selection: Selection) -> DataFile:
    digest, n_bytes = hashlib.sha256(), 0
    for sample_id in selection.rows.column("sample_id").to_pylist():
        line = f"{sample_id}\n".encode()
        digest.update(line)
        n_bytes += len(line)
    with destination.open() as stream:
        write_ids(stream, selection)
    return DataFile(destination.url, n_bytes, digest.hexdigest())


class _Targets:
    """The files of one export; that none of them is in the way is known before anything is computed."""

    def __init__(self, request: TrainerRequest) -> None:
        self._request = request
        trainer, out = request.trainer, request.out
        if out.strip() in ("", "-"):
            raise InvalidInputError(
                f"--out {out!r} is no place for the data and its side file", next_step="name a folder, or a file"
            )
        if request.layout is not None and request.layout not in LAYOUTS[trainer]:
            known = ", ".join(LAYOUTS[trainer]) or "none: it writes ids"
            raise InvalidInputError(f"{trainer} has no layout {request.layout}", next_step=f"its layouts are {known}")
        if trainer in _ONE_FILE:
            self.data = self._destination(out)
            self.provenance = self._destination(f"{out}.provenance.json")
            return
        if not _NAME.match(request.name):
            raise InvalidInputError(
                f"{request.name!r} is no name for a data set and its files",
                next_step="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
        self._folder = out.rstrip("/") or "/"
        if trainer is Trainer.HF_DATASETS:
            self.data = self._destination(f"{self._folder}/data/{_SHARD}")
            self.provenance = self._destination(f"{self._folder}/provenance.json")
            _require_alone(self.data)
            return
        self.data = self._destination(f"{self._folder}/{request.name}.jsonl")
        self.provenance = self._destination(f"{self._folder}/{request.name}.provenance.json")
        if trainer is Trainer.AXOLOTL:
            self._stanza = self._destination(f"{self._folder}/{request.name}.yaml")
        if trainer is Trainer.LLAMA_FACTORY:
            self._info = Destination(f"{self._folder}/{llama_factory.INFO_FILE}", overwrite=True)
            if self._info.is_local:  # what a link leads to is to be replaced, not the link
                self._info = Destination(str(Path(self._info.url).resolve()), overwrite=True)

    def check(self, layout: Layout | None, columns: Columns) -> None:
        """Refuse what the configuration could not take, before the data file is written."""
        if self._request.trainer is Trainer.LLAMA_FACTORY and layout is not None:
            self._merged(layout, columns)

    def configure(self, layout: Layout | None, columns: Columns) -> str | None:
        """Write what the trainer's configuration says of the data file; returns where."""
        trainer = self._request.trainer
        if layout is None:
            return None
        if trainer is Trainer.AXOLOTL:
            name = self.provenance.url.rsplit("/", 1)[-1]
            write_bytes(self._stanza, axolotl.stanza_of(self.data.url, layout, name).encode("ascii"))
            return self._stanza.url
        if trainer is Trainer.LLAMA_FACTORY:
            with _locked(self._info):
                write_bytes(self._info, self._merged(layout, columns))
            return self._info.url
        return None

    def _merged(self, layout: Layout, columns: Columns) -> bytes:
        name = self._request.name
        entry = llama_factory.entry_of(f"{name}.jsonl", layout, columns)
        return llama_factory.merged(self._info.read(), name, entry, self._info.url, overwrite=self._request.overwrite)

    def _destination(self, url: str) -> Destination:
        return Destination(url, overwrite=self._request.overwrite)


def _require_alone(destination: Destination) -> None:
    """Refuse a folder with other files in it: ``load_dataset`` would read them too."""
    others = [name for name in destination.beside() if name != _SHARD and not name.startswith(".")]
    if others:
        raise InvalidInputError(
            f"the folder of {destination.url} has other files, which would be loaded with it: {', '.join(others[:5])}",
            next_step="choose another folder",
        )


@contextlib.contextmanager
def _locked(destination: Destination) -> Iterator[None]:
    """Keep other exports of this machine out of a folder, so that none loses the entry of another."""
    if not destination.is_local:
        yield
        return
    descriptor = os.open(Path(destination.url).parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
