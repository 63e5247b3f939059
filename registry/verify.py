"""Verification of a profile: every version's documents, files and numbers."""

from __future__ import annotations

from nait_store.errors import NaitStoreError
from nait_store.refs import Kind
from nait_store.registry.cards.stored import read_card
from nait_store.registry.payload import CARD_FILE, DIRECTIONS_FOLDER, PROFILE_FILE, read_arrays
from nait_store.schemas.profile import ProfileManifest, ProfileRecord
from nait_store.schemas.sharing import PushRecord
from nait_store.storage import layout
from nait_store.storage.verify import Inspection
from nait_store.storage.version_checks import inspect_labels, inspect_payloads, inspect_versions


class ProfileInspection:
    """The part of a verification that is about one profile.

    Parameters
    ----------
    inspection
        The whole; it has walked the profile's folder.
    name
        The profile.
    """

    def __init__(self, inspection: Inspection, name: str) -> None:
        self._inspection = inspection
        self._name = name
        self._records: dict[str, ProfileRecord] = {}

    def structure(self) -> None:
        """Check documents and references, and say what is expected of every other file."""
        name = self._name

        def problem_of(number: int, manifest: ProfileManifest) -> str | None:
            same = (manifest.number, manifest.name) == (number, name)
            return None if same else "the document names another profile or version"

        def follows(manifest: ProfileManifest) -> int | None:
            return None if manifest.origin is None else manifest.origin.follows

        versions = inspect_versions(self._inspection, Kind.PROFILE, name, ProfileManifest, problem_of, follows=follows)
        inspect_labels(self._inspection, Kind.PROFILE, name, versions.numbers)
        self._records = inspect_payloads(
            self._inspection,
            layout.payload_folder(Kind.PROFILE, name),
            PROFILE_FILE,
            ProfileRecord,
            {manifest.payload: manifest.record_sha256 for manifest in versions.kept.values()},
            files_of=lambda record: record.files,
            places=lambda record: lambda path: _place(record, path),
        )
        for manifest in versions.kept.values():
            self._expect_reference(manifest)
            record = self._records.get(manifest.payload)
            if record is not None and not manifest.is_of(record):
                path = f"{layout.payload_folder(Kind.PROFILE, name, manifest.payload)}/{PROFILE_FILE}"
                self._inspection.error(path, f"it belongs to another profile than {name}@{manifest.number}")

        pushes = layout.pushes_folder(name)
        for path, push in self._inspection.documents(self._inspection.below(pushes), PushRecord):
            if push is not None and not versions.knows(push.number):
                self._inspection.error(path, f"it is about version {push.number}, which never was", "number")

    def _expect_reference(self, manifest: ProfileManifest) -> None:
        """Expect the file of the reference samples that came with a pulled version; its record does not list it."""
        file = None if manifest.origin is None else manifest.origin.reference.file
        if file is not None:
            path = f"{layout.payload_folder(Kind.PROFILE, self._name, manifest.payload)}/{file.path}"
            self._inspection.expect(path, file.sha256, file.size_bytes, place="reference samples")

    def contents(self) -> None:
        """Check the numbers of files that are what was written; nothing under ``quick``."""
        if self._inspection.quick:
            return
        for payload, record in self._records.items():
            folder = layout.payload_folder(Kind.PROFILE, self._name, payload)
            if self._inspection.is_sound(f"{folder}/{file.path}" for file in record.files):
                for part, read in ((DIRECTIONS_FOLDER, read_arrays), (CARD_FILE, read_card)):
                    try:
                        read(self._inspection.location, folder, record)
                    except NaitStoreError as error:
                        self._inspection.error(f"{folder}/{part}", error.what)


def _place(record: ProfileRecord, path: str) -> str:
    if path == CARD_FILE:
        return "quality card"
    array = path.removeprefix(f"{DIRECTIONS_FOLDER}/").split("/")[0]
    if path.endswith("/c/0/0"):
        return f"{array} of {len(record.layers)} layers"
    return f"metadata of {array}" if path.endswith("/zarr.json") and array != "zarr.json" else ""
