"""The names that a store has for shared registries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nait_store.errors import AlreadyExistsError, InvalidInputError, NotFoundError, did_you_mean
from nait_store.refs import check_name
from nait_store.schemas.sharing import RemoteRecord
from nait_store.storage import layout
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance

if TYPE_CHECKING:
    from nait_store.store.facade import Store


@dataclass(frozen=True)
class Remote:
    """A shared registry that the store has a name for.

    Attributes
    ----------
    name, url
        The name, and where it is.
    require_signed
        Whether what is pulled from it must be signed by a trusted key.
    added_by, added_at
        Who named it, and when.
    """

    name: str
    url: str
    require_signed: bool
    added_by: str
    added_at: datetime


class RemoteNames:
    """Adds, lists and looks up names of registries.

    Parameters
    ----------
    store
        The store that keeps them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, name: str, url: str, *, require_signed: bool = False) -> Remote:
        """Give a shared registry a name; it need not exist yet.

        Parameters
        ----------
        name
            The name.
        url
            Folder or fsspec URL, without credentials.
        require_signed
            Whether what is pulled from it, by name or URL, must be signed by a trusted key.

        Raises
        ------
        AlreadyExistsError
            Another registry has this name.
        InvalidInputError
            No valid name or URL, or credentials in it.
        """
        check_name(name, "remote")
        location = self._location(url)
        record = RemoteRecord(
            name=name, url=location.url, require_signed=require_signed, provenance=current_provenance()
        )
        try:
            self._store.location.create_bytes(layout.remote_record(name), record.to_json_bytes())
        except AlreadyExistsError as error:
            known = self._read(name)
            if known is None or (known.url, known.require_signed) != (location.url, require_signed):
                raise AlreadyExistsError(
                    f"there is a remote {name!r} already: {_described(known)}",
                    next_step=f"choose another name, or 'nait-store remote remove {name}' first",
                ) from error
            return known
        return _remote(record)

    def remove(self, name: str) -> Remote:
        """Forget the name of a registry; what is in the registry stays. NotFoundError for an unknown name."""
        known = self._known(check_name(name, "remote"))
        self._store.location.delete(layout.remote_record(name))
        return known

    def list(self) -> list[Remote]:
        """Registries that have a name, by name."""
        names = (name.removesuffix(".json") for name in self._store.location.names(layout.REMOTES))
        return [remote for name in names if (remote := self._read(name)) is not None]

    def _locate(self, remote: str | None) -> Location:
        if remote is None:
            known = self.list()
            if len(known) != 1:
                raise InvalidInputError(
                    "which registry?" if known else "no registry was named, and the store knows none",
                    next_step=f"name one of {', '.join(each.name for each in known)}"
                    if known
                    else "give its URL, or name one with 'nait-store remote add NAME URL'",
                )
            return self._location(known[0].url)
        if "/" in remote or remote.startswith("."):
            return self._location(remote)
        return self._location(self._known(check_name(remote, "remote")).url)

    def _requires_signed(self, location: Location) -> bool:
        """Whether a remote of this place says so; to name the place by its URL is no way around that."""
        return any(one.require_signed and self._location(one.url).place == location.place for one in self.list())

    def _location(self, url: str) -> Location:
        location = Location(url)
        if location.url == self._store.location.url:
            raise InvalidInputError(
                f"{location.url} is this store itself", next_step="name another folder or prefix for the registry"
            )
        return location

    def _known(self, name: str) -> Remote:
        known = self._read(name)
        if known is None:
            names = [remote.name for remote in self.list()]
            raise NotFoundError(
                f"there is no remote {name!r}",
                next_step=f"{did_you_mean(name, names)} (a folder is written ./{name})",
            )
        return known

    def _read(self, name: str) -> Remote | None:
        path = layout.remote_record(name)
        location = self._store.location
        try:
            return _remote(RemoteRecord.from_json_bytes(location.read_bytes(path), location.url_of(path)))
        except NotFoundError:
            return None


def _remote(record: RemoteRecord) -> Remote:
    by = record.provenance
    return Remote(record.name, record.url, record.require_signed, by.author, by.created_at)


def _described(remote: Remote | None) -> str:
    if remote is None:
        return "it has just been removed"
    return f"{remote.url}, of which signatures are required" if remote.require_signed else remote.url
