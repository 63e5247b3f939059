"""What the user names as input: files, URLs, globs and data sets; found, checked, opened, decompressed."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from nait_store.errors import InvalidInputError, NotFoundError, StorageError, did_you_mean
from nait_store.schemas.record import SourceFile

DATASETS_PREFIX = "hf-datasets:"
ACCEPTED = "JSON Lines, JSON, CSV, TSV, Parquet and Arrow files (also .gz, .zst), or hf-datasets:ID[@CONFIG][:SPLIT]"

_BLOCK_BYTES = 1 << 20
_GLOB_CHARACTERS = frozenset("*?[")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def open_sources(sources: Sequence[str]) -> list[SourceFile]:
    """Find every input and take its size and digest, before any work begins.

    Parameters
    ----------
    sources
        Paths, fsspec URLs, globs (expanded in sorted order), folders written by ``datasets``' ``save_to_disk``, or
        ``hf-datasets:ID[@CONFIG][:SPLIT]``. What is named twice is taken once.

    Returns
    -------
    list of SourceFile
        ``uri`` is what :func:`read_records` takes. Local and in-memory files have size and SHA-256, other URLs
        the size where it is known, data sets neither.

    Raises
    ------
    NotFoundError
        A file does not exist or a glob matches nothing; near names are suggested.
    InvalidInputError
        No source, a folder that is no data set, or a pipe.
    """
    uris = list(dict.fromkeys(uri for source in sources for uri in expand(source)))
    if not uris:
        raise InvalidInputError("no input was named", next_step=f"give {ACCEPTED}")
    return [_inspect(uri) for uri in uris]


def expand(source: str) -> list[str]:
    """Return the inputs that one argument stands for, sorted where it is a glob."""
    if not source.strip() or "\x00" in source:
        raise InvalidInputError(f"{source!r} is not an input", next_step=f"give {ACCEPTED}")
    if source.startswith(DATASETS_PREFIX):
        return [source]
    path = local_path(source)
    if not _GLOB_CHARACTERS & set(source) or (path is not None and path.exists()):
        return [source]
    if path is not None:
        found = sorted(name for name in glob.glob(str(path), recursive=True) if not Path(name).is_dir())  # noqa: PTH207
    else:
        with reading_errors(source):
            fs, pattern = _url_to_fs(source)
            found = sorted(fs.unstrip_protocol(name) for name in fs.glob(pattern))
    if not found:
        raise NotFoundError(f"{source} matches no file", next_step="check the pattern and the folder you are in")
    return found


def local_path(uri: str) -> Path | None:
    """Return the local path that a source names, or None for a URL of another filesystem or a data set."""
    if uri.startswith(DATASETS_PREFIX):
        return None
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if "://" in uri or "::" in uri:
        return None
    return Path(uri).expanduser()


def is_saved_dataset(path: Path) -> bool:
    """Whether a local folder was written by ``save_to_disk``."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def size_bytes(uri: str) -> int | None:
    """Size of a file where the filesystem says it."""
    path = local_path(uri)
    if path is not None:
        return path.stat().st_size
    fs, name = _url_to_fs(uri)
    size = fs.info(name).get("size")
    return None if size is None else int(size)


@contextlib.contextmanager
def open_raw(uri: str) -> Iterator[BinaryIO]:
    """Open a file's bytes as they are stored, for reading and, where the filesystem can, seeking."""
    path = local_path(uri)
    with contextlib.ExitStack() as stack:
        with reading_errors(uri):
            if path is not None:
                handle = cast(BinaryIO, stack.enter_context(path.open("rb")))
            else:
                fs, name = _url_to_fs(uri)
                handle = cast(BinaryIO, stack.enter_context(fs.open(name, "rb")))
        yield handle


@contextlib.contextmanager
def open_plain(uri: str) -> Iterator[io.BufferedReader]:
    """Open a file's content, decompressed if its first bytes are those of gzip or zstd, for reading forwards."""
    with open_raw(uri) as raw:
        buffered = io.BufferedReader(cast(Any, raw), _BLOCK_BYTES)
        compression = next((name for magic, name in _MAGIC.items() if buffered.peek(4).startswith(magic)), None)
        if compression is None:
            yield buffered
            return
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(buffered, mode="r"), compression) as plain:
            yield io.BufferedReader(plain, _BLOCK_BYTES)


@contextlib.contextmanager
def reading_errors(uri: str) -> Iterator[None]:
    """Turn what filesystems and decompressors raise into errors that name the source."""
    try:
        yield
    except FileNotFoundError as error:
        raise _not_found(uri) from error
    except OSError as error:
        if error.errno is None and local_path(uri) is not None:  # pyarrow's decompressors
            raise InvalidInputError(
                f"{uri} is not a whole compressed file: {error}", next_step="download or compress the file again"
            ) from error
        raise StorageError(
            f"could not read {uri}: {error.strerror or error}", next_step="check the disk, the network and permissions"
        ) from error


def _inspect(uri: str) -> SourceFile:
    path = local_path(uri)
    if uri.startswith(DATASETS_PREFIX):
        return SourceFile(uri=uri)
    if path is not None and path.is_dir():
        if is_saved_dataset(path):
            return SourceFile(uri=uri)
        raise InvalidInputError(
            f"{uri} is a folder", next_step=f"give files or a glob, e.g. '{uri.rstrip('/')}/*.jsonl'"
        )
    if path is not None and path.exists() and not path.is_file():
        raise InvalidInputError(
            f"{uri} is a pipe or device, which can be read only once",
            next_step="write its content into a file first: an ingest takes a digest, reads, and may have to resume",
        )
    with reading_errors(uri):
        size = size_bytes(uri)
        if path is None and not uri.startswith("memory://"):
            return SourceFile(uri=uri, size_bytes=size)
        digest = hashlib.sha256()
        with open_raw(uri) as handle:
            while block := handle.read(_BLOCK_BYTES):
                digest.update(block)
    return SourceFile(uri=uri, size_bytes=size, sha256=digest.hexdigest())


def _url_to_fs(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        fs, name = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(
            f"cannot open {uri}: {error}", next_step="give a path, or a URL of an installed fsspec filesystem"
        ) from error
    return fs, str(name)


def _not_found(uri: str) -> NotFoundError:
    path = local_path(uri)
    if path is None:
        return NotFoundError(f"{uri} does not exist", next_step="check the URL and your credentials")
    folder = path.parent
    if not folder.is_dir():
        return NotFoundError(f"{uri} does not exist: there is no folder {folder}", next_step="check the path")
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()][:10_000]
        return NotFoundError(f"{uri} does not exist", next_step=f"in {folder}: {did_you_mean(path.name, names)}")
    return NotFoundError(f"{uri} does not exist", next_step="check the path")
