"""The profiles of a store, as far as versions are made: built, imported, combined, ported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Unpack

from nait_store.errors import InvalidInputError
from nait_store.refs import Kind, Reference, check_name
from nait_store.store.kept_versions import KeptVersions

if TYPE_CHECKING:
    from nait_store.activations.set_version import SetVersion
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.ingest.requests import EstimateListener
    from nait_store.registry.profiles import Profile, ProfileRegistry
    from nait_store.registry.sample_weights import GivenWeights
    from nait_store.schemas.profile import ProfileManifest
    from nait_store.storage.versions import VersionLog
    from nait_store.store.options import BuildOptions, CombineOptions, ImportOptions, PortOptions
    from nait_store.store.porting import PortReport


class ProfileMaking(KeptVersions):
    """The methods of :class:`~nait_store.store.profiles.Profiles`, its only subclass, that make versions."""

    kind = Kind.PROFILE

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
        return self.registry.open(self._parsed(reference))

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
            Unknown set, recipe, feature, layer, column or file.
        InvalidInputError
            Options that contradict each other, too few samples, or one without a weight above 0.
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
            component=options.get("component"),
            profile_feature=options.get("profile_feature") or feature,
            feature=feature,
            metric=options.get("metric"),
        )
        check_name(name, Kind.PROFILE)
        card_against = options.get("card_against")
        version = self._store.sets.open(source)
        where = options.get("where")
        weights = self._weights(version, options)
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
            weights=weights,
            background=self._store.sets.open(against) if against is not None else None,
            layers=options.get("layers"),
            message=options.get("message", ""),
            card=options.get("card", ""),
            quality_card=options.get("quality_card", True),
            card_against=self._store.sets.open(card_against) if card_against is not None else None,
            progress=self._store.progress,
        )

    def import_(self, name: str, source: str, **options: Unpack[ImportOptions]) -> tuple[Profile, bool]:
        """Make the next version of a profile from directions in a file.

        Parameters
        ----------
        name
            Name of the profile.
        source
            Local path or fsspec URL of a ``.safetensors`` or ``.npz`` file: one that was exported, or any with an array
            ``directions`` [L, J], or with an array [J] for each layer whose name has the layer's number.
        **options
            See :class:`~nait_store.store.options.ImportOptions`.

        Returns
        -------
        profile
            The version. An exported file gives the very bits back; vectors of another length than 1 are scaled to
            it, and its warnings say so.
        created
            False where a version of this name has the same directions for the same use.

        Raises
        ------
        NotFoundError
            No such file, set or profile.
        InvalidInputError
            The file cannot be used, or says not how its directions were captured and ``like`` is missing.
        IncompatibleError
            The file was captured otherwise than ``like``.
        """
        from nait_store.registry.imported_directions import import_profile
        from nait_store.store.profile_files import named_basis, read_direction_file

        check_name(name, Kind.PROFILE)
        file, like = read_direction_file(source), options.get("like")
        return import_profile(
            self.registry,
            name,
            file,
            like=None if like is None else named_basis(self._store, like),
            layers=options.get("layers"),
            feature=options.get("feature"),
            metric=options.get("metric"),
            message=options.get("message", ""),
            card=options.get("card", ""),
        )

    def combine(
        self, name: str, parts: Mapping[str, float] | Sequence[str], **options: Unpack[CombineOptions]
    ) -> tuple[Profile, bool]:
        """Make the next version of a profile from the directions of others.

        Parameters
        ----------
        name
            Name of the profile.
        parts
            What is added up: ``{"math@3": 1.0, "code@2": 0.5}``, or ``["math@3:1.0", "code@2:0.5"]``; without a weight
            it is 1. Directions have length 1 before and after.
        **options
            See :class:`~nait_store.store.options.CombineOptions`.

        Returns
        -------
        profile
            The version; its record names the parts, which are protected from deletion as long as it is there.
        created
            False where a version of this name is the same combination.

        Raises
        ------
        NotFoundError
            Unknown profile.
        InvalidInputError
            Nothing to combine, an impossible weight, or a layer of which nothing is left.
        IncompatibleError
            Profiles of different captures, or that differ in feature, metric or offset where nothing says which holds.
        """
        from nait_store.registry.combination import WeightedProfile, combine_profiles, parse_part

        weights = parts.items() if isinstance(parts, Mapping) else map(parse_part, parts)
        offset = options.get("offset")
        return combine_profiles(
            self.registry,
            name,
            [WeightedProfile(self.open(reference), weight) for reference, weight in weights],
            without=[self.open(reference) for reference in options.get("without", ())],
            offset=None if offset in (None, "none") else self.open(offset),
            no_offset=offset == "none",
            feature=options.get("feature"),
            metric=options.get("metric"),
            message=options.get("message", ""),
            card=options.get("card", ""),
        )

    def port(
        self,
        reference: Reference | str,
        *,
        model: str,
        capture: CaptureSource | None = None,
        announce: EstimateListener | None = None,
        **options: Unpack[PortOptions],
    ) -> PortReport:
        """Build a profile's sister on another model: its in-domain samples are captured there, its recipe is repeated.

        Samples that a set of that model holds already are not captured again; the same call again computes nothing,
        and goes on after an interrupt.

        Parameters
        ----------
        reference
            ``math@3``.
        model
            Folder or hub id of the other model.
        capture
            An open capture session to use instead of loading ``model``.
        announce
            Called with the expected size, before anything is captured.
        **options
            See :class:`~nait_store.store.options.PortOptions`.

        Returns
        -------
        PortReport
            The sister, the set with its samples, what was captured, and in what it differs.

        Raises
        ------
        InvalidInputError
            The samples are not in the store, and not in the files that were named; not all of them are, or can be
            captured, and ``allow_missing`` is off; the model is the profile's own; it is not clear which layers, or
            which background.
        NotFoundError
            Unknown profile, set, file or model.
        AlreadyExistsError
            What the sister or its set would be called exists and is of another model.
        IngestInterrupted
            Ctrl-C; what was captured is kept.
        """
        from nait_store.ingest.requests import ignore_estimate
        from nait_store.store.porting import port_profile

        origin = self.open(reference)
        return port_profile(self._store, origin, model, options, capture=capture, announce=announce or ignore_estimate)

    def _weights(self, version: SetVersion, options: BuildOptions) -> GivenWeights | None:
        """The weights that a build asks for."""
        expression, file = options.get("weights"), options.get("weights_file")
        if expression is not None and file is not None:
            raise InvalidInputError(
                "weights come from the samples or from a file, not from both",
                next_step="leave out --weights or --weights-file",
            )
        from nait_store.registry.sample_weights import GivenWeights

        if file is not None:
            from nait_store.store.weight_files import read_weights

            read, by_id = read_weights(file)
            return GivenWeights(by_id, file=read)
        if expression is not None:
            from nait_store.query.rows import weigh_samples

            return GivenWeights(weigh_samples(self._store.session, version, expression), expression=expression)
        return None

    @property
    def _log(self) -> VersionLog[ProfileManifest]:
        return self.registry.log
