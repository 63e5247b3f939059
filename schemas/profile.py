"""Profiles on disk: per-layer directions, what they are for, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from nait_store.refs import Kind, Reference
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings, Feature
from nait_store.schemas.record import (
    Document,
    FileDigest,
    Name,
    Provenance,
    Record,
    Sha256,
    SourceFile,
    Ulid,
    json_digest,
)
from nait_store.schemas.sharing import Origin


def _is_absent(value: Any) -> bool:
    return value is None


def _is_first(value: Any) -> bool:
    return bool(value == 1)


_LATER = Field(exclude_if=_is_absent)
"""Of fields that came later: records without them keep the bytes, and so the digests, that they had."""


class Metric(StrEnum):
    """How a layer's activation A_l meets its direction v_l: A_l·v_l, or that over ‖A_l‖ (v_l has unit length)."""

    DOT = "dot"
    COSINE = "cosine"


class Method(StrEnum):
    """Principal component, normalised mean, or that minus a background's mean; or not made from samples here."""

    PCA = "pca"
    MEAN = "mean"
    CONTRASTIVE = "contrastive"
    IMPORTED = "imported"
    """Read from a file."""
    COMBINED = "combined"
    """Weighted sum of the directions of other profiles."""


BUILT_METHODS = (Method.PCA, Method.MEAN, Method.CONTRASTIVE)
"""What makes directions from in-domain samples."""


class Recipe(Record):
    """Every choice that turns in-domain features into directions and directions into scores.

    ``profile_feature`` is what the direction is made of, ``feature`` what candidates are scored on.
    """

    name: str
    """``default``, ``nait-paper``, or ``custom`` as soon as one choice differs from a named recipe; ``imported`` and
    ``combined`` where nothing was chosen but how directions meet candidates."""
    method: Method
    center: bool
    """Whether PCA removes the mean first (arXiv 2603.13201, Eq. 3, does)."""
    component: Annotated[int, Field(ge=1, exclude_if=_is_first)] = 1
    """Which principal component PCA takes, from 1; left out where it is the first, as before there were others."""
    profile_feature: Feature
    feature: Feature
    metric: Metric

    @property
    def in_words(self) -> str:
        """Its choices for people: ``default: uncentred pca of mean, candidates' mean, cosine``."""
        scored = f"candidates' {self.feature.value}, {self.metric.value}"
        if self.method not in BUILT_METHODS:
            return f"{self.name}: {scored}"
        centred = ("centred " if self.center else "uncentred ") if self.method is Method.PCA else ""
        which = f" component {self.component}" if self.component > 1 else ""
        return f"{self.name}: {centred}{self.method.value}{which} of {self.profile_feature.value}, {scored}"


class SampleWeights(Record):
    """How much each in-domain sample counts; exactly one of ``expression`` and ``file`` says where that came from."""

    expression: str | None = None
    """SQL over the samples' columns, as given."""
    file: SourceFile | None = None
    """File with the columns ``sample_id`` and ``weight``."""
    values: tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...]
    """In the order of the sorted sample ids. Only their ratios count."""

    @property
    def in_words(self) -> str:
        """Where they came from, for people: ``weighted by quality``, ``weighted by the file weights.csv``."""
        return f"weighted by {self.expression}" if self.file is None else f"weighted by the file {self.file.uri}"

    @property
    def effective_samples(self) -> float:
        """See :func:`effective_samples`."""
        return effective_samples(self.values)

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.expression is None) == (self.file is None):
            raise ValueError("weights come from an expression or from a file")
        return self


def effective_samples(weights: Sequence[float]) -> float:
    """Kish's (Σw)² / Σw²: a mean of so many samples that count the same would be as sure."""
    largest = max(weights)
    shares = [weight / largest for weight in weights]
    return math.fsum(shares) ** 2 / math.fsum(share * share for share in shares)


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
    weights: Annotated[SampleWeights | None, _LATER] = None
    """How much each counts; None where all count the same."""

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
        weighted = f", {self.weights.in_words}" if self.weights is not None else ""
        return f"{self.n_samples:,} {noun} of {self.set_name}@{self.version}{which}{drawn}{weighted}"

    @model_validator(mode="after")
    def _weighs_each(self) -> Self:
        if self.weights is not None and len(self.weights.values) != self.n_samples:
            raise ValueError(f"{len(self.weights.values)} weights of {self.n_samples} samples")
        return self


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
    eigenvalue_gap: Annotated[float | None, _LATER] = None
    """Distance of the component's variance to that of the nearest other, over its own: near 0, which one was found is
    chance. None where the method has no components, and in records of releases that did not measure it."""


