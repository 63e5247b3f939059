from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from nait_store.storage.location import Location
from nait_store.testing.object_store import ObjectStore
from nait_store.testing.storage_contract import SharedStorageContract, StorageContract, unused_name


class TestLocal(SharedStorageContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> Location:
        return Location(str(tmp_path / "store"))

    def raw_write(self, location: Location, path: str, data: bytes) -> None:
        file = Path(location.url, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def raw_read(self, location: Location, path: str) -> bytes | None:
        file = Path(location.url, path)
        return file.read_bytes() if file.is_file() else None

    def raw_delete(self, location: Location, path: str) -> None:
        Path(location.url, path).unlink()


class TestMemory(StorageContract):
    @pytest.fixture
    def location(self) -> Location:
        return Location(f"memory://{unused_name()}")

    def raw_write(self, location: Location, path: str, data: bytes) -> None:
        fsspec.filesystem("memory").pipe_file(f"{location.url}/{path}", data)

    def raw_read(self, location: Location, path: str) -> bytes | None:
        try:
            return bytes(fsspec.filesystem("memory").cat_file(f"{location.url}/{path}"))
        except FileNotFoundError:
            return None

    def raw_delete(self, location: Location, path: str) -> None:
        fsspec.filesystem("memory").rm_file(f"{location.url}/{path}")


class TestS3(SharedStorageContract):
    @pytest.fixture
    def location(self, object_store: ObjectStore) -> Location:
        return Location(object_store.new_url())

    @pytest.fixture(autouse=True)
    def client(self, object_store: ObjectStore) -> None:
        import boto3

        self.bucket = object_store.bucket
        self.boto: Any = boto3.client("s3")

    def raw_write(self, location: Location, path: str, data: bytes) -> None:
        self.boto.put_object(Bucket=self.bucket, Key=self._key(location, path), Body=data)

    def raw_read(self, location: Location, path: str) -> bytes | None:
        try:
            return bytes(self.boto.get_object(Bucket=self.bucket, Key=self._key(location, path))["Body"].read())
        except self.boto.exceptions.NoSuchKey:
            return None

    def raw_delete(self, location: Location, path: str) -> None:
        self.boto.delete_object(Bucket=self.bucket, Key=self._key(location, path))

    def _key(self, location: Location, path: str) -> str:
        return f"{location.url}/{path}".removeprefix(f"s3://{self.bucket}/")
