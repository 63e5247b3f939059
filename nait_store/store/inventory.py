"""What a store holds: its sets described; its profiles listed, opened, built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Unpack

from nait_store.refs import Kind, Reference, check_name, parse_reference

if TYPE_CHECKING:
    from nait_store.activations.versions import SetVersion
    from nait_store.registry.profiles import Profile, ProfileRegistry
    from nait_store.schemas.profile import ProfileManifest
    from nait_store.store.facade import Store
    from nait_store.store.options import BuildOptions


@dataclass(frozen=True)
class SetSummary:
    """One line about a version of a set.

    Attributes
    ----------
    reference
        ``pool@3``.
    n_samples
        Visible samples.
    features
        Features that every segment stores.
    n_layers, n_neurons
        L and J of the stored arrays.
    dtypes
        Element types stored.
    size_bytes
        Of its segments, samples included.
    model
        Path or hub id given at ingest.
    hook_point
        Where the neurons were read.
    created_at
        When this version was committed.
    """

    reference: str
    n_samples: int
    features: tuple[str, ...]
    n_layers: int
    n_neurons: int
    dtypes: tuple[str, ...]
    size_bytes: int
    model: str
    hook_point: str
    created_at: datetime


@dataclass(frozen=True)
class SetDetails:
    """Everything to know about a version of a set; what is not explained here is as in :class:`SetSummary`.

    Attributes
    ----------
    versions
        Numbers of all versions of the set.
    layers
        Zero-based decoder layers that every segment stores.
    n_segments, n_rows
        Segments, and their rows: visible samples and hidden repetitions.
    n_tokens, n_truncated
        Over all rows.
    capture_id
        Hash of what is measured.
    fields
        Type of each user field; ``mixed`` where segments disagree.
    projections
        Of a set that keeps no activations: the profiles on which its samples are projected, in the order of the last
        axis, with feature and metric; ``math@1 (mean, cosine)``.
    warnings
        What may surprise.
    """

    summary: SetSummary
    versions: tuple[int, ...]
    layers: tuple[int, ...]
    n_segments: int
    n_rows: int
    n_tokens: int
    n_truncated: int
    capture_id: str
    model_type: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    template: str
    span: str
    span_edges: str
    hook_path: str | None
    moe_layout: str | None
    max_length_tokens: tuple[int, ...]
    compute_dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    fields: dict[str, str]
    message: str
    author: str
    warnings: tuple[str, ...]
    projections: tuple[str, ...] = ()


class Profiles:
    """The profiles of a store.

    Parameters
    ----------
    store
        The store; building needs its sets, and its SQL for ``where``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def registry(self) -> ProfileRegistry:
        """The registry itself."""
        from nait_store.registry.profiles import ProfileRegistry

        return ProfileRegistry(self._store.location)

    def names(self) -> list[str]:
        """Sorted names."""
        return self.registry.names()

    def open(self, reference: Reference | str) -> Profile:
        """Open a version; NotFoundError suggests near names."""
        parsed = parse_reference(reference, Kind.PROFILE) if isinstance(reference, str) else reference
        return self.registry.open(parsed)

    def list(self) -> list[Profile]:
        """Latest version of every profile."""
        return [self.open(name) for name in self.names()]

    def history(self, name: str) -> Sequence[ProfileManifest]:
        """Versions of a profile, oldest first; NotFoundError for an unknown name."""
        self.open(Reference(Kind.PROFILE, check_name(name, Kind.PROFILE)))
        return self.registry.manifests(name)

    def build(self, name: str, *, source: str, **options: Unpack[BuildOptions]) -> tuple[Profile, bool]:
        """Build the next version of a profile from an in-domain set.

        Parameters
        ----------
        name
            Name of the profile.
        source
            Set, ``gsm8k`` or ``gsm8k@2``.
        **options
            See :class:`~nait_store.store.options.BuildOptions`.

        Returns
        -------
        profile
            The version.
        created
            False where this very recipe on these very inputs was built before: nothing was computed.

        Raises
        ------
        NotFoundError
            Unknown set, recipe, feature, layer or column.
        InvalidInputError
            Options that contradict each other, or too few samples.
        IncompatibleError
            The background set measures something else.
        """
        from nait_store.registry.recipes import choose_recipe

        feature, method = options.get("feature"), options.get("method")
        against = options.get("against")
        recipe = choose_recipe(
            options.get("recipe") or "default",
            # A background means contrast: asking for it twice would be pedantic.
            method="contrastive" if against is not None and method is None else method,
            center=options.get("center"),
            profile_feature=options.get("profile_feature") or feature,
            feature=feature,
            metric=options.get("metric"),
        )
        check_name(name, Kind.PROFILE)
        version = self._store.sets.open(source)
        where = options.get("where")
        rows = None
        if where is not None:
            from nait_store.query.rows import matching_rows

            rows = matching_rows(self._store.session, version, where)
        return self.registry.build(
            name,
            version,
            recipe=recipe,
            rows=rows,
            where=where,
            limit=options.get("limit"),
            seed=options.get("seed", 0),
            background=self._store.sets.open(against) if against is not None else None,
            layers=options.get("layers"),
            message=options.get("message", ""),
            card=options.get("card", ""),
        )


