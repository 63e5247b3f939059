"""Repair: what rotted is made again where digests allow it; what is lost is left out, listed, and captured again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nait_store.errors import CorruptChunkError, InvalidInputError, NaitStoreError, NotFoundError, did_you_mean
from nait_store.progress import ProgressListener
from nait_store.refs import Kind
from nait_store.schemas.store_record import StoreRecord
from nait_store.storage import layout
from nait_store.storage.verify import Finding
from nait_store.store.census import take_census
from nait_store.store.exclusive import exclusive_job
from nait_store.store.integrity import verify
from nait_store.store.repair.flipped_bits import unflip_document
from nait_store.store.repair.repair_log import Note, RepairLog
from nait_store.store.repair.repaired_items import ItemRepair, mend_labels
from nait_store.store.repair.repaired_journals import JournalRepair
from nait_store.store.repair.repaired_notes import mend_notes
from nait_store.store.repair.repaired_segments import SegmentRepair
from nait_store.store.repair.repaired_set import SetRepair

if TYPE_CHECKING:
    from nait_store.ingest.capture_source import CaptureSource
    from nait_store.schemas.activation_set import SetRecord
    from nait_store.store.facade import Store
    from nait_store.store.options import IngestOptions

DEFAULT_REJECTS = "repair-rejects.jsonl"


@dataclass(frozen=True)
class RepairReport:
    """What a repair did, or under ``dry_run`` would do.

    Attributes
    ----------
    dry_run
        Whether nothing was changed.
    found
        The damage that a full verification found.
    mended
        What is again as it was, or as good.
    deleted
        What is gone because nothing could be made of it.
    lost
        What could not be saved, and what to do about it.
    n_dropped, rejects
        Rows that were blanked in all versions, and the file that lists them; None where there are none.
    n_recaptured
        Samples that were captured again.
    versions
        The versions committed.
    remaining
        The damage that a full verification finds now.
    """

    dry_run: bool
    found: tuple[Finding, ...]
    mended: tuple[Note, ...]
    deleted: tuple[Note, ...]
    lost: tuple[Note, ...]
    n_dropped: int
    rejects: str | None
    n_recaptured: int
    versions: tuple[str, ...]
    remaining: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no damage is left."""
        return not self.remaining


def repair(
    store: Store,
    *,
    set_name: str | None = None,
    sources: Sequence[str] = (),
    model: str | None = None,
    capture: CaptureSource | None = None,
    options: IngestOptions,
    dry_run: bool = False,
) -> RepairReport:
    """Verify everything and mend what can be mended; see :meth:`nait_store.store.facade.Store.repair`."""
    rejects = options.get("rejects") or DEFAULT_REJECTS
    names = store.sets.versions.log.all_names()
    if set_name is not None and set_name not in names:
        raise NotFoundError(f"there is no set {set_name!r} in {store.url}", next_step=did_you_mean(set_name, names))
    if bool(sources) != (model is not None or capture is not None):
        raise InvalidInputError(
            "capturing again needs both the sources and the model", next_step="give --source and --model, or neither"
        )
    if not dry_run:
        store.location.require_writable()
    log = RepairLog(store.location, dry_run)
    found = verify(store.location, set_name=set_name, progress=store.progress).errors
    remaining, before = found, None
    while remaining and remaining != before:
        with contextlib.ExitStack() as jobs:
            for name in _sets_of(remaining) if not dry_run else ():
                jobs.enter_context(exclusive_job(store.location, name))
            _mend(store, log, remaining, rejects)
        if dry_run:
            break
        store.catalog.discard()
        store.refresh()
        # What a damaged document refers to shows only when it is mended.
        before, remaining = remaining, verify(store.location, set_name=set_name, progress=store.progress).errors
    n_recaptured = 0
    if sources and not dry_run:
        n_recaptured = sum(
            _recapture(store, name, log, sources, model, capture, options)
            for name in sorted({*log.dropped_ids, *log.n_unknown})
        )
    return RepairReport(
        dry_run=dry_run,
        found=found,
        mended=tuple(log.mended),
        deleted=tuple(log.deleted),
        lost=tuple(log.lost),
        n_dropped=log.n_dropped,
        rejects=rejects if log.n_dropped else None,
        n_recaptured=n_recaptured,
        versions=tuple(log.versions),
        remaining=remaining,
    )


def open_damaged(url: str | None, progress: ProgressListener | None = None) -> Store:
    """Open a store for a repair: one flipped bit in its ``store.json`` does not stand in the way.

    Parameters
    ----------
    url, progress
        As for :func:`nait_store.open`.
    """
    from nait_store.store.facade import Store, store_location

    try:
        return Store.open(url, progress=progress)
    except CorruptChunkError as error:
        location = store_location(url)
        mended = unflip_document(location.read_bytes(layout.STORE_RECORD))
        if mended is None:
            raise CorruptChunkError(
                error.what, next_step="put store.json back from a copy of the store: nothing else says what it said"
            ) from error
        record = StoreRecord.from_json_bytes(mended, location.url)
        record.check_readable(location.url)
        return Store(location, record, progress=progress)