class ImportedFile(Record):
    """The file that an imported profile was read from."""

    url: str
    """As given."""
    format: str
    """``safetensors`` or ``npz``."""
    size_bytes: int = Field(ge=1)
    sha256: Sha256
    exported_from: str | None = None
    """What the file says that it was exported from, ``math@3``, of the store that it was exported from."""
    told: str | None = None
    """What else it says of that, in words; nobody has checked it."""

    @property
    def in_words(self) -> str:
        """The file for people: ``the file math.safetensors (exported from math@3)``."""
        return f"the file {self.url}" + (f" (exported from {self.exported_from})" if self.exported_from else "")


class ProfilePart(Record):
    """A profile version that took part in a combination."""

    name: Name
    version: int = Field(ge=1)
    directions_sha256: Sha256
    weight: float | None
    """What its directions were multiplied with; None where the sum was made orthogonal to them."""

    @property
    def reference(self) -> str:
        """``math@3``."""
        return f"{self.name}@{self.version}"


def parts_in_words(parts: Sequence[ProfilePart]) -> str:
    """A combination for people: ``1 × math@3 + 0.5 × code@2, without chat@1``."""
    added = " + ".join(f"{part.weight:g} × {part.reference}" for part in parts if part.weight is not None)
    without = [part.reference for part in parts if part.weight is None]
    return added.replace("+ -", "- ") + (f", without {', '.join(without)}" if without else "")


class ProfileRecord(Document):
    """``profile.json`` of a payload. Immutable.

    Exactly one of ``source``, ``imported`` and ``parts`` says what the directions were made from.
    """

    name: Name
    recipe: Recipe
    recipe_sha256: Sha256
    """Of recipe, capture id, layers and what they are made from: equal means that making it again is a no-op."""
    capture_id: str
    identity: CaptureIdentity
    settings: CaptureSettings
    layers: tuple[int, ...]
    n_neurons: int = Field(ge=1)
    has_offset: bool
    """Whether candidates are centred on a background's mean (``offset`` in ``directions.zarr``)."""
    directions_sha256: Sha256
    """Of layers, directions and offset as little-endian float32 C-order bytes."""
    source: SampleSource | None
    """In-domain samples; None where the directions were imported or combined."""
    background: SampleSource | None = None
    imported: Annotated[ImportedFile | None, _LATER] = None
    """The file, with method ``imported``."""
    parts: Annotated[tuple[ProfilePart, ...] | None, _LATER] = None
    """The other profiles, with method ``combined``."""
    statistics: tuple[LayerStatistics, ...]
    """Of each layer; empty where there are no in-domain samples to take them of."""
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
    def made_from(self) -> str:
        """What the directions were made from, for people: samples, a file, or other profiles."""
        if self.imported is not None:
            return self.imported.in_words
        if self.parts is not None:
            return parts_in_words(self.parts)
        return "" if self.source is None else self.source.in_words

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        elsewhere = {Method.IMPORTED: self.imported, Method.COMBINED: self.parts or None}
        n_origins = sum(origin is not None for origin in (self.source, self.imported, self.parts))
        if elsewhere.get(self.recipe.method, self.source) is None or n_origins != 1:
            raise ValueError(f"what a profile of method {self.recipe.method.value} was made from is not told so")
        return self

    @property
    def family_keys(self) -> tuple[str, ...]:
        """Digests by which sisters are recognised, in any store: two profiles of a family have one of them in common.

        Its own recipe on its own inputs; that of the profile it was ported from; and the recipe with the samples' ids,
        which are the same for every model: who built a sister without a port has it too. What was not built from
        samples has no sisters.
        """
        if self.source is None:
            return (self.recipe_sha256,)
        choices: dict[str, Any] = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"name"}),
            "samples": self.source.sample_ids_sha256,
            "background": None if self.background is None else self.background.sample_ids_sha256,
        }
        if self.source.weights is not None:
            choices["weights"] = self.source.weights.values
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
