"""What all records share: frozen pydantic models with one canonical JSON form, and a digest in every document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from nait_store.errors import CorruptChunkError, FormatError
from nait_store.refs import NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Ulid = Annotated[str, StringConstraints(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$")]


def _check_relative_path(path: str) -> str:
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


RelativePath = Annotated[str, StringConstraints(max_length=512), AfterValidator(_check_relative_path)]
Timestamp = AwareDatetime
_LOOK_FURTHER = "run 'nait-store verify' to see what else is damaged"


def canonical_json(value: Any) -> bytes:
    """Serialise to the one byte form that digests and ids are made of.

    Sorted keys, no white space, UTF-8 without escapes, no NaN or infinity.

    Parameters
    ----------
    value
        Plain JSON values.

    Returns
    -------
    bytes
        UTF-8 JSON.

    Raises
    ------
    ValueError
        The value holds NaN or infinity, or text that is not valid Unicode (a lone surrogate).
    TypeError
        The value holds something that JSON has no form for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class Record(BaseModel):
    """Base of everything written down as JSON; unknown fields are ignored so that minor additions stay readable.

    A change that old readers must not ignore sets a reader feature flag in ``store.json`` instead.
    """

    # A command uses few of the records: each is built when it is first used.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants", defer_build=True)

    def to_json_bytes(self) -> bytes:
        """Return the canonical JSON form: what is written to disk and what digests are taken of."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"

    def digest(self) -> str:
        """SHA-256 of :meth:`to_json_bytes`."""
        return hashlib.sha256(self.to_json_bytes()).hexdigest()

    @classmethod
    def from_json_bytes(cls, data: bytes, where: str) -> Self:
        """Parse and validate a record.

        Parameters
        ----------
        data
            The file's bytes.
        where
            Path or URL, for the message.

        Raises
        ------
        FormatError
            Not JSON, or not this record.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the document"
            raise FormatError(
                f"{where} is not a valid {cls.__name__}: {field}: {first['msg']}",
                next_step=_LOOK_FURTHER,
            ) from error


DIGEST_PREFIX = b'{"_sha256":"'
DIGEST_SPAN = slice(len(DIGEST_PREFIX), len(DIGEST_PREFIX) + 64)
NO_DIGEST = b"0" * 64


def document_bytes(fields: Mapping[str, Any]) -> bytes:
    """Canonical JSON of a document with these fields, a fresh digest before them.

    Parameters
    ----------
    fields
        Plain JSON values by names that begin with a lower-case letter; ``_sha256`` among them is replaced.
    """
    # "_" sorts before every lower-case letter, so the digest's place is always the same.
    data = canonical_json({**fields, "_sha256": NO_DIGEST.decode()}) + b"\n"
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[: DIGEST_SPAN.start] + digest + data[DIGEST_SPAN.stop :]


class Document(Record):
    """A record that is a file of its own: its first field, ``_sha256``, is a digest of the file's other bytes.

    The digest is taken with 64 zeros in its own place, so that every reader, with a few lines of code, can tell a
    document from one that lost or changed a bit (docs/format.md).
    """

    def to_json_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return document_bytes(self.model_dump(mode="json"))

    @classmethod
    def from_json_bytes(cls, data: bytes, where: str) -> Self:
        """Parse and validate a document.

        Parameters
        ----------
        data
            The file's bytes.
        where
            Path or URL, for the message.

        Raises
        ------
        CorruptChunkError
            Its bytes differ from the digest that it holds, or it holds none.
        FormatError
            It is whole, but not this document.
        """
        undigested = data[: DIGEST_SPAN.start] + NO_DIGEST + data[DIGEST_SPAN.stop :]
        if not data.startswith(DIGEST_PREFIX):
            raise CorruptChunkError(
                f"{where} is not a document of a store, or its beginning is damaged", next_step=_LOOK_FURTHER
            )
        if hashlib.sha256(undigested).hexdigest().encode() != data[DIGEST_SPAN]:
            raise CorruptChunkError(f"{where} differs from the SHA-256 that it holds", next_step=_LOOK_FURTHER)
        return super().from_json_bytes(data, where)


class FileDigest(Record):
    """One file of an immutable payload."""

    path: RelativePath
    """Relative to the payload's folder."""
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class SourceFile(Record):
    """A file from outside that went into something: a source of samples, or of their weights."""

    uri: str
    size_bytes: int | None = None
    sha256: Sha256 | None = None


class Provenance(Record):
    """Who wrote a record, with what, when. Never part of an identity."""

    created_at: datetime
    author: str
    """``user@host`` unless ``NAIT_STORE_AUTHOR`` says otherwise."""
    writer: str
    """Package and version, ``nait-store 0.1.0``."""
