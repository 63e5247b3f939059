"""Garbage of one activation set: segments, tombstones, redirects, journals, jobs, documents, and the set itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from nait_store.activations.chunks import SEGMENT_FILE
from nait_store.errors import AlreadyExistsError, NotFoundError
from nait_store.ingest.journal import FLUSHED_FOLDER, OUTCOME_FILE
from nait_store.refs import Kind
from nait_store.schemas.activation_set import SetRecord
from nait_store.storage import layout
from nait_store.storage.backend import StoredFile
from nait_store.storage.location import Location
from nait_store.store.garbage.items import (
    Ages,
    Garbage,
    GarbageKind,
    delete,
    delete_in_order,
    files_of,
    times_of,
    ulid_time,
    weigh,
)
from nait_store.store.garbage.references import JournalState, References, SetReferences
from nait_store.store.garbage.roots import Held, Roots, Versions


@dataclass(frozen=True)
class SetPlan:
    """What can go of one set.

    Attributes
    ----------
    loose
        What goes in any case, in this order; nothing has to be written for it.
    due
        Versions to collect, and why.
    garbage
        What goes then, in this order.
    held
        Deleted versions that stay.
    digests, doomed_digests
        SHA-256 of the ``segment.json`` of every segment that stays, and that goes.
    """

    loose: tuple[Garbage, ...]
    due: dict[int, str]
    garbage: tuple[Garbage, ...]
    held: tuple[Held, ...]
    digests: frozenset[str]
    doomed_digests: frozenset[str]


class SetGarbage:
    """The garbage of one set.

    Parameters
    ----------
    location
        The store's root.
    name
        The set.
    ages
        What is old enough.

    Attributes
    ----------
    what
        What it is, for messages.
    """

    def __init__(self, location: Location, name: str, ages: Ages) -> None:
        self._location = location
        self.what = f"set {name}"
        self._name = name
        self._ages = ages
        self._references = SetReferences(location, name)
        self._folder = layout.item_folder(Kind.SET, name)
        self._reasons: dict[int, str] = {}

    def plan(self, roots: Roots) -> SetPlan:
        """Find the garbage; changes nothing.

        Raises
        ------
        FormatError
            A document cannot be read, so that it is not known what it refers to.
        """
        due, held = self._due(roots)
        self._reasons = due
        references = self._references.look(frozenset(due))
        garbage = list(self._found(references))
        garbage += self._set_record(references, garbage)
        loose = self._still_garbage(garbage)
        rest = tuple(item for item in garbage if item not in loose)
        return SetPlan(loose, due, rest, tuple(held), references.digests, references.doomed_digests)

    def take_loose(self, plan: SetPlan) -> Iterator[Garbage]:
        """Delete what is garbage whether or not versions are collected; yields each thing as it is gone."""
        yield from self._take(plan.loose)

    def take(self, plan: SetPlan, roots: Callable[[], Roots]) -> Iterator[Garbage]:
        """Collect what is still due and delete what is garbage then; yields each thing as it is gone."""
        self._bring_back_what_was_undone()
        if plan.due:
            still, _ = self._due(roots())
            for number in plan.due:
                if number in still:
                    self._references.log.collect(self._name, number)
        yield from self._take(plan.garbage)

    def _take(self, garbage: Iterable[Garbage]) -> Iterator[Garbage]:
        for item in garbage:
            if self._still_garbage([item]) and self._delete(item):
                yield item

    def _still_garbage(self, garbage: Iterable[Garbage]) -> tuple[Garbage, ...]:
        references = self._references.look()
        return tuple(item for item in garbage if self._why(item.kind, item.path, references) is not None)

    def digests(self, plan: SetPlan) -> tuple[frozenset[str], frozenset[str]]:
        """As in the plan, after :meth:`take`."""
        kept = self._references.look().digests
        return kept, plan.doomed_digests - kept

    def _due(self, roots: Roots) -> tuple[dict[int, str], list[Held]]:
        references = self._references.look()
        versions = Versions.of(self._location, Kind.SET, self._name)
        due, held = roots.due(Kind.SET, self._name, versions, references.live_since)
        if references.live_jobs:
            why = "a compaction, restore, purge or repair of the set is running"
            return {}, [*held, *(Held(f"{self._name}@{number}", why) for number in due)]
        return due, held

    def _found(self, references: References) -> Iterator[Garbage]:
        segments = layout.segment_folder(self._name)
        for segment in self._location.names(segments):
            yield from self._weighed(GarbageKind.SEGMENT, f"{segments}/{segment}", references)
        for file in self._location.files(layout.tombstone_folder(self._name)):
            yield from self._weighed(GarbageKind.TOMBSTONES, file.path, references, [file])
        for file in self._location.files(layout.redirects_folder(Kind.SET, self._name)):
            yield from self._weighed(GarbageKind.REDIRECT, file.path, references, [file])
        for ingest_id in references.journals:
            yield from self._weighed(GarbageKind.INGEST, layout.ingest_folder(self._name, ingest_id), references)
        for job_id in self._location.names(layout.job_folder(self._name)):
            yield from self._weighed(GarbageKind.JOB, layout.job_folder(self._name, job_id), references)
        versions = Versions.of(self._location, Kind.SET, self._name)
        for number in sorted(references.gone):
            document = versions.files.get(f"{number}.json")
            if document is not None:
                path = layout.version_document(Kind.SET, self._name, number)
                yield from self._weighed(GarbageKind.VERSION, path, references, [document])

    def _weighed(
        self, kind: GarbageKind, path: str, references: References, files: list[StoredFile] | None = None
    ) -> Iterator[Garbage]:
        reason = self._why(kind, path, references)
        if reason is None:
            return
        if kind is GarbageKind.VERSION and not self._document_goes(_number(path), references):
            yield weigh(kind, path, reason, [])
            return
        yield weigh(kind, path, reason, files_of(self._location, path) if files is None else files)

    def _document_goes(self, number: int, references: References) -> bool:
        """Not the highest, which holds the next ordinal, nor the base of a version that is kept."""
        return number != max(references.numbers.documents) and number not in references.documents

    def _why(self, kind: GarbageKind, path: str, references: References) -> str | None:
        """Why something is garbage now; None where it is not."""
        name = path.rpartition("/")[2].partition(".")[0]
        if kind is GarbageKind.VERSION:
            return self._why_version(int(name), references)
        if kind is GarbageKind.SET:
            return self._why_set(references)
        if ulid_time(name) is None:
            return None
        # A restore shows its sign of life and then looks whether its version is marked as collected; we mark first
        # and then look. So whatever it may be about to refer to waits for another run.
        if references.live_jobs and kind in (GarbageKind.SEGMENT, GarbageKind.TOMBSTONES, GarbageKind.REDIRECT):
            return None
        why = {
            GarbageKind.SEGMENT: self._why_segment,
            GarbageKind.TOMBSTONES: self._why_tombstones,
            GarbageKind.REDIRECT: self._why_redirect,
            GarbageKind.INGEST: self._why_ingest,
            GarbageKind.JOB: self._why_job,
        }[kind]
        return why(name, path, references)

    def _why_version(self, number: int, references: References) -> str | None:
        if number not in references.gone or number not in references.numbers.documents or references.live_jobs:
            return None
        if number in self._reasons:
            return self._reasons[number]
        return "collected by an earlier gc" if self._document_goes(number, references) else None

    def _why_segment(self, segment: str, path: str, references: References) -> str | None:
        if segment in references.redirects:
            return f"replaced by {references.redirects[segment]}"
        if segment in references.segments:
            return None
        if segment in references.doomed_segments:
            return f"only collected versions had it: {self._name}@{references.doomed_segments[segment]}"
        old = self._is_orphan(segment, files_of(self._location, path), references)
        return "no version and no ingest refers to it" if old else None

    def _why_tombstones(self, name: str, path: str, references: References) -> str | None:
        relative = path.removeprefix(f"{self._folder}/")
        if relative in references.tombstones:
            return None
        if relative in references.doomed_tombstones:
            return f"only collected versions had it: {self._name}@{references.doomed_tombstones[relative]}"
        return "no version refers to it" if self._is_orphan(name, self._listed(path), references) else None

    def _why_redirect(self, segment: str, path: str, references: References) -> str | None:
        # What stands for something is named itself by later versions, and the redirect tells its blank rows.
        if segment in references.segments or references.redirects.get(segment) in references.segments:
            return None
        old = self._is_orphan("", self._listed(path), references)
        return "no version has what it stands for" if old else None

    def _why_ingest(self, ingest_id: str, path: str, references: References) -> str | None:
        journal = references.journals.get(ingest_id)
        if journal is None:
            return None
        if journal.state is JournalState.FINISHED and journal.version in references.gone:
            return f"{self._name}@{journal.version}, which it made, is collected"
        if journal.state is JournalState.DEAD:
            old = self._is_orphan(ingest_id, files_of(self._location, path), references)
            return "it died before anything was acknowledged" if old else None
        return None

    def _why_job(self, job_id: str, path: str, references: References) -> str | None:
        if job_id in references.live_jobs:
            return None
        old = self._is_orphan(job_id, files_of(self._location, path), references)
        return "it died" if old else None

    def _why_set(self, references: References, going: frozenset[str] = frozenset()) -> str | None:
        if set(references.numbers.documents) - references.gone or references.live_since is not None:
            return None
        for folder in (
            layout.segment_folder(self._name),
            layout.ingest_folder(self._name),
            layout.job_folder(self._name),
        ):
            if any(f"{folder}/{name}" not in going for name in self._location.names(folder)):
                return None
        if references.numbers.last:
            return "every version of it is collected"
        path = layout.set_record(self._name)
        record = SetRecord.from_json_bytes(self._location.read_bytes(path), self._location.url_of(path))
        return "it never had a version" if self._ages.is_orphan([record.provenance.created_at]) else None

    def _set_record(self, references: References, garbage: list[Garbage]) -> Iterator[Garbage]:
        """``set.json``, if nothing will be left of the set once the garbage is gone."""
        path = layout.set_record(self._name)
        with contextlib.suppress(NotFoundError):
            size_bytes = self._location.size_bytes(path)
            reason = self._why_set(references, frozenset(item.path for item in garbage))
            if reason is not None:
                yield Garbage(GarbageKind.SET, path, reason, 1, size_bytes)

    def _is_orphan(self, name: str, files: list[StoredFile], references: References) -> bool:
        return self._ages.is_orphan(times_of(name, files), references.live_since)

    def _listed(self, path: str) -> list[StoredFile]:
        return [file for file in self._location.files(path.rpartition("/")[0]) if file.path == path]

    def _delete(self, garbage: Garbage) -> bool:
        """Delete it, in an order that is safe to be interrupted in; whether it is gone for good."""
        if garbage.kind is GarbageKind.SEGMENT:
            delete_in_order(self._location, garbage.path, first=[SEGMENT_FILE])
        elif garbage.kind is GarbageKind.INGEST:
            # Without its outcome the ingest would seem to wait for somebody to adopt what it flushed.
            delete_in_order(self._location, garbage.path, first=[FLUSHED_FOLDER], last=[OUTCOME_FILE])
        elif garbage.kind is GarbageKind.SET:
            return self._delete_set_record(garbage.path)
        elif garbage.n_files or garbage.kind is not GarbageKind.VERSION:
            delete(self._location, garbage.path)
        return True

    def _delete_set_record(self, path: str) -> bool:
        try:
            data = self._location.read_bytes(path)
        except NotFoundError:
            return False
        delete(self._location, path)
        # An ingest writes its heartbeat before it looks for set.json: one of the two of us sees the other.
        journals = self._references.look().journals.values()
        if not any(journal.state in (JournalState.LIVE, JournalState.PENDING) for journal in journals):
            return True
        with contextlib.suppress(AlreadyExistsError):
            self._location.create_bytes(path, data)
        return False

    def _bring_back_what_was_undone(self) -> None:
        numbers = self._references.log.listing(self._name)
        for number in numbers.collected:
            marker = layout.collection_marker(Kind.SET, self._name, number)
            if self._references.was_undone(number, numbers):
                times = [file.modified_at for file in self._listed(marker)]
                if Ages(self._ages.now, timedelta()).is_orphan(times):
                    delete(self._location, marker)


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].partition(".")[0])
