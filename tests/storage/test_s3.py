"""What is particular to S3; what every backend does is in the contract."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from nait_store.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from nait_store.storage import s3
from nait_store.storage.connect import connect
from nait_store.storage.location import Location
from nait_store.storage.pending import PendingFile
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.object_store import object_store as run_object_store

_CALL = S3FileSystem._call_s3


@pytest.fixture
def location(object_store: ObjectStore) -> Location:
    location = Location(object_store.new_url())
    location.require_writable()  # so that what a test counts or breaks is not the probe
    return location


@contextlib.contextmanager
def calls(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None] = lambda method: None, after=None):
    """Count requests; `before` and `after` may raise."""
    counted: Counter[str] = Counter()

    async def call(fs: Any, method: str, *arguments: Any, **named: Any) -> Any:
        counted[method] += 1
        before(method)
        answer = await _CALL(fs, method, *arguments, **named)
        if after is not None:
            after(method)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(S3FileSystem, "_call_s3", call)
        patch.setattr(S3FileSystem, "call_s3", sync_wrapper(call))
        yield counted


def _refusal(code: str, status: int) -> Exception:
    answer = {"Error": {"Code": code, "Message": "refused"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(answer, "PutObject"))


@contextlib.contextmanager
def endpoint(status: int, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """An endpoint that answers everything alike."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers Expect: 100-continue

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with monkeypatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
                patch.setenv("AWS_MAX_ATTEMPTS", "1")
                patch.setenv("AWS_ACCESS_KEY_ID", "testing")
                patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
                yield Location("s3://bucket/prefix")
        finally:
            server.shutdown()
            thread.join()


# The probe


def test_an_endpoint_that_ignores_conditions_is_refused_for_writing_and_can_be_read() -> None:
    with run_object_store(ignore_conditions=True) as store:
        boto3.client("s3").put_object(Bucket=store.bucket, Key="p/x", Body=b"1")
        location = Location(f"s3://{store.bucket}/p")
        for write in (location.write_bytes, location.create_bytes, location.sub("d").create_bytes):
            with pytest.raises(ReadOnlyError, match="ignores If-None-Match"):
                write("y", b"2")
        assert location.read_bytes("x") == b"1"
        assert list(location.leftovers()) == []
        assert location.names() == ["x"]


