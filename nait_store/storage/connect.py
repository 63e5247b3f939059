"""From a URL to the filesystem that it names."""

from __future__ import annotations

import os

from nait_store.errors import InvalidInputError
from nait_store.storage.backend import Backend, LocalBackend, MemoryBackend, protocols_of


def connect(url: str) -> tuple[Backend, str]:
    """Return the backend of a URL and the path of its folder there.

    Raises
    ------
    InvalidInputError
        It is no location, no installed filesystem, or carries credentials.
    MissingExtraError
        It needs s3fs or huggingface_hub, which is not installed.
    """
    if not url.strip() or "\x00" in url:
        raise InvalidInputError(f"{url!r} is not a location", next_step="give a folder or an fsspec URL, e.g. ./store")
    _refuse_credentials(url)
    if url.startswith(("s3://", "s3a://")):
        from nait_store.storage import s3

        bucket, root = s3.split_url(url)
        if not bucket:
            raise InvalidInputError(f"{url!r} names no bucket", next_step="write s3://bucket/prefix")
        return s3.S3Backend(bucket), root
    if url.startswith("hf://") and not url.startswith("hf://buckets/"):
        from nait_store.storage import hub

        repository, root = hub.split_url(url)
        return hub.HubBackend(repository), root
    if _is_plain_path(url):
        return LocalBackend(None, "file"), _absolute(url)

    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(
            f"cannot open the location {url!r}: {error}",
            next_step="give a folder or a URL of an installed fsspec filesystem, e.g. ./store or memory://store",
        ) from error
    protocols = protocols_of(fs)
    kind = LocalBackend if "file" in protocols else MemoryBackend if "memory" in protocols else Backend
    return kind(fs, protocols[0]), str(root).rstrip("/")


def _is_plain_path(url: str) -> bool:
    """Whether it needs no fsspec, which takes longer to import than a small command to run."""
    return os.name == "posix" and "://" not in url and "::" not in url and not url.startswith("~")


def _absolute(path: str) -> str:
    """Spell a path of this machine as fsspec does: absolute, and otherwise as it is."""
    if not path.startswith("/"):
        rest = path.removeprefix("./")
        path = os.getcwd() if rest in ("", ".") else f"{os.getcwd()}/{rest}"  # noqa: PTH109 - text, not a Path
    return path.rstrip("/")


def _refuse_credentials(url: str) -> None:
    """Refuse passwords in URLs: they would end up in messages, records and shell histories."""
    for part in url.split("::"):
        protocol, separator, rest = part.partition("://")
        if not separator:
            continue
        place = rest.partition("/")[0]
        user, at, _ = place.rpartition("@")
        secret = ":" in user if at else False
        if protocol in ("s3", "s3a"):  # a secret may have slashes; a bucket has neither @ nor :, an ARN has the latter
            secret = bool(at) or (":" in place and not place.startswith("arn:"))
        if secret:
            raise InvalidInputError(
                f"a {protocol}:// location has credentials in its URL",
                next_step="leave them out and set the usual environment, e.g. AWS_ACCESS_KEY_ID or AWS_PROFILE",
            )
