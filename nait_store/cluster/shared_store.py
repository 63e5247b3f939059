"""A store that every machine of a cluster reaches under the same URL."""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass

from nait_store.errors import IncompatibleError, InvalidInputError, NaitStoreError, NotFoundError
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import package_version

SHARE_IT = "use a store on S3, or a folder that every machine mounts at the same path"


@dataclass(frozen=True)
class SharedStore:
    """What a worker needs to open the store, and to know that it is the same one.

    Attributes
    ----------
    url
        As every machine is to open it.
    store_id
        Of its ``store.json``.
    release
        Versions of this package and of Python that the others have to have.
    """

    url: str
    store_id: str
    release: str

    @classmethod
    def of(cls, location: Location) -> SharedStore:
        """Describe a store to the workers.

        Raises
        ------
        InvalidInputError
            It lives in the memory of this process.
        NotFoundError
            There is no ``store.json``.
        """
        if location.protocol == "memory":
            raise InvalidInputError(
                f"{location.url} lives in the memory of this process: the workers of a cluster cannot reach it",
                next_step=SHARE_IT,
            )
        return cls(location.url, _store_id(location), _release())

    def open(self) -> Location:
        """Open it in a worker.

        Raises
        ------
        NotFoundError
            It is not there on this machine, or another store is.
        IncompatibleError
            This machine has another release of the package.
        """
        if self.release != _release():
            raise IncompatibleError(
                f"the worker on {socket.gethostname()} runs {_release()}, the command {self.release}",
                next_step="install the same versions on every machine of the cluster",
            )
        location = Location(self.url)
        try:
            found = _store_id(location)
        except NaitStoreError as error:
            raise NotFoundError(
                f"the worker on {socket.gethostname()} cannot open {self.url}: {error.what}", next_step=SHARE_IT
            ) from error
        if found != self.store_id:
            raise NotFoundError(f"{self.url} is another store on {socket.gethostname()} than here", next_step=SHARE_IT)
        return location

    def require_file(self, location: Location, path: str) -> None:
        """Check in a worker that what was written elsewhere just now is seen here.

        Raises
        ------
        NotFoundError
            It is not, so this is a copy of the store.
        """
        if not location.is_file(path):
            raise NotFoundError(
                f"{location.url_of(path)} was written a moment ago and is not there on {socket.gethostname()}: "
                "the machines have copies of the store, not the store",
                next_step=SHARE_IT,
            )


def _store_id(location: Location) -> str:
    url = location.url_of(layout.STORE_RECORD)
    return StoreRecord.from_json_bytes(location.read_bytes(layout.STORE_RECORD), url).store_id


def _release() -> str:
    major, minor, _ = platform.python_version_tuple()
    return f"nait-store {package_version()} on Python {major}.{minor}"
