"""Stores on S3 and what speaks like it, through s3fs.

Listings are never cached, deletions are checked, and create-if-absent is a PUT with ``If-None-Match: *``.
Credentials come from the usual environment alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nait_store.errors import MissingExtraError, NaitStoreError, NotFoundError, ReadOnlyError, StorageError
from nait_store.storage.atomic import TEMPORARY_PREFIX
from nait_store.storage.backend import READING, Backend, StoredFile
from nait_store.storage.range_reader import RangeReader

VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and AWS_ENDPOINT_URL unless it is on AWS"

_CREATOR = "nait-creator"  # user metadata that tells the creator of an object which loses the answer that it won
_PART_BYTES = 16 << 20
_MOST_PARTS = 9_000  # S3 allows 10,000
_UPLOADS = 4
_PAGE_KEYS = 1_000  # the most that S3 lists, or deletes, at once
_CONNECTIONS = 64
_READ_AHEAD_BYTES = 1 << 20
_CREATE_ATTEMPTS = 6
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"})

_connections: dict[tuple[int, str], Any] = {}
_probed: dict[tuple[str, str], NaitStoreError | None] = {}
_lock = threading.Lock()


def _environment_key() -> str:
    """Digest of what the environment says about S3: another environment is another connection."""
    chosen = sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "BOTO_", "FSSPEC_")))
    return hashlib.sha256(repr(chosen).encode()).hexdigest()


def _connect() -> tuple[Any, str]:
    """Return this process's filesystem for the present environment, and the environment's digest."""
    key = _environment_key()
    # A filesystem that was made before a fork is dead in the child; it stays referenced, since its finalizer waits.
    known = _connections.get((os.getpid(), key))
    if known is not None:
        return known, key
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise MissingExtraError("stores on s3:// need s3fs", next_step="pip install 'nait-store[s3]'") from error
    config: dict[str, Any] = {"max_pool_connections": _CONNECTIONS, "read_timeout": 60}
    if not {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & set(os.environ):
        config["retries"] = {"mode": "standard", "total_max_attempts": 4}
    fs = S3FileSystem(skip_instance_cache=True, use_listings_cache=False, config_kwargs=config)
    return _connections.setdefault((os.getpid(), key), fs), key


def _forget_locks() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the moment of the fork


os.register_at_fork(after_in_child=_forget_locks)


class S3Backend(Backend):
    """A bucket.

    It survives a fork: the child connects anew. ``botocore`` exceptions count among :attr:`failures`.

    Parameters
    ----------
    bucket
        Its name or access point.

    Raises
    ------
    MissingExtraError
        s3fs is not installed.
    """

    can_create = True

    def __init__(self, bucket: str) -> None:
        fs, self._environment = _connect()
        super().__init__(fs, "s3")
        self._pid = os.getpid()
        self.bucket = bucket
        from aiohttp import ClientError as HTTPError
        from botocore.exceptions import BotoCoreError, ClientError

        self.failures = (OSError, BotoCoreError, ClientError, HTTPError)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bucket"])  # type: ignore[misc]

    @property
    def fs(self) -> Any:
        """The filesystem, connected by this process."""
        if self._pid != os.getpid():
            self._fs, self._environment = _connect()
            self._pid = os.getpid()
        return self._fs

    def url(self, root: str) -> str:
        """Spell a path as users would write it."""
        return f"s3://{root}"

    def check_writable(self, root: str) -> None:
        """Make sure once, by trying, that the endpoint honours create-if-absent."""
        key = (self._environment, self.bucket)
        with _lock:  # one thread tries, the others wait for what it finds
            if key not in _probed:
                try:
                    self._probe(root)
                    _probed[key] = None
                except ReadOnlyError as error:
                    _probed[key] = error
            refusal = _probed[key]
        if refusal is not None:
            raise ReadOnlyError(refusal.what, next_step=refusal.next_step)

    def _probe(self, root: str) -> None:
        path = f"{root}/{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
        reason = "does not refuse to create an object that exists (it ignores If-None-Match)"
        try:
            try:
                self.create(path, b"first")
                self.create(path, b"second")
            except FileExistsError:
                return
            except self.failures as error:
                code, status = _code_of(error)
                if status not in (400, 405, 501):
                    raise self.explain(error, "write", self.url(root)) from error
                reason = f"refuses PUT with If-None-Match ({code})"
        finally:
            with contextlib.suppress(*self.failures):  # it is hidden, and tells nobody anything
                self._call("delete_object", Key=self._key(path))
        raise ReadOnlyError(
            f"{self.url(root)} can be read but not written: its endpoint {reason}, so concurrent commits could be lost",
            next_step="use an S3 service with conditional writes (AWS, recent MinIO, Ceph or R2), or a local folder",
        )

    def read(self, path: str) -> bytes:
        """Read a whole object, in one request."""
        return bytes(self.fs.cat_file(path, max_concurrency=1))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start``, fewer at the object's end."""
        if not length:
            return b""
        try:
            return bytes(self.fs.cat_file(path, start=start, end=start + length))
        except self.failures as error:
            if _code_of(error)[1] == 416:  # it begins behind the end
                return b""
            raise

    def open_read(self, path: str) -> BinaryIO:
        """Open for random access; what is read is fetched by ranges."""
        reader = RangeReader(self, path, self.size(path), self.url(path))
        handle: BinaryIO = io.BufferedReader(reader, _READ_AHEAD_BYTES)
        return handle

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write an object whole, over whatever was there."""
        self.fs.pipe_file(path, bytes(data), chunksize=_part_bytes(len(data)), max_concurrency=_UPLOADS)

    def write_file(self, path: str, source: Path) -> None:
        """Upload a local file, a few parts at a time."""
        part_bytes = _part_bytes(source.stat().st_size)
        self.fs.put_file(str(source), path, chunksize=part_bytes, max_concurrency=_UPLOADS)

    def create(self, path: str, data: bytes) -> None:
        """Create an object if it is absent, else raise ``FileExistsError``.

        The object names its creator. So whatever became of the answer (lost, and the repetition refused; a conflict
        with a deletion; a broken connection) the object itself tells whether this call created it.
        """
        creator = uuid.uuid4().hex
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                self.fs.pipe_file(
                    path, data, chunksize=_part_bytes(len(data)), mode="create", Metadata={_CREATOR: creator}
                )
                return
            except self.failures as error:
                refused = isinstance(error, FileExistsError) or _code_of(error)[1] in (409, 412)
                found = self._creator_of(path)
                if found == creator:
                    return
                if not refused:
                    raise
                if found is not None:
                    raise FileExistsError(path) from error
            time.sleep(0.05 * 2**attempt)  # refused, but nothing is there: somebody deleted it meanwhile
        raise OSError(errno.EBUSY, "others create and delete it at the same time", path)

    def _creator_of(self, path: str) -> str | None:
        """Who created an object; empty if it does not tell or must not be asked, None if it is not there."""
        try:
            found = self._head(path)
        except self.failures:
            return ""
        return None if found is None else str(found.get("Metadata", {}).get(_CREATOR, ""))

    def kind(self, path: str) -> str | None:
        """``"file"``, ``"folder"`` or None."""
        if self._key(path) and self._head(path) is not None:
            return "file"
        page = self._call("list_objects_v2", Prefix=self._prefix(path), MaxKeys=1)
        return "folder" if page.get("Contents") else None

    def is_file(self, path: str) -> bool:
        """Whether there is such an object."""
        return bool(self._key(path)) and self._head(path) is not None

    def size(self, path: str) -> int:
        """Size of an object in bytes."""
        found = self._head(path) if self._key(path) else None
        if found is None:
            raise FileNotFoundError(path)
        return int(found["ContentLength"])

    def names(self, path: str) -> set[str]:
        """Names of what lies directly below a prefix."""
        prefix = self._prefix(path)
        found: set[str] = set()
        for page in self._pages(prefix, Delimiter="/"):
            found.update(each["Prefix"][len(prefix) : -1] for each in page.get("CommonPrefixes", ()))
            found.update(each["Key"][len(prefix) :] for each in page.get("Contents", ()))
        return found - {""}

    def files(self, path: str) -> Iterator[StoredFile]:
        """Yield every object below a prefix, in the order of their keys."""
        prefix = self._prefix(path)
        for page in self._pages(prefix):
            for each in page.get("Contents", ()):
                if not each["Key"].endswith("/"):  # consoles make such for empty folders
                    yield StoredFile(each["Key"][len(prefix) :], int(each["Size"]), each["LastModified"])

    def delete(self, path: str) -> None:
        """Delete an object and everything below the prefix; nothing happens where there is none."""
        own = [self._key(path)] if self._key(path) else []
        for page in self._pages(self._prefix(path), MaxKeys=_PAGE_KEYS - 1):
            self._delete_keys(own + [each["Key"] for each in page.get("Contents", ())])
            own = []

    def _delete_keys(self, keys: list[str]) -> None:
        if not keys:
            return
        answer = self._call("delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
        for failed in answer.get("Errors", ()):
            code, key = failed.get("Code", "unknown error"), failed.get("Key", "an object")
            if code in _DENIED:
                raise PermissionError(errno.EACCES, code, key)
            raise OSError(errno.EIO, f"{code} at {key}")

    def explain(self, error: Exception, verb: str, url: str) -> NaitStoreError:
        """Put a failure into words: what, where, and what to do."""
        from botocore import exceptions

        code, status = _code_of(error)
        if code in _FULL or status == 507:
            return StorageError(
                f"could not {verb} {url}: {code}: no space is left there",
                next_step="free some space there, or have the quota raised, and run the same command again: "
                "what was flushed is kept",
            )
        if code == "NoSuchBucket":
            return NotFoundError(
                f"there is no bucket {self.bucket!r} at {self._endpoint()}",
                next_step="create it with your provider's tools, or name another with --store; "
                "AWS_ENDPOINT_URL says whose buckets are meant",
            )
        if isinstance(
            error,
            exceptions.NoCredentialsError
            | exceptions.PartialCredentialsError
            | exceptions.CredentialRetrievalError
            | exceptions.ProfileNotFound
            | exceptions.TokenRetrievalError,
        ):
            return StorageError(
                f"could not {verb} {url}: no usable credentials ({error})", next_step=f"set {VARIABLES}"
            )
        if isinstance(error, PermissionError) or code in _DENIED:
            kind = StorageError if verb in READING else ReadOnlyError
            return kind(
                f"{self._endpoint()} does not let these credentials {verb} {url} ({code or 'access denied'})",
                next_step=f"check {VARIABLES}, and the policy of the bucket",
            )
        if isinstance(error, FileNotFoundError):
            return NotFoundError(f"{url} does not exist")
        if isinstance(error, OSError) and not code:
            return super().explain(error, verb, url)
        return StorageError(
            f"could not {verb} {url}: {code + ': ' if code else ''}{error}",
            next_step="check the network and AWS_ENDPOINT_URL, and run the same command again",
        )

    def _endpoint(self) -> str:
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"

    def _call(self, method: str, **arguments: Any) -> Any:
        return self.fs.call_s3(method, Bucket=self.bucket, **arguments)

    def _head(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._call("head_object", Key=self._key(path))
        except FileNotFoundError:
            return None
        return found

    def _pages(self, prefix: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        arguments.setdefault("MaxKeys", _PAGE_KEYS)
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def _key(self, path: str) -> str:
        return path[len(self.bucket) + 1 :]

    def _prefix(self, path: str) -> str:
        key = self._key(path)
        return f"{key}/" if key else ""


def split_url(url: str) -> tuple[str, str]:
    """Return the bucket and the path (with the bucket, without a trailing slash) of an ``s3://`` URL."""
    fs, _ = _connect()
    path = url.partition("://")[2].strip("/")
    bucket, _, _ = fs.split_path(path)
    return str(bucket), path


def _part_bytes(size_bytes: int) -> int:
    return max(_PART_BYTES, -(-size_bytes // _MOST_PARTS))


def _code_of(error: BaseException | None) -> tuple[str, int]:
    """Return the service's error code and HTTP status that lie behind an exception; ``("", 0)`` if none."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict) and "Error" in answer:
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(answer["Error"].get("Code", "")), int(status)
        error = error.__cause__
    return "", 0
