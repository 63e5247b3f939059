"""The side file of an export: which selection, made how from what, is in the data file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nait_store.selection.trainers.survey import LeftOut
from nait_store.storage.provenance import current_provenance

FORMAT = 1
"""Of the side file; it changes where a field changes its meaning."""


@dataclass(frozen=True)
class ProfileOrigin:
    """A profile version that took part.

    Attributes
    ----------
    reference, weight
        ``math@2``, and how much it counts.
    record_sha256, directions_sha256
        Digests of its record and of its directions; None where gc has taken it.
    """

    reference: str
    weight: float
    record_sha256: str | None
    directions_sha256: str | None


@dataclass(frozen=True)
class SelectionOrigin:
    """A saved selection and what it was made from, with digests.

    Attributes
    ----------
    reference, record_sha256
        ``best@1``, and the digest of its record.
    set_ref, set_sha256, capture_id
        Set version that it was selected from, the digest of that version's document, and what it measures.
    profiles
        Every profile version that ranked it; none for one by chance alone.
    request
        What was asked for: strategy, top, where, seed, combine, quota …
    query
        The SQL that gives it again.
    n_candidates, n_selected
        Samples to choose from, and chosen.
    message, author, saved_at
        Of the version.
    """

    reference: str
    record_sha256: str
    set_ref: str
    set_sha256: str
    capture_id: str
    profiles: tuple[ProfileOrigin, ...]
    request: Mapping[str, Any]
    query: str
    n_candidates: int
    n_selected: int
    message: str
    author: str
    saved_at: str


@dataclass(frozen=True)
class DataFile:
    """A file that was written.

    Attributes
    ----------
    url
        Where.
    size_bytes, sha256
        Of its bytes.
    """

    url: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ExportOptions:
    """How a data file was written.

    Attributes
    ----------
    to, layout, name
        Trainer, layout (None: the records as they are) and name of the data set.
    shuffle
        Seed of the order; None: by rank.
    on_error
        Whether samples that the layout has no place for stop the export or are left out.
    field_map
        Canonical field → the records' field.
    """

    to: str
    layout: str | None
    name: str
    shuffle: int | None
    on_error: str
    field_map: tuple[tuple[str, str], ...]


def side_file(
    origin: SelectionOrigin, options: ExportOptions, data: DataFile, n_samples: int, left_out: Sequence[LeftOut]
) -> bytes:
    """Spell the side file: JSON, described in docs/export.md."""
    written = current_provenance()
    value: dict[str, Any] = {
        "format": FORMAT,
        "written_by": written.writer,
        "written_at": written.created_at.isoformat(),
        "author": written.author,
        "selection": dataclasses.asdict(origin),
        "export": dataclasses.asdict(options) | {"field_map": dict(options.field_map)},
        "n_samples": n_samples,
        "left_out": [dataclasses.asdict(one) for one in left_out],
        "data": {
            "file_name": data.url.rsplit("/", 1)[-1],
            "size_bytes": data.size_bytes,
            "sha256": data.sha256,
        },
    }
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
