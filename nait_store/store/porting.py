"""A profile carried to another model: its in-domain samples are captured there, and the sister profile is built."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from nait_store.activations.set_version import SetVersion
from nait_store.capture.field_maps import FieldMap
from nait_store.errors import AlreadyExistsError, IncompatibleError, InvalidInputError
from nait_store.ingest.requests import ignore_estimate
from nait_store.refs import Kind, check_name
from nait_store.registry.in_domain import choose_rows
from nait_store.registry.sample_weights import GivenWeights, recorded_weights
from nait_store.schemas.capture import CaptureIdentity, Feature
from nait_store.schemas.profile import PortedFrom, SampleSource
from nait_store.store.held_samples import RowChoice, choose_samples, equal_set, holding_set
from nait_store.store.reference_samples import (
    ReferenceFiles,
    ReferenceSamples,
    find_background_samples,
    find_in_domain_samples,
    in_domain_source,
)

if TYPE_CHECKING:
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.ingest.requests import EstimateListener, IngestRequest
    from nait_store.registry.profiles import Profile
    from nait_store.store.facade import Store
    from nait_store.store.options import IngestOptions, PortOptions

_MODEL_OPTIONS = (
    *("adapter", "quantization", "compute_dtype", "device", "devices", "device_map", "max_memory", "token_budget"),
    *("trust_remote_code", "hook_path", "dtype"),
)
_MAX_NAME_CHARACTERS = 64
_NO_NAME_CHARACTERS = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class PortReport:
    """What a port made.

    Attributes
    ----------
    profile
        The sister profile, ``math-qwen@1``.
    created
        False where this very profile existed: nothing was computed.
    ported_from
        The profile that it repeats, ``math@3``.
    model, other_model
        The sister's model, and that of the profile.
    set_ref
        Set version with the in-domain samples, as the sister's model sees them.
    background_ref
        That of the background of a contrastive profile.
    n_samples
        In-domain samples that the sister is made from.
    n_captured
        Samples that were captured now, those of the background included; the others were there.
    n_missing
        In-domain samples of the profile that the sister is made without.
    layers
        Zero-based decoder layers that it has directions for.
    differences
        In what the sister is not measured as the profile is, in words.
    warnings
        Of the captures and of the build.
    """

    profile: str
    created: bool
    ported_from: str
    model: str
    other_model: str | None
    set_ref: str
    background_ref: str | None
    n_samples: int
    n_captured: int
    n_missing: int
    layers: tuple[int, ...]
    differences: tuple[str, ...]
    warnings: tuple[str, ...]


def port_profile(
    store: Store,
    origin: Profile,
    model: str,
    options: PortOptions,
    *,
    capture: CaptureSource | None = None,
    announce: EstimateListener = ignore_estimate,
) -> PortReport:
    """Build the sister of a profile on another model; see :meth:`~nait_store.store.profiles.Profiles.port`."""
    return _Port(store, origin, model, options, announce).carry_out(capture)


class _Port:
    """One port; what it finds and does on its way is in its attributes."""

    def __init__(
        self, store: Store, origin: Profile, model: str, options: PortOptions, announce: EstimateListener
    ) -> None:
        self._store = store
        self._origin = origin
        self._record = origin.record
        self._source = in_domain_source(origin)
        self._model = model
        self._options = options
        self._announce = announce
        self._slug = _slug(options.get("adapter") or model)
        self._n_captured = 0
        self._warnings: list[str] = []
        self._differences: list[str] = []

    def carry_out(self, capture: CaptureSource | None) -> PortReport:
        """Run it, once: what can be refused without a model first."""
        from nait_store.store.ingesting import open_capture

        options, record = self._options, self._record
        self._store.location.require_writable()
        family = record.ported_from.family if record.ported_from is not None else self._origin.name
        name = check_name(options.get("name") or _joined(family, self._slug), Kind.PROFILE)
        layers = self._layers()
        mapping = options.get("map")
        files = ReferenceFiles(
            tuple(options.get("reference_files") or ()),
            FieldMap.of(mapping) if mapping else None,
            options.get("id_field"),
        )
        samples = find_in_domain_samples(self._store, self._origin, files)
        self._require_enough(samples)
        background = self._background_samples(files)
        set_name = options.get("set") or self._set_name(self._source)
        request = self._request(samples, set_name, layers)
        session = capture or open_capture(
            self._model,
            request,
            self._ingest_options(layers),
            longest_tokens=record.settings.max_length_tokens,
        )
        self._require_another_capture(session, name)
        version = None if options.get("set") else holding_set(self._store, samples, session, request.features)
        if version is None:
            version = self._captured(request, session)
        choice = self._choice(version, samples)
        weights = self._weights(samples)
        against = self._background(background, session)
        profile, created = self._store.profiles.registry.build(
            name,
            version,
            recipe=record.recipe,
            rows=choice.rows,
            where=choice.where,
            limit=choice.limit,
            seed=choice.seed,
            weights=weights,
            background=against,
            layers=layers,
            message=options.get("message") or f"ported from {self._origin.reference}",
            card=record.card,
            ported_from=PortedFrom(
                name=self._origin.name,
                version=self._origin.number,
                recipe_sha256=record.recipe_sha256,
                family=family,
            ),
        )
        self._note_differences(profile)
        return PortReport(
            profile=profile.reference,
            created=created,
            ported_from=self._origin.reference,
            model=session.environment.model_label,
            other_model=record.model,
            set_ref=version.reference,
            background_ref=None if against is None else against.reference,
            n_samples=choice.n_samples,
            n_captured=self._n_captured,
            n_missing=self._source.n_samples - choice.n_samples,
            layers=profile.record.layers,
            differences=tuple(self._differences),
            warnings=tuple(dict.fromkeys([*self._warnings, *profile.record.warnings])),
        )

    def _layers(self) -> tuple[int, ...] | None:
        """The layers to build, None for all of the model's."""
        asked = self._options.get("layers")
        if asked is not None:
            return None if isinstance(asked, str) else tuple(asked)
        record = self._record
        known = self._store.sets.versions.record(self._source.set_name)
        if known is not None and known.capture_id == record.capture_id:
            has_all = len(record.layers) == known.n_model_layers
        else:  # its set is elsewhere: a gap, or a list of layers, says that it has not all of them
            has_all = "layers" not in record.parameters and record.layers == tuple(range(len(record.layers)))
        if not has_all:
            raise InvalidInputError(
                f"profile {self._origin.reference} has directions for some layers of its model only "
                f"({', '.join(map(str, record.layers))}), and which of {self._model} correspond to them does not show",
                next_step="name them, counted from 0: --layers 4,8-11, or take all: --layers all",
            )
        return None

    def _set_name(self, source: SampleSource) -> str:
        """``gsm8k-qwen`` from ``gsm8k``, and from ``gsm8k-llama`` where the profile is itself a sister on that."""
        name = source.set_name
        if self._record.ported_from is not None and self._record.model is not None:
            name = name.removesuffix(f"-{_slug(self._record.model)}")
        return _joined(name, self._slug)

    def _require_enough(self, samples: ReferenceSamples) -> None:
        if samples.n_missing and not self._options.get("allow_missing"):
            n = samples.source.n_samples
            raise InvalidInputError(
                f"{n - samples.n_missing:,} of the {n:,} samples that {self._origin.reference} was made from are "
                f"in {', '.join(file.uri for file in samples.found_in)}",
                next_step="name the files that the others come from (--reference-file FILE), or do without them: "
                "--allow-missing",
            )

    def _background_samples(self, files: ReferenceFiles) -> ReferenceSamples | None:
        """The background's samples, where they may have to be captured."""
        source, options = self._record.background, self._options
        if options.get("against") is not None and source is None:
            raise InvalidInputError(
                f"profile {self._origin.reference} has no background, so its sister has no use for one",
                next_step="leave out --against",
            )
        if source is None or options.get("against") is not None or not options.get("capture_background"):
            return None
        samples = find_background_samples(self._store, self._origin, files)
        self._require_enough(samples)
        return samples

    def _request(self, samples: ReferenceSamples, set_name: str, layers: Sequence[int] | None) -> IngestRequest:
        from nait_store.store.ingesting import plan_request

        found_in = samples.found_in
        request = plan_request(
            [file.uri for file in found_in],
            set_name,
            self._features,
            self._ingest_options(layers),
            find=lambda _: found_in,
        )
        message = f"samples of {self._origin.reference}, to port it"
        return dataclasses.replace(request, given=samples.given, message=message)

    def _ingest_options(self, layers: Sequence[int] | None) -> IngestOptions:
        """The profile's capture, as far as it means the same on another model."""
        identity, given = self._record.identity, self._options
        template = given.get("template") or identity.template.name
        options: dict[str, Any] = {key: given[key] for key in _MODEL_OPTIONS if key in given}  # type: ignore[literal-required]
        options |= {
            "hook": identity.hook_point.value,
            "span": identity.span.value,
            "span_edges": identity.span_edges.value,
            # each model has its own chat template, and one without any has to be read somehow
            "template": "auto" if template == "chat" and given.get("template") is None else template,
            "max_length": given.get("max_length"),
            "layers": layers,
            "score_with": (),
        }
        return cast("IngestOptions", options)

    @property
    def _features(self) -> list[str]:
        """What directions are made of, and what the quality card scores the samples on."""
        recipe = self._record.recipe
        wanted = [recipe.profile_feature, recipe.feature]
        return [feature.value for feature in dict.fromkeys(wanted)]

    def _require_another_capture(self, session: CaptureSource, name: str) -> None:
        mine, theirs = self._record.identity, session.identity
        if theirs.capture_id == self._record.capture_id:
            raise InvalidInputError(
                f"profile {self._origin.reference} was built on {session.environment.model_label} itself: there is "
                "nothing to port",
                next_step="name another model",
            )
        for field in ("hook_point", "span", "span_edges"):  # of a session that was opened elsewhere
            if getattr(mine, field) != getattr(theirs, field):
                raise IncompatibleError(
                    f"profile {self._origin.reference} measures {field} {getattr(mine, field)}, and the capture "
                    f"{getattr(theirs, field)}",
                    next_step="open the capture session as the profile's samples were captured",
                )
        if self._options.get("name") is None and self._store.profiles.registry.numbers(name):
            latest = self._store.profiles.open(name)
            if latest.record.identity.model_fingerprint != theirs.model_fingerprint:
                raise AlreadyExistsError(
                    f"profile {latest.reference} is of another model ({latest.record.model or 'not recorded'})",
                    next_step=f"name the sister: --name NAME, or --name {name} to go on with that one",
                )

    def _captured(self, request: IngestRequest, session: CaptureSource) -> SetVersion:
        """The version of a set of the model that holds the samples; those that it has are not captured again."""
        from nait_store.ingest.job import ingest

        existing = self._store.sets.versions.record(request.set_name)
        if existing is not None and existing.capture_id != session.identity.capture_id:
            fields = CaptureIdentity.model_fields
            differing = [f for f in fields if getattr(existing.identity, f) != getattr(session.identity, f)]
            raise AlreadyExistsError(
                f"set {request.set_name!r} measures something else: it differs in {', '.join(differing)}",
                next_step="name another set for the samples: --set NAME",
            )
        report = ingest(self._store.location, session, request, self._store.progress, self._announce)
        self._n_captured += report.n_added
        self._warnings += report.warnings
        self._warnings += [f"{rejected.where} was left out: {rejected.reason}" for rejected in report.rejected]
        return self._store.sets.open(report.set_ref)

    def _choice(self, version: SetVersion, samples: ReferenceSamples) -> RowChoice:
        choice = choose_samples(self._store, version, samples)
        n = samples.source.n_samples
        if choice.n_samples < n and not self._options.get("allow_missing"):
            raise InvalidInputError(
                f"{choice.n_samples:,} of the {n:,} samples that {self._origin.reference} was made from could be "
                f"captured with {self._model}, and are in {version.reference}"
                + "".join(f"\n  {text}" for text in self._warnings[-3:]),
                next_step="do without the others: --allow-missing",
            )
        return choice

    def _weights(self, samples: ReferenceSamples) -> GivenWeights | None:
        """Those of the profile, which are of samples and so hold for every model."""
        weights = samples.source.weights
        if weights is None:
            return None
        if samples.n_missing:
            raise InvalidInputError(
                f"{self._origin.reference} weighs its samples, and without all of their ids nobody can tell whose the "
                "weights are",
                next_step="name the files that the missing ones come from (--reference-file FILE)",
            )
        return recorded_weights(weights, list(samples.contents))

    def _background(self, samples: ReferenceSamples | None, session: CaptureSource) -> SetVersion | None:
        source, asked = self._record.background, self._options.get("against")
        if source is None:
            return None
        held = None
        if asked is None:
            held = equal_set(self._store, source, session, [Feature(feature) for feature in self._features])
        if held is not None:
            return held
        if asked is not None:
            version = self._store.sets.open(asked)
        elif samples is not None:
            version = self._captured(self._request(samples, self._set_name(source), session.layers), session)
        else:
            raise InvalidInputError(
                f"profile {self._origin.reference} is a contrast with {source.in_words}, and no set of {self._model} "
                "holds exactly these samples",
                next_step="name a background of that model (--against SET), or have these captured too: "
                "--capture-background",
            )
        if choose_rows(version).sample_ids_sha256 != source.sample_ids_sha256:
            self._differences.append(f"against {version.reference}, whose samples are not exactly {source.in_words}")
        return version

    def _note_differences(self, profile: Profile) -> None:
        mine, theirs = self._record, profile.record
        if mine.identity.template.name != theirs.identity.template.name:
            self._differences.insert(
                0, f"template {theirs.identity.template.name}, where {mine.name} has {mine.identity.template.name}"
            )
        if mine.identity.hook_path is not None and theirs.identity.hook_path is None:
            self._differences.append(f"hook found by structure, where {mine.name} names {mine.identity.hook_path}")
        for field, value in theirs.settings.model_dump().items():
            other = getattr(mine.settings, field)
            if value != other:
                self._differences.append(f"{field.replace('_', ' ')} {value}, where {mine.name} has {other}")


def _slug(model: str) -> str:
    """What a model is called in names: ``Qwen/Qwen2.5-7B`` is ``qwen2.5-7b``."""
    last = PurePosixPath(model.rstrip("/\\").replace("\\", "/")).name.lower()
    return _NO_NAME_CHARACTERS.sub("-", last).strip("-._") or "model"


def _joined(name: str, slug: str) -> str:
    """``gsm8k`` and ``qwen2.5-7b`` in one name; of what is too long, the model's end is cut."""
    return f"{name}-{slug}"[:_MAX_NAME_CHARACTERS].rstrip("-._")
