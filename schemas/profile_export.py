"""What a file that a profile was exported to says beside the arrays."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from nait_store.refs import NAME_PATTERN
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings
from nait_store.schemas.profile import ImportedFile, LayerStatistics, ProfilePart, Recipe, SampleSource
from nait_store.schemas.record import Provenance, Record, Sha256, Ulid

_VERSION = NAME_PATTERN.removesuffix("$") + r"@[1-9][0-9]{0,9}$"


class ProfileExport(Record):
    """The text ``nait_store_profile`` of an exported file: the profile's record, less what belongs to its store."""

    export_version: Literal[1] = 1
    """A reader MUST refuse a higher number than it knows."""
    reference: Annotated[str, StringConstraints(pattern=_VERSION)]
    """``math@3``, in the store that it was exported from."""
    store_id: Ulid | None
    """Of that store."""
    model: str | None
    """Path or hub id of the model."""
    recipe: Recipe
    capture_id: str
    identity: CaptureIdentity
    settings: CaptureSettings
    layers: tuple[Annotated[int, Field(ge=0)], ...]
    n_neurons: int = Field(ge=1)
    has_offset: bool
    directions_sha256: Sha256
    """Of the arrays ``layers``, ``directions`` and ``offset``, as in ``profile.json``."""
    source: SampleSource | None = None
    background: SampleSource | None = None
    imported: ImportedFile | None = None
    parts: tuple[ProfilePart, ...] | None = None
    statistics: tuple[LayerStatistics, ...] = ()
    warnings: tuple[str, ...] = ()
    card: str = ""
    message: str = ""
    provenance: Provenance

    @model_validator(mode="after")
    def _has_its_own_capture_id(self) -> Self:
        if self.capture_id != self.identity.capture_id:
            raise ValueError("the capture id is not that of the identity")
        return self
