"""Repositories of the Hugging Face hub: read through fsspec at one commit, written one whole commit at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar
from urllib.parse import unquote

from nait_store.errors import InvalidInputError, MissingExtraError, NaitStoreError, NotFoundError, ReadOnlyError
from nait_store.storage.backend import READING, Backend, StoredFile

_URL = re.compile(
    r"hf://(?P<kind>datasets/|spaces/|models/)?(?P<id>(?!(?:datasets|spaces|models)/)[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<folder>.*))?",
    re.ASCII,
)
_KINDS = {"datasets/": "dataset", "spaces/": "space"}
_PATHS_AT_ONCE = 500
_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
_PARENT_MOVED = (409, 412)


@dataclass(frozen=True)
class HubRepository:
    """A repository, and perhaps a revision of it.

    Attributes
    ----------
    kind
        ``dataset``, ``model`` or ``space``.
    repo_id
        ``team/profiles``.
    revision
        Branch, tag or commit that is named in the URL; None where none is.
    """

    kind: str
    repo_id: str
    revision: str | None = None

    @property
    def base(self) -> str:
        """The repository, as fsspec paths begin with it."""
        prefix = {"dataset": "datasets/", "space": "spaces/"}.get(self.kind, "")
        return f"{prefix}{self.repo_id}"

    @property
    def root(self) -> str:
        """The same with the revision, quoted as in URLs."""
        if self.revision is None:
            return self.base
        spelled = self.revision if self.revision.startswith("refs/") else self.revision.replace("/", "%2F")
        return f"{self.base}@{spelled}"


def split_url(url: str) -> tuple[HubRepository, str]:
    """Return the repository of a URL and the path of its folder, which begins with the repository.

    Raises
    ------
    InvalidInputError
        It names no repository.
    MissingExtraError
        The package huggingface_hub is not installed.
    """
    found = _URL.fullmatch(url.rstrip("/"))
    folder = "" if found is None else (found["folder"] or "")
    if found is None or (folder and {"", ".", ".."} & {*folder.split("/")}):
        raise InvalidInputError(
            f"{url!r} names no repository of the hub",
            next_step="write hf://datasets/OWNER/NAME, or hf://datasets/OWNER/NAME@REVISION to read a certain one",
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtraError("hf:// needs the package huggingface_hub", next_step="pip install 'nait-store[hub]'")
    revision = None if found["revision"] is None else unquote(found["revision"])
    repository = HubRepository(_KINDS.get(found["kind"] or "", "model"), found["id"], revision)
    return repository, f"{repository.root}/{folder}" if folder else repository.root


class HubBackend(Backend):
    """A repository at one commit, which is looked up when something is first read, so that all that is read fits.

    Parameters
    ----------
    repository
        The repository.
    """

    commits_whole: ClassVar[bool] = True

    def __init__(self, repository: HubRepository) -> None:
        super().__init__(None, "hf")
        self._repository = repository
        self._connected: Any = None
        self._commit: str | None = None
        self._lock = threading.Lock()

    @property
    def fs(self) -> Any:
        """The fsspec filesystem. It keeps listings, which is right: what it is asked for always names a commit."""
        if self._fs is None:
            from huggingface_hub import HfFileSystem

            self._fs = HfFileSystem(skip_instance_cache=True)
        return self._fs

    @property
    def _api(self) -> Any:
        if self._connected is None:
            from huggingface_hub import HfApi

            self._connected = HfApi()
        return self._connected

    def url(self, root: str) -> str:
        """Spell a path as users would write it."""
        return f"hf://{root}"

    def place(self, root: str) -> str:
        """The same without the revision."""
        return f"hf://{self._repository.base}{root[len(self._repository.root) :]}"

    def check_writable(self, root: str) -> None:
        """Refuse: commits of a store are single files, created one by one."""
        raise ReadOnlyError(
            f"{self.url(root)} is on the hub, where no store can be written",
            next_step="keep the store in a local folder or on s3://, and 'nait-store push' its profiles to the hub",
        )

    def check_can_commit(self, root: str) -> None:
        """Raise ReadOnlyError where a revision is pinned or nobody is logged in."""
        if self._repository.revision is not None:
            raise ReadOnlyError(
                f"{self.url(root)} names a revision, which can only be read",
                next_step=f"push to {self.place(root)}",
            )
        from huggingface_hub import get_token

        if get_token() is None:
            raise ReadOnlyError(f"pushing to {self.url(root)} needs a token of the hub", next_step=_LOG_IN)

    def commit(self, files: Mapping[str, bytes], message: str, description: str) -> bool:
        """Write files as one commit upon the one that was read; False, and nothing written, if there is another since.

        Parameters
        ----------
        files
            Absolute path → bytes.
        message, description
            Of the commit.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        operations = [CommitOperationAdd(self._inside(path), data) for path, data in sorted(files.items())]
        try:
            with _network_errors():
                self._api.create_commit(
                    self._repository.repo_id,
                    operations,
                    commit_message=message,
                    commit_description=description,
                    repo_type=self._repository.kind,
                    parent_commit=self._head(),
                )
        except HfHubHTTPError as error:
            if _status(error) in _PARENT_MOVED:
                return False
            raise
        except ValueError as error:  # of the metadata that a README.md begins with
            raise InvalidInputError(
                f"{self.url(self._repository.root)} does not take the commit: {error}",
                next_step="mend what is named, on the hub, and run the same command again",
            ) from error
        return True

    def sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Size in bytes of those of many files that exist, in a few requests."""
        found: dict[str, int] = {}
        for i in range(0, len(paths), _PATHS_AT_ONCE):
            asked = {self._inside(path): path for path in paths[i : i + _PATHS_AT_ONCE]}
            with _network_errors():
                infos = self._api.get_paths_info(
                    self._repository.repo_id, list(asked), revision=self._head(), repo_type=self._repository.kind
                )
            found |= {asked[info.path]: info.size for info in infos if hasattr(info, "size")}
        return found

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        with _network_errors():
            return super().read(self._pinned(path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes from ``start``, fewer at the file's end."""
        with _network_errors():
            return super().read_range(self._pinned(path), start, length)

    def open_read(self, path: str) -> BinaryIO:
        """Open for random access."""
        with _network_errors():
            return super().open_read(self._pinned(path))

    def kind(self, path: str) -> str | None:
        """``"file"``, ``"folder"`` or None."""
        with _network_errors():
            return super().kind(self._pinned(path))

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        with _network_errors():
            return super().size(self._pinned(path))

    def names(self, path: str) -> set[str]:
        """Names of what lies directly in a folder; empty where there is none."""
        with _network_errors():
            return super().names(self._pinned(path))

    def files(self, path: str) -> Iterator[StoredFile]:
        """Yield every file below a folder, sorted by its path relative to it."""
        with _network_errors():
            pinned = self._pinned(path)
            try:
                found = self.fs.find(pinned, detail=True)
            except FileNotFoundError:
                return
        for name, info in sorted(found.items()):
            if name != pinned:
                yield StoredFile(name[len(pinned) :].lstrip("/"), int(info["size"]), None)

    def explain(self, error: Exception, verb: str, url: str) -> NaitStoreError:
        """Put a failure into words: what, where, and what to do."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        kind, name = self._repository.kind, self._repository.repo_id
        if isinstance(error, GatedRepoError):
            return ReadOnlyError(
                f"the {kind} {name} on the hub is gated, and this account may not {verb} it",
                next_step=f"ask for access on https://huggingface.co/{self._repository.base}, then {_LOG_IN}",
            )
        if isinstance(error, RepositoryNotFoundError):
            return NotFoundError(
                f"there is no {kind} {name} on the hub, or it is private and this account may not see it",
                next_step=f"{_LOG_IN}; make a new one with 'hf repos create {name} --type {kind}' (--private)",
            )
        if isinstance(error, RevisionNotFoundError):
            return NotFoundError(
                f"the {kind} {name} on the hub has no revision {self._repository.revision!r}",
                next_step="check the name behind the @",
            )
        status = _status(error)
        if status == 401:
            return ReadOnlyError(f"the hub does not accept this token: could not {verb} {url}", next_step=_LOG_IN)
        if status == 403:
            access = "read" if verb in READING else "write"
            return ReadOnlyError(
                f"this account, or its token, may not {verb} {url}",
                next_step=f"ask the owner of {name} for {access} access, or use a token that has it: {_LOG_IN}",
            )
        return super().explain(error, verb, url)

    def _head(self) -> str:
        """The commit that everything is read at."""
        with self._lock:
            if self._commit is None:
                repository = self._repository
                with _network_errors():
                    info = self._api.repo_info(
                        repository.repo_id, revision=repository.revision, repo_type=repository.kind
                    )
                self._commit = str(info.sha)
            return self._commit

    def _inside(self, path: str) -> str:
        return path[len(self._repository.root) :].removeprefix("/")

    def _pinned(self, path: str) -> str:
        return f"{self._repository.base}@{self._head()}{path[len(self._repository.root) :]}"


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Make an OSError of what the hub's client raises where no answer came."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except HTTPError as error:
        if isinstance(error, OSError):
            raise
        raise ConnectionError(str(error) or type(error).__name__) from error


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
