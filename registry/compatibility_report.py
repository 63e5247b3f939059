"""Whether a profile applies to a set, said field by field; what has no effect on scores is named too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.activations.versions import SetVersion
from nait_store.registry.compatibility import Difference, Severity, differences
from nait_store.schemas.activation_set import SegmentRecord
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile

_ENVIRONMENT: dict[str, Callable[[SegmentRecord], str]] = {
    "device": lambda record: record.environment.device,
    "batch_layout": lambda record: record.environment.batch_layout,
    "dtype": lambda record: ", ".join(sorted({array.dtype.value for array in record.arrays})),
}
"""What never changes the meaning of a score."""


@dataclass(frozen=True)
class CompatibilityReport:
    """Whether a profile applies to a set version, field by field.

    Attributes
    ----------
    profile, set_ref
        The versions.
    same
        Fields in which both are alike.
    differences
        The others: those that forbid it first, then those that shift scores, then those without an effect.
    """

    profile: str
    set_ref: str
    same: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def severity(self) -> Severity | None:
        """The gravest difference; None where there is none."""
        return self.differences[0].severity if self.differences else None

    @property
    def applies(self) -> bool:
        """Whether the set can be scored with the profile."""
        return self.severity != "refuse"


def check_compatibility(profile: Profile, version: SetVersion, source: SetVersion | None = None) -> CompatibilityReport:
    """Compare a profile with a set version, what has no effect on scores included.

    Parameters
    ----------
    profile
        The profile.
    version
        The candidate set version.
    source
        The profile's in-domain set version, where it is at hand: what it ran on is recorded there only.
    """
    found = [*differences(profile.record, version), *_environment_differences(source, version)]
    compared = [*CaptureIdentity.model_fields, "n_neurons", "features", "layers", *CaptureSettings.model_fields]
    if source is not None:
        compared += _ENVIRONMENT
    differing = {difference.field for difference in found}
    same = tuple(field for field in compared if field not in differing)
    return CompatibilityReport(profile.reference, version.reference, same, tuple(found))


def _environment_differences(source: SetVersion | None, version: SetVersion) -> Iterable[Difference]:
    for field, read in _ENVIRONMENT.items():
        mine, theirs = (_values(one, read) for one in (source, version))
        if source is not None and mine != theirs:
            yield Difference(field, mine, theirs, "ignore", "")


def _values(version: SetVersion | None, read: Callable[[SegmentRecord], str]) -> str:
    """What the segments of a version have of something, each value once."""
    return "" if version is None else ", ".join(sorted({read(segment.record) for segment in version.segments}))
