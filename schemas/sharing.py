"""What lies in a registry that stores share, and what a store remembers of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from nait_store.errors import UnsupportedVersionError
from nait_store.schemas.record import Document, FileDigest, Name, Provenance, Record, Sha256, Timestamp, Ulid
from nait_store.schemas.store_record import SOURCELESS_FEATURE

REGISTRY_FORMAT_VERSION = 1
KNOWN_REGISTRY_FEATURES: frozenset[str] = frozenset()
KNOWN_PROFILE_FEATURES: frozenset[str] = frozenset({SOURCELESS_FEATURE})


class ReferencePolicy(StrEnum):
    """What travels of the in-domain samples: their records, hashes of them, or nothing."""

    FULL = "full"
    HASHES = "hashes"
    NONE = "none"


class RegistryRecord(Document):
    """``registry.json``: what a shared registry is; created by the first push."""

    format_version: int
    registry_id: Ulid
    created_at: Timestamp
    reader_features: tuple[str, ...] = ()
    """A reader that does not know one of these MUST refuse the registry."""
    writer_features: tuple[str, ...] = ()
    """A writer that does not know one of these MUST NOT push to it."""

    def check_known(self, url: str, *, writing: bool) -> None:
        """Refuse a registry that this release cannot read, or write, correctly.

        Raises
        ------
        UnsupportedVersionError
            Newer format version, or an unknown feature.
        """
        named = {*self.reader_features, *(self.writer_features if writing else ())}
        unknown = sorted(named - KNOWN_REGISTRY_FEATURES)
        if self.format_version > REGISTRY_FORMAT_VERSION or unknown:
            reason = (
                f"format version {self.format_version} (this release knows up to {REGISTRY_FORMAT_VERSION})"
                if self.format_version > REGISTRY_FORMAT_VERSION
                else f"unknown features {', '.join(unknown)}"
            )
            raise UnsupportedVersionError(
                f"the registry at {url} was written by a newer release: {reason}",
                next_step="upgrade: pip install --upgrade nait-store",
            )


class ReferenceSample(Record):
    """One in-domain sample."""

    sample_id: str
    content_sha256: Sha256
    record: str
    """Canonical JSON of the source record."""


class ReferenceSamples(Document):
    """``reference.json``: the in-domain samples of a profile, so that it can be built again on another model."""

    content_sha256: tuple[Sha256, ...]
    """Ascending; of the canonical records after ``--map``, as in ``samples.parquet``."""
    samples: tuple[ReferenceSample, ...] = ()
    """Ascending by sample id; empty where only hashes travel."""


class SharedReference(Record):
    """What was shared of the in-domain samples."""

    policy: ReferencePolicy
    file: FileDigest | None = None
    """The file that holds it, beside the payload's own; None under ``none``."""


class Signature(Record):
    """Somebody's signature of a publication."""

    public_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """Ed25519, 32 bytes in hexadecimal."""
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
    """Of ``nait-store publication 1``, a line feed, and the canonical JSON of all other fields but ``_sha256``."""


class Publication(Document):
    """``profiles/<name>/versions/<n>.json`` of a shared registry, whose atomic creation publishes it. Immutable."""

    name: Name
    number: int = Field(ge=1)
    record_sha256: Sha256
    """Of the bytes of ``profile.json``: two publications of one record are the same profile."""
    recipe_sha256: Sha256
    directions_sha256: Sha256
    files: tuple[FileDigest, ...]
    """Every file of the payload, ``profile.json`` included; each lies in ``objects/`` under its SHA-256."""
    reference: SharedReference
    message: str = ""
    """As given to ``profile build``."""
    reader_features: tuple[str, ...] = ()
    """A reader that does not know one of these MUST refuse the version."""
    signatures: Annotated[tuple[Signature, ...], Field(max_length=16)] = ()
    provenance: Provenance
    """Who published it, with what, when."""

    @property
    def spelled(self) -> str:
        """``math@3``."""
        return f"{self.name}@{self.number}"

    @property
    def objects(self) -> tuple[FileDigest, ...]:
        """All files that belong to it, that of the reference samples included."""
        return self.files if self.reference.file is None else (*self.files, self.reference.file)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.objects)


class Origin(Record):
    """Where a version was pulled from."""

    url: str
    """The shared registry, or the bundle."""
    name: Name
    number: int = Field(ge=1)
    """What it is called there."""
    published_by: str
    published_at: Timestamp
    reference: SharedReference
    signed_by: tuple[str, ...] = ()
    """Names of the trusted keys that had signed it, when it was pulled."""
    follows: int = Field(ge=0)
    """Highest number below this one that the name had used here; those between were never here."""

    @property
    def in_words(self) -> str:
        """For people: ``math@3 of s3://team/registry, published by alice@host``."""
        signed = f", signed by {', '.join(self.signed_by)}" if self.signed_by else ""
        return f"{self.name}@{self.number} of {self.url}, published by {self.published_by}{signed}"


class RemoteRecord(Document):
    """``remotes/<name>.json`` of a store: a name for a shared registry. Never holds credentials."""

    name: Name
    url: str
    require_signed: bool = False
    """Whether what is pulled from it must be signed by a trusted key."""
    provenance: Provenance


class TrustRecord(Document):
    """``trust/<name>.json`` of a store: a key whose signatures count."""

    name: Name
    public_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    provenance: Provenance


class PushRecord(Document):
    """``profiles/<name>/pushes/<digest>.json`` of a store: a version was pushed somewhere, or was about to be."""

    number: int = Field(ge=1)
    url: str
    """The shared registry."""
    published: str
    """What the version is called there, ``math@3``."""
    policy: ReferencePolicy
    provenance: Provenance
