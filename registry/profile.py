"""One version of a profile, as it was opened: its record, its arrays, its card."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nait_store.errors import IncompatibleError, InvalidInputError
from nait_store.refs import Kind
from nait_store.registry.cards.stored import read_card
from nait_store.registry.payload import ProfileArrays, read_arrays
from nait_store.schemas.capture import MEASURED_FEATURES, Feature
from nait_store.schemas.profile import Metric, ProfileManifest, ProfileRecord
from nait_store.schemas.quality_card import QualityCard
from nait_store.scoring.targets import ScoringTarget
from nait_store.storage import layout
from nait_store.storage.location import Location


class Profile:
    """One immutable profile version; opened by :meth:`ProfileRegistry.open`.

    Attributes
    ----------
    record
        ``profile.json``: recipe, provenance, statistics, warnings.
    manifest
        The version's document.
    """

    def __init__(self, location: Location, manifest: ProfileManifest, record: ProfileRecord) -> None:
        self.record = record
        self.manifest = manifest
        self._location = location

    def __repr__(self) -> str:
        return f"Profile({self.reference!r}, recipe={self.record.recipe.name!r})"

    @property
    def name(self) -> str:
        """Name of the profile."""
        return self.manifest.name

    @property
    def number(self) -> int:
        """Version number, from 1."""
        return self.manifest.number

    @property
    def reference(self) -> str:
        """Resolved reference, ``math@2``."""
        return f"{self.name}@{self.number}"

    @property
    def folder(self) -> str:
        """The payload's folder below the store's root."""
        return layout.payload_folder(Kind.PROFILE, self.name, self.manifest.payload)

    def directions(self) -> NDArray[np.float32]:
        """v, unit vectors of the record's layers: [L, J] float32, read-only.

        Raises
        ------
        CorruptChunkError, FormatError
            The stored arrays are not what ``profile.json`` says.
        """
        return self._arrays.directions

    def read_directions(self) -> NDArray[np.float32]:
        """As :meth:`directions`, but read anew and not kept: for going through more profiles than memory holds."""
        return read_arrays(self._location, self.folder, self.record).directions

    def offset(self) -> NDArray[np.float32] | None:
        """What candidates are centred on, [L, J] float32, read-only; None where they are not."""
        return self._arrays.offset

    def quality_card(self) -> QualityCard | None:
        """What the build measured of the profile beside the record's statistics; None where it left that out.

        Raises
        ------
        CorruptChunkError, FormatError
            The stored card is not what ``profile.json`` says.
        """
        return read_card(self._location, self.folder, self.record)

    def target(self, metric: Metric | None = None, feature: Feature | None = None) -> ScoringTarget:
        """What a set is scored against.

        Parameters
        ----------
        metric, feature
            Instead of the recipe's own.

        Raises
        ------
        InvalidInputError
            A feature that no model gives.
        IncompatibleError
            Another feature than that whose background mean candidates are centred on.
        """
        recipe = self.record.recipe
        if feature is not None and feature not in MEASURED_FEATURES:
            raise InvalidInputError(
                f"{feature.value} are no feature that a profile reads",
                next_step="leave the feature out: a set that keeps projections has those of its profiles",
            )
        if self.record.has_offset and feature not in (None, recipe.feature):
            raise IncompatibleError(
                f"profile {self.reference} centres candidates on the background's mean of {recipe.feature.value}, "
                f"which says nothing about {feature}",
                next_step=f"leave the feature out, or build a profile with --feature {feature}",
            )
        return ScoringTarget(
            directions=self._arrays.directions,
            offset=self._arrays.offset,
            layers=self.record.layers,
            feature=recipe.feature if feature is None else feature,
            metric=recipe.metric if metric is None else metric,
        )

    @cached_property
    def _arrays(self) -> ProfileArrays:
        return read_arrays(self._location, self.folder, self.record)
