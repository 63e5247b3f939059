"""The audit of a set over a store: whose scores are looked at, and with which model samples are captured again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nait_store.analysis.audit import RecaptureAudit, SetAudit, Skipped, audit_set, recapture_audit, require_samples
from nait_store.errors import IncompatibleError, InvalidInputError, NaitStoreError
from nait_store.query.spelling import identifier, literal
from nait_store.registry.compatibility import require_compatible
from nait_store.registry.in_domain import ChosenRows, choose_rows
from nait_store.schemas.capture import MEASURED_FEATURES, CaptureIdentity

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.capture.session import CaptureSession
    from nait_store.registry.profiles import Profile
    from nait_store.schemas.capture import CaptureEnvironment, CaptureSettings
    from nait_store.store.facade import Store
    from nait_store.store.options import RecaptureOptions

DEFAULT_SAMPLES = 32
MOST_SAMPLES = 1024
"""The vectors of all of them are in memory at once."""
_MOST_PROFILES = 8
_MODEL_OPTIONS = ("device", "device_map", "max_memory", "token_budget", "trust_remote_code")


def report_audit(
    store: Store,
    set_ref: str,
    *,
    profiles: Sequence[str],
    by: str,
    n_samples: int,
    seed: int,
    recapture: bool,
    options: RecaptureOptions,
    force: bool,
) -> SetAudit:
    """Audit a set; see :meth:`~nait_store.store.analyses.Analyses.audit`."""
    if not 2 <= n_samples <= MOST_SAMPLES:
        raise InvalidInputError(
            f"{n_samples:,} samples cannot be captured again for an audit",
            next_step=f"give --samples a number from 2 to {MOST_SAMPLES:,}, or leave them out with --no-recapture",
        )
    version = store.sets.open(set_ref)
    require_samples(version)
    store.sql(f"SELECT {identifier(by)} FROM samples({literal(version.reference)}) LIMIT 0")  # before all else
    opened, warnings = _named(store, version, profiles, force=force) if profiles else _stored(store, version)
    again: RecaptureAudit | Skipped
    if recapture:
        again = _captured_again(store, version, opened, n_samples, seed, options)
    else:
        again = Skipped("no sample was captured again, as asked", "leave out --no-recapture")
    return audit_set(store.location, store.session, version, opened, by=by, recaptured=again, warnings=warnings)


def _named(
    store: Store, version: SetVersion, profiles: Sequence[str], *, force: bool
) -> tuple[list[Profile], list[str]]:
    """Those that were named, each once, with warnings about their fit."""
    opened = {profile.reference: profile for profile in map(store.profiles.open, profiles)}
    warnings = [text for profile in opened.values() for text in require_compatible(profile, version, force=force)]
    return list(opened.values()), list(dict.fromkeys(warnings))


def _stored(store: Store, version: SetVersion) -> tuple[list[Profile], list[str]]:
    """The latest versions of profiles whose scores of the set are stored, one for each directions."""
    cached = store.score_cache.list(set=version.reference).scores
    complete = [one for one in cached if one.n_segments and one.n_covered == one.n_segments]
    names = sorted({one.profiles[0].partition("@")[0] for one in complete if one.profiles})
    found: dict[tuple[str, str, str], Profile] = {}
    for name in names:
        try:
            profile = store.profiles.open(name)
            require_compatible(profile, version, force=True)
        except NaitStoreError:  # deleted, or one that is no more of this model
            continue
        target = profile.target()
        key = (target.directions_sha256, target.feature.value, target.metric.value)
        if any((one.directions_sha256, one.feature, one.metric) == key for one in complete):
            found.setdefault(key, profile)
    chosen = list(found.values())
    warnings = []
    if len(chosen) > _MOST_PROFILES:
        others = ", ".join(profile.reference for profile in chosen[_MOST_PROFILES:])
        warnings.append(
            f"the scores of {len(chosen)} profiles are stored, and {_MOST_PROFILES} of them are looked at; "
            f"the others are {others}: name those that matter with --profile"
        )
    return chosen[:_MOST_PROFILES], warnings


def _captured_again(
    store: Store,
    version: SetVersion,
    profiles: Sequence[Profile],
    n_samples: int,
    seed: int,
    options: RecaptureOptions,
) -> RecaptureAudit | Skipped:
    """What capturing samples again shows, or why it cannot be done; only what the user named is an error."""
    settings, environment, rows = _drawn(version, n_samples, seed)
    try:
        session = _open_session(version, settings, environment, options)
    except NaitStoreError as error:
        if options.get("model") is not None:
            raise
        return Skipped(
            f"{environment.model_label} cannot be loaded as it was: {error.what}",
            f"say where the model is now: --model MODEL ({error.next_step})"
            if error.next_step
            else "use --model MODEL",
        )
    with session:
        try:
            _require_same_capture(version, session, environment)
        except IncompatibleError as error:
            if options.get("model") is not None:
                raise
            return Skipped.by(error)
        try:
            return recapture_audit(version, rows, session, profiles, store.progress)
        except NaitStoreError as error:
            return Skipped.by(error)


def _drawn(version: SetVersion, n_samples: int, seed: int) -> tuple[CaptureSettings, CaptureEnvironment, ChosenRows]:
    """Samples by chance, of those that were captured under the settings that most were."""
    counts: Counter[CaptureSettings] = Counter()
    for segment in version.segments:
        visible = version.visible_rows(segment)
        counts[segment.record.settings] += segment.n_rows if visible is None else int(visible.sum())
    settings = counts.most_common(1)[0][0]
    segments = [segment for segment in version.segments if segment.record.settings == settings]
    subset = {segment.ordinal: np.ones(segment.n_rows, dtype=bool) for segment in segments}
    rows = choose_rows(version, subset=subset, limit=n_samples, seed=seed)
    return settings, segments[-1].record.environment, rows


def _open_session(
    version: SetVersion, settings: CaptureSettings, environment: CaptureEnvironment, options: RecaptureOptions
) -> CaptureSession:
    """Load the model as the set was captured; where it runs is for the user to say."""
    from nait_store.capture.session import CaptureSession

    identity = version.record.identity
    quantization = environment.quantization if environment.quantization in ("8bit", "4bit") else None
    given: dict[str, Any] = {name: options[name] for name in _MODEL_OPTIONS if options.get(name) is not None}  # type: ignore[literal-required]
    return CaptureSession.open(
        options.get("model") or environment.model_source,
        features=MEASURED_FEATURES,
        adapter=options.get("adapter") or environment.adapter_source,
        quantization=quantization,
        hook_point=identity.hook_point,
        hook_path=identity.hook_path,
        layers=version.layers,
        template=identity.template.name,
        span=identity.span,
        span_edges=identity.span_edges,
        max_length_tokens=settings.max_length_tokens,
        compute_dtype=settings.compute_dtype,
        **given,
    )


def _require_same_capture(version: SetVersion, session: CaptureSession, environment: CaptureEnvironment) -> None:
    identity = version.record.identity
    if session.identity.capture_id == identity.capture_id:
        return
    differing = [
        field for field in CaptureIdentity.model_fields if getattr(identity, field) != getattr(session.identity, field)
    ]
    raise IncompatibleError(
        f"{session.environment.model_label} is not what {version.reference} was captured with "
        f"({environment.model_label} at the time): it differs in {', '.join(differing)}",
        next_step="name the model that it was captured with: --model MODEL",
    )
