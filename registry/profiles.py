"""Profiles: building, versioning, opening."""

from __future__ import annotations

from collections.abc import Sequence

from nait_store.activations.versions import SetVersion
from nait_store.errors import CorruptChunkError, FormatError, NotFoundError
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import Kind, Reference, check_name, parse_reference
from nait_store.registry.cards.measuring import MeasuredProfile, measure_card
from nait_store.registry.cards.score_sums import check_compared, choose_compared
from nait_store.registry.cards.stored import write_card
from nait_store.registry.computation import (
    check_inputs,
    compute_directions,
    given_parameters,
    recipe_digest,
    sample_source,
)
from nait_store.registry.in_domain import RowSubset, choose_rows
from nait_store.registry.payload import (
    MAX_RECORD_BYTES,
    PROFILE_FILE,
    ProfileArrays,
    read_limited,
    write_arrays,
)
from nait_store.registry.profile import Profile
from nait_store.registry.quality import card_warnings, warnings_for
from nait_store.registry.sample_weights import GivenWeights
from nait_store.schemas.profile import PortedFrom, ProfileManifest, ProfileRecord, Recipe
from nait_store.schemas.quality_card import QualityCard
from nait_store.schemas.store_record import SOURCELESS_FEATURE
from nait_store.storage import layout
from nait_store.storage.digests import sha256_bytes
from nait_store.storage.location import Location
from nait_store.storage.provenance import current_provenance, new_ulid
from nait_store.storage.store_features import announce_feature
from nait_store.storage.versions import VersionLog, VersionNumbers

__all__ = ["Profile", "ProfileRegistry", "RowSubset"]


