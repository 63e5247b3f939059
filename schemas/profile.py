"""Profiles on disk: per-layer directions, what they are for, and where they come from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from nait_store.refs import Kind, Reference
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings, Feature
from nait_store.schemas.record import Document, FileDigest, Name, Provenance, Record, Sha256, Ulid, json_digest
from nait_store.schemas.sharing import Origin


class Metric(StrEnum):
    """How a layer's activation A_l meets its direction v_l: A_l·v_l, or that over ‖A_l‖ (v_l has unit length)."""

    DOT = "dot"
    COSINE = "cosine"


class Method(StrEnum):
    """First principal component, normalised mean, or normalised mean minus a background's mean."""

    PCA = "pca"
    MEAN = "mean"
    CONTRASTIVE = "contrastive"


class Recipe(Record):
    """Every choice that turns in-domain features into directions and directions into scores.

    ``profile_feature`` is what the direction is made of, ``feature`` what candidates are scored on.
    """

    name: str
    """``default``, ``nait-paper``, or ``custom`` as soon as one choice differs from a named recipe."""
    method: Method
    center: bool
    """Whether PCA removes the mean first (arXiv 2603.13201, Eq. 3, does)."""
    profile_feature: Feature
    feature: Feature
    metric: Metric

    @property
    def in_words(self) -> str:
        """Its choices for people: ``default: uncentred pca of mean, candidates' mean, cosine``."""
        centred = ("centred " if self.center else "uncentred ") if self.method is Method.PCA else ""
        return (
            f"{self.name}: {centred}{self.method.value} of {self.profile_feature.value}, "
            f"candidates' {self.feature.value}, {self.metric.value}"
        )


class SampleSource(Record):
    """Which samples of which set version went in."""

    set_name: Name
    version: int = Field(ge=1)
    where: str | None = None
    limit: int | None = None
    seed: int | None = None
    n_samples: int = Field(ge=1)
    sample_ids_sha256: Sha256
    """Of the sorted sample ids, one a line: the input digest of a rebuild."""

    @property
    def reference(self) -> Reference:
        """The set version."""
        return Reference(Kind.SET, self.set_name, version=self.version)

    @property
    def in_words(self) -> str:
        """The choice for people: ``64 samples of gsm8k@2 where n_tokens > 7, drawn with seed 5``."""
        which = f" where {self.where}" if self.where else ""
        drawn = f", drawn with seed {self.seed}" if self.limit is not None else ""
        noun = "sample" if self.n_samples == 1 else "samples"
        return f"{self.n_samples:,} {noun} of {self.set_name}@{self.version}{which}{drawn}"


class PortedFrom(Record):
    """The profile of another model whose in-domain samples and recipe a profile was built from."""

    name: Name
    version: int = Field(ge=1)
    recipe_sha256: Sha256
    """Of that version: it is recognised by this, whatever it is called elsewhere."""
    family: Name
    """Name of the first profile in a line of ports, which its sisters are named after."""

    @property
    def reference(self) -> str:
        """What it was called in the store of the port: ``math@3``."""
        return f"{self.name}@{self.version}"


class LayerStatistics(Record):
    """What to know about one layer's direction."""

    layer: int
    explained_variance_ratio: float | None
    """Share of the (centred or raw) variance on the component; None where the method has no components."""
    sign_margin: float
    """|mean · v| over the standard deviation of the projections: near 0, the sign is a coin toss."""


class ProfileRecord(Document):
    """``profile.json`` of a payload. Immutable."""

    name: Name
    recipe: Recipe
    recipe_sha256: Sha256
    """Of recipe, capture id, sources and layers: equal means that a rebuild is a no-op."""
    capture_id: str
    identity: CaptureIdentity
    settings: CaptureSettings
    layers: tuple[int, ...]
    n_neurons: int = Field(ge=1)
    has_offset: bool
    """Whether candidates are centred on a background's mean (``offset`` in ``directions.zarr``)."""
    directions_sha256: Sha256
    """Of layers, directions and offset as little-endian float32 C-order bytes."""
    source: SampleSource
    background: SampleSource | None = None
    statistics: tuple[LayerStatistics, ...]
    warnings: tuple[str, ...] = ()
    files: tuple[FileDigest, ...]
    """Every other file of the payload."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Options as given, for the reader's benefit."""
    card: str = ""
    parent: int | None = None
    """The version that was latest when this one was built."""
    ported_from: Annotated[PortedFrom | None, Field(exclude_if=lambda value: value is None)] = None
    """Left out of profiles that were not ported, whose records are digested as they ever were."""
    provenance: Provenance

    @property
    def model(self) -> str | None:
        """Path or hub id of the model, as given to the ingest of the in-domain samples; None where not recorded."""
        return str(self.parameters.get("model", "")) or None

    @property
    def family_keys(self) -> tuple[str, ...]:
        """Digests by which sisters are recognised, in any store: two profiles of a family have one of them in common.

        Its own recipe on its own inputs; that of the profile it was ported from; and the recipe with the samples' ids,
        which are the same for every model: who built a sister without a port has it too.
        """
        choices = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"name"}),
            "samples": self.source.sample_ids_sha256,
            "background": None if self.background is None else self.background.sample_ids_sha256,
        }
        own = (self.recipe_sha256, json_digest(choices))
        return own if self.ported_from is None else (*own, self.ported_from.recipe_sha256)


class ProfileManifest(Document):
    """``versions/<n>.json`` of a profile: the sole commit point."""

    name: Name
    number: int = Field(ge=1)
    payload: Ulid
    record_sha256: Sha256
    recipe_sha256: Sha256
    message: str = ""
    origin: Annotated[Origin | None, Field(exclude_if=lambda value: value is None)] = None
    """Where it was pulled from; left out of versions that were built here."""
    provenance: Provenance
    """Who built it, or pulled it."""

    def is_of(self, record: ProfileRecord) -> bool:
        """Whether a record belongs to this version; one that was pulled keeps the name that it was built under."""
        same_name = self.origin is not None or record.name == self.name
        return same_name and record.recipe_sha256 == self.recipe_sha256
