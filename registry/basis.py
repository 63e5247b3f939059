"""What the numbers of a direction are coordinates of: the neurons of one model, captured in one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.activations.versions import SetVersion
from nait_store.errors import InvalidInputError
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile


@dataclass(frozen=True)
class Basis:
    """The space that directions lie in, as something that is there already tells it.

    Attributes
    ----------
    reference
        What tells it: ``set:pool@3``, ``profile:math@1``, or a file.
    identity, settings
        How activations are captured.
    n_neurons
        J.
    layers
        Zero-based decoder layers that it has.
    n_model_layers
        Decoder layers of the model; None where that is not known.
    model
        Path or hub id of the model, None where not recorded.
    """

    reference: str
    identity: CaptureIdentity
    settings: CaptureSettings
    n_neurons: int
    layers: tuple[int, ...]
    n_model_layers: int | None
    model: str | None

    @classmethod
    def of_set(cls, version: SetVersion) -> Basis:
        """Of the activations of a set version.

        Raises
        ------
        InvalidInputError
            The set is empty, or keeps projections in their place.
        """
        if version.record.projections or not version.segments:
            what = "keeps no activations, only projections" if version.record.projections else "has no samples"
            raise InvalidInputError(
                f"set {version.reference} {what}, so it does not tell what directions are made of",
                next_step="name another set of the same model, or a profile",
            )
        first = version.segments[0].record
        return cls(
            f"set:{version.reference}",
            version.record.identity,
            first.settings,
            version.record.n_neurons,
            version.layers,
            version.record.n_model_layers,
            first.environment.model_label,
        )

    @classmethod
    def of_profile(cls, profile: Profile) -> Basis:
        """Of the directions of a profile."""
        record = profile.record
        return cls(
            f"profile:{profile.reference}",
            record.identity,
            record.settings,
            record.n_neurons,
            record.layers,
            None,
            record.model,
        )

    def has_layer(self, layer: int) -> bool:
        """Whether the model is known to have a layer."""
        return layer in self.layers if self.n_model_layers is None else 0 <= layer < self.n_model_layers
