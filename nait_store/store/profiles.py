"""The profiles of a store: listed, searched, compared, described, and their history."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nait_store.errors import NaitStoreError
from nait_store.refs import Reference
from nait_store.store.profile_listing import ProfileSummary, family_names, list_profiles
from nait_store.store.profile_making import ProfileMaking

if TYPE_CHECKING:
    from nait_store.registry.cards.page import ProfileCard
    from nait_store.registry.compatibility_report import CompatibilityReport
    from nait_store.store.profile_cards import WrittenCard
    from nait_store.store.profile_files import ExportedProfile
    from nait_store.store.profile_versions import ProfileDiff, ProfileVersion


class Profiles(ProfileMaking):
    """The profiles of a store.

    Parameters
    ----------
    store
        The store; building needs its sets, and its SQL for ``where``.
    """

    def search(
        self,
        text: str = "",
        *,
        model: str | None = None,
        source: str | None = None,
        label: str | None = None,
        all_versions: bool = False,
    ) -> Sequence[ProfileSummary]:
        """Find profiles, from the catalog; upper and lower case are the same.

        Parameters
        ----------
        text
            Words; each must be part of the profile's name, card, message, note, recipe, model, source, author, or of
            one of its aliases and tags.
        model
            Part of the model's path or hub id.
        source
            In-domain set, ``gsm8k`` or ``gsm8k@2``.
        label
            Alias or tag that the version has.
        all_versions
            Look at every version, not only at the latest of each profile and at those with a label or note.
        """
        return list_profiles(
            self._store.catalog,
            words=text.split(),
            model=model,
            source=source,
            label=label,
            all_versions=all_versions,
        )

    def family(self, reference: Reference | str, *, all_versions: bool = False) -> Sequence[ProfileSummary]:
        """Describe a profile and its sisters on other models, from the catalog.

        Sisters are what was ported from it, or from its sisters, and what was built by the same recipe from the same
        samples.

        Parameters
        ----------
        reference
            ``math``, or one of its versions; its family is that of the name.
        all_versions
            Every version, not only the latest of each profile.

        Raises
        ------
        NotFoundError
            Unknown profile.
        """
        parsed = self._parsed(reference)
        self._log.resolve(parsed)
        catalog = self._store.catalog
        return list_profiles(catalog, names=family_names(catalog, parsed.name), all_versions=all_versions)

    def history(self, name: str) -> Sequence[ProfileVersion]:
        """Versions of a profile, oldest first, deleted ones included; NotFoundError for an unknown name."""
        from nait_store.store.profile_versions import versions_of

        parsed = self._as_a_whole(name)
        self._require_used(parsed)
        return versions_of(self.registry, parsed.name, self._note_texts(parsed.name))

    def diff(
        self,
        first: Reference | str,
        second: Reference | str,
        *,
        set: str | None = None,  # noqa: A002
        top: int | str = "10%",
    ) -> ProfileDiff:
        """Compare two versions, of one profile or of two.

        Parameters
        ----------
        first, second
            ``math@1``, ``math@prod``.
        set
            Also say how much the best samples of this set differ; scores that are missing are computed.
        top
            How many are the best: a number, or a share as ``"10%"``.

        Returns
        -------
        ProfileDiff
            Cosine of every layer that both have, settings that differ, in-domain samples added and removed.

        Raises
        ------
        NotFoundError
            Unknown profile, version or set.
        IncompatibleError
            The set measures something else than one of the profiles.
        """
        from nait_store.store.profile_versions import diff_profiles

        return diff_profiles(self._store, self.open(first), self.open(second), set_ref=set, top=top)

    def check(self, reference: Reference | str, *, set: str) -> CompatibilityReport:  # noqa: A002
        """Say field by field whether a profile applies to a set, and what to do where it does not.

        Parameters
        ----------
        reference
            ``math@3``.
        set
            ``pool`` or ``pool@2``.

        Raises
        ------
        NotFoundError
            Unknown profile or set.
        """
        from nait_store.registry.compatibility_report import check_compatibility

        profile, version = self.open(reference), self._store.sets.open(set)
        built_from, source = profile.record.source, None
        if built_from is not None:
            with suppress(NaitStoreError):  # a profile outlives the set that it was built from
                source = self._store.sets.open(f"{built_from.set_name}@{built_from.version}")
        return check_compatibility(profile, version, source)

    def export(self, reference: Reference | str, out: str, *, overwrite: bool = False) -> ExportedProfile:
        """Write a version into one file that everybody can read.

        Parameters
        ----------
        reference
            ``math@3``.
        out
            Local path or fsspec URL that ends in ``.safetensors`` or ``.npz``. The file appears whole or not at all.
        overwrite
            Whether an existing file may be replaced.

        Returns
        -------
        ExportedProfile
            What was written; docs/format.md says what the file holds.

        Raises
        ------
        NotFoundError
            Unknown profile or version.
        InvalidInputError
            Another ending, or no file.
        AlreadyExistsError
            The file exists and ``overwrite`` is off.
        """
        from nait_store.store.profile_files import export_profile

        return export_profile(self._store, self.open(reference), out, overwrite=overwrite)

    def card(self, reference: Reference | str, *, against: str | None = None, measure: bool = True) -> ProfileCard:
        """Say how good a profile is: what its build measured, or what is measured now.

        Parameters
        ----------
        reference
            ``math@3``.
        against
            Set to tell the in-domain samples from, ``pool`` or ``pool@2``: measures now, and keeps nothing. If omitted,
            what the build has measured counts.
        measure
            Whether to measure now what the build has not.

        Returns
        -------
        ProfileCard
            Numbers, warnings in words, and the in-domain samples at both ends, where the store still has them;
            ``markdown()`` makes a page of it.

        Raises
        ------
        NotFoundError
            Unknown profile or set; or it has to be measured, and the in-domain set is not here.
        InvalidInputError
            ``against`` holds in-domain samples alone.
        IncompatibleError
            ``against`` measures something else.
        """
        from nait_store.store.profile_cards import measured_card, stored_card

        profile = self.open(reference)
        if against is None:
            card = stored_card(self._store, profile)
            if card.quality is not None or not measure:
                return card
        return measured_card(self._store, profile, against)

    def write_card(
        self,
        reference: Reference | str,
        folder: str,
        *,
        against: str | None = None,
        pictures: bool = True,
        overwrite: bool = False,
    ) -> WrittenCard:
        """Write a profile's card as ``CARD.md``, with pictures beside it.

        Parameters
        ----------
        reference, against
            As for :meth:`card`.
        folder
            Local path or fsspec URL; made where it does not exist.
        pictures
            Whether to draw pictures; they need the extra ``plots``.
        overwrite
            Whether existing files may be replaced.

        Returns
        -------
        WrittenCard
            The card, and what was written.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        AlreadyExistsError
            One of the files exists and ``overwrite`` is off; nothing was written.
        """
        from nait_store.store.profile_cards import write_page

        return write_page(self.card(reference, against=against), folder, pictures=pictures, overwrite=overwrite)

    def list(self) -> list[ProfileSummary]:
        """Describe the latest version of every profile, from the catalog."""
        return list_profiles(self._store.catalog)
