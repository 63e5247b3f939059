"""Saying in ``store.json`` that a store holds what older releases do not understand."""

from __future__ import annotations

import json

from nait_store.errors import NotFoundError
from nait_store.schemas.record import document_bytes
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location


def announce_feature(location: Location, name: str) -> None:
    """Add a feature to ``store.json``, unless it is there: releases that do not know it refuse the store from then on.

    To be called before the first thing is written that needs it. A folder without ``store.json`` is no store that an
    older release would open, and stays as it is.

    Parameters
    ----------
    location
        The store's root.
    name
        One of the features that this release knows, for readers and for writers.

    Raises
    ------
    CorruptChunkError
        ``store.json`` is damaged.
    ReadOnlyError, StorageError
        It could not be written.
    """
    try:
        data = location.read_bytes(layout.STORE_RECORD)
    except NotFoundError:
        return
    record = StoreRecord.from_json_bytes(data, location.url_of(layout.STORE_RECORD))
    if name in record.reader_features and name in record.writer_features:
        return
    changes = {
        "reader_features": sorted({*record.reader_features, name}),
        "writer_features": sorted({*record.writer_features, name}),
    }
    # of the file's own fields: a later release may have written some that the record here does not have
    location.write_bytes(layout.STORE_RECORD, document_bytes(json.loads(data) | changes))
