"""What lies in a store unfinished or out of sight, for ``doctor``: none of it is wrong, all of it takes space."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from nait_store.errors import FormatError, NaitStoreError, NotFoundError
from nait_store.refs import Kind
from nait_store.schemas.activation_set import FlushRecord
from nait_store.storage import layout
from nait_store.storage.heartbeat import is_alive
from nait_store.storage.provenance import now
from nait_store.storage.versions import VersionNumbers
from nait_store.store.doctor import Check

if TYPE_CHECKING:
    from nait_store.storage.location import Location
    from nait_store.store.facade import Store

_WRITING = timedelta(hours=1)
_SHOWN = 3


def leftovers(store: Store) -> list[Check]:
    """Describe unfinished ingests, dead jobs, deleted versions, unfinished files, and what gc would free.

    Parameters
    ----------
    store
        The store. The files of a remote one are not listed for this.
    """
    location = store.location
    checks = []
    for name in location.names(layout.kind_folder(Kind.SET)):
        checks += _ingests(location, name)
        checks += _jobs(location, name)
    deleted = [reference for kind in Kind for reference in _deleted(location, kind)]
    if deleted:
        shown = ", ".join(deleted[:_SHOWN]) + (" …" if len(deleted) > _SHOWN else "")
        text = f"{_count(len(deleted), 'deleted version')} can be brought back: {shown}"
        checks.append(Check("deleted", "note", text, "'nait-store gc' takes them a week after they were deleted"))
    if location.is_local:
        checks += _unfinished_files(location)
        checks += _garbage(store)
    return checks


def _ingests(location: Location, name: str) -> list[Check]:
    n_samples = n_dead = n_alive = 0
    for ingest_id in location.names(layout.ingest_folder(name)):
        folder = layout.ingest_folder(name, ingest_id)
        if location.is_file(f"{folder}/outcome.json"):
            continue
        if is_alive(location, folder):
            n_alive += 1
            continue
        flushed = location.names(f"{folder}/flushed")
        n_dead += bool(flushed)
        for entry in flushed:
            path = f"{folder}/flushed/{entry}"
            try:
                n_samples += FlushRecord.from_json_bytes(location.read_bytes(path), path).n_rows
            except (FormatError, NotFoundError):  # verify's to report
                continue
    checks = []
    if n_alive:
        checks.append(Check("ingests", "ok", f"{_count(n_alive, 'ingest')} into {name} at work"))
    if n_dead:
        text = (
            f"{_count(n_dead, 'ingest')} into {name} ended early: {n_samples:,} samples are kept and not in a version"
        )
        advice = f"run the same 'nait-store ingest … --set {name}' again: it goes on from there and commits them"
        checks.append(Check("ingests", "note", text, advice))
    return checks


def _jobs(location: Location, name: str) -> list[Check]:
    jobs = [layout.job_folder(name, job_id) for job_id in location.names(layout.job_folder(name))]
    dead = [folder for folder in jobs if not is_alive(location, folder)]
    if not dead:
        return []
    text = f"{_count(len(dead), 'job')} of {name} (compaction, purge or repair) killed"
    return [Check("jobs", "note", text, "run the same command again; 'nait-store gc' removes what it left")]


def _deleted(location: Location, kind: Kind) -> list[str]:
    references = []
    for name in location.names(layout.kind_folder(kind)):
        numbers = VersionNumbers.of(location.names(layout.versions_folder(kind, name)))
        hidden = set(numbers.deleted) & set(numbers.documents) - set(numbers.collected)
        prefix = "" if kind is Kind.SET else f"{kind}:"
        references += [f"{prefix}{name}@{number}" for number in sorted(hidden)]
    return references


def _unfinished_files(location: Location) -> list[Check]:
    old = [
        file for file in location.leftovers() if file.modified_at is not None and now() - file.modified_at > _WRITING
    ]
    if not old:
        return []
    size = _megabytes(sum(file.size_bytes for file in old))
    text = f"{_count(len(old), 'unfinished file')} of writers that were killed, {size}"
    return [Check("unfinished", "note", text, "'nait-store gc' removes them")]


def _garbage(store: Store) -> list[Check]:
    try:
        report = store.gc(dry_run=True)
    except NaitStoreError as error:
        return [Check("garbage", "note", f"gc cannot tell what it would free: {error.what}", "run 'nait-store verify'")]
    if not report.freed_bytes:
        return []
    return [Check("garbage", "note", f"gc would free {_megabytes(report.freed_bytes)}", "run 'nait-store gc'")]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
