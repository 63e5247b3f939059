"""Arrays that zarr has to read: compressed, sharded, or rewritten by other tools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import CorruptChunkError
from nait_store.storage.location import Location

_ZARRS = "zarrs.ZarrsCodecPipeline"


def open_zarr_array(location: Location) -> Any:
    """Open a Zarr v3 array read-only.

    Parameters
    ----------
    location
        The array's folder.

    Returns
    -------
    zarr.Array
        Read through the zarrs codec pipeline on local disks, which is faster than zarr's own.

    Raises
    ------
    CorruptChunkError
        zarr does not recognise an array there.
    """
    import zarr
    from zarr.errors import BaseZarrError

    local = location.local_path()
    pipeline = {"codec_pipeline.path": _ZARRS} if local is not None else {}
    try:
        with zarr.config.set(pipeline):
            if local is not None:
                return zarr.open_array(zarr.storage.LocalStore(local, read_only=True), mode="r", zarr_format=3)
            return zarr.open_array(_remote_store(location), mode="r", zarr_format=3)
    except (FileNotFoundError, ValueError, KeyError, TypeError, BaseZarrError) as error:
        raise CorruptChunkError(
            f"{location.url} is not a Zarr v3 array that can be read: {error}",
            next_step="run 'nait-store verify' to see what else is damaged",
        ) from error


def read_zarr_array(array: Any, selection: tuple[slice, ...], url: str) -> NDArray[Any]:
    """Read a part of an array into memory.

    Parameters
    ----------
    array
        From :func:`open_zarr_array`.
    selection
        A slice for each of the first axes.
    url
        The array's folder, for the message.

    Raises
    ------
    CorruptChunkError
        A codec found damage.
    """
    try:
        return np.ascontiguousarray(array[selection])
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:  # whatever a codec makes of damage
        raise CorruptChunkError(
            f"{url} cannot be decoded: {error}", next_step="run 'nait-store verify' to see what is damaged"
        ) from error


def _remote_store(location: Location) -> Any:
    import zarr

    return zarr.storage.FsspecStore.from_url(location.url, read_only=True)