def test_a_bucket_is_tried_out_once(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store.create_bucket("tried-once")
    with calls(monkeypatch) as counted:
        for number in range(3):
            Location(f"s3://tried-once/{number}").create_bytes("x", b"1")
    assert counted["put_object"] == 2 + 3
    assert counted["delete_object"] == 1


def test_nothing_is_tried_out_by_reading(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store.create_bucket("only-read")
    with calls(monkeypatch) as counted:
        location = Location("s3://only-read/x")
        location.names()
        location.exists("y")
        list(location.walk())
    assert counted.keys() == {"list_objects_v2", "head_object"}


def test_an_endpoint_without_conditional_writes_is_refused_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        endpoint(501, "NotImplemented", monkeypatch) as location,
        pytest.raises(ReadOnlyError, match=r"refuses PUT with If-None-Match \(NotImplemented\)"),
    ):
        location.create_bytes("x", b"1")


# Who created it


def test_a_lost_answer_does_not_make_the_creator_believe_it_lost() -> None:
    """The server carries the PUT out and drops the connection; the client repeats it and is refused."""
    with run_object_store(lose_responses_to="versions/") as store:
        location = Location(store.new_url())
        location.create_bytes("versions/1.json", b"mine")
        assert location.read_bytes("versions/1.json") == b"mine"
        with pytest.raises(AlreadyExistsError):
            location.create_bytes("versions/1.json", b"mine")


def test_an_error_after_the_fact_does_not_make_the_creator_believe_it_failed(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(method: str) -> None:
        if method == "put_object":
            raise EndpointConnectionError(endpoint_url="http://gone")

    with calls(monkeypatch, after=lose):
        location.create_bytes("x", b"mine")
    assert location.read_bytes("x") == b"mine"


def test_of_two_creators_of_the_same_content_only_one_wins_whatever_is_lost(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.create_bytes("x", b"same")

    def lose(method: str) -> None:
        if method == "put_object":
            raise EndpointConnectionError(endpoint_url="http://gone")

    with calls(monkeypatch, before=lose), pytest.raises(StorageError, match="http://gone"):
        location.create_bytes("x", b"same")
    with pytest.raises(AlreadyExistsError):
        location.create_bytes("x", b"same")


def test_a_request_that_never_arrived_is_a_storage_error(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(method: str) -> None:
        raise EndpointConnectionError(endpoint_url="http://gone")

    with (
        calls(monkeypatch, before=fail),
        pytest.raises(StorageError, match="check the network and AWS_ENDPOINT_URL"),
    ):
        location.create_bytes("x", b"mine")
    assert not location.exists("x")


def test_a_conflict_with_a_deletion_is_tried_again(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def conflict(method: str) -> None:
        if method == "put_object" and len(refused) < 2:
            refused.append(method)
            raise _refusal("ConditionalRequestConflict", 409)

    with calls(monkeypatch, before=conflict):
        location.create_bytes("x", b"mine")
    assert location.read_bytes("x") == b"mine"
    assert len(refused) == 2


@pytest.mark.parametrize(("code", "status"), [("ConditionalRequestConflict", 409), ("PreconditionFailed", 412)])
def test_refusals_of_any_spelling_mean_that_it_exists(
    location: Location, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    location.create_bytes("x", b"first")

    def refuse(method: str) -> None:
        if method == "put_object":
            raise _refusal(code, status)

    with calls(monkeypatch, before=refuse), pytest.raises(AlreadyExistsError):
        location.create_bytes("x", b"second")


def test_large_objects_are_created_in_parts_and_once(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * (40 * 4096)
    with calls(monkeypatch) as counted:
        location.create_bytes("x", data)
        assert counted["upload_part"] == 3
        with pytest.raises(AlreadyExistsError):
            location.create_bytes("x", b"x" * len(data))
    assert location.read_bytes("x") == data
    uploads = boto3.client("s3").list_multipart_uploads(Bucket="nait-store-test").get("Uploads", [])
    assert uploads == []


# Files and listings


def test_a_large_pending_file_is_uploaded_in_parts(
    location: Location, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    block = bytes(range(256)) * 4096
    with calls(monkeypatch) as counted, PendingFile(location, "x") as pending:
        for _ in range(40):
            pending.handle.write(block)
        pending.publish()
    assert counted["upload_part"] == 3
    assert location.read_bytes("x") == block * 40
    assert list(tmp_path.iterdir()) == []


def test_folders_of_many_pages_are_listed_and_deleted_whole(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAGE_KEYS", 10)
    paths = [f"many/{number:02}" for number in range(25)]
    for path in [*paths, "many-not"]:
        location.write_bytes(path, b"")
    with calls(monkeypatch) as counted:
        assert [f"many/{name}" for name in location.names("many")] == paths
        assert counted == {"list_objects_v2": 3}
        assert [path for path, _ in location.walk("many")] == paths
    with calls(monkeypatch) as counted:
        location.delete("many")
    assert counted == {"list_objects_v2": 3, "delete_objects": 3}
    assert location.names() == ["many-not"]


def test_a_key_that_cannot_be_deleted_is_an_error(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(fs: Any, method: str, *arguments: Any, **named: Any) -> Any:
        if method == "delete_objects":
            return {"Errors": [{"Key": "locked/x", "Code": "AccessDenied"}]}
        return await _CALL(fs, method, *arguments, **named)

    location.write_bytes("locked/x", b"1")
    monkeypatch.setattr(S3FileSystem, "call_s3", sync_wrapper(refuse))
    with pytest.raises(ReadOnlyError, match="does not let these credentials delete"):
        location.delete("locked")


def test_folder_marks_of_consoles_are_no_files(location: Location, object_store: ObjectStore) -> None:
    prefix = location.url.removeprefix(f"s3://{object_store.bucket}/")
    boto3.client("s3").put_object(Bucket=object_store.bucket, Key=f"{prefix}/folder/", Body=b"")
    location.write_bytes("folder/x", b"1")
    assert location.names("folder") == ["x"]
    assert [path for path, _ in location.walk()] == ["folder/x"]


def test_a_whole_bucket_can_be_a_store(object_store: ObjectStore) -> None:
    object_store.create_bucket("a-whole-bucket")
    location = Location("s3://a-whole-bucket/")
    location.create_bytes("d/x", b"1")
    assert location.url == "s3://a-whole-bucket"
    assert location.names() == ["d"]
    assert location.exists("")
    assert [path for path, _ in location.walk()] == ["d/x"]


def test_an_access_point_is_a_bucket() -> None:
    backend, root = connect("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/prefix")
    assert isinstance(backend, s3.S3Backend)
    assert backend.bucket == "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"
    assert root == f"{backend.bucket}/prefix"


def test_small_files_are_read_by_one_request(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    location.write_bytes("x", b"1")
    with calls(monkeypatch) as counted:
        location.read_bytes("x")
    assert counted == {"get_object": 1}


# Processes and environments


_FORKS = """
import multiprocessing, sys
from nait_store.storage.location import Location

def use(location, answers):
    location.write_bytes("from-child", b"1")
    answers.put((location.read_bytes("x"), Location(location.url).names()))

location = Location(sys.argv[1])
location.write_bytes("x", b"1")
context = multiprocessing.get_context("fork")
answers = context.Queue()
child = context.Process(target=use, args=(location, answers))
child.start()
assert answers.get(timeout=60) == (b"1", ["from-child", "x"])
child.join(timeout=60)
assert child.exitcode == 0
assert location.read_bytes("from-child") == b"1"
"""


def test_a_location_made_before_a_fork_works_in_the_child_and_in_the_parent(location: Location) -> None:
    # In a fresh process: a fork of this one would have whatever other tests have left behind, without its threads.
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKS, location.url],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr


def test_another_environment_is_another_store(location: Location) -> None:
    location.write_bytes("x", b"outer")
    with run_object_store():
        assert not Location(location.url).exists("x")
    assert Location(location.url).read_bytes("x") == b"outer"


def test_without_s3fs_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_connections", {})
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nait-store\[s3\]'"):
        Location("s3://bucket/prefix")


# Errors in words


def test_a_missing_bucket_is_named_by_every_operation(object_store: ObjectStore) -> None:
    location = Location("s3://no-such-bucket/prefix")
    for operation in (
        location.names,
        lambda: list(location.walk()),
        lambda: location.read_bytes("x"),
        lambda: location.exists("x"),
        lambda: location.write_bytes("x", b"1"),
    ):
        with pytest.raises(NotFoundError, match="there is no bucket 'no-such-bucket'") as caught:
            operation()
        assert "AWS_ENDPOINT_URL" in str(caught.value)


def test_denied_access_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(403, "AccessDenied", monkeypatch) as location:
        for read in (location.names, lambda: location.read_bytes("x"), lambda: location.exists("x")):
            with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
                read()
        for write in (location.write_bytes, location.create_bytes):
            with pytest.raises(ReadOnlyError, match="AWS_ACCESS_KEY_ID"):
                write("x", b"1")


def test_absent_credentials_name_the_variables(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Location(object_store.new_url()).names()


def test_an_unknown_aws_profile_is_named(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    with pytest.raises(StorageError, match="nobodys"):
        Location(object_store.new_url()).names()


def test_an_endpoint_that_is_down_is_a_storage_error(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        Location(object_store.new_url()).read_bytes("x")


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:s3cr3t@bucket/prefix",
        "s3://AKIAKEY:s3/cr3t@bucket/prefix",
        "s3://AKIAKEY@bucket",
        "simplecache::s3://AKIAKEY:s3cr3t@bucket/prefix",
        "ftp://AKIAKEY:s3cr3t@host/folder",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInputError, match="credentials in its URL") as caught:
        Location(url)
    assert "AKIAKEY" not in str(caught.value)
    assert "cr3t" not in str(caught.value)


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="names no bucket"):
        Location("s3://")


# The server for tests


def test_the_environment_is_restored_and_the_server_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)
    with run_object_store() as store:
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["AWS_ENDPOINT_URL"] == store.endpoint_url
    assert dict(os.environ) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(store.endpoint_url.rpartition(":")[2])), timeout=5)