class ProfileRegistry:
    """All profiles of a store.

    Parameters
    ----------
    location
        The store's root.

    Attributes
    ----------
    location
        As given.
    log
        The versions' documents.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.log = VersionLog(location, Kind.PROFILE, ProfileManifest)

    def names(self) -> list[str]:
        """Sorted names of the profiles that have a version."""
        return self.log.names()

    def numbers(self, name: str) -> list[int]:
        """Ascending version numbers of a profile; empty where there is none of this name."""
        return self.log.numbers(check_name(name, Kind.PROFILE))

    def resolve(self, reference: Reference) -> int:
        """Turn a reference into the number of a version that exists; NotFoundError as for :meth:`open`."""
        return self.log.resolve(reference)

    def manifests(self, name: str) -> list[ProfileManifest]:
        """Read every version's document, oldest first."""
        return [self.log.read(name, number) for number in self.numbers(name)]

    def open(self, reference: Reference | str) -> Profile:
        """Open a version; the arrays are read, and checked, when first asked for.

        Parameters
        ----------
        reference
            ``math`` for the latest version, ``math@2``, ``math@prod`` for what an alias or tag names.

        Raises
        ------
        NotFoundError
            Unknown profile, version, alias or tag; near names are suggested.
        CorruptChunkError, FormatError
            A document is missing, damaged or too large.
        """
        parsed = parse_reference(reference, Kind.PROFILE) if isinstance(reference, str) else reference
        return self._open(self.log.read(parsed.name, self.resolve(parsed)))

    def version(self, name: str, number: int) -> Profile:
        """Open a version that gc has not taken, deleted or not; errors as for :meth:`open`."""
        return self._open(self.log.read(name, number))

    def build(
        self,
        name: str,
        source: SetVersion,
        *,
        recipe: Recipe,
        rows: RowSubset | None = None,
        where: str | None = None,
        limit: int | None = None,
        seed: int = 0,
        weights: GivenWeights | None = None,
        background: SetVersion | None = None,
        layers: Sequence[int] | None = None,
        message: str = "",
        card: str = "",
        ported_from: PortedFrom | None = None,
        quality_card: bool = True,
        card_against: SetVersion | None = None,
        progress: ProgressListener = ignore_progress,
    ) -> tuple[Profile, bool]:
        """Build the next version of a profile, unless this very one exists.

        Memory holds one layer of the chosen samples at a time; a background set is streamed chunk by chunk.

        Parameters
        ----------
        name
            Name of the profile.
        source
            The in-domain set version.
        recipe
            What to compute.
        rows, where
            Only these rows of ``source``, and the condition that chose them (for the record).
        limit, seed
            At most so many samples, chosen by a hash of seed and sample id.
        weights
            How much each counts; all the same if omitted.
        background
            Needed by, and only for, the contrastive method.
        layers
            Zero-based decoder layers; all that ``source`` stores if omitted.
        message, card
            For the history; free text about the profile.
        ported_from
            The profile of another model that this one repeats.
        quality_card
            Whether to measure the profile's quality card too.
        card_against
            What the card measures separation from; ``background`` if omitted, and nothing without that. No part of the
            profile: naming another does not make another version.
        progress
            Hears of every layer, stage ``"profile"``, then ``"card"``.

        Returns
        -------
        profile
            The version.
        created
            False where a version of this name has the same recipe on the same inputs: nothing was computed.

        Raises
        ------
        InvalidInputError
            No samples, too few for the method, samples without a direction or a weight, a background without contrast.
        IncompatibleError
            Source and background were captured differently.
        NotFoundError
            A feature or layer is not stored.
        """
        check_name(name, Kind.PROFILE)
        chosen_layers = check_inputs(source, recipe, background, layers)
        if card_against is not None:
            check_compared(source, card_against, recipe, chosen_layers)
        chosen = choose_rows(source, subset=rows, limit=limit, seed=seed)
        if weights is not None:
            chosen = weights.weigh(chosen)
        against = None if background is None else choose_rows(background)
        recipe_sha256 = recipe_digest(source, recipe, chosen, against, chosen_layers)
        existing = self.find(name, recipe_sha256)
        if existing is not None:
            return existing, False
        measuring = quality_card and recipe.feature in source.features
        compared = choose_compared(chosen, card_against, background) if measuring else None
        arrays, statistics = compute_directions(source, recipe, chosen, against, chosen_layers, progress)
        warnings = warnings_for(recipe, statistics, chosen, source.reference)
        if quality_card and not measuring:
            warnings += (
                f"no quality card was measured: {source.reference} does not store {recipe.feature}, which candidates "
                "are scored on",
            )
        measured = None
        if measuring:
            made_of = MeasuredProfile(recipe, chosen_layers, arrays, contrast=against)
            measured = measure_card(source, chosen, made_of, compared, progress)
            warnings += card_warnings(measured, recipe)
        record = ProfileRecord(
            name=name,
            recipe=recipe,
            recipe_sha256=recipe_sha256,
            capture_id=source.record.capture_id,
            identity=source.record.identity,
            settings=chosen.settings[0],
            layers=chosen_layers,
            n_neurons=source.record.n_neurons,
            has_offset=arrays.offset is not None,
            directions_sha256=arrays.digest(chosen_layers),
            source=sample_source(source, chosen, where=where, limit=limit, seed=seed, weights=weights),
            background=None
            if background is None or against is None
            else sample_source(background, against, where=None, limit=None, seed=0),
            statistics=statistics,
            warnings=warnings,
            files=(),
            parameters=given_parameters(source, recipe, limit, seed, where, background, layers, weights),
            card=card,
            parent=self.log.latest(name),
            ported_from=ported_from,
            provenance=current_provenance(),
        )
        return self.add(record, arrays, message, measured)

    def add(
        self, record: ProfileRecord, arrays: ProfileArrays, message: str = "", quality: QualityCard | None = None
    ) -> tuple[Profile, bool]:
        """Commit the next version of a profile, unless one of its versions is made of the same.

        Parameters
        ----------
        record
            Of the version; ``files`` is filled in here.
        arrays
            Its numbers, of the digest that the record says.
        message
            For the history.
        quality
            What was measured of it beside the record's statistics, if anything was.

        Returns
        -------
        profile
            The version.
        created
            False where a version with the record's ``recipe_sha256`` is there: nothing was kept.
        """
        name, payload = record.name, new_ulid()
        folder = layout.payload_folder(Kind.PROFILE, name, payload)
        about = {
            "nait_store_profile": name,
            "capture_id": record.capture_id,
            "hook_point": record.identity.hook_point.value,
            "feature": record.recipe.feature.value,
            "metric": record.recipe.metric.value,
        }
        if record.source is None:
            announce_feature(self.location, SOURCELESS_FEATURE)
        try:
            files = write_arrays(self.location, folder, arrays, record.layers, about)
            if quality is not None:
                files += (write_card(self.location, folder, quality),)
            record = record.model_copy(update={"files": files})
            data = record.to_json_bytes()
            self.location.create_bytes(f"{folder}/{PROFILE_FILE}", data)
            profile = self._commit(record, payload, sha256_bytes(data), message)
        except BaseException:
            self._discard(name, payload)
            raise
        if profile.manifest.payload != payload:  # somebody committed the same meanwhile
            self.location.delete(folder)
            return profile, False
        return profile, True

    def _commit(self, record: ProfileRecord, payload: str, record_sha256: str, message: str) -> Profile:
        found: Profile | None = None

        def propose(numbers: VersionNumbers) -> ProfileManifest | None:
            nonlocal found
            found = self.find(record.name, record.recipe_sha256)
            if found is not None:
                return None
            return ProfileManifest(
                name=record.name,
                number=numbers.last + 1,
                payload=payload,
                record_sha256=record_sha256,
                recipe_sha256=record.recipe_sha256,
                message=message,
                provenance=record.provenance,
            )

        manifest = self.log.commit_next(record.name, propose)
        if manifest is not None:
            return Profile(self.location, manifest, record)
        assert found is not None
        return found

    def _discard(self, name: str, payload: str) -> None:
        """Delete a payload that no version refers to: an interrupt may come right after the commit."""
        if all(manifest.payload != payload for manifest in self.manifests(name)):
            self.location.delete(layout.payload_folder(Kind.PROFILE, name, payload))

    def find(self, name: str, recipe_sha256: str) -> Profile | None:
        """Newest version with this recipe on these inputs that was made here; None where there is none.

        One that was pulled only claims to be: nobody here has seen its inputs.
        """
        for number in reversed(self.numbers(name)):
            manifest = self.log.read(name, number)
            if manifest.recipe_sha256 == recipe_sha256 and manifest.origin is None:
                return self._open(manifest)
        return None

    def _open(self, manifest: ProfileManifest) -> Profile:
        folder = layout.payload_folder(Kind.PROFILE, manifest.name, manifest.payload)
        path = f"{folder}/{PROFILE_FILE}"
        url = self.location.url_of(path)
        try:
            data = read_limited(self.location, path, MAX_RECORD_BYTES)
        except NotFoundError as error:
            raise CorruptChunkError(
                f"{url} is missing", next_step="run 'nait-store verify' to see what else is damaged"
            ) from error
        if sha256_bytes(data) != manifest.record_sha256:
            raise CorruptChunkError(f"{url} differs from the SHA-256 in version {manifest.name}@{manifest.number}")
        record = ProfileRecord.from_json_bytes(data, url)
        if not manifest.is_of(record):
            raise FormatError(f"{url} belongs to another profile than {manifest.name}@{manifest.number}")
        if list(record.layers) != sorted(set(record.layers)) or not record.layers or record.layers[0] < 0:
            raise FormatError(f"{url}: its layers are not ascending, distinct and zero-based")
        return Profile(self.location, manifest, record)
