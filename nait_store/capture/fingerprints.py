"""What makes two models, or two tokenizers, the same for us: SHA-256 over content, never over names or files.

A model's fingerprint covers its tensors on disk (sorted name, dtype, shape, bytes) and its configuration without the
keys that say how it was saved. Re-sharding, renaming or moving a checkpoint does not change it. An adapter laid over a
model, or quantisation while it is loaded, gives another fingerprint: of the model's own and of what changed it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nait_store.capture.adapters import Adapter
from nait_store.capture.checkpoints import WeightFormat, find_checkpoint
from nait_store.errors import InvalidInputError, NaitStoreError, StorageError
from nait_store.schemas.record import json_digest
from nait_store.storage.atomic import replace_local
from nait_store.storage.cache_folder import cache_folder

_BLOCK_BYTES = 4 << 20
_MAX_HEADER_BYTES = 100 << 20
_REVISION = 1
"""Raised whenever what is hashed changes, so that cached digests of the old kind are not used."""

_VOLATILE_KEYS = frozenset(
    {
        *("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "_from_model_config"),
        *("dtype", "torch_dtype"),  # the tensors' own dtypes are hashed
        *("use_cache", "output_attentions", "output_hidden_states", "return_dict", "gradient_checkpointing"),
        *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
        *("auto_map", "id2label", "label2id", "problem_type"),
    }
)
"""Configuration that says how a model was saved or is called, not what it computes."""


def model_fingerprint(model: str | Path | Any) -> str:
    """Fingerprint a model.

    Parameters
    ----------
    model
        A folder or (downloaded) hub id; a :class:`~nait_store.capture.models.LoadedModel`, which stands for its
        source and what was laid over it; or a ``torch`` module made in memory, whose state is then hashed.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    NotFoundError, InvalidInputError
        There is no such checkpoint, or its weights are missing or damaged.
    StorageError
        Reading failed.
    """
    if hasattr(model, "state_dict"):
        config = model.config.to_dict() if hasattr(model, "config") else {}
        tensors = _digest_state(model.state_dict())
        return _combine(config, json_digest(tensors))
    if not isinstance(model, str | Path):
        base = model_fingerprint(model.source)
        changes: dict[str, Any] = {}
        if model.adapter is not None:
            changes["adapter"] = adapter_fingerprint(model.adapter)
        if model.quantization is not None and model.quantization.definition is not None:
            changes["quantization"] = model.quantization.definition
        return json_digest({"revision": _REVISION, "base": base, **changes}) if changes else base
    checkpoint = find_checkpoint(str(model))
    return _combine(checkpoint.config, _tensors_digest(checkpoint.weight_files, checkpoint.weight_format))


def adapter_fingerprint(adapter: Adapter) -> str:
    """Fingerprint an adapter: its tensors, and its configuration without what says how it was saved.

    Returns
    -------
    str
        64 hexadecimal digits; the same wherever it lies and whatever its base model is called.
    """
    return _combine(adapter.canonical_config(), _tensors_digest(adapter.weight_files, adapter.weight_format))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Fingerprint a tokenizer: its serialised form, its special tokens and its chat template.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer. Truncation and padding set on it do not count.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    content: dict[str, Any] = {
        "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat_template": getattr(tokenizer, "chat_template", None),
    }
    if getattr(tokenizer, "is_fast", False):
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        content["backend"] = {key: value for key, value in backend.items() if key not in ("truncation", "padding")}
    else:
        content["vocabulary"] = tokenizer.get_vocab()
        content["kind"] = type(tokenizer).__name__
        files = getattr(tokenizer, "vocab_files_names", {})
        names = [getattr(tokenizer, key, None) for key in sorted(files)]
        content["files"] = [_file_digest(Path(name)) for name in names if name and Path(name).is_file()]
    return json_digest(content)


def canonical_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its volatile keys, in nested configurations too."""
    return {
        key: canonical_config(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _VOLATILE_KEYS
    }


def _combine(config: dict[str, Any], tensors_sha256: str) -> str:
    # Infinity appears in real configurations, canonical JSON has no form for it.
    plain = json.loads(json.dumps(canonical_config(config), default=str), parse_constant=str)
    return json_digest({"revision": _REVISION, "config": plain, "tensors": tensors_sha256})


def _tensors_digest(weight_files: tuple[Path, ...], weight_format: WeightFormat) -> str:
    """Digest of the tensors in files, from the cache if the files look as they did."""
    key = json_digest([_REVISION, [[str(path.resolve()), *_size_and_time(path)] for path in weight_files]])
    cached = cache_folder() / "fingerprints" / key
    found = _read_cached(cached)
    if found is None:
        digests = (_digest_safetensors if weight_format == "safetensors" else _digest_pickles)(weight_files)
        found = json_digest(digests)
        with contextlib.suppress(OSError, NaitStoreError):  # the cache only saves time
            replace_local(cached, found.encode("ascii"))
    return found


def _read_cached(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class _StoredTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int

    def digest(self) -> list[Any]:
        hasher = hashlib.sha256()
        with self.path.open("rb") as handle:
            handle.seek(self.begin)
            for block in _blocks(handle, self.end - self.begin):
                hasher.update(block)
        return [self.name, self.dtype, list(self.shape), hasher.hexdigest()]


def _digest_safetensors(paths: Iterable[Path]) -> list[list[Any]]:
    """[name, dtype, shape, SHA-256 of the bytes] of every tensor, sorted by name."""
    tensors = [tensor for path in paths for tensor in _safetensors_of(path)]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing releases the GIL
        try:
            return sorted(pool.map(_StoredTensor.digest, tensors))
        except OSError as error:
            raise StorageError(f"could not read weights: {error}", next_step="check the disk") from error


def _safetensors_of(path: Path) -> Iterator[_StoredTensor]:
    """Read the header: an 8-byte little-endian length, then JSON {name: {dtype, shape, data_offsets}}."""
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            size_bytes = path.stat().st_size
            if not 0 < length <= min(_MAX_HEADER_BYTES, size_bytes - 8):
                raise ValueError("the header's length is impossible")
            header = json.loads(handle.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                begin, end = (int(offset) + 8 + length for offset in entry["data_offsets"])
                if not 8 + length <= begin <= end <= size_bytes:
                    raise ValueError(f"tensor {name!r} lies outside the file")
                yield _StoredTensor(name, str(entry["dtype"]), tuple(map(int, entry["shape"])), path, begin, end)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInputError(
            f"{path} is not a whole safetensors file: {error}", next_step="download the model again"
        ) from error
    except OSError as error:
        raise StorageError(f"could not read {path}: {error}", next_step="check the disk and permissions") from error


def _digest_pickles(paths: Iterable[Path]) -> list[list[Any]]:
    """Digest the tensors of ``.bin`` files; only tensors are unpickled, nothing else."""
    import pickle

    import torch

    digests: list[list[Any]] = []
    for path in paths:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise InvalidInputError(
                f"{path} is not a file of weights: {str(error).partition(chr(10))[0]}",
                next_step="convert the checkpoint to safetensors, or download it again",
            ) from error
        digests += _digest_state(state)
    return sorted(digests)


def _digest_state(state: dict[str, Any]) -> list[list[Any]]:
    """[name, dtype, shape, SHA-256] of every tensor in memory, sorted by name."""
    import torch

    digests = []
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().cpu().contiguous()
            raw: Any = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
            digests.append([name, str(plain.dtype), list(plain.shape), hashlib.sha256(raw).hexdigest()])
    return sorted(digests)


def _file_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _blocks(handle: BinaryIO, n_bytes: int) -> Iterator[bytes]:
    while n_bytes > 0:
        block = handle.read(min(_BLOCK_BYTES, n_bytes))
        if not block:
            raise OSError("the file became shorter while it was read")
        n_bytes -= len(block)
        yield block
