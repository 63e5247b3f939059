"""The versioned feature store and profile registry for choosing training data by neuron activations.

Examples
--------
>>> import nait_store
>>> store = nait_store.open("./.nait-store", create=True)
>>> store.ingest("pool.jsonl", set="pool", model="./model")           # doctest: +SKIP
>>> store.profiles.build("math", source="gsm8k", limit=512)           # doctest: +SKIP
>>> store.select("pool", profile="math", top="10%")                   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nait_store.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptChunkError,
    ForbiddenError,
    FormatError,
    IncompatibleError,
    IngestInterrupted,
    InvalidInputError,
    LimitExceededError,
    MissingExtraError,
    NaitStoreError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    UnsupportedVersionError,
    UntrustedError,
)

if TYPE_CHECKING:
    from nait_store.progress import ProgressListener
    from nait_store.query.sandbox.limits import SandboxLimits
    from nait_store.store.facade import Store

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "CorruptChunkError",
    "ForbiddenError",
    "FormatError",
    "IncompatibleError",
    "IngestInterrupted",
    "InvalidInputError",
    "LimitExceededError",
    "MissingExtraError",
    "NaitStoreError",
    "NotFoundError",
    "ReadOnlyError",
    "SandboxLimits",
    "StorageError",
    "Store",
    "UnsupportedVersionError",
    "UntrustedError",
    "open",
]


def open(  # noqa: A001  (read as nait_store.open)
    url: str | None = None, *, create: bool = False, progress: ProgressListener | None = None
) -> Store:
    """Open a store.

    Parameters
    ----------
    url
        Local folder or fsspec URL; by default the environment variable ``NAIT_STORE``, else ``./.nait-store``.
    create
        Whether to create the store if there is none; opening an existing one is no error.
    progress
        Called with a :class:`~nait_store.progress.ProgressEvent` during long work.

    Returns
    -------
    Store
        The store; nothing heavy is imported or read until it is used.

    Raises
    ------
    NotFoundError
        There is no store and ``create`` is off.
    InvalidInputError
        The URL is no folder.
    UnsupportedVersionError
        A newer release wrote the store.
    """
    from nait_store.store.facade import Store

    return Store.open(url, create=create, progress=progress)


def __getattr__(name: str) -> Any:
    # Store is imported on first use: `nait-store --help` must not pay for pydantic and fsspec.
    if name == "Store":
        from nait_store.store.facade import Store

        return Store
    if name == "SandboxLimits":
        from nait_store.query.sandbox.limits import SandboxLimits

        return SandboxLimits
    if name == "__version__":
        from importlib.metadata import version

        return version("nait-store")
    raise AttributeError(f"module 'nait_store' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
