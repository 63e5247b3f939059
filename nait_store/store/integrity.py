"""Verification of a whole store: every file against its record."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nait_store.errors import NotFoundError, did_you_mean
from nait_store.progress import ProgressListener, ignore_progress
from nait_store.refs import NAME_PATTERN, Kind, check_name
from nait_store.schemas.scores import KERNEL_REVISION, SidecarRecord
from nait_store.schemas.sharing import RemoteRecord, TrustRecord
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.verify import Finding, Inspection, Severity

if TYPE_CHECKING:
    from nait_store.storage.location import Location


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of a verification.

    Attributes
    ----------
    findings
        Everything worth knowing, errors first; paths are relative to the store's root.
    n_sets, n_profiles, n_selections
        What was looked at, every version of it.
    quick
        Whether documents were read, and of other files only the sizes compared.
    n_files, n_bytes
        Files that were compared with a record, and bytes that were read for it.
    elapsed_seconds
        In all.
    """

    findings: tuple[Finding, ...]
    n_sets: int
    n_profiles: int
    n_selections: int
    quick: bool
    n_files: int
    n_bytes: int
    elapsed_seconds: float

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is damaged or lost."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.errors


class _Part(Protocol):
    def structure(self) -> None:
        """Check documents and references."""

    def contents(self) -> None:
        """Check what is in the files."""


def verify(
    location: Location,
    *,
    quick: bool = False,
    set_name: str | None = None,
    progress: ProgressListener = ignore_progress,
) -> VerifyReport:
    """Verify every file of a store; nothing in it is changed, and it may be in use.

    Parameters
    ----------
    location
        The store's root; its ``store.json`` may be damaged.
    quick
        Whether to read the documents and compare sizes, and leave the hashing out.
    set_name
        Verify the folder of this set only.
    progress
        Told of files and bytes, stage ``"verify"``.

    Raises
    ------
    NotFoundError
        There is no such set.
    InvalidInputError
        ``NAIT_STORE_THREADS`` is no positive number.
    StorageError
        The network failed.
    """
    from nait_store.scoring.scan import thread_count

    began = time.monotonic()
    folders = [""]
    if set_name is not None:
        known = location.names(layout.kind_folder(Kind.SET))
        if check_name(set_name, Kind.SET) not in known:
            raise NotFoundError(
                f"there is no set {set_name!r} in {location.url}", next_step=did_you_mean(set_name, known)
            )
        folders = [layout.item_folder(Kind.SET, set_name)]
    inspection = Inspection(location, folders, quick=quick, n_threads=thread_count(), progress=progress)
    names = {kind: _names(inspection, kind) for kind in Kind}
    parts = _parts(inspection, names)
    if set_name is None:
        _inspect_root(inspection)
        _inspect_scores(inspection)
    for part in parts:
        part.structure()
    inspection.compare()
    for part in parts:
        part.contents()
    inspection.report_unlisted()
    return VerifyReport(
        findings=inspection.findings,
        n_sets=len(names[Kind.SET]),
        n_profiles=len(names[Kind.PROFILE]),
        n_selections=len(names[Kind.SELECTION]),
        quick=quick,
        n_files=inspection.n_files,
        n_bytes=inspection.n_bytes,
        elapsed_seconds=time.monotonic() - began,
    )


def _names(inspection: Inspection, kind: Kind) -> list[str]:
    """Names of the items; whatever else lies in the folder is reported as unlisted."""
    folder = layout.kind_folder(kind)
    return [
        name
        for name in inspection.names(folder)
        if re.match(NAME_PATTERN, name) and not inspection.is_file(f"{folder}/{name}")
    ]


def _parts(inspection: Inspection, names: dict[Kind, list[str]]) -> Sequence[_Part]:
    from nait_store.activations.verify import SetInspection
    from nait_store.registry.verify import ProfileInspection
    from nait_store.selection.verify import SelectionInspection

    return [
        *(SetInspection(inspection, name) for name in names[Kind.SET]),
        *(ProfileInspection(inspection, name) for name in names[Kind.PROFILE]),
        *(SelectionInspection(inspection, name) for name in names[Kind.SELECTION]),
    ]


def _inspect_root(inspection: Inspection) -> None:
    from nait_store.catalog.verify import inspect_catalog

    inspection.document(layout.STORE_RECORD, StoreRecord)
    inspect_catalog(inspection)
    for path, remote in inspection.documents(inspection.below(layout.REMOTES), RemoteRecord):
        if remote is not None and path != layout.remote_record(remote.name):
            inspection.error(path, f"it is about the remote {remote.name!r}", "name")
    for path, key in inspection.documents(inspection.below(layout.TRUST), TrustRecord):
        if key is not None and path != layout.trust_record(key.name):
            inspection.error(path, f"it is about the key {key.name!r}", "name")


def _inspect_scores(inspection: Inspection) -> None:
    """Check score sidecars: a cache, so that a lost one is no loss, but one that is believed."""
    names = inspection.names(layout.SCORES)
    records = {layout.score_record(key): key for name in names if (key := name.removesuffix(".json")) != name}
    for path, record in inspection.documents(records, SidecarRecord):
        sidecar = layout.score_sidecar(records[path])
        if record is None:
            inspection.account([sidecar])
        elif record.key != records[path]:
            inspection.error(path, "it describes other scores than its name says")
        elif not inspection.exists(sidecar):
            inspection.info(sidecar, "it is missing; its scores are computed again when somebody asks for them")
        else:
            if record.kernel_revision < KERNEL_REVISION:
                inspection.info(
                    path, "an earlier release computed these scores, so nothing reads them; gc removes them"
                )
            place = f"scores of {record.n_rows:,} rows"
            inspection.expect(sidecar, record.sha256, record.size_bytes, place=place)
    for name in names:
        key = name.removesuffix(".parquet")
        if key != name and layout.score_record(key) not in records:
            inspection.info(layout.score_sidecar(key), "it has no record, so it counts as absent; gc removes it")
            inspection.account([layout.score_sidecar(key)])
