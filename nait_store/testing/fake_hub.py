"""A Hugging Face hub in memory: repositories with commits, for tests without a network.

Every call is held against the signature of the installed ``huggingface_hub``, recorded, and answered as the hub
answers: commits have parents, and one upon another parent than the last commit is refused. Reading goes through the
real ``HfFileSystem``, but for the bytes themselves::

    hub = FakeHub()
    hub.create("team/profiles")
    with hub.installed():
        store.remotes.push("math@1", "hf://datasets/team/profiles")
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

__all__ = ["Call", "Commit", "FakeHub", "FakeRepository"]


@dataclass(frozen=True)
class Commit:
    """A commit.

    Attributes
    ----------
    sha, parent
        Its id and that of the commit before it, None of the first.
    message
        Its first line.
    files
        Path → bytes, of the whole tree.
    """

    sha: str
    parent: str | None
    message: str
    files: Mapping[str, bytes]


@dataclass
class FakeRepository:
    """A repository with one branch.

    Attributes
    ----------
    commits
        Oldest first.
    tags
        Name → commit.
    gated, writable
        Whether reading it is refused, and whether the token may write.
    """

    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    writable: bool = True

    @property
    def head(self) -> Commit:
        """The last commit."""
        return self.commits[-1]

    def commit(self, changes: Mapping[str, bytes], message: str = "by hand") -> Commit:
        """Commit files upon the last commit, as somebody else would."""
        parent = self.commits[-1] if self.commits else None
        files = {**({} if parent is None else parent.files), **changes}
        sha = hashlib.sha1(f"{len(self.commits)} {message}".encode(), usedforsecurity=False).hexdigest()
        made = Commit(sha, None if parent is None else parent.sha, message, files)
        self.commits.append(made)
        return made


@dataclass(frozen=True)
class Call:
    """A call of the hub's client: its name, and its arguments by name."""

    name: str
    arguments: Mapping[str, Any]


