"""Documents whose free text quotes sample ids: they are immutable, so a purge can only name them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from nait_store.refs import Kind
from nait_store.storage import layout
from nait_store.storage.location import Location

_SKIPPED = ("/segments/", "/heartbeat.json", ".zarr/", "/redirects/", "/flushed/")
_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"")
_SEPARATOR = re.compile(r"[\s,;()\[\]{}='\"]+")


def find_quotations(location: Location, sample_ids: Collection[str]) -> list[str]:
    """Paths of documents with a condition, query, message or reason that quotes one of these sample ids.

    An id counts as quoted where it stands between quotation marks or as a word of its own.
    """
    wanted = frozenset(sample_ids)
    found = []
    for kind in Kind:
        for path, _ in location.walk(layout.kind_folder(kind)):
            if not path.endswith(".json") or any(part in path for part in _SKIPPED):
                continue
            try:
                document = json.loads(location.read_bytes(path))
            except ValueError:  # damaged: verification's business
                continue
            if any(_quotes(text, wanted) for text in _texts(document)):
                found.append(path)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _quotes(text: str, wanted: frozenset[str]) -> bool:
    if text in wanted or not wanted.isdisjoint(_SEPARATOR.split(text)):
        return True
    return any((single.replace("''", "'") or double) in wanted for single, double in _QUOTED.findall(text))
