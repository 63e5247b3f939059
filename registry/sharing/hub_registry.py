"""A shared registry in a repository of the Hugging Face hub: every push is one commit, and comes with the page."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import ClassVar

from nait_store.errors import AlreadyExistsError, ConflictError, FormatError, NotFoundError
from nait_store.refs import Kind
from nait_store.registry.cards.page import ProfileCard
from nait_store.registry.cards.stored import read_card
from nait_store.registry.payload import CARD_FILE, MAX_CARD_BYTES, MAX_RECORD_BYTES, PROFILE_FILE, read_limited
from nait_store.registry.sharing.arrival import HeldFiles, check_record
from nait_store.registry.sharing.hub_page import HubPage, PublishedCard
from nait_store.registry.sharing.shared_registry import MAX_DOCUMENT_BYTES, Moved, WritableRegistry, moved_by
from nait_store.schemas.sharing import Publication
from nait_store.storage import layout
from nait_store.storage.location import Location

PAGE_FILE = "README.md"
MOST_CARDS = 50
"""Versions whose quality card is on the page, the last published first: each costs two requests a push."""
_ATTEMPTS = 16


def registry_at(location: Location) -> WritableRegistry:
    """Return the registry at a location, to be written the way that the place can be written."""
    return HubRegistry(location) if location.commits_whole else WritableRegistry(location)


class HubRegistry(WritableRegistry):
    """A shared registry on the hub.

    It is read at one commit, and written as one commit upon that. Where somebody else was quicker, it is read anew,
    so that what decides is what is there.

    Parameters
    ----------
    location
        Its root.
    """

    _BESIDE: ClassVar[frozenset[str]] = frozenset({PAGE_FILE, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md"})

    def prepare(self) -> None:
        """Make sure that a registry is there or can be made; it is made by the first commit.

        Raises
        ------
        NotFoundError
            No such repository: whoever owns it decides whether the world can read it.
        InvalidInputError
            Something else is there: a store, or other files.
        UnsupportedVersionError
            A newer release made it.
        ReadOnlyError, StorageError
            It cannot be written.
        """
        self._location.require_committable()
        record = self.record() or self._new_record()
        record.check_known(self.url, writing=True)

    def publish(self, publication: Publication, contents: Mapping[str, bytes], *, anew: bool = False) -> Moved:
        """Commit the files that are not there yet, the document and the page.

        Parameters
        ----------
        publication
            What to publish.
        contents
            Path → bytes, of all its files.
        anew
            Send all files, also those that seem to be there.

        Raises
        ------
        AlreadyExistsError
            The number is taken; nothing was committed.
        ConflictError
            Others commit all the time.
        """
        document = layout.version_document(Kind.PROFILE, publication.name, publication.number)
        for _ in range(_ATTEMPTS):
            existing = self.find(publication.name, publication.number)
            if existing == publication:  # ours: the answer to an earlier attempt was lost
                return Moved(len(contents), publication.size_bytes)
            if existing is not None:
                raise AlreadyExistsError(f"{publication.spelled} exists already in {self.url}")
            missing = self._missing(publication, anew=anew)
            files = {layout.registry_object(file.sha256): contents[file.path] for file in missing}
            files[document] = publication.to_json_bytes()
            files[PAGE_FILE] = self._page(publication, contents)
            record = self.record()
            if record is None:
                record = self._new_record()
                files[layout.REGISTRY_RECORD] = record.to_json_bytes()
            record.check_known(self.url, writing=True)
            if self._commit(files, f"Publish {publication.spelled}"):
                return moved_by(missing)
        raise self._crowded()

    def write_files(self, publication: Publication, contents: Mapping[str, bytes], *, anew: bool = False) -> Moved:
        """Commit the files of a version that are not there, or of another size; ConflictError as for publishing."""
        for _ in range(_ATTEMPTS):
            missing = self._missing(publication, anew=anew)
            files = {layout.registry_object(file.sha256): contents[file.path] for file in missing}
            if not files or self._commit(files, f"Send the files of {publication.spelled} again"):
                return moved_by(missing)
        raise self._crowded()

    def _commit(self, files: Mapping[str, bytes], message: str) -> bool:
        """Commit upon what was read; whatever comes of it, read what is there now from here on."""
        try:
            return self._location.commit(files, message)
        finally:
            self._files = self._location = Location(self.url)

    def _crowded(self) -> ConflictError:
        return ConflictError(
            f"others commit to {self.url} all the time: after {_ATTEMPTS} attempts nothing was published",
            next_step="run the same command again",
        )

    def _page(self, publication: Publication, contents: Mapping[str, bytes]) -> bytes:
        """The page as it is to be when a version has been published."""
        try:
            present = read_limited(self._location, PAGE_FILE, MAX_DOCUMENT_BYTES)
        except NotFoundError:
            present = b""
        latest = {publication.name: publication}
        counts = {publication.name: 1}
        for name in self.names():
            numbers = self.numbers(name)
            counts[name] = len(numbers) + (name == publication.name)
            if name != publication.name or numbers[-1] > publication.number:
                with contextlib.suppress(FormatError):  # damage of theirs keeps nobody from publishing
                    found = self.find(name, numbers[-1])
                    if found is not None:
                        latest[name] = found
        newest = sorted(latest.values(), key=lambda one: one.provenance.created_at, reverse=True)[:MOST_CARDS]
        cards = {one.name: self._card(one, contents if one is publication else {}) for one in newest}
        shown = [PublishedCard(one, counts[name], cards.get(name)) for name, one in sorted(latest.items())]
        return HubPage(self._location.place, shown).upon(present)

    def _card(self, publication: Publication, contents: Mapping[str, bytes]) -> ProfileCard | None:
        """The card of a version, checked as on arrival; None where it is not what it should be."""
        limits = {PROFILE_FILE: MAX_RECORD_BYTES, CARD_FILE: MAX_CARD_BYTES}
        where = f"{publication.spelled} in {self.url}"
        try:
            files = [file for file in publication.files if file.size_bytes <= limits.get(file.path, -1)]
            held = {file.path: contents[file.path] if contents else self.read(file) for file in files}
            record = check_record(held.get(PROFILE_FILE, b""), publication, where)
            return ProfileCard(publication.spelled, record, read_card(HeldFiles(where, held), "", record))
        except (FormatError, NotFoundError):
            return None
