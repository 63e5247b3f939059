"""The command that makes a version again, from what its documents record: an option for every recorded choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from nait_store.refs import Kind, Reference, parse_reference
from nait_store.schemas.activation_set import IngestChoices, SetRecord
from nait_store.schemas.capture import Feature
from nait_store.schemas.profile import Method, ProfileRecord, Recipe
from nait_store.schemas.selection import SelectionRecord
from nait_store.store.lineage.ingest_records import RecordedIngest
from nait_store.store.lineage.origins import sample_sources

_KNOWN_RECIPE = frozenset(("name", "method", "center", "component", "profile_feature", "feature", "metric"))
_KNOWN_METHODS = frozenset(("pca", "mean", "contrastive"))
"""Choices of a recipe that :func:`build_arguments` spells, and methods that need no more than these."""


def ingest_arguments(
    ingest: RecordedIngest,
    record: SetRecord,
    message: str,
    located: Callable[[str], str],
    profiles: Sequence[Reference],
) -> tuple[str, ...]:
    """Spell an ingest.

    Parameters
    ----------
    ingest
        Its plan, and a segment that it wrote.
    record
        ``set.json``.
    message
        Of the version.
    located
        Where a recorded file or model lies now.
    profiles
        What the samples are projected on, as called in the new store; empty for a set that keeps activations.
    """
    plan, segment = ingest.plan, ingest.segment
    if segment is None:
        raise ValueError("what the ingest captured with is not recorded any more")
    identity, settings, environment = record.identity, segment.settings, segment.environment
    choices = plan.choices or IngestChoices()
    features = {one.feature for one in plan.projections} or plan.features
    layers = None if len(plan.layers) == record.n_model_layers else _ranges(plan.layers)
    quantization = environment.quantization if environment.quantization in ("8bit", "4bit") else None
    return (
        "ingest",
        *_option("--set", plan.set_name),
        *_option("--model", located(environment.model_source)),
        *_option("--adapter", environment.adapter_source and located(environment.adapter_source)),
        *_option("--quantization", quantization),
        *_option("--features", ",".join(feature.value for feature in Feature if feature in features)),
        *_option("--hook", identity.hook_point.value, unless="mlp"),
        *_option("--hook-path", identity.hook_path),
        *_option("--layers", layers),
        *_option("--template", identity.template.name),
        *_option("--span", identity.span.value, unless="all"),
        *_option("--span-edges", identity.span_edges.value, unless="content"),
        *_option("--max-length", settings.max_length_tokens),
        *_option("--compute-dtype", settings.compute_dtype),
        *_option("--dtype", None if plan.projections else plan.dtype.value),
        *_option("--token-budget", environment.token_budget or None),
        *_option("--map", ",".join(f"{name}={field}" for name, field in choices.field_map.items()) or None),
        *_option("--id-field", choices.id_field),
        *_option("--on-error", choices.on_error, unless="stop"),
        *_option("--limit", choices.limit),
        *_option("--keep-features", "none" if plan.projections else None),
        # Scores are computed when they are asked for, and are the same then.
        *_option("--score-with", ",".join(map(str, profiles)) or "none"),
        *_option("--message", message or None),
        "--",
        *(located(source.uri) for source in plan.sources),
    )


def build_arguments(
    record: ProfileRecord, message: str, located: Callable[[str], str], here: Mapping[Reference, Reference]
) -> tuple[str, ...]:
    """Spell the building of a profile; ``here`` has the sets that it was made from."""
    recipe, sources = record.recipe, sample_sources(record)
    source, background = sources["built from"], sources.get("built against")
    center = ("--center" if recipe.center else "--no-center",) if recipe.method is Method.PCA else ()
    layers = record.parameters.get("layers")
    file = None if source.weights is None else source.weights.file
    return (
        "profile",
        "build",
        record.name,
        *_option("--from", str(here[source.reference])),
        *_option("--against", None if background is None else str(here[background.reference])),
        # The choices, not the name: a later release may give the name to others.
        *_option("--method", recipe.method.value),
        *center,
        *_option("--component", recipe.component if recipe.component > 1 else None),
        *_option("--profile-feature", recipe.profile_feature.value),
        *_option("--feature", recipe.feature.value),
        *_option("--metric", recipe.metric.value),
        *_option("--layers", _ranges(record.layers) if layers else None),
        *_option("--where", source.where),
        *_option("--limit", source.limit),
        *_option("--seed", source.seed if source.limit is not None else None),
        *_option("--weights", None if source.weights is None else source.weights.expression),
        *_option("--weights-file", None if file is None else located(file.uri)),
        *_option("--message", message or None),
        *_option("--card", record.card or None),
        # It is measured of the profile and is no part of it; whoever wants it leaves this out.
        "--no-quality-card",
    )


def import_arguments(
    record: ProfileRecord, message: str, located: Callable[[str], str], like: Reference | None
) -> tuple[str, ...]:
    """Spell an import; ``like`` is called as in the new store."""
    if record.imported is None:
        raise ValueError("this was not imported")
    layers = record.parameters.get("layers")
    return (
        "profile",
        "import",
        *_option("--like", None if like is None else like.qualified),
        *_option("--layers", _ranges(record.layers) if layers else None),
        *_option("--feature", record.recipe.feature.value),
        *_option("--metric", record.recipe.metric.value),
        *_option("--message", message or None),
        *_option("--card", record.card or None),
        "--",
        record.name,
        located(record.imported.url),
    )


def port_arguments(
    record: ProfileRecord,
    message: str,
    ingest: RecordedIngest,
    located: Callable[[str], str],
    here: Mapping[Reference, Reference],
) -> tuple[str, ...]:
    """Spell a port, which captures the samples of another profile on a model and builds from them.

    Parameters
    ----------
    record, message
        Of the profile.
    ingest
        That captured the samples.
    located, here
        As for an ingest and a build; the set of the samples is made by the port itself.
    """
    ported_from, segment = record.ported_from, ingest.segment
    if ported_from is None or segment is None:
        raise ValueError("this is no port, or what it captured with is not recorded any more")
    environment, background = segment.environment, record.background
    quantization = environment.quantization if environment.quantization in ("8bit", "4bit") else None
    layers = record.parameters.get("layers")
    against = None if background is None else here.get(background.reference)
    return (
        "profile",
        "port",
        str(here[Reference(Kind.PROFILE, ported_from.name, version=ported_from.version)]),
        *_option("--model", located(environment.model_source)),
        *_option("--adapter", environment.adapter_source and located(environment.adapter_source)),
        *_option("--quantization", quantization),
        *_option("--name", record.name),
        *_option("--set", ingest.plan.set_name),
        *_option("--layers", _ranges(record.layers) if layers else "all"),
        *_option("--template", record.identity.template.name),
        *_option("--max-length", segment.settings.max_length_tokens),
        *_option("--hook-path", record.identity.hook_path),
        *_option("--compute-dtype", segment.settings.compute_dtype),
        *_option("--dtype", ingest.plan.dtype.value),
        *_option("--token-budget", environment.token_budget or None),
        *_option("--against", against),
        *(("--capture-background",) if background is not None and against is None else ()),
        *_option("--message", message or None),
    )


def combine_arguments(record: ProfileRecord, message: str, here: Mapping[Reference, Reference]) -> tuple[str, ...]:
    """Spell a combination of profiles; ``here`` has its parts."""
    parts = [
        (part.weight, here[Reference(Kind.PROFILE, part.name, version=part.version)]) for part in record.parts or ()
    ]
    offset = record.parameters.get("offset")
    if offset not in (None, "none"):
        offset = here[parse_reference(str(offset), Kind.PROFILE)]
    return (
        "profile",
        "combine",
        record.name,
        *(f"{reference}:{weight!r}" for weight, reference in parts if weight is not None),
        *(text for weight, reference in parts if weight is None for text in ("--without", str(reference))),
        *_option("--offset", offset),
        *_option("--feature", record.recipe.feature.value),
        *_option("--metric", record.recipe.metric.value),
        *_option("--message", message or None),
        *_option("--card", record.card or None),
    )


def select_arguments(
    record: SelectionRecord,
    message: str,
    set_ref: Reference,
    profile_refs: Sequence[Reference],
    in_domain: Reference | None = None,
) -> tuple[str, ...]:
    """Spell a selection from a set, by profiles, as these are called in the new store."""
    named = zip(profile_refs, record.profiles_with_weights, strict=True)
    spelled = (str(here) if one.weight == 1 else f"{here}:{one.weight!r}" for here, one in named)
    return (
        "select",
        *_option("--from", str(set_ref)),
        *(word for profile in spelled for word in _option("--profile", profile)),
        *_option("--combine", record.combine),
        *_option("--min-profiles", record.min_profiles),
        *_option("--top", record.top),
        *_option("--where", record.where),
        *_option("--strategy", record.strategy, unless="alignment"),
        *_option("--in-domain", None if in_domain is None else str(in_domain)),
        *(word for text in record.fuse for word in _option("--fuse", text)),
        *_option("--fuse-by", record.fuse_by),
        *_option("--seed", record.seed),
        *_option("--budget-tokens", record.budget_tokens),
        *_option("--quota", record.quota),
        *_option("--per", record.per),
        *_option("--min-score", None if record.min_score is None else repr(record.min_score)),
        *(("--knee",) if record.knee else ()),
        *(word for text in record.drop_duplicates for word in _option("--drop-duplicates", text)),
        *_option("--diversity", record.diversity),
        *_option("--among", record.among),
        *_option("--save", record.name),
        *_option("--message", message or None),
    )


def unspelled_choices(recipe: Recipe) -> list[str]:
    """Choices of a recipe that are recorded and that no option above spells."""
    found = [
        name
        for name, field in type(recipe).model_fields.items()
        if name not in _KNOWN_RECIPE and getattr(recipe, name) != field.default
    ]
    return found if recipe.method.value in _KNOWN_METHODS else ["method", *found]


def _option(name: str, value: object, *, unless: str | None = None) -> tuple[str, ...]:
    if value is None or value == unless:
        return ()
    text = str(value)
    # One word where the value could be taken for an option, for instance a message that begins with a dash.
    return (f"{name}={text}",) if text.startswith("-") or not text else (name, text)


def _ranges(layers: Iterable[int]) -> str:
    """``0-2,5``, as ``--layers`` reads it."""
    ordered = sorted(layers)
    starts = [ordered[0], *(after for before, after in pairwise(ordered) if after != before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after != before + 1), ordered[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
