"""A profile in one file, for people without a store: numbers as arrays, everything else as text beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import FormatError, InvalidInputError
from nait_store.registry.profiles import Profile
from nait_store.registry.tensor_files import TensorFile, TensorFormat, tensor_bytes
from nait_store.schemas.profile_export import ProfileExport

DIRECTIONS, OFFSET, LAYERS = "directions", "offset", "layers"


def export_bytes(profile: Profile, kind: TensorFormat, store_id: str | None = None) -> bytes:
    """The content of a file that a profile is exported to; the same for the same version.

    Parameters
    ----------
    profile
        The version.
    kind
        Format of the file.
    store_id
        Of its store.

    Returns
    -------
    bytes
        Arrays ``directions`` [L, J] float32, ``layers`` [L] int64 and, if the profile has one, ``offset`` [L, J]
        float32; and the text ``nait_store_profile``, JSON of a
        :class:`~nait_store.schemas.profile_export.ProfileExport`.

    Raises
    ------
    CorruptChunkError, FormatError
        The stored arrays are not what ``profile.json`` says.
    """
    record, offset = profile.record, profile.offset()
    fields = {name: getattr(record, name) for name in ProfileExport.model_fields if hasattr(record, name)}
    header = ProfileExport(**fields, reference=profile.reference, store_id=store_id, message=profile.manifest.message)
    arrays: dict[str, NDArray[Any]] = {
        DIRECTIONS: profile.directions(),
        LAYERS: np.asarray(record.layers, dtype=np.int64),
    }
    if offset is not None:
        arrays[OFFSET] = offset
    return tensor_bytes(kind, arrays, header.to_json_bytes().decode().rstrip("\n"))


def export_header(file: TensorFile, name: str) -> ProfileExport | None:
    """What an exported file says of its profile; None for a file that was written by somebody else.

    Raises
    ------
    InvalidInputError
        It is not such a text, or of a later release.
    """
    if file.header is None:
        return None
    try:
        return ProfileExport.from_json_bytes(file.header.encode("utf-8", "replace"), f"the text in {name}")
    except FormatError as error:
        later = "export_version" in error.what
        raise InvalidInputError(
            f"{name} was exported by a later release than this one" if later else error.what,
            next_step="upgrade: pip install --upgrade nait-store" if later else "export the profile again",
        ) from error
