"""Where everything lies below a store's root; the only place that spells these paths (docs/format.md)."""

from __future__ import annotations

from nait_store.refs import Kind

STORE_RECORD = "store.json"
CATALOG = "catalog.duckdb"
SCORES = "scores"

_FOLDERS = {Kind.SET: "activations", Kind.PROFILE: "profiles", Kind.SELECTION: "selections"}


def kind_folder(kind: Kind) -> str:
    """Folder that holds every set, profile or selection."""
    return _FOLDERS[kind]


def item_folder(kind: Kind, name: str) -> str:
    """Folder of one set, profile or selection."""
    return f"{_FOLDERS[kind]}/{name}"


def versions_folder(kind: Kind, name: str) -> str:
    """Folder of the numbered version documents."""
    return f"{item_folder(kind, name)}/versions"


def version_document(kind: Kind, name: str, number: int) -> str:
    """The document whose creation commits version ``number``."""
    return f"{versions_folder(kind, name)}/{number}.json"


def payload_folder(kind: Kind, name: str, payload: str) -> str:
    """Folder of an immutable profile or selection payload."""
    return f"{item_folder(kind, name)}/payloads/{payload}"


def set_record(name: str) -> str:
    """``set.json``."""
    return f"{item_folder(Kind.SET, name)}/set.json"


def segment_folder(name: str, segment_id: str) -> str:
    """Folder of one segment: ``data.zarr/``, ``samples.parquet``, ``segment.json``."""
    return f"{item_folder(Kind.SET, name)}/segments/{segment_id}"


def tombstone_folder(name: str) -> str:
    """Folder of tombstone files, relative names ``<ulid>.parquet``."""
    return f"{item_folder(Kind.SET, name)}/tombstones"


def ingest_folder(name: str, ingest_id: str = "") -> str:
    """Folder of one ingest (plan, heartbeat, flushed/, outcome), or of all of a set's ingests."""
    folder = f"{item_folder(Kind.SET, name)}/ingests"
    return f"{folder}/{ingest_id}" if ingest_id else folder


def score_sidecar(key: str) -> str:
    """Score sidecar of one key."""
    return f"{SCORES}/{key}.parquet"
