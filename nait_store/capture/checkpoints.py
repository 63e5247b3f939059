"""A checkpoint on disk: which folder a model's name stands for, and which of its files hold the weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nait_store.errors import InvalidInputError, NotFoundError, did_you_mean

WeightFormat = Literal["safetensors", "pickle"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")
_WEIGHTS: tuple[tuple[str, WeightFormat], ...] = (
    ("model.safetensors", "safetensors"),
    ("model.safetensors.index.json", "safetensors"),
    ("pytorch_model.bin", "pickle"),
    ("pytorch_model.bin.index.json", "pickle"),
)
"""In the order in which transformers looks for them."""


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint.

    Attributes
    ----------
    folder
        Where they lie: the user's folder, or the hub's snapshot in the local cache.
    revision
        Commit of a hub snapshot; None for a folder of the user's. Provenance only.
    config
        ``config.json``, as written.
    weight_files
        All files of the weights, sorted by name.
    weight_format
        ``safetensors`` or ``pickle``.
    """

    folder: Path
    revision: str | None
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    weight_format: WeightFormat


def local_folder(source: str, *, kind: str = "model") -> Path | None:
    """Return the folder that a model's (or adapter's) name stands for, or None for a hub id.

    Raises
    ------
    NotFoundError
        It is spelt as a path (or cannot be a hub id), and there is nothing.
    InvalidInputError
        It is a file, or empty.
    """
    if not source.strip() or "\x00" in source:
        raise InvalidInputError(f"{source!r} names no {kind}", next_step="give a folder or a hub id (OWNER/NAME)")
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InvalidInputError(f"{source} is a file, not a {kind}'s folder", next_step="give the folder it lies in")
    if source.startswith(("/", "./", "../", "~")) or not _HUB_ID.match(source):
        near = did_you_mean(path.name, _folder_names(path.parent))
        raise NotFoundError(f"there is no {kind} folder {source}", next_step=f"in {path.parent}: {near}")
    return None


def read_config(folder: Path, source: str) -> dict[str, Any]:
    """Read ``config.json``; InvalidInputError where there is none or it is no JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir())[:8]
        raise InvalidInputError(
            f"{source} is no model folder: it has no config.json (it holds {', '.join(found) or 'nothing'})",
            next_step="give the folder that save_pretrained wrote",
        )
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not valid JSON: {error}", next_step="download the model again") from error
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path} is not a JSON object", next_step="download the model again")
    return config


def find_checkpoint(source: str) -> Checkpoint:
    """Find a checkpoint's files, without the network.

    Parameters
    ----------
    source
        A folder, or the id of a model that has been downloaded.

    Raises
    ------
    NotFoundError
        No such folder, or the hub model has not been downloaded.
    InvalidInputError
        No config.json, no weights, or an index that names files that are not there.
    """
    folder, revision = local_folder(source), None
    if folder is None:
        folder = _snapshot_folder(source)
        revision = folder.name
    config = read_config(folder, source)
    weight_files, weight_format = _weight_files(folder, source)
    return Checkpoint(folder, revision, config, weight_files, weight_format)


def cached_snapshot(source: str, file_name: str) -> Path | None:
    """Return the folder of a hub snapshot in the local cache that has this file; None where there is none."""
    from transformers.utils import cached_file

    try:
        path = cached_file(source, file_name, local_files_only=True)
    except (OSError, ValueError):
        return None
    return None if path is None else Path(path).parent


def _snapshot_folder(source: str) -> Path:
    folder = cached_snapshot(source, "config.json")
    if folder is None:
        raise NotFoundError(
            f"the model {source!r} is neither a folder here nor in the local cache of the hub",
            next_step="check the id (OWNER/NAME) and the network, or give a folder",
        )
    return folder


def _weight_files(folder: Path, source: str) -> tuple[tuple[Path, ...], WeightFormat]:
    for name, weight_format in _WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (path,), weight_format
        try:
            names = sorted({str(value) for value in json.loads(path.read_bytes())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InvalidInputError(
                f"{path} is not an index of weights: {error}", next_step="download again"
            ) from error
        if any("/" in shard or shard in ("", "..") for shard in names):
            raise InvalidInputError(f"{path} names files outside its folder", next_step="do not use this checkpoint")
        missing = [shard for shard in names if not (folder / shard).is_file()]
        if missing:
            raise InvalidInputError(
                f"{source} lacks {len(missing)} of {len(names)} weight files, first {missing[0]}",
                next_step="download the model again",
            )
        return tuple(folder / shard for shard in names), weight_format
    found = sorted(entry.name for entry in folder.iterdir())[:8]
    raise InvalidInputError(
        f"{source} has no weights: none of {', '.join(name for name, _ in _WEIGHTS)} (it holds {', '.join(found)})",
        next_step="download the model again, weights included",
    )


def _folder_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if entry.is_dir()][:10_000]
    except OSError:
        return []
