"""Whether a profile means anything on a set: refuse, warn, or ignore.

*Refuse*: the capture identity differs, so the numbers mean different things; or the set lacks what the profile
reads. *Warn*: settings that shift the numbers a little. *Ignore*: device, batch layout, store dtype.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nait_store.activations.versions import SetVersion
from nait_store.errors import IncompatibleError
from nait_store.registry.basis import Basis
from nait_store.schemas.activation_set import Projection
from nait_store.schemas.capture import CaptureIdentity, CaptureSettings, Feature
from nait_store.schemas.profile import ProfileRecord
from nait_store.scoring.stored_targets import describe_projections

if TYPE_CHECKING:
    from nait_store.registry.profiles import Profile

_SETTINGS_ADVICE = {
    "max_length_tokens": "longer samples were cut at different places; ingest with the same --max-length",
    "truncation": "longer samples were cut at different sides",
    "compute_dtype": "bfloat16 moves features by 1-2 %; ingest with the same --dtype of the model",
}


Severity = Literal["refuse", "warn", "ignore"]


@dataclass(frozen=True)
class Difference:
    """One thing in which a profile and a set differ.

    Attributes
    ----------
    field
        What differs: a field of the capture identity, settings or environment, ``features``, ``layers``, ``n_neurons``
        or ``dtype``.
    profile_value, set_value
        Both sides, for people.
    severity
        ``refuse``, ``warn`` or ``ignore``.
    advice
        What to do about it; empty where there is nothing to do.
    """

    field: str
    profile_value: str
    set_value: str
    severity: Severity
    advice: str

    def __str__(self) -> str:
        return f"{self.field}: {self.profile_value} (profile), {self.set_value} (set)"


@dataclass(frozen=True)
class Candidates:
    """What decides whether a profile means anything on some samples.

    Attributes
    ----------
    reference
        How to call them: ``pool@3``, or ``pool`` where they are yet to be written.
    identity
        What was measured.
    n_neurons
        J.
    features, layers
        What is stored of all of them.
    settings
        Of their captures.
    model
        Label of the model, if it is known.
    model_options
        Options of ``ingest`` that name the model.
    projections
        Of samples whose activations are not kept: what is kept in their place.
    """

    reference: str
    identity: CaptureIdentity
    n_neurons: int
    features: tuple[Feature, ...]
    layers: tuple[int, ...]
    settings: tuple[CaptureSettings, ...]
    model: str | None
    model_options: str
    projections: tuple[Projection, ...] = ()

    @classmethod
    def of(cls, version: SetVersion) -> Candidates:
        """The samples of a set version."""
        return cls(
            version.reference,
            version.record.identity,
            version.record.n_neurons,
            version.features,
            version.layers,
            tuple(segment.record.settings for segment in version.segments),
            version.model_label,
            version.segments[0].record.environment.model_options if version.segments else "--model MODEL",
            version.record.projections,
        )


def differences(
    profile: ProfileRecord, version: SetVersion | Candidates, feature: Feature | None = None
) -> list[Difference]:
    """Compare a profile with a set version field by field.

    Parameters
    ----------
    profile
        The profile's record.
    version
        The candidate set version, or samples that are yet to be written.
    feature
        Feature that candidates are scored on instead of the profile's own.

    Returns
    -------
    list of Difference
        Refusals first; empty where the profile applies without reservation.
    """
    candidates = version if isinstance(version, Candidates) else Candidates.of(version)
    found = _identity_differences(
        profile.identity,
        candidates.identity,
        (profile.model, candidates.model),
        model_options=candidates.model_options,
    )
    if not candidates.projections and profile.n_neurons != candidates.n_neurons:
        found.append(
            Difference(
                "n_neurons",
                str(profile.n_neurons),
                str(candidates.n_neurons),
                "refuse",
                "the layers have different widths, so this is another model or hook point",
            )
        )
    wanted = feature or profile.recipe.feature
    if candidates.projections:
        found.extend(_missing_projection(profile, candidates, wanted))
    else:
        found.extend(_missing_contents(profile, candidates, wanted))
    found.extend(_settings_differences(profile, candidates))
    return found


def require_compatible(
    profile: Profile, version: SetVersion | Candidates, force: bool = False, feature: Feature | None = None
) -> list[str]:
    """Refuse a profile that means nothing on this set; say what shifts its scores.

    Parameters
    ----------
    profile
        The profile.
    version
        The candidate set version, or samples that are yet to be written.
    force
        Silence the warnings. Refusals cannot be forced: the scores would be noise.
    feature
        Feature that candidates are scored on instead of the profile's own.

    Returns
    -------
    list of str
        Warnings to show and to record.

    Raises
    ------
    IncompatibleError
        Naming each differing field, both values, and what to do.
    """
    found = differences(profile.record, version, feature)
    refused = [d for d in found if d.severity == "refuse"]
    if refused:
        raise IncompatibleError(
            f"profile {profile.reference} does not apply to set {version.reference}:\n"
            + "\n".join(f"  {difference}" for difference in refused),
            next_step="; ".join(dict.fromkeys(d.advice for d in refused)),
        )
    if force:
        return []
    return [f"profile {profile.reference} and set {version.reference} differ in {d}; {d.advice}" for d in found]


def require_same_capture(source: SetVersion, background: SetVersion) -> None:
    """Refuse a background that was captured differently from the in-domain set.

    Raises
    ------
    IncompatibleError
        Naming each differing field and both values.
    """
    found = _identity_differences(
        source.record.identity, background.record.identity, (source.model_label, background.model_label)
    )
    if found:
        raise IncompatibleError(
            f"set {source.reference} and background {background.reference} were captured differently:\n"
            + "\n".join(f"  {d.field}: {d.profile_value} (in-domain), {d.set_value} (background)" for d in found),
            next_step="ingest both with the same model, template, span and hook point",
        )


def require_same_basis(first: Basis, second: Basis) -> None:
    """Refuse directions that lie in different spaces.

    Raises
    ------
    IncompatibleError
        They are of activations of different capture identities; naming each differing field and both values.
    """
    found = _identity_differences(first.identity, second.identity, (first.model, second.model))
    if first.n_neurons != second.n_neurons:
        found.append(Difference("n_neurons", str(first.n_neurons), str(second.n_neurons), "refuse", ""))
    if found:
        raise IncompatibleError(
            f"{first.reference} and {second.reference} cannot be brought together, they measure different things:\n"
            + "\n".join(
                f"  {d.field}: {d.profile_value} ({first.reference}), {d.set_value} ({second.reference})" for d in found
            ),
            next_step="see which belong together: SELECT reference, capture_id FROM profiles ORDER BY capture_id",
        )


def _identity_differences(
    profile: CaptureIdentity,
    candidates: CaptureIdentity,
    models: tuple[str | None, str | None],
    *,
    model_options: str = "--model MODEL",
) -> list[Difference]:
    rebuild = (
        "rebuild the profile from an in-domain set captured as the candidates were: "
        "'nait-store ingest IN_DOMAIN.jsonl --set NAME{options}', then 'nait-store profile build PROFILE --from NAME'"
    )
    by_model = rebuild.format(options=f" {model_options}")
    options = {
        "span": f" --span {candidates.span.value}",
        "span_edges": f" --span-edges {candidates.span_edges.value}",
        "hook_point": f" --hook {candidates.hook_point.value}",
        "hook_path": f" --hook-path {candidates.hook_path}" if candidates.hook_path else "",
        "template": f" --template {candidates.template.name}",
    }
    found = []
    for field in CaptureIdentity.model_fields:
        mine, theirs = getattr(profile, field), getattr(candidates, field)
        if mine == theirs:
            continue
        shown = [_shown(field, value) for value in (mine, theirs)]
        if field == "model_fingerprint":
            shown = [f"{label} ({text})" if label else text for label, text in zip(models, shown, strict=True)]
        advice = rebuild.format(options=options[field]) if field in options else by_model
        found.append(Difference(field, shown[0], shown[1], "refuse", advice))
    return found


def _missing_contents(profile: ProfileRecord, candidates: Candidates, feature: Feature) -> Iterable[Difference]:
    if feature not in candidates.features:
        stored = ", ".join(f.value for f in candidates.features) or "none in common"
        yield Difference(
            "features",
            f"reads {feature.value}",
            f"stores {stored}",
            "refuse",
            f"ingest the candidates into a new set with --features {feature.value}",
        )
    missing = sorted(set(profile.layers) - set(candidates.layers))
    if missing:
        yield Difference(
            "layers",
            f"reads {_numbers(profile.layers)}",
            f"stores {_numbers(candidates.layers)}",
            "refuse",
            f"ingest the candidates into a new set with the layers {_numbers(missing)} too, "
            f"or build the profile with --layers {','.join(map(str, candidates.layers)) or '…'}",
        )


def _missing_projection(profile: ProfileRecord, candidates: Candidates, feature: Feature) -> Iterable[Difference]:
    kept = candidates.projections
    if any((one.directions_sha256, one.feature) == (profile.directions_sha256, feature) for one in kept):
        return
    names = ",".join([*(one.profile for one in kept), profile.name])
    yield Difference(
        "projections",
        f"reads {feature.value}",
        f"keeps no activations, only projections: {describe_projections(kept)}",
        "refuse",
        "capture the samples again into another set, with "
        f"'nait-store ingest FILE… --set NAME {candidates.model_options} --keep-features none --score-with {names}', "
        "or without --keep-features none to keep activations for profiles to come",
    )


def _settings_differences(profile: ProfileRecord, candidates: Candidates) -> Iterable[Difference]:
    for field, advice in _SETTINGS_ADVICE.items():
        mine = getattr(profile.settings, field)
        theirs = {getattr(settings, field) for settings in candidates.settings}
        if theirs != {mine}:
            yield Difference(field, str(mine), ", ".join(sorted(map(str, theirs))), "warn", advice)


def _shown(field: str, value: Any) -> str:
    if value is None:
        return "none"
    if field == "template":
        return f"{value.name} ({value.sha256[:8]})"
    return f"{value[:12]}…" if field.endswith("_fingerprint") else str(value)


def _numbers(values: Iterable[int]) -> str:
    """Spell layers as ranges: ``0-5, 9``."""
    ranges: list[list[int]] = []
    for value in sorted(values):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "none"