def _mend(store: Store, log: RepairLog, found: Sequence[Finding], rejects: str) -> None:
    damaged = {finding.path for finding in found}
    _unflip_documents(log, damaged)
    if layout.STORE_RECORD in damaged:
        log.lose(layout.STORE_RECORD, "nothing else says what it said: put it back from a copy of the store")
    for key in sorted({_key(path) for path in damaged if path.startswith(f"{layout.SCORES}/")}):
        log.delete_scores(key, "scores that cannot be trusted; they are computed again when asked for")
    for path in sorted(path for path in damaged if path.startswith(layout.CATALOG)):
        log.delete(path, "an index that cannot be trusted; it is built again when asked for")
    for name in _sets_of(found):
        try:
            _mend_set(store, name, log, damaged, rejects)
        except NaitStoreError as error:
            if not log.dry_run:
                raise
            log.lose(layout.item_folder(Kind.SET, name), f"more can be told once the above is mended: {error.what}")
    for kind in (Kind.PROFILE, Kind.SELECTION):
        folder = layout.kind_folder(kind)
        items = {path.split("/")[1] for path in damaged if path.startswith(f"{folder}/") and path.count("/") > 1}
        for name in sorted(items):
            ItemRepair(store.location, kind, name, log, damaged).run()


def _mend_set(store: Store, name: str, log: RepairLog, damaged: set[str], rejects: str) -> None:
    sets = store.sets.versions
    documents = SetRepair(sets, store.profiles.registry, name, log, damaged)
    record = documents.set_record()
    documents.mend_redirects()
    documents.mend_tombstones()
    lost = documents.hide_lost_versions()
    JournalRepair(sets, name, record.capture_id if record else "", log, damaged).run()
    if record is None:
        return
    orphans = documents.orphans(lost)
    SegmentRepair(sets, record, log, damaged, rejects).run(take_census(sets, name).referenced, orphans)
    if not log.dry_run:
        documents.commit(lost)
    # labels on lost versions are found by looking at all of them
    folder = layout.item_folder(Kind.SET, name)
    labels = [path for path, _ in store.location.walk(folder) if "/aliases/" in path or "/tags/" in path]
    mend_labels(store.location, Kind.SET, name, log, {*labels, *(p for p in damaged if p.startswith(f"{folder}/"))})
    mend_notes(store.location, Kind.SET, name, log, damaged)


def _unflip_documents(log: RepairLog, damaged: set[str]) -> None:
    for path in sorted(damaged):
        if not path.endswith(".json") or path.endswith("/zarr.json") or path.startswith(f"{layout.SCORES}/"):
            continue
        if path.endswith("/segment.json") or not log.location.is_file(path):
            continue
        data = log.location.read_bytes(path)
        mended = unflip_document(data)
        if mended is not None and mended != data:
            log.write(path, mended, "a flipped bit was put right; its digest confirms it")
            damaged.discard(path)


def _sets_of(found: Sequence[Finding]) -> list[str]:
    folder = f"{layout.kind_folder(Kind.SET)}/"
    paths = (finding.path.removeprefix(folder) for finding in found if finding.path.startswith(folder))
    return sorted({path.split("/")[0] for path in paths if "/" in path})


def _key(path: str) -> str:
    return path.removeprefix(f"{layout.SCORES}/").partition(".")[0]


def _recapture(
    store: Store,
    name: str,
    log: RepairLog,
    sources: Sequence[str],
    model: str | None,
    capture: CaptureSource | None,
    options: IngestOptions,
) -> int:
    """Capture the dropped samples again; where their ids are lost too, all of the sources that the set lacks."""
    from nait_store.ingest.job import ingest
    from nait_store.store.ingesting import open_capture, plan_request

    version = store.sets.open(name)
    chosen = {**_as_captured(store, version.record), **options, "rejects": None}
    features = {one.feature for one in version.record.projections} or version.features
    request = plan_request(list(sources), name, [f.value for f in features], chosen)  # type: ignore[arg-type]
    ids = log.dropped_ids.get(name, set())
    request = dataclasses.replace(
        request,
        only=None if log.n_unknown.get(name) else frozenset(ids),
        message="captured again after a repair",
        command="",
    )
    session = capture or open_capture(model or "", request, chosen)  # type: ignore[arg-type]
    report = ingest(store.location, session, request, store.progress)
    if report.n_added or report.resumed_samples:
        log.versions.append(report.set_ref)
    store.refresh()
    return report.n_added


def _as_captured(store: Store, record: SetRecord) -> dict[str, object]:
    """The options of an ingest that captures as the set was captured."""
    identity = record.identity
    version = store.sets.open(record.name)
    settings = [s.record.settings for s in version.segments if s.record.settings.compute_dtype != "unknown"]
    options: dict[str, object] = {
        "hook": identity.hook_point.value,
        "hook_path": identity.hook_path,
        "span": identity.span.value,
        "span_edges": identity.span_edges.value,
        "template": identity.template.name,
        "layers": version.layers if len(version.layers) < record.n_model_layers else None,
        "on_error": "skip",
    }
    if settings:
        options |= {"max_length": settings[-1].max_length_tokens, "compute_dtype": settings[-1].compute_dtype}
    environments = [s.record.environment for s in version.segments if s.record.environment.base_fingerprint]
    if environments:
        options |= {"adapter": environments[-1].adapter_source, "quantization": environments[-1].quantization}
    return options
