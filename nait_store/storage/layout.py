"""Where everything lies in a store or a shared registry; the only place that spells these paths (docs/format.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nait_store.refs import Kind

STORE_RECORD = "store.json"
CATALOG = "catalog.duckdb"
CATALOG_RECORD = "catalog.duckdb.json"
CATALOG_PROFILES = "catalog.duckdb.profiles.jsonl"
SCORES = "scores"

REMOTES = "remotes"
TRUST = "trust"

REGISTRY_RECORD = "registry.json"
OBJECTS = "objects"

VERSIONS = "versions"
REDIRECTS = "redirects"
NOTES = "notes"

_NUMBERED = re.compile(r"([1-9][0-9]*)\.json\Z")
_FOLDERS = {Kind.SET: "activations", Kind.PROFILE: "profiles", Kind.SELECTION: "selections"}


def kind_folder(kind: Kind) -> str:
    """Folder that holds every set, profile or selection."""
    return _FOLDERS[kind]


def item_folder(kind: Kind, name: str) -> str:
    """Folder of one set, profile or selection."""
    return f"{_FOLDERS[kind]}/{name}"


def versions_folder(kind: Kind, name: str) -> str:
    """Folder of the numbered version documents."""
    return f"{item_folder(kind, name)}/{VERSIONS}"


def version_document(kind: Kind, name: str, number: int) -> str:
    """The document whose creation commits version ``number``."""
    return f"{versions_folder(kind, name)}/{number}.json"


def deletion_marker(kind: Kind, name: str, number: int) -> str:
    """The document that hides version ``number``."""
    return f"{versions_folder(kind, name)}/{number}.deleted.json"


def collection_marker(kind: Kind, name: str, number: int) -> str:
    """The document that says that gc took version ``number``."""
    return f"{versions_folder(kind, name)}/{number}.collected.json"


def labels_folder(kind: Kind, name: str, labels: str) -> str:
    """Folder of all the aliases, or all the tags, of one item; ``labels`` is ``aliases`` or ``tags``."""
    return f"{item_folder(kind, name)}/{labels}"


def notes_folder(kind: Kind, name: str, version: int | None = None) -> str:
    """Folder of what was ever noted about one version, or of the notes on all of an item's."""
    folder = f"{item_folder(kind, name)}/{NOTES}"
    return folder if version is None else f"{folder}/{version}"


def redirects_folder(kind: Kind, name: str) -> str:
    """Folder of the records that put one segment, or payload, in the place of another."""
    return f"{item_folder(kind, name)}/{REDIRECTS}"


def payload_folder(kind: Kind, name: str, payload: str = "") -> str:
    """Folder of an immutable profile or selection payload, or of all of an item's."""
    folder = f"{item_folder(kind, name)}/payloads"
    return f"{folder}/{payload}" if payload else folder


def numbered(names: Iterable[str]) -> list[int]:
    """Ascending numbers of the documents ``<n>.json`` among the names in a folder."""
    return sorted(int(match[1]) for name in names if (match := _NUMBERED.match(name)))


def set_record(name: str) -> str:
    """``set.json``."""
    return f"{item_folder(Kind.SET, name)}/set.json"


def segment_folder(name: str, segment_id: str = "") -> str:
    """Folder of one segment (``data.zarr/``, ``samples.parquet``, ``segment.json``), or of all of a set's."""
    folder = f"{item_folder(Kind.SET, name)}/segments"
    return f"{folder}/{segment_id}" if segment_id else folder


def tombstone_folder(name: str) -> str:
    """Folder of tombstone files, relative names ``<ulid>.parquet``."""
    return f"{item_folder(Kind.SET, name)}/tombstones"


def ingest_folder(name: str, ingest_id: str = "") -> str:
    """Folder of one ingest (plan, heartbeat, flushed/, outcome), or of all of a set's ingests."""
    folder = f"{item_folder(Kind.SET, name)}/ingests"
    return f"{folder}/{ingest_id}" if ingest_id else folder


def job_folder(name: str, job_id: str = "") -> str:
    """Folder of the heartbeat of a compaction, purge or repair of a set, or of all of them."""
    folder = f"{item_folder(Kind.SET, name)}/jobs"
    return f"{folder}/{job_id}" if job_id else folder


def score_sidecar(key: str) -> str:
    """Score sidecar of one key."""
    return f"{SCORES}/{key}.parquet"


def score_record(key: str) -> str:
    """The document that says that a score sidecar is whole."""
    return f"{SCORES}/{key}.json"


def remote_record(name: str) -> str:
    """The document that says which shared registry a store calls ``name``."""
    return f"{REMOTES}/{name}.json"


def pushes_folder(name: str) -> str:
    """Folder of the documents that say where versions of a profile were pushed to."""
    return f"{item_folder(Kind.PROFILE, name)}/pushes"


def trust_record(name: str) -> str:
    """The document that holds a key whose signatures a store trusts."""
    return f"{TRUST}/{name}.json"


def registry_object(sha256: str) -> str:
    """A file of any profile in a shared registry, under its digest."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"