class FakeHub:
    """The hub.

    Attributes
    ----------
    token
        What the user is logged in with; None if not.
    repositories
        ``team/profiles`` → data set repository.
    calls
        Every call so far.
    before_commit
        Called when a commit has been uploaded, and is about to be made: to lose races, or to fail.
    after_commit
        Called when it has been made, and before the answer is sent.
    """

    def __init__(self) -> None:
        self.token: str | None = "hf_token"
        self.repositories: dict[str, FakeRepository] = {}
        self.calls: list[Call] = []
        self.before_commit: Callable[[], None] = lambda: None
        self.after_commit: Callable[[], None] = lambda: None

    def create(self, repo_id: str) -> FakeRepository:
        """Make a data set repository, with the file that the hub puts there."""
        repository = FakeRepository()
        repository.commit({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
        self.repositories[repo_id] = repository
        return repository

    def called(self, name: str) -> list[Call]:
        """Calls of one name."""
        return [call for call in self.calls if call.name == name]

    @contextlib.contextmanager
    def installed(self) -> Iterator[FakeHub]:
        """Put it in the place of the real one."""
        import huggingface_hub

        class FileSystem(huggingface_hub.HfFileSystem):  # type: ignore[misc]
            """The real one; its client, and the bytes that it reads, are the fake's."""

            cachable = False

            def __init__(fs, *arguments: Any, **options: Any) -> None:  # noqa: N805
                super().__init__(*arguments, **options)
                fs._api = _Client(self)

            def _open(fs, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:  # noqa: N805
                if mode != "rb":
                    raise NotImplementedError(mode)
                found = fs.resolve_path(path)
                commit = self._commit_of(found.repo_id, found.revision)
                try:
                    return io.BytesIO(commit.files[found.path_in_repo])
                except KeyError:
                    raise FileNotFoundError(path) from None

        with (
            mock.patch.object(huggingface_hub, "HfApi", functools.partial(_Client, self)),
            mock.patch.object(huggingface_hub, "HfFileSystem", FileSystem),
            mock.patch.object(huggingface_hub, "get_token", self._get_token),
        ):
            yield self

    def _get_token(self) -> str | None:
        return self.token

    def _commit_of(self, repo_id: str, revision: str | None) -> Commit:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        repository = self.repositories.get(repo_id)
        if repository is None:
            raise RepositoryNotFoundError("404 Client Error: Repository Not Found", response=_response(404))
        if repository.gated:
            raise GatedRepoError("403 Client Error: Cannot access gated repo", response=_response(403))
        if revision in (None, "main"):
            return repository.head
        sha = repository.tags.get(str(revision), revision)
        for commit in repository.commits:
            if commit.sha == sha:
                return commit
        raise RevisionNotFoundError("404 Client Error: Revision Not Found", response=_response(404))


class _Client:
    """What the code under test takes for ``HfApi``: only the calls that it may make."""

    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub

    def repo_info(self, *arguments: Any, **options: Any) -> Any:
        call = self._record("repo_info", arguments, options)
        return SimpleNamespace(sha=self._hub._commit_of(call["repo_id"], call["revision"]).sha)

    def list_repo_tree(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        from huggingface_hub.errors import RemoteEntryNotFoundError
        from huggingface_hub.hf_api import RepoFile, RepoFolder

        call = self._record("list_repo_tree", arguments, options)
        files = self._hub._commit_of(call["repo_id"], call["revision"]).files
        prefix = f"{call['path_in_repo']}/" if call["path_in_repo"] else ""
        inside = {path: data for path, data in files.items() if path.startswith(prefix)}
        if not inside:
            raise RemoteEntryNotFoundError("404 Client Error: Entry Not Found", response=_response(404))
        for path, data in sorted(inside.items()):
            if call["recursive"] or "/" not in path[len(prefix) :]:
                yield RepoFile(path=path, size=len(data), oid=hashlib.sha256(data).hexdigest())
        depths = [path[len(prefix) :].split("/")[:-1] for path in inside]
        folders = {"/".join(parts[: i + 1]) for parts in depths for i in range(len(parts))}
        for folder in sorted(folders):
            if call["recursive"] or "/" not in folder:
                yield RepoFolder(path=prefix + folder, oid="0" * 40)

    def _iter_repo_tree_pages(self, *arguments: Any, **options: Any) -> Iterator[tuple[list[Any], bool]]:
        """One page, for the listing in parallel of the real file system."""
        yield list(self.list_repo_tree(*arguments, **options)), True

    def get_paths_info(self, *arguments: Any, **options: Any) -> list[Any]:
        from huggingface_hub.hf_api import RepoFile

        call = self._record("get_paths_info", arguments, options)
        files = self._hub._commit_of(call["repo_id"], call["revision"]).files
        paths = [call["paths"]] if isinstance(call["paths"], str) else call["paths"]
        return [RepoFile(path=path, size=len(files[path]), oid="0" * 40) for path in paths if path in files]

    def create_commit(self, *arguments: Any, **options: Any) -> Any:
        from huggingface_hub.errors import HfHubHTTPError

        call = self._record("create_commit", arguments, options)
        self._hub._commit_of(call["repo_id"], call["revision"])
        repository = self._hub.repositories[call["repo_id"]]
        if self._hub.token is None:
            raise HfHubHTTPError("401 Client Error: Unauthorized", response=_response(401))
        if not repository.writable:
            raise HfHubHTTPError("403 Forbidden: pass a token that may write", response=_response(403))
        files = {}
        for operation in call["operations"]:
            with operation.as_file() as handle:
                files[operation.path_in_repo] = handle.read()
        self._hub.before_commit()
        if call["parent_commit"] != repository.head.sha:
            raise HfHubHTTPError("412 Client Error: A commit has happened since.", response=_response(412))
        made = repository.commit(files, call["commit_message"])
        self._hub.after_commit()
        return SimpleNamespace(oid=made.sha)

    def _record(self, name: str, arguments: Any, options: Any) -> dict[str, Any]:
        """Bind a call to the real signature: TypeError where the real one would raise it."""
        from huggingface_hub import hf_api

        bound = inspect.signature(getattr(hf_api.HfApi, name)).bind(self, *arguments, **options)
        bound.apply_defaults()
        found = {key: value for key, value in bound.arguments.items() if key != "self"}
        if found["repo_type"] != "dataset":
            raise ValueError(f"the fake hub has data sets only, not {found['repo_type']!r}")
        self._hub.calls.append(Call(name, found))
        return found


def _response(status_code: int) -> Any:
    return SimpleNamespace(status_code=status_code, headers={}, request=None)