def summarise(version: SetVersion) -> SetSummary:
    """Summary of an opened version."""
    records = [segment.record for segment in version.segments]
    return SetSummary(
        reference=version.reference,
        n_samples=version.n_samples,
        features=tuple(feature.value for feature in version.features),
        n_layers=len(version.layers),
        n_neurons=version.record.n_neurons,
        dtypes=_distinct(array.dtype.value for record in records for array in record.arrays),
        size_bytes=sum(record.size_bytes for record in records),
        model=", ".join(_distinct(record.environment.model_label for record in records)),
        hook_point=version.record.identity.hook_point.value,
        created_at=version.manifest.provenance.created_at,
    )


def describe(version: SetVersion, numbers: Iterable[int]) -> SetDetails:
    """Details of an opened version of a set that has these version numbers."""
    from nait_store.scoring.stored_targets import describe_projections

    records = [segment.record for segment in version.segments]
    identity = version.record.identity
    fields: dict[str, str] = {}
    for record in records:
        for name, kind in record.user_fields.items():
            fields[name] = kind if fields.get(name, kind) == kind else "mixed"
    lengths = tuple(sorted({record.settings.max_length_tokens for record in records}))
    computed = _distinct(record.settings.compute_dtype for record in records)
    n_rows = sum(record.n_rows for record in records)
    n_truncated = sum(record.n_truncated for record in records)
    warnings = []
    if len(lengths) > 1:
        warnings.append(f"its segments were truncated at different lengths: {', '.join(map(str, lengths))} tokens")
    if len(computed) > 1:
        warnings.append(f"its segments were computed in different dtypes: {', '.join(computed)}")
    if n_truncated * 20 > n_rows:
        warnings.append(f"{n_truncated:,} of {n_rows:,} samples were truncated: consider --max-length")
    return SetDetails(
        projections=tuple(describe_projections([one]) for one in version.record.projections),
        summary=summarise(version),
        versions=tuple(numbers),
        layers=tuple(version.layers),
        n_segments=len(records),
        n_rows=n_rows,
        n_tokens=sum(record.n_tokens for record in records),
        n_truncated=n_truncated,
        capture_id=version.record.capture_id,
        model_type=", ".join(_distinct(record.environment.model_type for record in records)),
        model_fingerprint=identity.model_fingerprint,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        template=identity.template.name,
        span=identity.span.value,
        span_edges=identity.span_edges.value,
        hook_path=identity.hook_path,
        moe_layout=identity.moe_layout,
        max_length_tokens=lengths,
        compute_dtypes=computed,
        devices=_distinct(record.environment.device for record in records),
        fields=fields,
        message=version.manifest.message,
        author=version.manifest.provenance.author,
        warnings=tuple(warnings),
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
