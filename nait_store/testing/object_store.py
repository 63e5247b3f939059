"""An object store to test with: moto's S3 in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nait_store.errors import MissingExtraError, StorageError

_SERVER = Path(__file__).with_name("object_store_server.py")
_BUCKET = "nait-store-test"
_UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one bucket.

    Attributes
    ----------
    endpoint_url
        Where it listens.
    bucket
        Name of the bucket.
    environment
        Environment variables that lead S3 clients to it; :func:`object_store` has set them in this process.
    """

    endpoint_url: str
    bucket: str
    environment: dict[str, str]

    def new_url(self) -> str:
        """Return the URL of a prefix that nobody else uses."""
        return f"s3://{self.bucket}/{uuid.uuid4().hex}"

    def create_bucket(self, name: str) -> None:
        """Create another bucket."""
        _request("PUT", f"{self.endpoint_url}/{name}")


@contextlib.contextmanager
def object_store(*, ignore_conditions: bool = False, lose_responses_to: str = "") -> Iterator[ObjectStore]:
    """Run an S3 server for the duration of the block, and lead this process's clients to it.

    The server is a process of its own, so that it takes no turns of the interpreter from the code under test. Its
    objects live in memory and vanish with it. It ends with the block, and also when this process is killed.

    Parameters
    ----------
    ignore_conditions
        Whether it behaves like the endpoints that ignore ``If-None-Match``.
    lose_responses_to
        The first PUT of each object whose URL contains this text is carried out, but its answer is lost.

    Yields
    ------
    ObjectStore
        How to reach it. The usual environment variables (``AWS_ENDPOINT_URL``, keys, region) are set for this
        process and those it starts, and restored afterwards.

    Raises
    ------
    MissingExtraError
        moto or s3fs is not installed.
    StorageError
        The server did not start.
    """
    for package in ("moto", "flask", "s3fs"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"an object store to test with needs {package}",
                next_step="pip install 'nait-store[s3]' 'moto[server]'",
            )
    options = ["--ignore-conditions"] if ignore_conditions else []
    if lose_responses_to:
        options += ["--lose-responses-to", lose_responses_to]
    # By path and not by -m: what the server needs is moto alone.
    process = subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", str(_SERVER), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise StorageError(
                f"the S3 server ended with status {process.wait()} before it listened",
                next_step=f"run {sys.executable} {_SERVER} to see why",
            )
        endpoint = f"http://127.0.0.1:{int(port)}"
        _request("PUT", f"{endpoint}/{_BUCKET}")
        environment = _environment(endpoint)
        with _environ(environment):
            yield ObjectStore(endpoint, _BUCKET, environment)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,  # whatever this user's own files say must not matter
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def _environ(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*values, *_UNSET)}
    for name in _UNSET:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _request(method: str, url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=30):
        pass
